//! Attention scores: `s[n,k] = w[k]·tanh(V h[n] + b_v) + c[k]`, or with `⊙ σ(U h[n] + b_u)` if gated.

use std::ops::Range;

use super::aligned::Aligned;
use super::chunks::for_each;
use super::kernels::Output;
use super::product::{PANEL_VECTORS, Panels, products};
use super::simd::{MAX_LANES, Multiply, Simd, math};
use super::tile::{TILE_ROWS, Tile};
use super::workspace::{Staging, Workspaces};
use super::{Cpu, PackedAttention, with_multiply};
use crate::attention::{AttentionParams, AttentionShape};
use crate::element::Element;
use crate::error::{BagsError, Error, Result, expect_len};
use crate::gradient::ACTIVATIONS;
use crate::rows::Rows;

/// V and U as panels. A panel of a gated layer is a vector of units of V and the same units of U, so
/// that tanh meets its gate in registers; of an ungated one, two vectors of units of V.
#[derive(Clone)]
pub(super) struct PackedScores<X> {
    shape: AttentionShape,
    units: Units,
    panels: Panels<X>,
    /// `[G, panels, 2, LANES]`.
    bias: Aligned<f32>,
    /// `[K, panels, vectors of units, LANES]`.
    w: Aligned<f32>,
    /// `[K]`.
    w_bias: Vec<f32>,
}

/// Where the units of V and U are among the columns of panels.
#[derive(Debug, Clone, Copy)]
pub(super) struct Units {
    pub(super) hidden: usize,
    pub(super) groups: usize,
    pub(super) gated: bool,
    pub(super) lanes: usize,
}

impl Units {
    pub(super) fn panels_of_group(&self) -> usize {
        self.hidden.div_ceil(self.lanes * unit_vectors(self.gated))
    }

    /// Columns of all panels, those without a unit included.
    pub(super) fn columns(&self) -> usize {
        self.groups * self.panels_of_group() * PANEL_VECTORS * self.lanes
    }

    /// Elements of the activations of an instance: tanh of all units of V, and σ of those of U.
    pub(super) fn activations(&self) -> usize {
        self.groups * self.hidden * if self.gated { 2 } else { 1 }
    }

    /// `Ok` exactly when so many elements are the activations of so many instances.
    pub(super) fn expect_activations(&self, instances: usize, len: usize) -> Result<()> {
        let expected = instances.saturating_mul(self.activations());
        expect_len("activations", ACTIVATIONS, expected, len)
    }

    /// Of a vector of panels, which of the activations it has; fewer than its lanes where the units end.
    pub(super) fn activations_of(&self, vector: usize) -> Range<usize> {
        let (matrix, group, vector) = self.vector(vector);
        let start = (matrix * self.groups + group) * self.hidden;
        let unit = |vector: usize| start + self.hidden.min(vector * self.lanes);
        unit(vector)..unit(vector + 1)
    }

    /// Of a vector of panels: its matrix, V (0) or U (1), its group, and which vector of these it is.
    fn vector(&self, vector: usize) -> (usize, usize, usize) {
        let vectors_of_group = self.panels_of_group() * PANEL_VECTORS;
        let (group, vector) = (vector / vectors_of_group, vector % vectors_of_group);
        if self.gated { (vector % 2, group, vector / 2) } else { (0, group, vector) }
    }

    /// Of a column: which matrix, V (0) or U (1), and which of its `[G, L]` rows.
    pub(super) fn at(&self, column: usize) -> Option<(usize, usize)> {
        let (matrix, group, vector) = self.vector(column / self.lanes);
        let unit = vector * self.lanes + column % self.lanes;
        (unit < self.hidden).then_some((matrix, group * self.hidden + unit))
    }
}

