//! Backward of max and mean pooling.

use super::super::abi::{self, MivcMaxMeanBackward};
use super::super::scratch::{Layout, Part};
use super::super::work_list::{Capacity, Offsets, WorkList, too_large};
use super::super::{
    Launch, Parameters, Step, are_aligned, expect_f32_or, expect_tiles, vector_elements, wrapping_bytes,
};
use super::Gradient;
use crate::element::Dtype;
use crate::error::{Error, Result};

/// What does not change from call to call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    /// D.
    pub dim: usize,
    /// Of the features.
    pub features: Dtype,
    /// Of the gradients of max and mean: f32, or as the features.
    pub upstream: Dtype,
    /// Of the gradient of the features: f32, or as the features.
    pub gradients: Dtype,
}

/// Where a call finds its arguments: device addresses, 0 where one is left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Addresses {
    /// `[N, D]`, rows [`row_stride`](Self::row_stride) elements apart; may be left out where max has no gradient.
    pub features: u64,
    /// Elements from row to row.
    pub row_stride: usize,
    /// `[B + 1]`, any values.
    pub offsets: Offsets,
    /// u8 `[N]`, 0 = not there.
    pub mask: u64,
    /// `[B, D]`, the gradient of max; may be left out.
    pub d_max: u64,
    /// `[B, D]`, the gradient of mean; may be left out.
    pub d_mean: u64,
    /// `[N, D]`, nothing between its rows.
    pub d_features: Gradient,
    /// [`MaxMeanBackward::scratch_bytes`], at a multiple of [`SCRATCH_ALIGN`](crate::launch::SCRATCH_ALIGN).
    pub scratch: u64,
}

/// Backward of max and mean pooling of certain shapes.
#[derive(Debug, Clone, Copy)]
pub struct MaxMeanBackward {
    shape: Shape,
    list: WorkList,
    partial_max: Part,
    partial_ties: Part,
    partial_count: Part,
    scratch_bytes: usize,
}

impl MaxMeanBackward {
    /// Fixes the layout of the scratch memory.
    ///
    /// # Errors
    /// [`Error::Argument`] where `upstream` or `gradients` is neither f32 nor the type of the features, or a size is
    /// beyond what a launch can have.
    pub fn plan(shape: Shape, capacity: Capacity) -> Result<Self> {
        expect_f32_or(shape.features, "upstream", shape.upstream)?;
        expect_f32_or(shape.features, "gradients", shape.gradients)?;
        let tiles = expect_tiles(shape.dim, columns(1))?;
        let mut layout = Layout::default();
        let list = WorkList::plan(capacity, tiles, &mut layout)?;
        let place = |layout: &mut Layout| {
            let partials = list.nodes().checked_mul(shape.dim)?;
            Some([
                layout.part(partials, size_of::<f32>())?,
                layout.part(partials, size_of::<i64>())?,
                layout.part(list.nodes().checked_mul(tiles)?, size_of::<i64>())?,
            ])
        };
        let [partial_max, partial_ties, partial_count] = place(&mut layout).ok_or_else(|| too_large(capacity))?;
        let scratch_bytes = layout.bytes();
        Ok(MaxMeanBackward { shape, list, partial_max, partial_ties, partial_count, scratch_bytes })
    }

    /// What was planned for.
    pub fn shape(&self) -> Shape {
        self.shape
    }

    /// Bytes of scratch memory that every call needs, whatever its size.
    pub fn scratch_bytes(&self) -> usize {
        self.scratch_bytes
    }

    /// What a call on `call` instances and bags does, in order; nothing where there is no bag.
    ///
    /// # Errors
    /// [`Error::Argument`] where the call is larger than the plan, or neither max nor mean has a gradient.
    pub fn steps(&self, call: Capacity, addresses: Addresses) -> Result<Option<Vec<Step>>> {
        self.list.expect(call)?;
        let Addresses { features, row_stride, offsets, mask, d_max, d_mean, d_features, scratch } = addresses;
        if d_max == 0 && d_mean == 0 {
            return Err(Error::argument("upstream", "max or mean", "none of them"));
        }
        if call.bags == 0 {
            return Ok(None);
        }
        let is_vector = self.has_vectors(addresses);
        let tiles = self.shape.dim.div_ceil(columns(if is_vector { vector_elements(self.shape.features) } else { 1 }));
        let list = self.list.parameters(call.bags, tiles, scratch);
        let parameters = MivcMaxMeanBackward {
            list,
            features,
            mask,
            d_max,
            d_mean,
            d_features: Gradient::parameters(Some(d_features), self.shape.gradients),
            partial_max: self.partial_max.at(scratch),
            partial_ties: self.partial_ties.at(scratch),
            partial_count: self.partial_count.at(scratch),
            dim: self.shape.dim as i64,
            row_stride: row_stride as i64,
            upstream_is_f32: u32::from(self.shape.upstream == Dtype::F32),
            unused: 0,
        };
        let work = |is_long| {
            Step::Launch(Launch {
                image: "max_mean_backward",
                kernel: kernel(self.shape.features, is_long, is_vector),
                grid: [WorkList::teams(call), tiles as u32, 1],
                block: [abi::MIVC_MAX_MEAN_THREADS, 1, 1],
                shared_bytes: 0,
                tensor_maps: None,
                parameters: Parameters::MaxMeanBackward(parameters),
            })
        };
        let mut steps = Vec::from(self.list.steps(list, call, offsets));
        steps.push(work(false));
        // Otherwise nothing needs to be known of a bag before.
        if (d_max != 0 || mask != 0) && self.list.has_long_bags(call) {
            steps.push(work(true));
        }
        Ok(Some(steps))
    }

