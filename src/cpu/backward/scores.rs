//! Backward of the scores.
//!
//! Instances are taken a tile at a time, as by the forward. A tile's activations are computed again, or read where they
//! were kept; with the gradients of the scores they give the gradients of what went into tanh and σ, `[rows, columns of V
//! and U]`. Those are multiplied twice: with V and U, which gives the gradients of the features, and with the features,
//! which gives those of V and U.
//!
//! Gradients of parameters are summed over some tiles in their order, and the sums added in pairs, in a tree whose shape
//! depends on the number of instances alone.

use std::ops::Range;

use super::super::Cpu;
use super::super::aligned::Aligned;
use super::super::exact::params::Sorted;
use super::super::product::{PANEL_VECTORS, products};
use super::super::scores::{expect_mask, unit_vectors};
use super::super::simd::{Fma, Simd, math};
use super::super::tile::{TILE_ROWS, Tile};
use super::super::with_simd;
use super::super::workspace::stage;
use super::bags_of;
use super::packed::PackedBackward;
use super::product::{Columns, OuterSums};
use super::target::Target;
use super::weighted_sum::add_scaled;
use crate::attention::AttentionShape;
use crate::bags::{Bags, present};
use crate::element::Element;
use crate::error::{Result, expect_len};
use crate::gradient::Gradient;
use crate::order::Order;
use crate::rows::Rows;

/// What [`Cpu::scores_backward`] writes: of the parameters only what they have.
#[derive(Debug)]
pub struct ScoresGradients<'a, G> {
    /// Of the features, `[N, D]`. A frozen encoder needs none, and then none is computed.
    pub features: Option<Gradient<'a, G>>,
    /// Of the parameters.
    pub params: ParamGradients<'a>,
}

/// Gradients of [`AttentionParams`](crate::AttentionParams), of each that is asked for.
#[derive(Debug, Default)]
pub struct ParamGradients<'a> {
    /// Of V, `[G, L, D]`.
    pub v: Option<Gradient<'a, f32>>,
    /// Of the bias of V, `[G, L]`.
    pub v_bias: Option<Gradient<'a, f32>>,
    /// Of U, `[G, L, D]`.
    pub u: Option<Gradient<'a, f32>>,
    /// Of the bias of U, `[G, L]`.
    pub u_bias: Option<Gradient<'a, f32>>,
    /// Of w, `[K, L]`.
    pub w: Option<Gradient<'a, f32>>,
    /// Of the bias of w, `[K]`.
    pub w_bias: Option<Gradient<'a, f32>>,
}

impl ParamGradients<'_> {
    fn any(&self) -> bool {
        let ParamGradients { v, v_bias, u, u_bias, w, w_bias } = self;
        [v, v_bias, u, u_bias, w, w_bias].iter().any(|it| it.is_some())
    }
}

impl Cpu {
    /// Backward of [`scores`](Self::scores): features `[N, D]` and the gradient of the scores `[N, K]` → the gradients
    /// of features and parameters.
    ///
    /// `activations` are those that [`scores_keeping`](Self::scores_keeping) has kept; without them they are computed
    /// again. Masked instances, and scores whose gradient is 0, add to no gradient, whatever the features hold.
    ///
    /// # Errors
    /// [`Error::Argument`](crate::Error::Argument) where the features are not of the dimension and type that the parameters are packed for,
    /// these are packed for another instruction set, a slice is not of the length that its shape asks for, or a gradient
    /// of a parameter is asked for that is not there;
    /// [`BagsError::MaskLength`](crate::error::BagsError::MaskLength) where the mask does not have `N` elements.
    pub fn scores_backward<E: Element, G: Element>(
        &self,
        packed: &PackedBackward,
        features: Rows<'_, E>,
        mask: Option<&[u8]>,
        activations: Option<&[E]>,
        d_scores: &[f32],
        gradients: ScoresGradients<'_, G>,
    ) -> Result<()> {
        packed.expect(*self, "features", &features, activations)?;
        let instances = features.len();
        expect_mask(mask, instances)?;
        expect_len("d_scores", "[N, K]", instances.saturating_mul(packed.shape().heads), d_scores.len())?;
        packed.expect_gradients(instances, &gradients)?;
        let ScoresGradients { features: d_features, params } = gradients;
        let scored = Scored { features, mask, activations, d_scores, pooled: None, order: self.order() };
        E::scores_backward(packed, scored, d_features.map(Target::new), params);
        Ok(())
    }
}

