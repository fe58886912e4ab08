//! Backward of the scores.
//!
//! Instances are taken a slice at a time, so that what lies between the kernels fits the scratch memory, and most of it
//! the second-level cache. Of each slice
//!
//! 1. the activations are computed again, where they were not kept;
//! 2. they give parts of the gradients of w and of the biases,
//! 3. and the gradients of what went into tanh and σ, in whose place these are written;
//! 4. which are multiplied with V and U for the gradient of the features,
//! 5. and with the features for parts of those of V and U.
//!
//! At the end the parts are summed, in their order. Each block has a part of its own, and adds to it slice by slice.
//!
//! In [`Order::Exact`] the parameters' share is done first, of slices of the instances in an
//! order of their content (`exact/params.rs`), and then that of the features.

use super::super::abi::{
    self, MivcActivations, MivcFeatures, MivcParts, MivcScoresBackward, MivcScoresFeaturesBackward,
    MivcScoresMatricesBackward, MivcSlice, MivcSumParts,
};
use super::super::exact::params::{Instances, Sorted};
use super::super::pack::{F32Product, MEDIUM_F32};
use super::super::scores::{self, Scores, kept, parameters_of_features};
use super::super::scratch::{Layout, Part};
use super::super::{Launch, MAX_GRID_X, MAX_GRID_Y, Parameters, Step, expect_f32_or, wrapping_bytes};
use super::Gradient;
use super::pack::PackBackward;
use crate::attention::AttentionShape;
use crate::element::Dtype;
use crate::error::{Error, Result};
use crate::order::Order;

/// Bytes of the gradients of columns that are made before they are used: what a second-level cache holds.
const SLICE_BYTES: usize = 32 << 20;
/// Rows of a slice at least, and what they are a multiple of.
const LEAST_SLICE_ROWS: usize = 1024;
/// Blocks of the product over the instances for which splits are made, two for each multiprocessor of an H200; and the
/// most splits, each of which has a part of all gradients.
const MATRICES_BLOCKS: usize = 264;
const MOST_SPLITS: usize = 32;

/// What does not change from call to call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    /// How the parameters are packed.
    pub pack: PackBackward,
    /// Of the gradient of the features: f32, or as the features.
    pub gradients: Dtype,
}

/// Where the gradients of parameters go, of each that is asked for. All are f32.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ParamGradients {
    /// Of V, `[G, L, D]`.
    pub v: Option<Gradient>,
    /// Of the bias of V, `[G, L]`.
    pub v_bias: Option<Gradient>,
    /// Of U, `[G, L, D]`.
    pub u: Option<Gradient>,
    /// Of the bias of U, `[G, L]`.
    pub u_bias: Option<Gradient>,
    /// Of w, `[K, L]`.
    pub w: Option<Gradient>,
    /// Of the bias of w, `[K]`.
    pub w_bias: Option<Gradient>,
}

impl ParamGradients {
    fn all(&self) -> [Option<Gradient>; 6] {
        let ParamGradients { v, v_bias, u, u_bias, w, w_bias } = *self;
        [v, v_bias, u, u_bias, w, w_bias]
    }
}

/// Where a call finds its arguments: device addresses, 0 where one is left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Addresses {
    /// As [`PackBackward`] has made it.
    pub packed: u64,
    /// `[N, D]`, rows [`row_stride`](Self::row_stride) elements apart.
    pub features: u64,
    /// Elements from row to row.
    pub row_stride: usize,
    /// u8 `[N]`, 0 = not there.
    pub mask: u64,
    /// As the forward has kept them; without them they are computed again.
    pub activations: u64,
    /// f32 `[N, K]`.
    pub d_scores: u64,
    /// `[N, D]`, nothing between its rows.
    pub d_features: Option<Gradient>,
    /// Of the parameters.
    pub params: ParamGradients,
    /// [`ScoresBackward::scratch_bytes`], at a multiple of [`SCRATCH_ALIGN`](crate::launch::SCRATCH_ALIGN).
    pub scratch: u64,
}

impl Addresses {
    /// The same for instances that are elsewhere.
    fn of(self, instances: Instances) -> Self {
        let Instances { slice, d_scores, features, row_stride, activations } = instances;
        Addresses { mask: slice.mask, d_scores, features, row_stride, activations, ..self }
    }
}

