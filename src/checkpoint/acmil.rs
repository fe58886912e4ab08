//! dazhangyu123/ACMIL and hrzhang1123/DTFD-MIL, which share their gated attention.
//!
//! In ACMIL the attention is `attention.` and the projection `dimreduction.` beside it; DTFD saves
//! its parts in a dictionary, where the projection is `dim_reduction`. Residual blocks after the
//! projection, an option there, make it more than Linear+ReLU: then it is ignored. ACMIL's
//! `DimReduction1`, which adds its input before the ReLU and which its attention models do not use, cannot be
//! told apart by its keys. DTFD's two tiers, `attention.` and `att_classifier.attention.`, are two
//! attentions: a file with both is refused. AMLab's older gated checkpoints have these names as well.

use super::{Layout, Names};

pub(super) const LAYOUT: Layout = Layout {
    name: "ACMIL/DTFD",
    attentions: &[Names { v: "attention_V.0", u: Some("attention_U.0"), w: "attention_weights" }],
    projections: &["dimreduction.fc1", "dim_reduction.fc1", "feature_extractor_part2.0"],
};
