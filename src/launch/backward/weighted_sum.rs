//! Backward of the weighted sum.

use super::super::abi::{self, MivcWeightedSumBackward};
use super::super::scratch::Layout;
use super::super::weighted_sum::heads_that_share;
use super::super::work_list::{Capacity, Offsets, WorkList};
use super::super::{
    Launch, MAX_GRID_Y, Parameters, Step, are_aligned, expect_f32_or, expect_tiles, vector_elements, wrapping_bytes,
};
use super::Gradient;
use crate::element::Dtype;
use crate::error::{Error, Result};

/// What does not change from call to call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    /// D.
    pub dim: usize,
    /// K.
    pub heads: usize,
    /// Whether each head has values of its own, `[N, K, D]`.
    pub per_head: bool,
    /// Of the values.
    pub values: Dtype,
    /// Of the gradient of what was pooled: f32, or as the values.
    pub upstream: Dtype,
    /// Of the gradient of the values: f32, or as the values.
    pub gradients: Dtype,
}

/// Where a call finds its arguments: device addresses, 0 where one is left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Addresses {
    /// f32 `[N, K]`.
    pub weights: u64,
    /// `[N, D]` or `[N, K, D]`, rows [`row_stride`](Self::row_stride) elements apart; may be left out where no gradient
    /// of the weights is asked for.
    pub values: u64,
    /// Elements from row to row.
    pub row_stride: usize,
    /// `[B + 1]`, any values.
    pub offsets: Offsets,
    /// u8 `[N]`, 0 = not there.
    pub mask: u64,
    /// `[B, K, D]`, the gradient of what was pooled.
    pub d_pooled: u64,
    /// f32 `[N, K]`.
    pub d_weights: Option<Gradient>,
    /// `[N, D]` or `[N, K, D]`, nothing between its rows.
    pub d_values: Option<Gradient>,
    /// [`WeightedSumBackward::scratch_bytes`], at a multiple of [`SCRATCH_ALIGN`](crate::launch::SCRATCH_ALIGN).
    pub scratch: u64,
}

/// Backward of weighted sums of certain shapes.
#[derive(Debug, Clone, Copy)]
pub struct WeightedSumBackward {
    shape: Shape,
    list: WorkList,
    scratch_bytes: usize,
}

impl WeightedSumBackward {
    /// Fixes the layout of the scratch memory.
    ///
    /// # Errors
    /// [`Error::Argument`] where `upstream` or `gradients` is neither f32 nor the type of the values, or a size is 0 or
    /// beyond what a launch can have.
    pub fn plan(shape: Shape, capacity: Capacity) -> Result<Self> {
        expect_f32_or(shape.values, "upstream", shape.upstream)?;
        expect_f32_or(shape.values, "gradients", shape.gradients)?;
        expect_tiles(shape.dim, columns(1))?;
        let most = MAX_GRID_Y * heads_at_once(shape);
        if shape.heads == 0 || shape.heads > most {
            return Err(Error::argument("heads", format!("1 to {most}"), shape.heads));
        }
        let mut layout = Layout::default();
        // Nothing is merged, so no team needs a ticket of its own.
        let list = WorkList::plan(capacity, 1, &mut layout)?;
        Ok(WeightedSumBackward { shape, list, scratch_bytes: layout.bytes() })
    }

    /// What was planned for.
    pub fn shape(&self) -> Shape {
        self.shape
    }

    /// Bytes of scratch memory that every call needs, whatever its size.
    pub fn scratch_bytes(&self) -> usize {
        self.scratch_bytes
    }

    /// What a call on `call` instances and bags does, in order; nothing where there is no bag, or no gradient is asked
    /// for.
    ///
    /// # Errors
    /// [`Error::Argument`] where the call is larger than the plan.
    pub fn steps(&self, call: Capacity, addresses: Addresses) -> Result<Option<Vec<Step>>> {
        self.list.expect(call)?;
        let Addresses { weights, values, offsets, mask, d_pooled, d_weights, d_values, scratch, .. } = addresses;
        if call.bags == 0 || (d_weights.is_none() && d_values.is_none()) {
            return Ok(None);
        }
        let Shape { dim, heads, per_head, upstream, gradients, .. } = self.shape;
        let list = self.list.parameters(call.bags, 1, scratch);
        let parameters = MivcWeightedSumBackward {
            list,
            weights,
            mask,
            values,
            d_pooled,
            d_weights: Gradient::parameters(d_weights, Dtype::F32),
            d_values: Gradient::parameters(d_values, gradients),
            dim: dim as i64,
            row_stride: addresses.row_stride as i64,
            head_stride: if per_head { dim as i64 } else { 0 },
            heads: heads as i64,
            upstream_is_f32: u32::from(upstream == Dtype::F32),
            unused: 0,
        };
        let mut steps = Vec::from(self.list.steps(list, call, offsets));
        if d_weights.is_some() {
            steps.push(self.d_weights_step(call, addresses, parameters));
        }
        if d_values.is_some() {
            steps.push(self.d_values_step(call, addresses, parameters));
        }
        Ok(Some(steps))
    }