/// Bags of which alone the instances count.
#[derive(Debug, Clone, Copy)]
pub(super) struct InBags {
    /// As of the work list.
    pub(super) ranges: u64,
    pub(super) bags: usize,
    /// Where the features are pooled themselves.
    pub(super) pooled: Option<Pooled>,
}

/// What is added to the gradient of the features: `Σ_k a[n,k] dz[b,k]`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pooled {
    pub(super) weights: u64,
    pub(super) d_pooled: u64,
    pub(super) upstream: Dtype,
}

/// Backward of the scores by parameters of certain shapes.
#[derive(Debug, Clone, Copy)]
pub struct ScoresBackward {
    shape: Shape,
    capacity: usize,
    /// Rows of a slice, whatever the capacity: a gradient's bits do not depend on it.
    slice_rows: usize,
    splits: usize,
    columns: Part,
    flows: Part,
    partial_bias: Part,
    partial_w: Part,
    partial_matrices: Part,
    /// In [`Order::Exact`].
    sorted: Option<Sorted>,
    scratch_bytes: usize,
}

impl ScoresBackward {
    /// Fixes the layout of the scratch memory, for calls of at most so many instances, and whether the gradients of
    /// parameters may depend on the order of instances.
    ///
    /// # Errors
    /// [`Error::Argument`] where `gradients` is neither f32 nor the type of the features, or a size is beyond what a
    /// launch can have.
    pub fn plan(order: Order, shape: Shape, instances: usize) -> Result<Self> {
        let mut layout = Layout::default();
        let plan = Self::place(order, shape, instances, &mut layout)?;
        Ok(ScoresBackward { scratch_bytes: layout.bytes(), ..plan })
    }

    pub(super) fn place(order: Order, shape: Shape, instances: usize, layout: &mut Layout) -> Result<Self> {
        let forward = shape.pack.forward();
        let AttentionShape { dim, hidden, heads, groups } = forward.shape().attention;
        expect_f32_or(forward.shape().features, "gradients", shape.gradients)?;
        for (argument, got, most) in [
            ("dim", dim, MAX_GRID_Y * abi::MIVC_MATRICES_TILE_FEATURES as usize),
            ("hidden", hidden, MAX_GRID_Y * abi::MIVC_MATRICES_TILE_UNITS as usize),
            ("heads", heads, MAX_GRID_Y),
        ] {
            if got > most {
                return Err(Error::argument(argument, format!("at most {most}"), got));
            }
        }
        let rows = slice_rows(shape.pack.depth());
        let place = |layout: &mut Layout| {
            let most_rows = rows.min(instances);
            let blocks = blocks_of_rows(most_rows);
            let [of_units, of_features] = matrices_tiles(shape.pack);
            let tiles = of_units.checked_mul(forward.matrices())?.checked_mul(of_features)?;
            let splits = (MATRICES_BLOCKS / tiles).clamp(1, MOST_SPLITS);
            let most_elements = groups.checked_mul(hidden)?.checked_mul(dim)?;
            if tiles > MAX_GRID_X || most_elements.div_ceil(abi::MIVC_THREADS as usize) > MAX_GRID_X {
                return None;
            }
            let f32s = size_of::<f32>();
            Some(ScoresBackward {
                shape,
                capacity: instances,
                slice_rows: rows,
                splits,
                columns: layout.part(most_rows.checked_mul(shape.pack.depth())?, f32s)?,
                flows: layout.part(most_rows.checked_mul(groups)?, 1)?,
                partial_bias: layout.part(blocks.checked_mul(forward.activations())?, f32s)?,
                partial_w: layout.part(blocks.checked_mul(heads.checked_mul(hidden + 1)?)?, f32s)?,
                partial_matrices: layout.part(matrix_elements(shape.pack)?.checked_mul(splits)?, f32s)?,
                sorted: match order {
                    Order::Rounding => None,
                    Order::Exact => Some(Sorted::place(forward, instances, most_rows, layout)?),
                },
                scratch_bytes: layout.bytes(),
            })
        };
        place(layout)
            .ok_or_else(|| Error::argument("shape", "gradients that fit the address space", format!("{shape:?}")))
    }

    /// What was planned for.
    pub fn shape(&self) -> Shape {
        self.shape
    }

    /// Bytes of scratch memory that every call needs, whatever its size.
    pub fn scratch_bytes(&self) -> usize {
        self.scratch_bytes
    }

