//! mahmoodlab/MIL-Lab's ABMIL and CLAM; saved through Hugging Face, under the prefix `model.`.
//!
//! `patch_embed` is an MLP, ReLU by default: a projection where it has one layer, else ignored.

use super::{Layout, Names};

pub(super) const LAYOUT: Layout = Layout {
    name: "MIL-Lab",
    attentions: &[
        Names { v: "global_attn.attention_a.0", u: Some("global_attn.attention_b.0"), w: "global_attn.attention_c" },
        Names { v: "global_attn.module.0", u: None, w: "global_attn.module.3" },
    ],
    projections: &["patch_embed.0"],
};