/// What the backward of scores reads.
#[derive(Clone, Copy)]
pub struct Scored<'a, E> {
    pub(in crate::cpu) features: Rows<'a, E>,
    pub(in crate::cpu) mask: Option<&'a [u8]>,
    pub(in crate::cpu) activations: Option<&'a [E]>,
    /// `[N, K]`.
    pub(in crate::cpu) d_scores: &'a [f32],
    /// Where the features are the values of a weighted sum too, its gradients.
    pub(in crate::cpu) pooled: Option<PooledShare<'a>>,
    pub(in crate::cpu) order: Order,
}

/// What is added to the gradient of the features: `Σ_k a[n,k] dz[b,k]`.
#[derive(Clone, Copy)]
pub(in crate::cpu) struct PooledShare<'a> {
    pub(super) weights: &'a [f32],
    /// `[B, K, D]`.
    pub(super) d_pooled: &'a [f32],
    pub(super) bags: &'a Bags<'a>,
}

/// Tiles that are summed in their order: up to eight, as each leaf has sums of its own to clear and to add, and fewer
/// where there would not be sixteen leaves, so that there is work for several threads.
fn leaf_tiles(instances: usize) -> usize {
    (instances / (16 * TILE_ROWS)).clamp(1, 8)
}

/// So many instances, and where the gradient of their features goes.
struct Leaf<'a> {
    rows: Range<usize>,
    target: Option<Target<'a>>,
}

pub(in crate::cpu) fn run<E: Element>(
    packed: &PackedBackward,
    scored: Scored<'_, E>,
    mut d_features: Option<Target<'_>>,
    gradients: ParamGradients<'_>,
) {
    let (instances, dim) = (scored.features.len(), packed.shape().dim);
    if d_features.is_none() && !gradients.any() {
        return;
    }
    if scored.order == Order::Exact {
        let sorted = gradients.any().then(|| Sorted::new(&scored, packed.shape().heads, packed.activations()));
        run(packed, Scored { order: Order::Rounding, ..scored }, d_features, ParamGradients::default());
        if let Some(sorted) = &sorted {
            run(packed, sorted.scored(), None, gradients);
        }
        return;
    }
    let leaf_rows = leaf_tiles(instances) * TILE_ROWS;
    let leaf = |start: usize| {
        let rows = start..instances.min(start + leaf_rows);
        let target = d_features.as_mut().map(|target| target.take(rows.len() * dim));
        Leaf { rows, target }
    };
    let mut leaves: Vec<_> = (0..instances).step_by(leaf_rows).map(leaf).collect();
    with_simd!(packed.cpu(), |simd| {
        let wants_matrices = gradients.v.is_some() || gradients.u.is_some();
        let backward = Backward { simd, packed, scored, wants_params: gradients.any(), wants_matrices };
        let sums = sum_in_pairs(&mut leaves, &|leaf| backward.leaf(leaf));
        backward.write(sums.unwrap_or_else(|| backward.sums()), gradients);
    });
}