    /// What a call on so many instances does, in order.
    ///
    /// # Errors
    /// [`Error::Argument`] where there are more than planned, or a gradient is asked for of U or its bias where there is
    /// no gate.
    pub fn steps(&self, instances: usize, addresses: Addresses) -> Result<Vec<Step>> {
        self.steps_in_bags(instances, addresses, None)
    }

    pub(super) fn steps_in_bags(
        &self,
        instances: usize,
        addresses: Addresses,
        in_bags: Option<InBags>,
    ) -> Result<Vec<Step>> {
        if instances > self.capacity {
            let expected = format!("at most the {} that were planned for", self.capacity);
            return Err(Error::argument("instances", expected, instances));
        }
        let params = addresses.params;
        if !self.shape.pack.forward().shape().gated && (params.u.is_some() || params.u_bias.is_some()) {
            return Err(Error::argument("params.u", "none, as there is no gate", "one"));
        }
        let wants_params = params != ParamGradients::default();
        let mut steps = Vec::new();
        match &self.sorted {
            Some(sorted) if wants_params => {
                self.sorted_steps(sorted, instances, addresses, in_bags, &mut steps)?;
                let of_features = Addresses { params: ParamGradients::default(), ..addresses };
                self.slices_steps(instances, of_features, in_bags, &mut steps)?;
            }
            _ => self.slices_steps(instances, addresses, in_bags, &mut steps)?,
        }
        if wants_params {
            steps.push(self.sum_step(instances, addresses));
        }
        Ok(steps)
    }

    /// All slices as they come.
    fn slices_steps(
        &self,
        instances: usize,
        addresses: Addresses,
        in_bags: Option<InBags>,
        steps: &mut Vec<Step>,
    ) -> Result<()> {
        for (first, rows) in self.slices(instances) {
            Slice { plan: self, addresses, in_bags, first, rows, adds: first > 0 }.steps(steps)?;
        }
        Ok(())
    }

    /// The parameters' share of slices in the order of their content.
    fn sorted_steps(
        &self,
        sorted: &Sorted,
        instances: usize,
        addresses: Addresses,
        in_bags: Option<InBags>,
        steps: &mut Vec<Step>,
    ) -> Result<()> {
        let all = Slice { plan: self, addresses, in_bags, first: 0, rows: instances, adds: false }.instances();
        steps.extend(sorted.order_steps(all, addresses.scratch));
        for (first, rows) in self.slices(instances) {
            let (step, gathered) = sorted.gather(all, (first, rows), addresses.scratch);
            steps.push(step);
            let addresses = Addresses { d_features: None, ..addresses.of(gathered) };
            Slice { plan: self, addresses, in_bags: None, first: 0, rows, adds: first > 0 }.steps(steps)?;
        }
        Ok(())
    }

    /// The first rows of slices, and how many they have.
    fn slices(&self, instances: usize) -> impl Iterator<Item = (usize, usize)> {
        let rows = self.slice_rows;
        (0..instances).step_by(rows).map(move |first| (first, rows.min(instances - first)))
    }

    /// Sums what blocks have left.
    fn sum_step(&self, instances: usize, addresses: Addresses) -> Step {
        let forward = self.shape.pack.forward();
        let AttentionShape { dim, hidden, heads, groups } = forward.shape().attention;
        let rows = instances.min(self.slice_rows);
        let (blocks, splits) = (blocks_of_rows(rows), self.splits_of(rows));
        let (units, scratch) = (groups * hidden, addresses.scratch);
        let parts = |part: Part, skipped: usize, count: usize, part_stride: usize, rows: [usize; 3]| MivcParts {
            parts: part.at(scratch) + wrapping_bytes(skipped, Dtype::F32),
            count: count as i64,
            part_stride: part_stride as i64,
            rows: rows[0] as i64,
            row_elements: rows[1] as i64,
            row_stride: rows[2] as i64,
            gradient: Gradient::parameters(None, Dtype::F32),
        };
        let elements = units * dim;
        let matrix = |matrix: usize| {
            let all = forward.matrices() * elements;
            parts(self.partial_matrices, matrix * elements, splits, all, [1, elements, elements])
        };
        let bias =
            |matrix: usize| parts(self.partial_bias, matrix * units, blocks, forward.activations(), [1, units, units]);
        let w = |skipped: usize, row_elements: usize| {
            parts(self.partial_w, skipped, blocks, heads * (hidden + 1), [heads, row_elements, hidden + 1])
        };
        let mut of = [matrix(0), bias(0), matrix(1), bias(1), w(0, hidden), w(hidden, 1)];
        for (parts, gradient) in of.iter_mut().zip(addresses.params.all()) {
            parts.gradient = Gradient::parameters(gradient, Dtype::F32);
        }
        let elements = of.iter().filter(|parts| parts.gradient.to != 0).map(|parts| parts.rows * parts.row_elements);
        let blocks = elements.max().unwrap_or(0).unsigned_abs().div_ceil(u64::from(abi::MIVC_THREADS));
        step("scores_backward", "mivc_sum_parts", [blocks as u32, 6, 1], Parameters::SumParts(MivcSumParts { of }))
    }

