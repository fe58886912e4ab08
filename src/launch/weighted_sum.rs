//! Weighted sum of the values of each bag.

use super::abi::{self, MivcWeightedSum, MivcWorkList};
use super::scratch::{Layout, Part};
use super::work_list::{Capacity, Offsets, WorkList, too_large};
use super::{
    Launch, MAX_GRID_Y, Parameters, Step, are_aligned, expect_f32_or, expect_tiles, vector_elements, wrapping_bytes,
};
use crate::element::Dtype;
use crate::error::{Error, Result};

/// What does not change from call to call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    /// D, of a head.
    pub dim: usize,
    /// K.
    pub heads: usize,
    /// Whether each head has values of its own: `[N, K, D]` rather than `[N, D]`.
    pub per_head: bool,
    /// Of the values.
    pub values: Dtype,
    /// Of what is pooled: f32, or as the values.
    pub outputs: Dtype,
}

/// Where a call finds its arguments: device addresses, 0 where one is left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Addresses {
    /// f32 `[N, K]`.
    pub weights: u64,
    /// `[N, D]` or `[N, K, D]`, rows [`row_stride`](Self::row_stride) elements apart.
    pub values: u64,
    /// Elements from row to row.
    pub row_stride: usize,
    /// `[B + 1]`, any values.
    pub offsets: Offsets,
    /// u8 `[N]`, 0 = not there.
    pub mask: u64,
    /// `[B, K, D]`.
    pub pooled: u64,
    /// [`WeightedSum::scratch_bytes`], at a multiple of [`SCRATCH_ALIGN`](super::SCRATCH_ALIGN).
    pub scratch: u64,
}

/// Weighted sums of certain shapes.
#[derive(Debug, Clone, Copy)]
pub struct WeightedSum {
    list: WorkList,
    sums: Sums,
    scratch_bytes: usize,
}

impl WeightedSum {
    /// Fixes the layout of the scratch memory.
    ///
    /// # Errors
    /// [`Error::Argument`] where `outputs` is neither f32 nor the type of the values, or a size is 0 or beyond what a
    /// launch can have.
    pub fn plan(shape: Shape, capacity: Capacity) -> Result<Self> {
        let tiles = Sums::most_tiles(shape)?;
        let mut layout = Layout::default();
        let list = WorkList::plan(capacity, tiles, &mut layout)?;
        let sums = Sums::place(shape, capacity, &list, &mut layout)?;
        Ok(WeightedSum { list, sums, scratch_bytes: layout.bytes() })
    }

    /// What was planned for.
    pub fn shape(&self) -> Shape {
        self.sums.shape
    }

    /// Bytes of scratch memory that every call needs, whatever its size.
    pub fn scratch_bytes(&self) -> usize {
        self.scratch_bytes
    }

    /// What a call on `call` instances and bags does, in order; nothing where there is no bag.
    ///
    /// # Errors
    /// [`Error::Argument`] where the call is larger than the plan.
    pub fn steps(&self, call: Capacity, addresses: Addresses) -> Result<Option<[Step; 3]>> {
        self.list.expect(call)?;
        if call.bags == 0 {
            return Ok(None);
        }
        let Addresses { weights, values, row_stride, offsets, mask, pooled, scratch } = addresses;
        let values = Values { address: values, row_stride };
        let tiling = self.sums.tiling(&values, pooled);
        let list = self.list.parameters(call.bags, tiling.tiles(), scratch);
        let [clear, prepare] = self.list.steps(list, call, offsets);
        let source = Source { weights, scores: 0, max: 0, sum: 0, mask };
        Ok(Some([clear, prepare, self.sums.step(list, call, tiling, source, values, pooled, scratch)]))
    }
}

/// Where the weights come from: as they are, or from scores, with m and l of each bag.
pub(super) struct Source {
    /// Written where they come from scores, and are wanted.
    pub(super) weights: u64,
    pub(super) scores: u64,
    pub(super) max: u64,
    pub(super) sum: u64,
    pub(super) mask: u64,
}

