//! Attention scores: `s[n,k] = w[k]·tanh(V h[n] + b_v) + c[k]`, or with `⊙ σ(U h[n] + b_u)` if gated.

use super::aligned::Aligned;
use super::chunks::for_each;
use super::product::{PANEL_VECTORS, Panels, products};
use super::simd::{Multiply, Simd, math};
use super::tile::{TILE_ROWS, Tile};
use super::workspace::{Staging, Workspaces};
use super::{Cpu, PackedAttention, with_multiply};
use crate::attention::{AttentionParams, AttentionShape};
use crate::element::Element;
use crate::error::{BagsError, Error, Result, expect_len};
use crate::rows::Rows;

/// V and U as panels. A panel of a gated layer is a vector of units of V and the same units of U, so
/// that tanh meets its gate in registers; of an ungated one, two vectors of units of V.
#[derive(Clone)]
pub(super) struct PackedScores<X> {
    shape: AttentionShape,
    gated: bool,
    panels: Panels<X>,
    /// `[G, panels, 2, LANES]`.
    bias: Aligned<f32>,
    /// `[K, panels, vectors of units, LANES]`.
    w: Aligned<f32>,
    /// `[K]`.
    w_bias: Vec<f32>,
}

impl<X: Element> PackedScores<X> {
    pub(super) fn new<M: Multiply<Staged = X>>(_: M, params: &AttentionParams) -> Self {
        let lanes = M::Simd::LANES;
        let (shape, gated, tensors) = (params.shape(), params.is_gated(), params.tensors());
        let AttentionShape { dim, hidden, heads, groups } = shape;
        let group_panels = hidden.div_ceil(lanes * unit_vectors(gated));

        // Which unit, of V (0) or U (1), a lane of a vector holds.
        let unit = |vector: usize, lane: usize| {
            let (group, vector) = (vector / (group_panels * PANEL_VECTORS), vector % (group_panels * PANEL_VECTORS));
            let (matrix, vector) = if gated { (vector % 2, vector / 2) } else { (0, vector) };
            let unit = vector * lanes + lane;
            (unit < hidden).then_some((matrix, group * hidden + unit))
        };
        let matrices = [Some(tensors.v), tensors.u];
        let biases = [tensors.v_bias, tensors.u_bias];
        let column = |vector, lane| {
            let (matrix, unit) = unit(vector, lane)?;
            Some(&matrices[matrix]?[unit * dim..(unit + 1) * dim])
        };
        let panels = Panels::pack::<M>(dim, groups * group_panels, column);

        let mut bias = Aligned::zeroed(groups * group_panels * PANEL_VECTORS * lanes);
        for (i, to) in bias.iter_mut().enumerate() {
            if let Some((matrix, unit)) = unit(i / lanes, i % lanes) {
                *to = biases[matrix].map_or(0.0, |bias| bias[unit]);
            }
        }
        let padded = group_panels * unit_vectors(gated) * lanes;
        let mut w = Aligned::zeroed(heads * padded);
        for (to, from) in w.chunks_mut(padded).zip(tensors.w.chunks(hidden)) {
            to[..hidden].copy_from_slice(from);
        }
        let w_bias = tensors.w_bias.map_or_else(|| vec![0.0; heads], <[f32]>::to_vec);
        PackedScores { shape, gated, panels, bias, w, w_bias }
    }

    pub(super) fn shape(&self) -> AttentionShape {
        self.shape
    }

    /// Scores of the first `rows` rows of a tile, `[rows, K]`.
    pub(super) fn of_tile<M>(&self, m: M, tile: &Tile<X>, rows: usize, sums: &mut Sums, scores: &mut [f32])
    where
        M: Multiply<Staged = X>,
    {
        let (simd, heads) = (m.simd(), self.shape.heads);
        let lanes = &mut sums.lanes[..rows * heads * M::Simd::LANES];
        lanes.fill(0.0);
        for panel in 0..self.bias.len() / (PANEL_VECTORS * M::Simd::LANES) {
            self.panels.multiply(m, tile, rows, panel, &mut sums.products);
            if self.gated {
                self.add_panel::<_, true>(simd, panel, &sums.products, lanes);
            } else {
                self.add_panel::<_, false>(simd, panel, &sums.products, lanes);
            }
        }
        simd.vectorize(
            #[inline(always)]
            || {
                for (i, (score, lanes)) in scores.iter_mut().zip(lanes.chunks(M::Simd::LANES)).enumerate() {
                    *score = simd.sum(simd.load_slice(lanes)) + self.w_bias[i % heads];
                }
            },
        );
    }

    /// Adds what the units of one panel contribute to `sums`, `[rows, K, LANES]`.
    #[inline(never)]
    fn add_panel<S: Simd, const GATED: bool>(&self, simd: S, panel: usize, products: &[f32], sums: &mut [f32]) {
        simd.vectorize(
            #[inline(always)]
            || self.add_activations::<S, GATED>(simd, panel, products, sums),
        );
    }