/// The sum of what `leaf` makes of each, in a tree whose shape depends on their number alone. A thread keeps a sum for each
/// level of the tree.
fn sum_in_pairs(leaves: &mut [Leaf<'_>], leaf: &(dyn Fn(&mut Leaf<'_>) -> Sums + Sync)) -> Option<Sums> {
    match leaves {
        [] => None,
        [one] => Some(leaf(one)),
        _ => {
            let (left, right) = leaves.split_at_mut(leaves.len().next_power_of_two() / 2);
            let (mut left, right) = rayon::join(|| sum_in_pairs(left, leaf), || sum_in_pairs(right, leaf));
            if let (Some(left), Some(right)) = (&mut left, right) {
                left.merge(&right);
            }
            left
        }
    }
}

/// Gradients of the parameters, as they are packed.
struct Sums {
    matrices: OuterSums,
    /// Of each column.
    bias: Vec<f32>,
    /// `[K, units of a group, padded]`.
    w: Vec<f32>,
    /// `[K]`.
    w_bias: Vec<f32>,
}

impl Sums {
    fn merge(&mut self, other: &Sums) {
        self.matrices.merge(&other.matrices);
        for (sums, others) in
            [(&mut self.bias, &other.bias), (&mut self.w, &other.w), (&mut self.w_bias, &other.w_bias)]
        {
            sums.iter_mut().zip(others).for_each(|(sum, other)| *sum += other);
        }
    }
}

/// What a tile needs.
struct Room {
    features: Tile<f32>,
    /// Gradients of what goes into tanh and σ, in the order of the columns of panels, for the product with V and U.
    d_columns: Tile<f32>,
    /// The same, for the product with the features.
    d_columns_by_row: Columns,
    products: Aligned<f32>,
    /// `[rows, D]`, rows further apart.
    d_features: Vec<f32>,
    /// `[rows, K]`, 0 where the instance is masked.
    d_scores: Vec<f32>,
}

#[derive(Clone, Copy)]
struct Backward<'a, S, E> {
    simd: S,
    packed: &'a PackedBackward,
    scored: Scored<'a, E>,
    wants_params: bool,
    /// Of them V or U.
    wants_matrices: bool,
}