    /// Of as many as there are runs of rows at most.
    fn splits_of(&self, rows: usize) -> usize {
        self.splits.min(rows.div_ceil(abi::MIVC_MATRICES_RUN_ROWS as usize))
    }
}

/// Rows that are taken at once.
struct Slice<'a> {
    plan: &'a ScoresBackward,
    addresses: Addresses,
    in_bags: Option<InBags>,
    /// Of what the addresses are of.
    first: usize,
    rows: usize,
    /// To the parts of the slices before.
    adds: bool,
}

impl Slice<'_> {
    fn steps(&self, steps: &mut Vec<Step>) -> Result<()> {
        let ParamGradients { v, v_bias, u, u_bias, w, w_bias } = self.addresses.params;
        let [wants_matrices, wants_bias, wants_w] =
            [[v, u], [v_bias, u_bias], [w, w_bias]].map(|both| both.iter().any(Option::is_some));
        let wants_features = self.addresses.d_features.is_some();
        if !(wants_features || wants_matrices || wants_bias || wants_w) {
            return Ok(());
        }
        if self.addresses.activations == 0 {
            steps.extend(self.activations_steps()?);
        }
        if wants_w {
            steps.push(self.d_w_step());
        }
        if wants_features || wants_matrices || wants_bias {
            steps.push(self.d_columns_step(wants_bias));
        }
        if wants_features {
            steps.push(self.d_features_step());
        }
        if wants_matrices {
            steps.push(self.d_matrices_step());
        }
        Ok(())
    }

    fn attention(&self) -> AttentionShape {
        self.plan.shape.pack.forward().shape().attention
    }

    fn features_type(&self) -> Dtype {
        self.plan.shape.pack.forward().shape().features
    }

    /// An array `[N, ...]` from the slice's first row on; nothing where there is none.
    fn at(&self, address: u64, row_elements: usize, element_bytes: usize) -> u64 {
        let before = (self.first as u64).wrapping_mul(row_elements as u64).wrapping_mul(element_bytes as u64);
        if address == 0 { 0 } else { address.wrapping_add(before) }
    }

    fn mask(&self) -> u64 {
        self.at(self.addresses.mask, 1, 1)
    }

    fn features(&self) -> MivcFeatures {
        let Addresses { features, row_stride, .. } = self.addresses;
        let rows = self.at(features, row_stride, self.features_type().size());
        parameters_of_features(self.plan.shape.pack.forward(), rows, row_stride, self.mask(), self.rows)
    }

    fn instances(&self) -> Instances {
        let Addresses { d_scores, features, row_stride, activations, .. } = self.addresses;
        Instances { slice: self.slice(), d_scores, features, row_stride, activations }
    }

    fn slice(&self) -> MivcSlice {
        MivcSlice {
            mask: self.mask(),
            ranges: self.in_bags.map_or(0, |bags| bags.ranges),
            bags: self.in_bags.map_or(0, |bags| bags.bags as i64),
            first: self.first as i64,
            rows: self.rows as i64,
            flows: self.plan.flows.at(self.addresses.scratch),
        }
    }

    /// Gradients of columns, and before them activations that were not kept.
    fn columns(&self) -> MivcActivations {
        MivcActivations {
            at: self.plan.columns.at(self.addresses.scratch),
            row_stride: self.plan.shape.pack.depth() as i64,
            group_stride: self.plan.shape.pack.group_stride() as i64,
            are_f32: 1,
            unused: 0,
        }
    }

    fn activations_steps(&self) -> Result<impl Iterator<Item = Step>> {
        let addresses = scores::Addresses {
            packed: self.addresses.packed,
            features: self.features().rows,
            row_stride: self.addresses.row_stride,
            mask: self.mask(),
            scores: 0,
            activations: 0,
        };
        let scores = Scores::plan(self.plan.shape.pack.forward());
        Ok(scores.steps_keeping(self.rows, addresses, self.columns())?.into_iter().flatten())
    }

    fn parameters(&self, wants_bias: bool) -> MivcScoresBackward {
        let (plan, Addresses { packed, activations, d_scores, scratch, .. }) = (self.plan, self.addresses);
        let forward = plan.shape.pack.forward();
        let kept_at = self.at(activations, forward.activations(), self.features_type().size());
        MivcScoresBackward {
            packed: forward.parameters(packed),
            slice: self.slice(),
            activations: if activations == 0 { self.columns() } else { kept(forward, kept_at) },
            d_columns: self.columns(),
            d_scores: self.at(d_scores, self.attention().heads, size_of::<f32>()),
            partial_bias: if wants_bias { plan.partial_bias.at(scratch) } else { 0 },
            partial_w: plan.partial_w.at(scratch),
            adds: u32::from(self.adds),
            unused: 0,
        }
    }

    fn d_columns_step(&self, wants_bias: bool) -> Step {
        let across = self.plan.shape.pack.group_stride().div_ceil(abi::MIVC_THREADS as usize);
        let kernel = match self.features_type() {
            Dtype::F32 => "mivc_scores_d_columns_f32",
            Dtype::F16 => "mivc_scores_d_columns_f16",
            Dtype::Bf16 => "mivc_scores_d_columns_bf16",
        };
        let grid = [blocks_of_rows(self.rows) as u32, across as u32, self.attention().groups as u32];
        step("scores_backward", kernel, grid, Parameters::ScoresBackward(self.parameters(wants_bias)))
    }

    fn d_w_step(&self) -> Step {
        let AttentionShape { hidden, heads, groups, .. } = self.attention();
        let across = (hidden + 1).div_ceil(abi::MIVC_THREADS as usize);
        let down = groups * (heads / groups).div_ceil(abi::MIVC_SCORES_BACKWARD_HEADS as usize);
        let kernel = match self.features_type() {
            Dtype::F32 => "mivc_scores_d_w_f32",
            Dtype::F16 => "mivc_scores_d_w_f16",
            Dtype::Bf16 => "mivc_scores_d_w_bf16",
        };
        let grid = [blocks_of_rows(self.rows) as u32, across as u32, down as u32];
        step("scores_backward", kernel, grid, Parameters::ScoresBackward(self.parameters(false)))
    }

    fn d_features_step(&self) -> Step {
        let (shape, attention, columns) = (self.plan.shape, self.attention(), self.columns());
        let pooled = self.in_bags.and_then(|bags| bags.pooled);
        let to = |address| self.at(address, attention.dim, shape.gradients.size());
        let d_features = self.addresses.d_features.map(|gradient| match gradient {
            Gradient::Set(address) => Gradient::Set(to(address)),
            Gradient::Add(address) => Gradient::Add(to(address)),
        });
        let parameters = MivcScoresFeaturesBackward {
            by_feature: shape.pack.parameters(self.addresses.packed),
            d_columns: MivcFeatures {
                rows: columns.at,
                mask: 0,
                instances: self.rows as i64,
                row_stride: columns.row_stride,
                is_aligned: 1,
                unused: 0,
            },
            slice: self.slice(),
            weights: pooled.map_or(0, |pooled| self.at(pooled.weights, attention.heads, size_of::<f32>())),
            d_pooled: pooled.map_or(0, |pooled| pooled.d_pooled),
            d_features: Gradient::parameters(d_features, shape.gradients),
            heads: attention.heads as i64,
            groups: attention.groups as i64,
            upstream_is_f32: u32::from(pooled.is_none_or(|pooled| pooled.upstream == Dtype::F32)),
            unused: 0,
        };
        let stages = (MEDIUM_F32.rows + MEDIUM_F32.columns) as u32 * abi::MIVC_TILE_DEPTH_BYTES * abi::MIVC_TILE_STAGES;
        let launch = Launch {
            image: "scores_features_backward",
            kernel: d_features_kernel(self.features_type(), self.product()),
            grid: [self.rows.div_ceil(MEDIUM_F32.rows) as u32, 1, 1],
            block: [MEDIUM_F32.threads, 1, 1],
            shared_bytes: stages,
            tensor_maps: None,
            parameters: Parameters::ScoresFeaturesBackward(parameters),
        };
        Step::Launch(launch)
    }

    fn d_matrices_step(&self) -> Step {
        let (plan, attention) = (self.plan, self.attention());
        let ParamGradients { v, u, .. } = self.addresses.params;
        let first_matrix = usize::from(v.is_none());
        let matrices = [v, u].iter().flatten().count();
        let parameters = MivcScoresMatricesBackward {
            features: self.features(),
            slice: self.slice(),
            d_columns: self.columns(),
            partials: plan.partial_matrices.at(self.addresses.scratch),
            dim: attention.dim as i64,
            hidden: attention.hidden as i64,
            groups: attention.groups as i64,
            matrices: plan.shape.pack.forward().matrices() as i64,
            first_matrix: first_matrix as i64,
            adds: u32::from(self.adds),
            unused: 0,
        };
        let [of_units, of_features] = matrices_tiles(plan.shape.pack);
        let grid = [(matrices * of_units) as u32, of_features as u32, plan.splits_of(self.rows) as u32];
        let kernel = d_matrices_kernel(self.features_type(), self.product());
        step("scores_matrices_backward", kernel, grid, Parameters::ScoresMatricesBackward(parameters))
    }

    fn product(&self) -> F32Product {
        self.plan.shape.pack.forward().shape().f32_product
    }
}

