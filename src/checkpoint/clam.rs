//! mahmoodlab/CLAM, single branch (one head) and multiple branches (one head per class).
//!
//! `attention_net` is a Sequential of Linear, ReLU, Dropout and the attention. Older code left out a
//! Dropout that was not asked for, which makes the attention number 2; the ungated kind still leaves
//! out the one in front of w, which makes w number 2 or 3.

use super::{Layout, Names};

pub(super) const LAYOUT: Layout = Layout {
    name: "CLAM",
    attentions: &[
        Names {
            v: "attention_net.3.attention_a.0",
            u: Some("attention_net.3.attention_b.0"),
            w: "attention_net.3.attention_c",
        },
        Names {
            v: "attention_net.2.attention_a.0",
            u: Some("attention_net.2.attention_b.0"),
            w: "attention_net.2.attention_c",
        },
        Names { v: "attention_net.3.module.0", u: None, w: "attention_net.3.module.3" },
        Names { v: "attention_net.3.module.0", u: None, w: "attention_net.3.module.2" },
        Names { v: "attention_net.2.module.0", u: None, w: "attention_net.2.module.2" },
    ],
    projections: &["attention_net.0"],
};
