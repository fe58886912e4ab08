//! AMLab-Amsterdam/AttentionDeepMIL, the code of Ilse, Tomczak and Welling.
//!
//! Its encoder ends in a Linear+ReLU, `feature_extractor_part2`, behind convolutions; where features
//! are vectors to begin with, the whole encoder is one `feature_extractor`. Its older gated
//! checkpoints say `attention_weights` for w, as those in `acmil.rs` do.

use super::{Layout, Names};

pub(super) const LAYOUT: Layout = Layout {
    name: "AMLab",
    attentions: &[
        Names { v: "attention_V.0", u: Some("attention_U.0"), w: "attention_w" },
        Names { v: "attention.0", u: None, w: "attention.2" },
    ],
    projections: &["feature_extractor_part2.0", "feature_extractor.0"],
};