fn step(image: &'static str, kernel: &'static str, grid: [u32; 3], parameters: Parameters) -> Step {
    let block = [abi::MIVC_THREADS, 1, 1];
    Step::Launch(Launch { image, kernel, grid, block, shared_bytes: 0, tensor_maps: None, parameters })
}

/// Rows of a slice, of gradients of so many columns.
fn slice_rows(depth: usize) -> usize {
    let rows = SLICE_BYTES / size_of::<f32>() / depth;
    (rows / LEAST_SLICE_ROWS * LEAST_SLICE_ROWS).max(LEAST_SLICE_ROWS)
}

/// Blocks that share out rows, each of which leaves a part.
fn blocks_of_rows(rows: usize) -> usize {
    rows.div_ceil(abi::MIVC_SCORES_BACKWARD_ROWS as usize)
}

/// Tiles of a matrix, of the units of all groups and of features.
fn matrices_tiles(pack: PackBackward) -> [usize; 2] {
    let AttentionShape { dim, hidden, groups, .. } = pack.forward().shape().attention;
    let of_units = groups.saturating_mul(hidden.div_ceil(abi::MIVC_MATRICES_TILE_UNITS as usize));
    [of_units, dim.div_ceil(abi::MIVC_MATRICES_TILE_FEATURES as usize)]
}