    #[inline(always)]
    fn add_activations<S: Simd, const GATED: bool>(&self, simd: S, panel: usize, products: &[f32], sums: &mut [f32]) {
        let AttentionShape { hidden, heads, groups, .. } = self.shape;
        let unit_vectors = unit_vectors(GATED);
        let group_panels = hidden.div_ceil(S::LANES * unit_vectors);
        let group_heads = heads / groups;
        let (group, panel_of_group) = (panel / group_panels, panel % group_panels);
        let bias = &self.bias[panel * PANEL_VECTORS * S::LANES..][..PANEL_VECTORS * S::LANES];
        let (bias_0, bias_1) = bias.split_at(S::LANES);
        let (bias_0, bias_1) = (simd.load_slice(bias_0), simd.load_slice(bias_1));
        let first_unit = panel_of_group * unit_vectors * S::LANES;
        // Lanes without a unit are cut off: 0·w would do, were there no infinite features.
        let units_0 = simd.first(hidden - first_unit);
        let units_1 = simd.first(hidden.saturating_sub(first_unit + S::LANES));

        let padded = group_panels * unit_vectors * S::LANES;
        for (row, sums) in sums.chunks_mut(heads * S::LANES).enumerate() {
            let products = &products[row * PANEL_VECTORS * S::LANES..][..PANEL_VECTORS * S::LANES];
            let (x_0, x_1) = products.split_at(S::LANES);
            let x_0 = simd.add(simd.load_slice(x_0), bias_0);
            let x_1 = simd.add(simd.load_slice(x_1), bias_1);
            let activations = if GATED {
                [simd.keep(units_0, math::gate(simd, x_0, x_1)), simd.splat(0.0)]
            } else {
                [simd.keep(units_0, math::tanh(simd, x_0)), simd.keep(units_1, math::tanh(simd, x_1))]
            };
            for head in group * group_heads..(group + 1) * group_heads {
                let sum = &mut sums[head * S::LANES..(head + 1) * S::LANES];
                let mut total = simd.load_slice(sum);
                let w = &self.w[head * padded + first_unit..][..unit_vectors * S::LANES];
                for (w, activation) in w.chunks_exact(S::LANES).zip(activations) {
                    total = simd.mul_add(simd.load_slice(w), activation, total);
                }
                simd.store_slice(sum, total);
            }
        }
    }
}

/// Room for the running scores of a tile.
pub(super) struct Sums {
    /// `[TILE_ROWS, 2, LANES]`.
    pub(super) products: Aligned<f32>,
    /// `[TILE_ROWS, K, LANES]`.
    lanes: Aligned<f32>,
}

impl Sums {
    pub(super) fn new<S: Simd>(heads: usize) -> Self {
        Sums { products: products::<S>(), lanes: Aligned::zeroed(TILE_ROWS * heads * S::LANES) }
    }
}

/// Vectors of units in a panel.
const fn unit_vectors(gated: bool) -> usize {
    if gated { PANEL_VECTORS / 2 } else { PANEL_VECTORS }
}

impl Cpu {
    /// Attention scores of every instance: features `[N, D]` → scores `[N, K]`.
    ///
    /// The score of a masked instance is −∞.
    ///
    /// # Errors
    /// [`Error::Argument`] where the features are not of the dimension and type that the parameters
    /// are packed for, these are packed for another instruction set, or `scores` does not have
    /// `N·K` elements; [`BagsError::MaskLength`] where the mask does not have `N`.
    pub fn scores<E: Element>(
        &self,
        packed: &PackedAttention,
        features: Rows<'_, E>,
        mask: Option<&[u8]>,
        scores: &mut [f32],
    ) -> Result<()> {
        packed.expect(*self, "features", &features)?;
        let (instances, heads) = (features.len(), packed.shape().heads);
        expect_len("scores", "[N, K]", instances.saturating_mul(heads), scores.len())?;
        if let Some(mask) = mask
            && mask.len() != instances
        {
            return Err(Error::from(BagsError::MaskLength { instances, got: mask.len() }));
        }
        E::scores(packed, features, mask, scores);
        Ok(())
    }
}

pub(super) fn run<E: Element>(
    packed: &PackedAttention,
    features: Rows<'_, E>,
    mask: Option<&[u8]>,
    scores: &mut [f32],
) {
    let heads = packed.shape().heads;
    with_multiply!(packed, |m, scorer| {
        let workspaces = Workspaces::new(Staging::new(m, scorer, packed.projection()));
        let tiles = scores.chunks_mut(TILE_ROWS * heads).enumerate().collect();
        for_each(tiles, &|(tile, scores): (usize, &mut [f32])| {
            let first = tile * TILE_ROWS;
            let rows = first..first + scores.len() / heads;
            workspaces.with(|work| work.score(features, rows, mask, scores));
        });
    });
}