    fn d_weights_step(&self, call: Capacity, addresses: Addresses, parameters: MivcWeightedSumBackward) -> Step {
        let row_bytes = wrapping_bytes(addresses.row_stride, self.shape.values);
        let is_vector = self.has_vectors(&[addresses.values, row_bytes, addresses.d_pooled]);
        let at_once = heads_at_once(self.shape);
        let kernel = d_weights_kernel(self.shape.values, at_once > 1, is_vector);
        step(kernel, [WorkList::teams(call), self.shape.heads.div_ceil(at_once) as u32, 1], parameters)
    }

    fn d_values_step(&self, call: Capacity, addresses: Addresses, parameters: MivcWeightedSumBackward) -> Step {
        let is_vector = self.has_vectors(&[addresses.d_pooled, Gradient::address(addresses.d_values)]);
        let across = self.shape.dim.div_ceil(columns(if is_vector { vector_elements(self.shape.values) } else { 1 }));
        let down = if self.shape.per_head { self.shape.heads } else { 1 };
        let kernel = d_values_kernel(self.shape.values, is_vector);
        step(kernel, [WorkList::teams(call), across as u32, down as u32], parameters)
    }

    /// Whether what is at these addresses can be taken 16 bytes at a time.
    fn has_vectors(&self, addresses: &[u64]) -> bool {
        self.shape.dim.is_multiple_of(vector_elements(self.shape.values)) && are_aligned(addresses)
    }
}

fn step(kernel: &'static str, grid: [u32; 3], parameters: MivcWeightedSumBackward) -> Step {
    Step::Launch(Launch {
        image: "weighted_sum_backward",
        kernel,
        grid,
        block: [abi::MIVC_THREADS, 1, 1],
        shared_bytes: 0,
        tensor_maps: None,
        parameters: Parameters::WeightedSumBackward(parameters),
    })
}

/// Columns of a block whose threads take `elements` each.
fn columns(elements: usize) -> usize {
    abi::MIVC_THREADS as usize * elements
}

/// Heads whose gradients a block makes of what it reads once.
fn heads_at_once(shape: Shape) -> usize {
    heads_that_share(shape.heads, shape.per_head)
}

fn d_weights_kernel(values: Dtype, several_heads: bool, is_vector: bool) -> &'static str {
    match (values, several_heads, is_vector) {
        (Dtype::F32, false, false) => "mivc_weighted_sum_d_weights_f32",
        (Dtype::F32, false, true) => "mivc_weighted_sum_d_weights_f32_vector",
        (Dtype::F32, true, false) => "mivc_weighted_sum_d_weights_heads_f32",
        (Dtype::F32, true, true) => "mivc_weighted_sum_d_weights_heads_f32_vector",
        (Dtype::F16, false, false) => "mivc_weighted_sum_d_weights_f16",
        (Dtype::F16, false, true) => "mivc_weighted_sum_d_weights_f16_vector",
        (Dtype::F16, true, false) => "mivc_weighted_sum_d_weights_heads_f16",
        (Dtype::F16, true, true) => "mivc_weighted_sum_d_weights_heads_f16_vector",
        (Dtype::Bf16, false, false) => "mivc_weighted_sum_d_weights_bf16",
        (Dtype::Bf16, false, true) => "mivc_weighted_sum_d_weights_bf16_vector",
        (Dtype::Bf16, true, false) => "mivc_weighted_sum_d_weights_heads_bf16",
        (Dtype::Bf16, true, true) => "mivc_weighted_sum_d_weights_heads_bf16_vector",
    }
}