impl<X: Element> PackedScores<X> {
    pub(super) fn new<M: Multiply<Staged = X>>(_: M, params: &AttentionParams) -> Self {
        let lanes = M::Simd::LANES;
        let (shape, gated, tensors) = (params.shape(), params.is_gated(), params.tensors());
        let AttentionShape { dim, hidden, heads, groups } = shape;
        let units = Units { hidden, groups, gated, lanes };
        let group_panels = units.panels_of_group();
        let matrices = [Some(tensors.v), tensors.u];
        let biases = [tensors.v_bias, tensors.u_bias];
        let column = |vector: usize, lane: usize| {
            let (matrix, unit) = units.at(vector * lanes + lane)?;
            Some(&matrices[matrix]?[unit * dim..(unit + 1) * dim])
        };
        let panels = Panels::pack::<M>(dim, groups * group_panels, column);

        let mut bias = Aligned::zeroed(groups * group_panels * PANEL_VECTORS * lanes);
        for (i, to) in bias.iter_mut().enumerate() {
            if let Some((matrix, unit)) = units.at(i) {
                *to = biases[matrix].map_or(0.0, |bias| bias[unit]);
            }
        }
        let padded = group_panels * unit_vectors(gated) * lanes;
        let mut w = Aligned::zeroed(heads * padded);
        for (to, from) in w.chunks_mut(padded).zip(tensors.w.chunks(hidden)) {
            to[..hidden].copy_from_slice(from);
        }
        let w_bias = tensors.w_bias.map_or_else(|| vec![0.0; heads], <[f32]>::to_vec);
        PackedScores { shape, units, panels, bias, w, w_bias }
    }

    pub(super) fn shape(&self) -> AttentionShape {
        self.shape
    }

    pub(super) fn units(&self) -> &Units {
        &self.units
    }

    pub(super) fn panels(&self) -> &Panels<X> {
        &self.panels
    }

    /// `[K, units of a group, padded]`.
    pub(super) fn w(&self) -> &[f32] {
        &self.w
    }

    /// Units of a group, with those that fill its last panel.
    pub(super) fn padded_units(&self) -> usize {
        self.w.len() / self.shape.heads
    }