impl<S: Simd, E: Element> Backward<'_, S, E> {
    /// Nothing summed yet; without room where nothing is asked for.
    fn sums(&self) -> Sums {
        let AttentionShape { dim, heads, groups, .. } = self.packed.shape();
        let if_wanted = |len| if self.wants_params { len } else { 0 };
        let columns = if_wanted(self.packed.units().columns());
        Sums {
            matrices: OuterSums::new::<S>(dim, groups, if self.wants_matrices { columns / groups } else { 0 }),
            bias: vec![0.0; columns],
            w: vec![0.0; if_wanted(heads * self.packed.forward.padded_units())],
            w_bias: vec![0.0; if_wanted(heads)],
        }
    }

    fn leaf(&self, leaf: &mut Leaf<'_>) -> Sums {
        let AttentionShape { dim, heads, .. } = self.packed.shape();
        let mut room = Room {
            features: Tile::new(dim, S::STRIP),
            d_columns: Tile::new(self.packed.units().columns(), S::STRIP),
            d_columns_by_row: Columns::new(if self.wants_matrices { self.packed.units().columns() } else { 0 }),
            products: products::<S>(),
            d_features: vec![0.0; if leaf.target.is_some() { TILE_ROWS * d_features_stride(dim) } else { 0 }],
            d_scores: vec![0.0; TILE_ROWS * heads],
        };
        let mut sums = self.sums();
        for start in leaf.rows.clone().step_by(TILE_ROWS) {
            let rows = start..leaf.rows.end.min(start + TILE_ROWS);
            let target = leaf.target.as_mut().map(|target| target.take(rows.len() * dim));
            self.tile(rows, &mut room, &mut sums, target);
        }
        sums
    }

    fn tile(&self, rows: Range<usize>, room: &mut Room, sums: &mut Sums, target: Option<Target<'_>>) {
        let heads = self.packed.shape().heads;
        let d_scores = &mut room.d_scores[..rows.len() * heads];
        d_scores.copy_from_slice(&self.scored.d_scores[rows.start * heads..rows.end * heads]);
        for (n, d_scores) in rows.clone().zip(d_scores.chunks_mut(heads)) {
            if !present(self.scored.mask, n) {
                d_scores.fill(0.0);
            }
        }
        if self.wants_matrices || self.scored.activations.is_none() {
            let is_read = |n: usize| flows(&d_scores[(n - rows.start) * heads..][..heads]);
            stage(self.simd, &mut room.features, self.scored.features, rows.clone(), is_read);
        }

        for panel in 0..self.packed.units().columns() / (PANEL_VECTORS * S::LANES) {
            if self.scored.activations.is_none() {
                let (panels, features) = (self.packed.forward.panels(), &room.features);
                panels.multiply(Fma(self.simd), features, rows.len(), panel, &mut room.products);
            }
            if self.packed.units().gated {
                self.panel::<true>(panel, rows.clone(), room, sums);
            } else {
                self.panel::<false>(panel, rows.clone(), room, sums);
            }
        }
        for d_scores in room.d_scores[..rows.len() * heads].chunks(heads) {
            sums.w_bias.iter_mut().zip(d_scores).for_each(|(sum, d_score)| *sum += d_score);
        }
        if self.wants_matrices {
            self.add_matrices(rows.len(), room, sums);
        }
        if let Some(target) = target {
            self.write_features(rows, room, target);
        }
    }

    /// The gradients of a panel of columns, and of their biases and w.
    #[inline(never)]
    fn panel<const GATED: bool>(&self, panel: usize, rows: Range<usize>, room: &mut Room, sums: &mut Sums) {
        self.simd.vectorize(
            #[inline(always)]
            || self.vectors_of_panel::<GATED>(panel, rows, room, sums),
        );
    }

    #[inline(always)]
    fn vectors_of_panel<const GATED: bool>(&self, panel: usize, rows: Range<usize>, room: &mut Room, sums: &mut Sums) {
        let simd = self.simd;
        let AttentionShape { hidden, heads, groups, .. } = self.packed.shape();
        let group_panels = self.packed.units().panels_of_group();
        let (group, first_unit) = (panel / group_panels, panel % group_panels * unit_vectors(GATED) * S::LANES);
        let group_heads = heads / groups;
        let column = panel * PANEL_VECTORS * S::LANES;
        let is_unit = [simd.first(hidden - first_unit), simd.first(hidden.saturating_sub(first_unit + S::LANES))];

        for row in 0..rows.len() {
            let d_scores = &room.d_scores[row * heads + group * group_heads..][..group_heads];
            let mut d_columns = [simd.splat(0.0); PANEL_VECTORS];
            if flows(d_scores) {
                let activations = self.activations::<GATED>(panel, rows.start + row, row, &room.products);
                let d_units =
                    self.d_units::<GATED>(d_scores, group * group_heads, first_unit, activations, &mut sums.w);
                d_columns = through_activations::<S, GATED>(simd, d_units, activations, is_unit);
                if self.wants_params {
                    for (to, &d_column) in sums.bias[column..].chunks_exact_mut(S::LANES).zip(&d_columns) {
                        simd.store_slice(to, simd.add(simd.load_slice(to), d_column));
                    }
                }
            }
            for (vector, &d_column) in d_columns.iter().enumerate() {
                let column = column + vector * S::LANES;
                simd.store_slice(room.d_columns.lanes_mut(row, column, S::LANES), d_column);
                if self.wants_matrices {
                    simd.store_slice(room.d_columns_by_row.lanes_mut(row, column, S::LANES), d_column);
                }
            }
        }
    }

    /// The gradients of the units of a panel, of those of its group's scores; adds those of w to `d_w`.
    #[inline(always)]
    fn d_units<const GATED: bool>(
        &self,
        d_scores: &[f32],
        first_head: usize,
        first_unit: usize,
        activations: [S::Vector; PANEL_VECTORS],
        d_w: &mut [f32],
    ) -> [S::Vector; PANEL_VECTORS] {
        let (simd, forward) = (self.simd, &self.packed.forward);
        let units = match GATED {
            true => [simd.mul(activations[0], activations[1]), simd.splat(0.0)],
            false => activations,
        };
        let mut d_units = [simd.splat(0.0); PANEL_VECTORS];
        for (head, &d_score) in d_scores.iter().enumerate().filter(|(_, d_score)| **d_score != 0.0) {
            let at = (first_head + head) * forward.padded_units() + first_unit;
            let d_score = simd.splat(d_score);
            for vector in 0..unit_vectors(GATED) {
                let lanes = at + vector * S::LANES..at + (vector + 1) * S::LANES;
                let w = simd.load_slice(&forward.w()[lanes.clone()]);
                d_units[vector] = simd.mul_add(d_score, w, d_units[vector]);
                if self.wants_params {
                    let d_w = &mut d_w[lanes];
                    simd.store_slice(d_w, simd.mul_add(d_score, units[vector], simd.load_slice(d_w)));
                }
            }
        }
        d_units
    }

    /// tanh and σ of a panel, or two vectors of tanh where there is no gate; of row `row` of the tile, instance `n`.
    #[inline(always)]
    fn activations<const GATED: bool>(
        &self,
        panel: usize,
        n: usize,
        row: usize,
        products: &[f32],
    ) -> [S::Vector; PANEL_VECTORS] {
        let simd = self.simd;
        let Some(kept) = self.scored.activations else {
            return self.packed.forward.activations::<S, GATED>(simd, panel, row, products);
        };
        let len = self.packed.activations();
        let kept = &kept[n * len..(n + 1) * len];
        let mut vectors = [simd.splat(0.0); PANEL_VECTORS];
        for (vector, to) in vectors.iter_mut().enumerate() {
            let lanes = self.packed.units().activations_of(panel * PANEL_VECTORS + vector);
            *to = simd.load_slice(&kept[lanes]);
        }
        vectors
    }

    /// Adds the gradients of V and U.
    fn add_matrices(&self, count: usize, room: &Room, sums: &mut Sums) {
        let AttentionShape { heads, groups, .. } = self.packed.shape();
        let group_heads = heads / groups;
        for group in 0..groups {
            let of_group = |row: usize| &room.d_scores[row * heads + group * group_heads..][..group_heads];
            let rows: Vec<usize> = (0..count).filter(|&row| flows(of_group(row))).collect();
            sums.matrices.add(self.simd, &rows, &room.features, &room.d_columns_by_row, group);
        }
    }

    fn write_features(&self, rows: Range<usize>, room: &mut Room, mut target: Target<'_>) {
        let AttentionShape { dim, heads, .. } = self.packed.shape();
        let width = PANEL_VECTORS * S::LANES;
        let stride = d_features_stride(dim);
        for (panel, start) in (0..dim).step_by(width).enumerate() {
            let d_columns = &room.d_columns;
            self.packed.by_feature.multiply(Fma(self.simd), d_columns, rows.len(), panel, &mut room.products);
            let products = room.products.chunks_exact(width).take(rows.len());
            for (to, products) in room.d_features.chunks_exact_mut(stride).zip(products) {
                let to = &mut to[start..dim.min(start + width)];
                to.copy_from_slice(&products[..to.len()]);
            }
        }
        let mut bags = self.scored.pooled.map(|pooled| (pooled, bags_of(pooled.bags, rows.clone())));
        for (row, d_features) in room.d_features.chunks_exact_mut(stride).take(rows.len()).enumerate() {
            let d_features = &mut d_features[..dim];
            // Where V or U is not finite, 0 of a row to which nothing flows has become NaN.
            if !flows(&room.d_scores[row * heads..(row + 1) * heads]) {
                d_features.fill(0.0);
            }
            if let Some((pooled, bags)) = &mut bags
                && let Some((n, b)) = bags.next()
            {
                self.add_pooled(*pooled, n, b, d_features);
            }
            target.write(row * dim..(row + 1) * dim, d_features);
        }
    }

    /// Adds what instance `n` of bag `b` has as a value.
    #[inline(never)]
    fn add_pooled(&self, pooled: PooledShare<'_>, n: usize, b: usize, sums: &mut [f32]) {
        let AttentionShape { dim, heads, .. } = self.packed.shape();
        if !present(self.scored.mask, n) {
            return;
        }
        let simd = self.simd;
        let d_pooled = pooled.d_pooled[b * heads * dim..(b + 1) * heads * dim].chunks(dim);
        simd.vectorize(
            #[inline(always)]
            || {
                for (&weight, d_pooled) in pooled.weights[n * heads..(n + 1) * heads].iter().zip(d_pooled) {
                    if weight != 0.0 {
                        add_scaled(simd, weight, d_pooled, sums);
                    }
                }
            },
        );
    }

    /// From packed columns to V, U, w and their biases.
    fn write(&self, sums: Sums, gradients: ParamGradients<'_>) {
        let AttentionShape { dim, hidden, .. } = self.packed.shape();
        let ParamGradients { v, v_bias, u, u_bias, w, w_bias } = gradients;
        let mut matrices = [v, u].map(|gradient| gradient.map(Target::new));
        let mut biases = [v_bias, u_bias].map(|gradient| gradient.map(Target::new));
        for (column, &bias) in sums.bias.iter().enumerate() {
            let Some((matrix, unit)) = self.packed.units().at(column) else { continue };
            if let Some(to) = &mut biases[matrix] {
                to.write(unit..unit + 1, &[bias]);
            }
            if let Some(to) = &mut matrices[matrix] {
                for (first, piece) in sums.matrices.column::<S>(column) {
                    let at = unit * dim + first;
                    to.write(at..at + piece.len(), piece);
                }
            }
        }
        if let Some(mut to) = w.map(Target::new) {
            for (k, w) in sums.w.chunks(self.packed.forward.padded_units()).enumerate() {
                to.write(k * hidden..(k + 1) * hidden, &w[..hidden]);
            }
        }
        if let Some(mut to) = w_bias.map(Target::new) {
            to.write(0..sums.w_bias.len(), &sums.w_bias);
        }
    }
}

