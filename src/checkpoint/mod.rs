//! Attention parameters from checkpoints.
//!
//! A layout is data: what a code base calls the Linears that hold V, U and w, and the projection in
//! front of them. Finding out which layout a file has, and reading it, is the same for all
//! (`site.rs`), so a new layout is one file and one row in [`LAYOUTS`], and one in the table of
//! [`AttentionParams::load`].

mod acmil;
mod amlab;
mod clam;
mod mil_lab;
mod site;
mod tensors;
mod torchmil;
mod trident;

use std::path::Path;

use crate::attention::AttentionParams;
use crate::error::{CheckpointError, Result};

use site::Site;
use tensors::Tensors;

/// Every layout that [`AttentionParams::load`] knows.
const LAYOUTS: [Layout; 6] =
    [amlab::LAYOUT, clam::LAYOUT, torchmil::LAYOUT, acmil::LAYOUT, trident::LAYOUT, mil_lab::LAYOUT];

/// What one code base calls its tensors.
struct Layout {
    /// The name of the code base, for messages.
    name: &'static str,
    /// The kinds of attention it has.
    attentions: &'static [Names],
    /// Linear layers that a ReLU and then the attention follow. The first one that a file holds counts.
    projections: &'static [&'static str],
}

/// The names of the Linear layers of one kind of attention.
///
/// Their tensors are `{prefix}{name}.weight` and, optionally, `{prefix}{name}.bias`, all under one
/// prefix, which is empty or ends with a dot. `{h}` in a name stands for 0, 1, … where each head
/// group has a V, U and w of its own.
struct Names {
    v: &'static str,
    /// None where no checkpoint of this kind is gated. Where there is a name, the attention is
    /// gated exactly when the file has the tensor.
    u: Option<&'static str>,
    w: &'static str,
}

impl AttentionParams {
    /// Reads a safetensors file in any of the known key layouts.
    ///
    /// | layout | V, U, w | projection |
    /// | --- | --- | --- |
    /// | AMLab, gated | `attention_V.0`, `attention_U.0`, `attention_w` | `feature_extractor_part2.0`, `feature_extractor.0` |
    /// | AMLab, ungated | `attention.0`, none, `attention.2` | the same |
    /// | CLAM, gated | `attention_net.3.attention_a.0`, `….attention_b.0`, `….attention_c`; older: `attention_net.2.…` | `attention_net.0` |
    /// | CLAM, ungated | `attention_net.3.module.0`, none, `attention_net.3.module.2` or `….3`; older: `attention_net.2.module.0`, none, `….2` | `attention_net.0` |
    /// | torchmil | `fc1.module`, `fc_gated.module`, `fc2`; also without `.module` | none |
    /// | ACMIL/DTFD | `attention_V.0`, `attention_U.0`, `attention_weights` | `dimreduction.fc1`, `dim_reduction.fc1`, `feature_extractor_part2.0` |
    /// | TRIDENT | `attention_heads.{h}.0`, `gating_layers.{h}.0`, `branching_layers.{h}` | none |
    /// | MIL-Lab, gated | `global_attn.attention_a.0`, `….attention_b.0`, `….attention_c` | `patch_embed.0` |
    /// | MIL-Lab, ungated | `global_attn.module.0`, none, `global_attn.module.3` | `patch_embed.0` |
    ///
    /// Each is a PyTorch Linear with its `.weight` and, optionally, `.bias`. A prefix that is the same
    /// for V, U and w may stand in front: `module.`, `model.`, `pool.` and the like. The attention is
    /// gated exactly when there is a U, and has as many heads `K` as w has rows. TRIDENT's heads
    /// `h` each have their own V and U: they are the head groups, and the branches of head 0 come
    /// first.
    ///
    /// A projection is a Linear+ReLU, the only layer of its block, whose output is the `D` of the
    /// attention. It is kept as [`projection`](Self::projection), not applied. Its prefix is that of
    /// the attention, or that without the last name: `module.dimreduction.fc1` beside
    /// `module.attention.attention_V.0`. Anything else in the file, such as a classifier, is ignored.
    ///
    /// Numbers may be f64, f32, f16 or bf16; f64 is rounded to f32. Non-finite ones are kept.
    ///
    /// The activations are not in the file: tanh for V, the sigmoid for U and the ReLU for a
    /// projection are what these code bases use. torchmil can be told to use ReLU or GELU in place
    /// of tanh; such a checkpoint looks the same and would give other scores.
    ///
    /// ```
    /// use mivc::AttentionParams;
    ///
    /// let params = AttentionParams::load("examples/data/attention_gated.safetensors")?;
    /// assert!(params.is_gated());
    /// assert_eq!((params.shape().dim, params.shape().hidden, params.shape().heads), (128, 64, 1));
    /// assert_eq!(params.projection().map(|projection| projection.input()), Some(64));
    /// # Ok::<(), mivc::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Checkpoint`](crate::Error::Checkpoint) where the file cannot be read, is no
    /// safetensors file, has none of the layouts or more than one attention, or where a tensor is
    /// missing or of the wrong shape or type.
    pub fn load(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let bytes = std::fs::read(path).map_err(|source| CheckpointError::Io { path: path.to_owned(), source })?;
        Self::from_safetensors(&bytes)
    }

    /// As [`load`](Self::load), from the bytes of a safetensors file.
    ///
    /// # Errors
    /// As [`load`](Self::load).
    pub fn from_safetensors(bytes: &[u8]) -> Result<Self> {
        let tensors = Tensors::parse(bytes)?;
        Site::find(&tensors)?.read(&tensors)
    }
}
