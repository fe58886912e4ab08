//! torchmil's `AttentionPool`, in its models under the prefix `pool.`.
//!
//! Its lazily sized Linear layers, V and U but not w, wrap the real one as `module`. Its activation
//! may be set to ReLU or GELU, which the file does not tell: tanh, the default, is assumed. In front
//! of the pooling is whatever encoder the user chose, so there is no projection to know of.

use super::{Layout, Names};

pub(super) const LAYOUT: Layout = Layout {
    name: "torchmil",
    attentions: &[
        Names { v: "fc1.module", u: Some("fc_gated.module"), w: "fc2" },
        Names { v: "fc1", u: Some("fc_gated"), w: "fc2" },
    ],
    projections: &[],
};