fn d_values_kernel(values: Dtype, is_vector: bool) -> &'static str {
    match (values, is_vector) {
        (Dtype::F32, false) => "mivc_weighted_sum_d_values_f32",
        (Dtype::F32, true) => "mivc_weighted_sum_d_values_f32_vector",
        (Dtype::F16, false) => "mivc_weighted_sum_d_values_f16",
        (Dtype::F16, true) => "mivc_weighted_sum_d_values_f16_vector",
        (Dtype::Bf16, false) => "mivc_weighted_sum_d_values_bf16",
        (Dtype::Bf16, true) => "mivc_weighted_sum_d_values_bf16_vector",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHAPE: Shape = Shape {
        dim: 768,
        heads: 1,
        per_head: false,
        values: Dtype::Bf16,
        upstream: Dtype::F32,
        gradients: Dtype::Bf16,
    };
    const CALL: Capacity = Capacity { instances: 1000, bags: 10 };
    const ADDRESSES: Addresses = Addresses {
        weights: 0x1000,
        values: 0x2000,
        row_stride: 768,
        offsets: Offsets::I64(0x3000),
        mask: 0,
        d_pooled: 0x4000,
        d_weights: Some(Gradient::Set(0x5000)),
        d_values: Some(Gradient::Set(0x6000)),
        scratch: 0x10000,
    };

    fn work(shape: Shape, addresses: Addresses) -> Vec<(&'static str, [u32; 3])> {
        let steps = WeightedSumBackward::plan(shape, CALL).unwrap().steps(CALL, addresses).unwrap().unwrap();
        let [Step::Clear { .. }, Step::Launch(_), work @ ..] = &steps[..] else { panic!("{steps:?}") };
        work.iter().map(|step| step.as_launch().unwrap()).map(|launch| (launch.kernel, launch.grid)).collect()
    }

    #[test]
    fn each_gradient_has_a_launch_where_it_is_asked_for() {
        let both = work(SHAPE, ADDRESSES);
        assert_eq!(both[0], ("mivc_weighted_sum_d_weights_bf16_vector", [13, 1, 1]));
        assert_eq!(both[1], ("mivc_weighted_sum_d_values_bf16_vector", [13, 1, 1]));
        assert_eq!(work(SHAPE, Addresses { d_values: None, ..ADDRESSES }), both[..1]);
        assert_eq!(work(SHAPE, Addresses { d_weights: None, values: 0, ..ADDRESSES }), both[1..]);
        let none = Addresses { d_weights: None, d_values: None, ..ADDRESSES };
        assert!(WeightedSumBackward::plan(SHAPE, CALL).unwrap().steps(CALL, none).unwrap().is_none());
    }

    #[test]
    fn heads_that_share_their_values_read_them_together() {
        let several = work(Shape { heads: 20, ..SHAPE }, ADDRESSES);
        assert_eq!(several[0], ("mivc_weighted_sum_d_weights_heads_bf16_vector", [13, 3, 1]));
        assert_eq!(several[1], ("mivc_weighted_sum_d_values_bf16_vector", [13, 1, 1]));
        let per_head = Shape { heads: 20, per_head: true, ..SHAPE };
        let apart = work(per_head, Addresses { row_stride: 20 * 768, ..ADDRESSES });
        assert_eq!(apart[0], ("mivc_weighted_sum_d_weights_bf16_vector", [13, 20, 1]));
        assert_eq!(apart[1], ("mivc_weighted_sum_d_values_bf16_vector", [13, 1, 20]));
    }

    #[test]
    fn vectors_where_what_a_kernel_touches_is_aligned() {
        let is_vector = |addresses| {
            let work = work(SHAPE, addresses);
            [work[0].0.ends_with("_vector"), work[1].0.ends_with("_vector")]
        };
        assert_eq!(is_vector(ADDRESSES), [true, true]);
        assert_eq!(is_vector(Addresses { values: 0x2002, ..ADDRESSES }), [false, true]);
        assert_eq!(is_vector(Addresses { row_stride: 769, ..ADDRESSES }), [false, true]);
        assert_eq!(is_vector(Addresses { d_pooled: 0x4004, ..ADDRESSES }), [false, false]);
        assert_eq!(is_vector(Addresses { d_values: Some(Gradient::Add(0x6002)), ..ADDRESSES }), [true, false]);
    }

    #[test]
    fn what_does_not_fit() {
        let argument = |shape| {
            let error = WeightedSumBackward::plan(shape, CALL).unwrap_err().to_string();
            error.split(':').next().unwrap().to_owned()
        };
        assert_eq!(argument(Shape { dim: 0, ..SHAPE }), "dim");
        assert_eq!(argument(Shape { dim: usize::MAX, ..SHAPE }), "dim");
        assert_eq!(argument(Shape { heads: 0, ..SHAPE }), "heads");
        assert_eq!(argument(Shape { heads: usize::MAX, ..SHAPE }), "heads");
        assert_eq!(argument(Shape { upstream: Dtype::F16, ..SHAPE }), "upstream");
        assert_eq!(argument(Shape { gradients: Dtype::F16, ..SHAPE }), "gradients");
        let larger = Capacity { bags: 11, ..CALL };
        assert!(WeightedSumBackward::plan(SHAPE, CALL).unwrap().steps(larger, ADDRESSES).is_err());
    }
}
