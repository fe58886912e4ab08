//! The projection in front of an attention: `max(0, W x + b)`, a tile at a time.

use super::aligned::Aligned;
use super::product::{PANEL_VECTORS, Panels};
use super::simd::{Fma, Simd};
use super::tile::Tile;
use crate::attention::Projection;
use crate::element::Element;

/// A Linear+ReLU, packed.
#[derive(Clone)]
pub(super) struct PackedProjection {
    input: usize,
    output: usize,
    panels: Panels<f32>,
    /// `[panels, 2, LANES]`.
    bias: Aligned<f32>,
}

impl PackedProjection {
    pub(super) fn new<S: Simd>(_: S, projection: &Projection) -> Self {
        let (input, output) = (projection.input(), projection.output());
        let panels = output.div_ceil(PANEL_VECTORS * S::LANES);
        let column = |vector: usize, lane: usize| {
            let unit = vector * S::LANES + lane;
            (unit < output).then(|| &projection.weight()[unit * input..(unit + 1) * input])
        };
        let mut bias = Aligned::zeroed(panels * PANEL_VECTORS * S::LANES);
        if let Some(from) = projection.bias() {
            bias[..output].copy_from_slice(from);
        }
        PackedProjection { input, output, panels: Panels::pack::<Fma<S>>(input, panels, column), bias }
    }

    pub(super) fn input(&self) -> usize {
        self.input
    }

    /// `to[r] = max(0, W from[r] + b)` for the first `rows` rows; NaN stays NaN.
    pub(super) fn project_tile<S: Simd, X: Element>(
        &self,
        simd: S,
        from: &Tile<f32>,
        rows: usize,
        products: &mut [f32],
        to: &mut Tile<X>,
    ) {
        for panel in 0..self.bias.len() / (PANEL_VECTORS * S::LANES) {
            self.panels.multiply(Fma(simd), from, rows, panel, products);
            simd.vectorize(
                #[inline(always)]
                || self.rectify(simd, panel, products, rows, to),
            );
        }
    }

    /// Writes `max(0, product + b)` of one panel.
    #[inline(always)]
    fn rectify<S: Simd, X: Element>(&self, simd: S, panel: usize, products: &[f32], rows: usize, to: &mut Tile<X>) {
        let panel_columns = PANEL_VECTORS * S::LANES;
        for column in (panel * panel_columns..self.output.min((panel + 1) * panel_columns)).step_by(S::LANES) {
            let bias = simd.load_slice(&self.bias[column..column + S::LANES]);
            let present = simd.first(self.output - column);
            for row in 0..rows {
                let x = &products[row * panel_columns + column % panel_columns..][..S::LANES];
                let x = simd.add(simd.load_slice(x), bias);
                let x = simd.keep(present, simd.clamp(x, 0.0, f32::INFINITY));
                let to = &mut to.block_mut(row, column / Tile::<X>::BLOCK)[column % Tile::<X>::BLOCK..][..S::LANES];
                simd.store_slice(to, x);
            }
        }
    }
}
