//! Parameters as the backward of the scores reads them.

use super::super::product::{PANEL_VECTORS, Panels};
use super::super::scores::{PackedScores, Units};
use super::super::simd::{Fma, Simd};
use super::super::{Cpu, expect_packed, with_simd};
use super::scores::{ParamGradients, ScoresGradients};
use crate::attention::{AttentionParams, AttentionShape};
use crate::element::{Dtype, Element};
use crate::error::Result;
use crate::gradient::{Gradient, ParamsThere};
use crate::rows::Rows;

/// Parameters as the backward of the scores reads them; see [`Cpu::pack_backward`].
#[derive(Clone)]
pub struct PackedBackward {
    cpu: Cpu,
    dtype: Dtype,
    pub(super) forward: PackedScores<f32>,
    /// V and U the other way: for each feature a column, as deep as `forward` has columns.
    pub(super) by_feature: Panels<f32>,
    there: ParamsThere,
}

impl PackedBackward {
    /// The sizes of the attention.
    pub fn shape(&self) -> AttentionShape {
        self.forward.shape()
    }

    /// Elements that the activations of an instance have: `G·L`, and twice that where the attention is gated.
    pub fn activations(&self) -> usize {
        self.units().activations()
    }

    pub(super) fn cpu(&self) -> Cpu {
        self.cpu
    }

    pub(super) fn units(&self) -> &Units {
        self.forward.units()
    }

    /// `Ok` exactly when these parameters are packed for `cpu` and for such features, and the activations are theirs.
    pub(super) fn expect<E: Element>(
        &self,
        cpu: Cpu,
        argument: &'static str,
        features: &Rows<'_, E>,
        activations: Option<&[E]>,
    ) -> Result<()> {
        expect_packed((self.cpu, self.dtype, self.shape().dim), cpu, argument, features)?;
        activations.map_or(Ok(()), |kept| self.units().expect_activations(features.len(), kept.len()))
    }

    pub(super) fn expect_gradients<G>(&self, instances: usize, gradients: &ScoresGradients<'_, G>) -> Result<()> {
        let elements = instances.saturating_mul(self.shape().dim);
        Gradient::expect_len(&gradients.features, "d_features", "[N, D]", elements)?;
        let ParamGradients { v, v_bias, u, u_bias, w, w_bias } = &gradients.params;
        self.there.expect([v, v_bias, u, u_bias, w, w_bias].map(|to| to.as_ref().map(|to| to.slice().len())))
    }
}

impl std::fmt::Debug for PackedBackward {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PackedBackward")
            .field("isa", &self.cpu.isa())
            .field("dtype", &self.dtype)
            .field("shape", &self.shape())
            .finish_non_exhaustive()
    }
}

impl Cpu {
    /// Packs parameters for the backward of features of type `dtype`: V and U rounded to it, as the forward has them.
    pub fn pack_backward(&self, params: &AttentionParams, dtype: Dtype) -> PackedBackward {
        let params = params.rounded(dtype);
        let there = ParamsThere::of(&params);
        with_simd!(self, |simd| {
            let forward = PackedScores::new(Fma(simd), &params);
            let by_feature = by_feature(simd, &params, forward.units());
            PackedBackward { cpu: *self, dtype, forward, by_feature, there }
        })
    }
}

/// V and U as columns of each feature.
fn by_feature<S: Simd>(_: S, params: &AttentionParams, units: &Units) -> Panels<f32> {
    let (dim, depth, tensors) = (params.shape().dim, units.columns(), params.tensors());
    let mut columns = vec![0.0; dim * depth];
    for column in 0..depth {
        let Some((matrix, unit)) = units.at(column) else { continue };
        let from = [Some(tensors.v), tensors.u][matrix].unwrap_or_default();
        for (d, &x) in from[unit * dim..(unit + 1) * dim].iter().enumerate() {
            columns[d * depth + column] = x;
        }
    }
    let column = |vector: usize, lane: usize| {
        let d = vector * S::LANES + lane;
        (d < dim).then(|| &columns[d * depth..(d + 1) * depth])
    };
    Panels::pack::<Fma<S>>(depth, dim.div_ceil(PANEL_VECTORS * S::LANES), column)
}