pub(super) struct Values {
    pub(super) address: u64,
    pub(super) row_stride: usize,
}

/// How the blocks of a call share a chunk: across its columns, and down its heads.
#[derive(Debug, Clone, Copy)]
pub(super) struct Tiling {
    is_vector: bool,
    across: usize,
    down: usize,
}

impl Tiling {
    pub(super) fn tiles(&self) -> usize {
        self.across * self.down
    }
}

/// Sums of the chunks of long bags, in scratch memory.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sums {
    shape: Shape,
    partial_sums: Part,
}

impl Sums {
    /// Blocks that share a chunk at most: they take fewest columns where a thread takes one.
    pub(super) fn most_tiles(shape: Shape) -> Result<usize> {
        expect_f32_or(shape.values, "outputs", shape.outputs)?;
        let (across, down) = (expect_tiles(shape.dim, columns(1))?, shape.heads.div_ceil(heads_at_once(shape)));
        if shape.heads == 0 || down > MAX_GRID_Y {
            let most = MAX_GRID_Y * heads_at_once(shape);
            return Err(Error::argument("heads", format!("1 to {most}"), shape.heads));
        }
        Ok(across * down)
    }

    pub(super) fn place(shape: Shape, capacity: Capacity, list: &WorkList, layout: &mut Layout) -> Result<Self> {
        let elements = list.nodes().checked_mul(shape.heads).and_then(|rows| rows.checked_mul(shape.dim));
        let partial_sums = elements.and_then(|elements| layout.part(elements, size_of::<f32>()));
        Ok(Sums { shape, partial_sums: partial_sums.ok_or_else(|| too_large(capacity))? })
    }

    pub(super) fn tiling(&self, values: &Values, pooled: u64) -> Tiling {
        let Shape { dim, heads, values: dtype, .. } = self.shape;
        let vector = vector_elements(dtype);
        let row_bytes = wrapping_bytes(values.row_stride, dtype);
        let is_vector = dim.is_multiple_of(vector) && are_aligned(&[values.address, row_bytes, pooled]);
        let across = dim.div_ceil(columns(if is_vector { vector } else { 1 }));
        Tiling { is_vector, across, down: heads.div_ceil(heads_at_once(self.shape)) }
    }

    #[expect(clippy::too_many_arguments, reason = "what a call consists of")]
    pub(super) fn step(
        &self,
        list: MivcWorkList,
        call: Capacity,
        tiling: Tiling,
        source: Source,
        values: Values,
        pooled: u64,
        scratch: u64,
    ) -> Step {
        let Shape { dim, heads, per_head, values: dtype, outputs } = self.shape;
        Step::Launch(Launch {
            image: "weighted_sum",
            kernel: kernel(dtype, heads_at_once(self.shape) > 1, tiling.is_vector),
            grid: [WorkList::teams(call), tiling.across as u32, tiling.down as u32],
            block: [abi::MIVC_THREADS, 1, 1],
            shared_bytes: 0,
            tensor_maps: None,
            parameters: Parameters::WeightedSum(MivcWeightedSum {
                list,
                weights: source.weights,
                scores: source.scores,
                max: source.max,
                sum: source.sum,
                mask: source.mask,
                values: values.address,
                pooled,
                partial_sums: self.partial_sums.at(scratch),
                dim: dim as i64,
                row_stride: values.row_stride as i64,
                head_stride: if per_head { dim as i64 } else { 0 },
                heads: heads as i64,
                outputs_are_f32: u32::from(outputs == Dtype::F32),
                unused: 0,
            }),
        })
    }
}

/// Columns of a block whose threads take `elements` each.
fn columns(elements: usize) -> usize {
    abi::MIVC_THREADS as usize * elements
}

/// Heads of a block: several where they share what is read.
fn heads_at_once(shape: Shape) -> usize {
    heads_that_share(shape.heads, shape.per_head)
}

/// Heads whose values a block reads at once.
pub(super) fn heads_that_share(heads: usize, per_head: bool) -> usize {
    if per_head || heads == 1 { 1 } else { abi::MIVC_WEIGHTED_SUM_HEADS as usize }
}

