//! mahmoodlab/TRIDENT's multi-headed ABMIL, in its slide encoder under the prefix `image_pooler.`.
//!
//! Each head has its own V, U and w; w has one row per branch. `pre_attention_layers` of the slide
//! encoder is Linear+GELU, hence no projection. `condensing_layer`, behind the pooling, is ignored.

use super::{Layout, Names};

pub(super) const LAYOUT: Layout = Layout {
    name: "TRIDENT",
    attentions: &[Names { v: "attention_heads.{h}.0", u: Some("gating_layers.{h}.0"), w: "branching_layers.{h}" }],
    projections: &[],
};
