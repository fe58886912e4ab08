//! Max and mean pooling, both in one read of the features.

use super::abi::{self, MivcMaxMean};
use super::scratch::{Layout, Part};
use super::work_list::{Capacity, Offsets, WorkList, too_large};
use super::{
    Launch, Parameters, Step, are_aligned, expect_f32_or, expect_no_exact, expect_tiles, vector_elements,
    wrapping_bytes,
};
use crate::element::Dtype;
use crate::error::{Error, Result};

/// What does not change from call to call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    /// D.
    pub dim: usize,
    /// Of the features.
    pub features: Dtype,
    /// Of max and mean: f32, or as the features.
    pub outputs: Dtype,
    /// Whether argmax is asked for.
    pub argmax: bool,
}

/// Where a call finds its arguments: device addresses, 0 where one is left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Addresses {
    /// `[N, D]`, rows [`row_stride`](Self::row_stride) elements apart.
    pub features: u64,
    /// Elements from row to row.
    pub row_stride: usize,
    /// `[B + 1]`, any values.
    pub offsets: Offsets,
    /// u8 `[N]`, 0 = not there.
    pub mask: u64,
    /// `[B, D]`.
    pub max: u64,
    /// `[B, D]`.
    pub mean: u64,
    /// i64 `[B, D]`.
    pub argmax: u64,
    /// i64, as [`ExactSums`](super::exact::state::ExactSums) of one head has it: what the mean is made of, in
    /// [`Order::Exact`](crate::Order::Exact) alone.
    pub exact: u64,
    /// [`MaxMean::scratch_bytes`], at a multiple of [`SCRATCH_ALIGN`](super::SCRATCH_ALIGN).
    pub scratch: u64,
}

/// Max and mean pooling of certain shapes.
#[derive(Debug, Clone, Copy)]
pub struct MaxMean {
    shape: Shape,
    list: WorkList,
    partial_max: Part,
    partial_sum: Part,
    partial_argmax: Part,
    partial_count: Part,
    scratch_bytes: usize,
}