/// From a row to the next: an odd number of cache lines, so that a column is not in the same set for all rows.
fn d_features_stride(dim: usize) -> usize {
    dim.next_multiple_of(32) + 16
}

/// Whether anything flows to an instance, of the gradients of its scores.
#[inline(always)]
fn flows(d_scores: &[f32]) -> bool {
    d_scores.iter().any(|&d_score| d_score != 0.0)
}

/// From the gradients of units to those of what goes into tanh and σ. Lanes without a unit are 0, which 0 times an
/// infinite feature would not be.
#[inline(always)]
fn through_activations<S: Simd, const GATED: bool>(
    simd: S,
    d_units: [S::Vector; PANEL_VECTORS],
    activations: [S::Vector; PANEL_VECTORS],
    is_unit: [S::Mask; PANEL_VECTORS],
) -> [S::Vector; PANEL_VECTORS] {
    let [x, y] = activations;
    if GATED {
        let [of_x, of_y] = math::gate_slopes(simd, x, y);
        return [simd.keep(is_unit[0], simd.mul(d_units[0], of_x)), simd.keep(is_unit[0], simd.mul(d_units[0], of_y))];
    }
    let [of_x, of_y] = [math::tanh_slope(simd, x), math::tanh_slope(simd, y)];
    [simd.keep(is_unit[0], simd.mul(d_units[0], of_x)), simd.keep(is_unit[1], simd.mul(d_units[1], of_y))]
}