/// Of V and, where there is one, U.
fn matrix_elements(pack: PackBackward) -> Option<usize> {
    pack.forward().activations().checked_mul(pack.forward().shape().attention.dim)
}

fn d_features_kernel(features: Dtype, product: F32Product) -> &'static str {
    match (features, product) {
        (Dtype::F32, F32Product::Plain) => "mivc_scores_d_features_f32",
        (Dtype::F16, F32Product::Plain) => "mivc_scores_d_features_f16",
        (Dtype::Bf16, F32Product::Plain) => "mivc_scores_d_features_bf16",
        (Dtype::F32, F32Product::Split) => "mivc_scores_d_features_f32_split",
        (Dtype::F16, F32Product::Split) => "mivc_scores_d_features_f16_split",
        (Dtype::Bf16, F32Product::Split) => "mivc_scores_d_features_bf16_split",
    }
}

fn d_matrices_kernel(features: Dtype, product: F32Product) -> &'static str {
    match (features, product) {
        (Dtype::F32, F32Product::Plain) => "mivc_scores_d_matrices_f32",
        (Dtype::F16, F32Product::Plain) => "mivc_scores_d_matrices_f16",
        (Dtype::Bf16, F32Product::Plain) => "mivc_scores_d_matrices_bf16",
        (Dtype::F32, F32Product::Split) => "mivc_scores_d_matrices_f32_split",
        (Dtype::F16, F32Product::Split) => "mivc_scores_d_matrices_f16_split",
        (Dtype::Bf16, F32Product::Split) => "mivc_scores_d_matrices_bf16_split",
    }
}

#[cfg(test)]
mod tests;