    /// Scores of the first `rows` rows of a tile, `[rows, K]`, and their activations where they are kept.
    pub(super) fn of_tile<M>(
        &self,
        m: M,
        tile: &Tile<X>,
        rows: usize,
        sums: &mut Sums,
        scores: &mut [f32],
        mut kept: Option<&mut Output<'_>>,
    ) where
        M: Multiply<Staged = X>,
    {
        let (simd, heads) = (m.simd(), self.shape.heads);
        let lanes = &mut sums.lanes[..rows * heads * M::Simd::LANES];
        lanes.fill(0.0);
        for panel in 0..self.bias.len() / (PANEL_VECTORS * M::Simd::LANES) {
            self.panels.multiply(m, tile, rows, panel, &mut sums.products);
            if self.units.gated {
                self.add_panel::<_, true>(simd, panel, &sums.products, lanes);
            } else {
                self.add_panel::<_, false>(simd, panel, &sums.products, lanes);
            }
            match &mut kept {
                None => {}
                Some(kept) if self.units.gated => self.keep_panel::<_, true>(simd, panel, &sums.products, rows, kept),
                Some(kept) => self.keep_panel::<_, false>(simd, panel, &sums.products, rows, kept),
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

    /// tanh and σ of a panel, or two vectors of tanh where there is no gate, of a row of products.
    #[inline(always)]
    pub(super) fn activations<S: Simd, const GATED: bool>(
        &self,
        simd: S,
        panel: usize,
        row: usize,
        products: &[f32],
    ) -> [S::Vector; PANEL_VECTORS] {
        let width = PANEL_VECTORS * S::LANES;
        let (products, bias) = (&products[row * width..][..width], &self.bias[panel * width..][..width]);
        let mut vectors = [simd.splat(0.0); PANEL_VECTORS];
        for ((to, x), bias) in vectors.iter_mut().zip(products.chunks_exact(S::LANES)).zip(bias.chunks_exact(S::LANES))
        {
            *to = simd.add(simd.load_slice(x), simd.load_slice(bias));
        }
        math::activations::<S, GATED>(simd, vectors)
    }

    /// Writes the activations of a panel to `kept`, `[rows, activations]`.
    #[inline(never)]
    fn keep_panel<S: Simd, const GATED: bool>(
        &self,
        simd: S,
        panel: usize,
        products: &[f32],
        rows: usize,
        kept: &mut Output<'_>,
    ) {
        let len = self.units.activations();
        simd.vectorize(
            #[inline(always)]
            || {
                for row in 0..rows {
                    let activations = self.activations::<S, GATED>(simd, panel, row, products);
                    for (vector, &activations) in activations.iter().enumerate() {
                        let Range { start, end } = self.units.activations_of(panel * PANEL_VECTORS + vector);
                        let mut lanes = [0.0; MAX_LANES];
                        simd.store_slice(&mut lanes[..S::LANES], activations);
                        kept.write(row * len + start..row * len + end, &lanes[..end - start]);
                    }
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
pub(super) const fn unit_vectors(gated: bool) -> usize {
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
        self.expect_scored(packed, &features, mask, scores)?;
        E::scores(packed, features, mask, scores, None);
        Ok(())
    }

    /// As [`scores`](Self::scores), and keeps what their backward would compute again: `activations`, `[N, G, L]` of
    /// tanh, or `[N, 2, G, L]` of tanh and σ where the attention is gated, rounded to the type of the features. Those of
    /// masked instances are 0.
    ///
    /// # Errors
    /// As [`scores`](Self::scores), and where `activations` does not have so many elements.
    pub fn scores_keeping<E: Element>(
        &self,
        packed: &PackedAttention,
        features: Rows<'_, E>,
        mask: Option<&[u8]>,
        scores: &mut [f32],
        activations: &mut [E],
    ) -> Result<()> {
        self.expect_scored(packed, &features, mask, scores)?;
        packed.units().expect_activations(features.len(), activations.len())?;
        E::scores(packed, features, mask, scores, Some(E::output(activations)));
        Ok(())
    }

    fn expect_scored<E: Element>(
        &self,
        packed: &PackedAttention,
        features: &Rows<'_, E>,
        mask: Option<&[u8]>,
        scores: &[f32],
    ) -> Result<()> {
        packed.expect(*self, "features", features)?;
        let (instances, heads) = (features.len(), packed.shape().heads);
        expect_len("scores", "[N, K]", instances.saturating_mul(heads), scores.len())?;
        expect_mask(mask, instances)
    }
}

/// `Ok` exactly when there is no mask or it is as long as it should be.
pub(super) fn expect_mask(mask: Option<&[u8]>, instances: usize) -> Result<()> {
    match mask {
        Some(mask) if mask.len() != instances => Err(Error::from(BagsError::MaskLength { instances, got: mask.len() })),
        _ => Ok(()),
    }
}

pub(super) fn run<E: Element>(
    packed: &PackedAttention,
    features: Rows<'_, E>,
    mask: Option<&[u8]>,
    scores: &mut [f32],
    mut activations: Option<Output<'_>>,
) {
    let heads = packed.shape().heads;
    let tile = |(tile, scores): (usize, _)| {
        let rows = tile * TILE_ROWS..features.len().min((tile + 1) * TILE_ROWS);
        let activations = activations.as_mut().map(|kept| kept.take(rows.len() * packed.activations()));
        (rows, scores, activations)
    };
    let tiles = scores.chunks_mut(TILE_ROWS * heads).enumerate().map(tile).collect();
    with_multiply!(packed, |m, scorer| {
        let workspaces = Workspaces::new(Staging::new(m, scorer, packed.projection()));
        for_each(tiles, &|(rows, scores, mut activations): (_, &mut [f32], _)| {
            workspaces.with(|work| work.score(features, rows, mask, scores, activations.as_mut()));
        });
    });
}