    /// Whether rows and gradients can be taken 16 bytes at a time.
    fn has_vectors(&self, addresses: Addresses) -> bool {
        let Addresses { features, row_stride, d_max, d_mean, d_features, .. } = addresses;
        let row_bytes = wrapping_bytes(row_stride, self.shape.features);
        self.shape.dim.is_multiple_of(vector_elements(self.shape.features))
            && (d_max == 0 || are_aligned(&[features, row_bytes]))
            && are_aligned(&[d_max, d_mean, Gradient::address(Some(d_features))])
    }
}

/// Columns of a block whose threads take `elements` each.
fn columns(elements: usize) -> usize {
    abi::MIVC_MAX_MEAN_THREADS as usize * elements
}

fn kernel(features: Dtype, is_long: bool, is_vector: bool) -> &'static str {
    match (features, is_long, is_vector) {
        (Dtype::F32, false, false) => "mivc_max_mean_backward_f32",
        (Dtype::F32, false, true) => "mivc_max_mean_backward_f32_vector",
        (Dtype::F32, true, false) => "mivc_max_mean_backward_long_f32",
        (Dtype::F32, true, true) => "mivc_max_mean_backward_long_f32_vector",
        (Dtype::F16, false, false) => "mivc_max_mean_backward_f16",
        (Dtype::F16, false, true) => "mivc_max_mean_backward_f16_vector",
        (Dtype::F16, true, false) => "mivc_max_mean_backward_long_f16",
        (Dtype::F16, true, true) => "mivc_max_mean_backward_long_f16_vector",
        (Dtype::Bf16, false, false) => "mivc_max_mean_backward_bf16",
        (Dtype::Bf16, false, true) => "mivc_max_mean_backward_bf16_vector",
        (Dtype::Bf16, true, false) => "mivc_max_mean_backward_long_bf16",
        (Dtype::Bf16, true, true) => "mivc_max_mean_backward_long_bf16_vector",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHAPE: Shape = Shape { dim: 768, features: Dtype::Bf16, upstream: Dtype::F32, gradients: Dtype::Bf16 };
    const CALL: Capacity = Capacity { instances: 700_000, bags: 100_000 };
    const ADDRESSES: Addresses = Addresses {
        features: 0x1000,
        row_stride: 768,
        offsets: Offsets::I64(0x2000),
        mask: 0,
        d_max: 0x3000,
        d_mean: 0,
        d_features: Gradient::Set(0x4000),
        scratch: 0x10000,
    };

    fn work(call: Capacity, addresses: Addresses) -> Vec<(&'static str, [u32; 3])> {
        let steps = MaxMeanBackward::plan(SHAPE, CALL).unwrap().steps(call, addresses).unwrap().unwrap();
        let [Step::Clear { .. }, Step::Launch(_), work @ ..] = &steps[..] else { panic!("{steps:?}") };
        work.iter().map(|step| step.as_launch().unwrap()).map(|launch| (launch.kernel, launch.grid)).collect()
    }

    #[test]
    fn long_bags_take_a_launch_more_where_something_is_counted() {
        let grid = [100_000 + 700_000 / 256, 1, 1];
        let both = [("mivc_max_mean_backward_bf16_vector", grid), ("mivc_max_mean_backward_long_bf16_vector", grid)];
        assert_eq!(work(CALL, ADDRESSES), both);
        assert_eq!(work(Capacity { instances: 256, bags: 3 }, ADDRESSES).len(), 1);
        let mean = Addresses { d_max: 0, d_mean: 0x3000, ..ADDRESSES };
        assert_eq!(work(CALL, mean), both[..1]);
        assert_eq!(work(CALL, Addresses { mask: 0x5000, ..mean }), both);
    }

    #[test]
    fn vectors_where_everything_is_aligned() {
        for unaligned in [
            Addresses { features: 0x1002, ..ADDRESSES },
            Addresses { row_stride: 769, ..ADDRESSES },
            Addresses { d_max: 0x3004, ..ADDRESSES },
            Addresses { d_mean: 0x3008, ..ADDRESSES },
            Addresses { d_features: Gradient::Add(0x4002), ..ADDRESSES },
        ] {
            let grid = [100_000 + 700_000 / 256, 6, 1];
            assert_eq!(work(CALL, unaligned)[0], ("mivc_max_mean_backward_bf16", grid), "{unaligned:?}");
        }
        // Features that are not read may lie anywhere.
        let mean = Addresses { features: 0, row_stride: 769, d_max: 0, d_mean: 0x3000, ..ADDRESSES };
        assert_eq!(work(CALL, mean)[0].0, "mivc_max_mean_backward_bf16_vector");
    }

    #[test]
    fn what_does_not_fit() {
        let argument = |error: Error| error.to_string().split(':').next().unwrap().to_owned();
        let plan = |shape| argument(MaxMeanBackward::plan(shape, CALL).unwrap_err());
        assert_eq!(plan(Shape { dim: 0, ..SHAPE }), "dim");
        assert_eq!(plan(Shape { dim: usize::MAX, ..SHAPE }), "dim");
        assert_eq!(plan(Shape { upstream: Dtype::F16, ..SHAPE }), "upstream");
        assert_eq!(plan(Shape { gradients: Dtype::F16, ..SHAPE }), "gradients");
        let steps =
            |call, addresses| argument(MaxMeanBackward::plan(SHAPE, CALL).unwrap().steps(call, addresses).unwrap_err());
        assert_eq!(steps(Capacity { bags: 100_001, ..CALL }, ADDRESSES), "bags");
        assert_eq!(steps(CALL, Addresses { d_max: 0, ..ADDRESSES }), "upstream");
    }
}