fn kernel(values: Dtype, several_heads: bool, is_vector: bool) -> &'static str {
    match (values, several_heads, is_vector) {
        (Dtype::F32, false, false) => "mivc_weighted_sum_f32",
        (Dtype::F32, false, true) => "mivc_weighted_sum_f32_vector",
        (Dtype::F32, true, false) => "mivc_weighted_sum_heads_f32",
        (Dtype::F32, true, true) => "mivc_weighted_sum_heads_f32_vector",
        (Dtype::F16, false, false) => "mivc_weighted_sum_f16",
        (Dtype::F16, false, true) => "mivc_weighted_sum_f16_vector",
        (Dtype::F16, true, false) => "mivc_weighted_sum_heads_f16",
        (Dtype::F16, true, true) => "mivc_weighted_sum_heads_f16_vector",
        (Dtype::Bf16, false, false) => "mivc_weighted_sum_bf16",
        (Dtype::Bf16, false, true) => "mivc_weighted_sum_bf16_vector",
        (Dtype::Bf16, true, false) => "mivc_weighted_sum_heads_bf16",
        (Dtype::Bf16, true, true) => "mivc_weighted_sum_heads_bf16_vector",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHAPE: Shape = Shape { dim: 768, heads: 1, per_head: false, values: Dtype::Bf16, outputs: Dtype::F32 };
    const CALL: Capacity = Capacity { instances: 1000, bags: 10 };
    const ADDRESSES: Addresses = Addresses {
        weights: 0x1000,
        values: 0x2000,
        row_stride: 768,
        offsets: Offsets::I64(0x3000),
        mask: 0,
        pooled: 0x4000,
        scratch: 0x10000,
    };

    fn work(shape: Shape, addresses: Addresses) -> Launch {
        let steps = WeightedSum::plan(shape, CALL).unwrap().steps(CALL, addresses).unwrap().unwrap();
        let [Step::Clear { .. }, Step::Launch(_), Step::Launch(work)] = steps else { panic!("{steps:?}") };
        work
    }

    #[test]
    fn heads_that_share_their_values_are_summed_together() {
        let several = work(Shape { heads: 20, ..SHAPE }, ADDRESSES);
        assert_eq!((several.kernel, several.grid), ("mivc_weighted_sum_heads_bf16_vector", [13, 1, 3]));
        let per_head = Shape { heads: 20, per_head: true, ..SHAPE };
        let apart = work(per_head, Addresses { row_stride: 20 * 768, ..ADDRESSES });
        assert_eq!((apart.kernel, apart.grid), ("mivc_weighted_sum_bf16_vector", [13, 1, 20]));
    }

    #[test]
    fn vectors_where_everything_is_aligned() {
        assert_eq!(work(SHAPE, ADDRESSES).kernel, "mivc_weighted_sum_bf16_vector");
        for unaligned in [
            Addresses { values: 0x2002, ..ADDRESSES },
            Addresses { row_stride: 769, ..ADDRESSES },
            Addresses { pooled: 0x4004, ..ADDRESSES },
        ] {
            let work = work(SHAPE, unaligned);
            assert_eq!((work.kernel, work.grid), ("mivc_weighted_sum_bf16", [13, 6, 1]), "{unaligned:?}");
        }
    }

    #[test]
    fn what_does_not_fit() {
        let argument = |shape| {
            let error = WeightedSum::plan(shape, CALL).unwrap_err().to_string();
            error.split(':').next().unwrap().to_owned()
        };
        assert_eq!(argument(Shape { dim: 0, ..SHAPE }), "dim");
        assert_eq!(argument(Shape { heads: 0, ..SHAPE }), "heads");
        assert_eq!(argument(Shape { heads: usize::MAX, ..SHAPE }), "heads");
        assert_eq!(argument(Shape { outputs: Dtype::F16, ..SHAPE }), "outputs");
        let larger = Capacity { bags: 11, ..CALL };
        assert!(WeightedSum::plan(SHAPE, CALL).unwrap().steps(larger, ADDRESSES).is_err());
    }
}