impl MaxMean {
    /// Fixes the layout of the scratch memory.
    ///
    /// # Errors
    /// [`Error::Argument`] where `outputs` is neither f32 nor the type of the features, or a size is beyond what a
    /// launch can have.
    pub fn plan(shape: Shape, capacity: Capacity) -> Result<Self> {
        expect_f32_or(shape.features, "outputs", shape.outputs)?;
        let tiles = expect_tiles(shape.dim, columns(1))?;
        let mut layout = Layout::default();
        let list = WorkList::plan(capacity, tiles, &mut layout)?;
        let place = |layout: &mut Layout| {
            let partials = list.nodes().checked_mul(shape.dim)?;
            Some([
                layout.part(partials, size_of::<f32>())?,
                layout.part(partials, size_of::<f32>())?,
                layout.part(if shape.argmax { partials } else { 0 }, size_of::<i64>())?,
                layout.part(list.nodes().checked_mul(tiles)?, size_of::<i64>())?,
            ])
        };
        let parts = place(&mut layout).ok_or_else(|| too_large(capacity))?;
        let [partial_max, partial_sum, partial_argmax, partial_count] = parts;
        let scratch_bytes = layout.bytes();
        Ok(MaxMean { shape, list, partial_max, partial_sum, partial_argmax, partial_count, scratch_bytes })
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
    /// [`Error::Argument`] where the call is larger than the plan, no output is asked for, or exact sums are.
    pub fn steps(&self, call: Capacity, addresses: Addresses) -> Result<Option<[Step; 3]>> {
        self.list.expect(call)?;
        expect_no_exact(addresses.exact)?;
        let outputs = [addresses.max, addresses.mean, addresses.argmax];
        if outputs == [0; 3] {
            return Err(Error::argument("outputs", "max, mean or argmax", "none of them"));
        }
        if (addresses.argmax != 0) != self.shape.argmax {
            let expected = if self.shape.argmax { "given, as planned" } else { "left out, as planned" };
            return Err(Error::argument("argmax", expected, format!("{:#x}", addresses.argmax)));
        }
        if call.bags == 0 {
            return Ok(None);
        }
        let elements = if self.is_aligned(addresses) { vector_elements(self.shape.features) } else { 1 };
        let tiles = self.shape.dim.div_ceil(columns(elements));
        let list = self.list.parameters(call.bags, tiles, addresses.scratch);
        let parameters = MivcMaxMean {
            list,
            features: addresses.features,
            mask: addresses.mask,
            max: addresses.max,
            mean: addresses.mean,
            argmax: addresses.argmax,
            partial_max: self.partial_max.at(addresses.scratch),
            partial_sum: self.partial_sum.at(addresses.scratch),
            partial_argmax: self.partial_argmax.at(addresses.scratch),
            partial_count: self.partial_count.at(addresses.scratch),
            dim: self.shape.dim as i64,
            row_stride: addresses.row_stride as i64,
            outputs_are_f32: u32::from(self.shape.outputs == Dtype::F32),
            unused: 0,
        };
        let [clear, prepare] = self.list.steps(list, call, addresses.offsets);
        let work = Step::Launch(Launch {
            image: "max_mean",
            kernel: kernel(self.shape.features, self.shape.argmax, elements > 1),
            grid: [WorkList::teams(call), tiles as u32, 1],
            block: [abi::MIVC_MAX_MEAN_THREADS, 1, 1],
            shared_bytes: 0,
            tensor_maps: None,
            parameters: Parameters::MaxMean(parameters),
        });
        Ok(Some([clear, prepare, work]))
    }

    /// Whether rows and outputs can be taken 16 bytes at a time.
    fn is_aligned(&self, addresses: Addresses) -> bool {
        let row_bytes = wrapping_bytes(addresses.row_stride, self.shape.features);
        self.shape.dim.is_multiple_of(vector_elements(self.shape.features))
            && are_aligned(&[addresses.features, row_bytes, addresses.max, addresses.mean, addresses.argmax])
    }
}

/// Columns of a block whose threads take `elements` each.
fn columns(elements: usize) -> usize {
    abi::MIVC_MAX_MEAN_THREADS as usize * elements
}

fn kernel(features: Dtype, argmax: bool, vector: bool) -> &'static str {
    match (features, argmax, vector) {
        (Dtype::F32, false, false) => "mivc_max_mean_f32",
        (Dtype::F32, false, true) => "mivc_max_mean_f32_vector",
        (Dtype::F32, true, false) => "mivc_max_mean_argmax_f32",
        (Dtype::F32, true, true) => "mivc_max_mean_argmax_f32_vector",
        (Dtype::F16, false, false) => "mivc_max_mean_f16",
        (Dtype::F16, false, true) => "mivc_max_mean_f16_vector",
        (Dtype::F16, true, false) => "mivc_max_mean_argmax_f16",
        (Dtype::F16, true, true) => "mivc_max_mean_argmax_f16_vector",
        (Dtype::Bf16, false, false) => "mivc_max_mean_bf16",
        (Dtype::Bf16, false, true) => "mivc_max_mean_bf16_vector",
        (Dtype::Bf16, true, false) => "mivc_max_mean_argmax_bf16",
        (Dtype::Bf16, true, true) => "mivc_max_mean_argmax_bf16_vector",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHAPE: Shape = Shape { dim: 768, features: Dtype::Bf16, outputs: Dtype::F32, argmax: false };
    const CALL: Capacity = Capacity { instances: 700_000, bags: 100_000 };
    const ADDRESSES: Addresses = Addresses {
        features: 0x1000,
        row_stride: 768,
        offsets: Offsets::I64(0x2000),
        mask: 0,
        max: 0x3000,
        mean: 0,
        argmax: 0,
        exact: 0,
        scratch: 0x10000,
    };

    fn launches(shape: Shape, addresses: Addresses) -> [Launch; 2] {
        let steps = MaxMean::plan(shape, CALL).unwrap().steps(CALL, addresses).unwrap().unwrap();
        let [Step::Clear { bytes: 16, .. }, Step::Launch(prepare), Step::Launch(work)] = steps else {
            panic!("{steps:?}");
        };
        [prepare, work]
    }

    #[test]
    fn every_bag_has_a_block_and_every_further_chunk_another() {
        let [prepare, work] = launches(SHAPE, ADDRESSES);
        assert_eq!((prepare.kernel, prepare.grid, prepare.block), ("mivc_prepare", [7, 1, 1], [256, 1, 1]));
        assert_eq!(work.grid, [100_000 + 700_000 / 256, 1, 1]);
        assert_eq!(work.block, [128, 1, 1]);
    }

    #[test]
    fn vectors_where_everything_is_aligned() {
        let kernel = |shape, addresses| launches(shape, addresses)[1].kernel;
        assert_eq!(kernel(SHAPE, ADDRESSES), "mivc_max_mean_bf16_vector");
        for unaligned in [
            Addresses { features: 0x1002, ..ADDRESSES },
            Addresses { row_stride: 769, ..ADDRESSES },
            Addresses { max: 0x3004, ..ADDRESSES },
            Addresses { mean: 0x3008, ..ADDRESSES },
        ] {
            assert_eq!(kernel(SHAPE, unaligned), "mivc_max_mean_bf16", "{unaligned:?}");
        }
        let tail = Shape { dim: 764, ..SHAPE };
        assert_eq!(kernel(tail, ADDRESSES), "mivc_max_mean_bf16");
        let argmax = Shape { argmax: true, features: Dtype::F32, ..SHAPE };
        assert_eq!(kernel(argmax, Addresses { argmax: 0x4000, ..ADDRESSES }), "mivc_max_mean_argmax_f32_vector");
        // Eight columns a thread take one block for 768 columns, one column a thread six.
        assert_eq!(launches(SHAPE, Addresses { max: 0x3004, ..ADDRESSES })[1].grid[1], 6);
    }

    #[test]
    fn scratch_depends_on_the_capacity_alone() {
        let plan = MaxMean::plan(SHAPE, CALL).unwrap();
        assert!(plan.scratch_bytes() > 8 * CALL.bags);
        let with_argmax = MaxMean::plan(Shape { argmax: true, ..SHAPE }, CALL).unwrap();
        assert!(with_argmax.scratch_bytes() > plan.scratch_bytes());
        let none = Capacity { instances: 0, bags: 0 };
        assert!(plan.steps(none, ADDRESSES).unwrap().is_none());
    }

    #[test]
    fn what_does_not_fit() {
        let argument = |error: Error| error.to_string().split(':').next().unwrap().to_owned();
        let plan = |shape| argument(MaxMean::plan(shape, CALL).unwrap_err());
        assert_eq!(plan(Shape { dim: 0, ..SHAPE }), "dim");
        assert_eq!(plan(Shape { dim: usize::MAX, ..SHAPE }), "dim");
        assert_eq!(plan(Shape { outputs: Dtype::F16, ..SHAPE }), "outputs");
        let steps = |call, addresses| argument(MaxMean::plan(SHAPE, CALL).unwrap().steps(call, addresses).unwrap_err());
        assert_eq!(steps(Capacity { bags: 100_001, ..CALL }, ADDRESSES), "bags");
        assert_eq!(steps(Capacity { instances: 700_001, ..CALL }, ADDRESSES), "instances");
        assert_eq!(steps(CALL, Addresses { max: 0, ..ADDRESSES }), "outputs");
        assert_eq!(steps(CALL, Addresses { argmax: 0x4000, ..ADDRESSES }), "argmax");
    }
}
