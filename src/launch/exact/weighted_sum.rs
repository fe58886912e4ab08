//! Weighted sum, and mean, in integers.

use crate::element::Dtype;
use crate::error::{Error, Result};
use crate::launch::abi::{self, MivcExactSumNode, MivcExactWeightedSum, MivcWorkList};
use crate::launch::scratch::{Layout, Part};
use crate::launch::weighted_sum::{Addresses, Shape, Values};
use crate::launch::work_list::{Capacity, WorkList, too_large};
use crate::launch::{
    Launch, MAX_GRID_Y, Parameters, Step, are_aligned, expect_f32_or, expect_tiles, vector_elements, wrapping_bytes,
};

/// Weighted sums of certain shapes.
#[derive(Debug, Clone, Copy)]
pub struct WeightedSum {
    list: WorkList,
    sums: Sums,
    scratch_bytes: usize,
}

impl WeightedSum {
    /// As [`weighted_sum::WeightedSum::plan`](crate::launch::weighted_sum::WeightedSum::plan).
    ///
    /// # Errors
    /// As there.
    pub fn plan(shape: Shape, capacity: Capacity) -> Result<Self> {
        let mut layout = Layout::default();
        let list = Sums::plan_list(shape, capacity, &mut layout)?;
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

    /// As [`weighted_sum::WeightedSum::steps`](crate::launch::weighted_sum::WeightedSum::steps).
    ///
    /// # Errors
    /// As there.
    pub fn steps(&self, call: Capacity, addresses: Addresses) -> Result<Option<[Step; 3]>> {
        self.list.expect(call)?;
        if call.bags == 0 {
            return Ok(None);
        }
        let Addresses { weights, values, row_stride, offsets, mask, pooled, scratch } = addresses;
        let list = self.list.parameters(call.bags, self.sums.tiles(), scratch);
        let [clear, prepare] = self.list.steps(list, call, offsets);
        let (source, values) = (Source::Weights { weights, mask }, Values { address: values, row_stride });
        let results = Results { pooled, masses: 0, sums: 0 };
        Ok(Some([clear, prepare, self.sums.step((&self.list, list), call, source, values, results, scratch)]))
    }
}

/// What rows are multiplied with.
#[derive(Clone, Copy)]
pub(super) enum Source {
    Weights {
        weights: u64,
        mask: u64,
    },
    /// Scores of which masked instances have −∞, and what their exponentials add up to.
    Scores {
        scores: u64,
        totals: u64,
        /// Written where they are wanted.
        weights: u64,
    },
    Mean {
        mask: u64,
    },
}

/// Where results go: 0 where one is left out.
#[derive(Clone, Copy)]
pub(super) struct Results {
    pub(super) pooled: u64,
    /// Of a mean.
    pub(super) masses: u64,
    pub(super) sums: u64,
}

/// Sums of the chunks of long bags, in scratch memory.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sums {
    shape: Shape,
    partials: Part,
}

impl Sums {
    /// Lays out the list of chunks that blocks take.
    pub(super) fn plan_list(shape: Shape, capacity: Capacity, layout: &mut Layout) -> Result<WorkList> {
        expect_f32_or(shape.values, "outputs", shape.outputs)?;
        let groups = expect_tiles(shape.dim, abi::MIVC_EXACT_COLUMNS as usize)?;
        if shape.heads == 0 || shape.heads > MAX_GRID_Y {
            return Err(Error::argument("heads", format!("1 to {MAX_GRID_Y}"), shape.heads));
        }
        WorkList::plan_chunks(capacity, abi::MIVC_EXACT_CHUNK_ROWS as usize, groups * shape.heads, layout)
    }

    pub(super) fn place(shape: Shape, capacity: Capacity, list: &WorkList, layout: &mut Layout) -> Result<Self> {
        let of_head = list.nodes().checked_mul(shape.heads);
        let nodes = of_head.and_then(|nodes| nodes.checked_mul(groups(shape.dim)));
        let partials = nodes.and_then(|nodes| layout.part(nodes, size_of::<MivcExactSumNode>()));
        Ok(Sums { shape, partials: partials.ok_or_else(|| too_large(capacity))? })
    }

    /// Blocks that share a chunk.
    pub(super) fn tiles(&self) -> usize {
        groups(self.shape.dim) * self.shape.heads
    }

    pub(super) fn step(
        &self,
        (planned, list): (&WorkList, MivcWorkList),
        call: Capacity,
        source: Source,
        values: Values,
        results: Results,
        scratch: u64,
    ) -> Step {
        let Shape { dim, heads, per_head, values: dtype, outputs } = self.shape;
        let (weights, scores, totals, mask) = match source {
            Source::Weights { weights, mask } => (weights, 0, 0, mask),
            Source::Scores { scores, totals, weights } => (weights, scores, totals, 0),
            Source::Mean { mask } => (0, 0, 0, mask),
        };
        let row_bytes = wrapping_bytes(values.row_stride, dtype);
        let is_aligned = dim.is_multiple_of(vector_elements(dtype)) && are_aligned(&[values.address, row_bytes]);
        Step::Launch(Launch {
            image: "weighted_sum_exact",
            kernel: match dtype {
                Dtype::F32 => "mivc_exact_weighted_sum_f32",
                Dtype::F16 => "mivc_exact_weighted_sum_f16",
                Dtype::Bf16 => "mivc_exact_weighted_sum_bf16",
            },
            grid: [planned.most_items(call) as u32, groups(dim) as u32, heads as u32],
            block: [abi::MIVC_EXACT_THREADS, 1, 1],
            shared_bytes: abi::MIVC_EXACT_SHARED_BYTES,
            tensor_maps: None,
            parameters: Parameters::ExactWeightedSum(MivcExactWeightedSum {
                list,
                weights,
                scores,
                totals,
                mask,
                values: values.address,
                pooled: results.pooled,
                masses: results.masses,
                sums: results.sums,
                partials: self.partials.at(scratch),
                dim: dim as i64,
                row_stride: values.row_stride as i64,
                head_stride: if per_head { dim as i64 } else { 0 },
                heads: heads as i64,
                outputs_are_f32: u32::from(outputs == Dtype::F32),
                is_mean: u32::from(matches!(source, Source::Mean { .. })),
                is_aligned: u32::from(is_aligned),
                unused: 0,
            }),
        })
    }
}

fn groups(dim: usize) -> usize {
    dim.div_ceil(abi::MIVC_EXACT_COLUMNS as usize)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::launch::hardware::Hardware;
    use crate::launch::work_list::Offsets;

    const SHAPE: Shape = Shape { dim: 768, heads: 2, per_head: false, values: Dtype::Bf16, outputs: Dtype::F32 };
    const CALL: Capacity = Capacity { instances: 5000, bags: 10 };
    const ADDRESSES: Addresses = Addresses {
        weights: 0x1000,
        values: 0x2000,
        row_stride: 768,
        offsets: Offsets::I64(0x3000),
        mask: 0,
        pooled: 0x4000,
        scratch: 0x10000,
    };

    fn work(shape: Shape, addresses: Addresses) -> (Launch, MivcExactWeightedSum) {
        let steps = WeightedSum::plan(shape, CALL).unwrap().steps(CALL, addresses).unwrap().unwrap();
        let launch = *steps[2].as_launch().unwrap();
        let Parameters::ExactWeightedSum(parameters) = launch.parameters else { panic!() };
        (launch, parameters)
    }

    #[test]
    fn a_block_for_each_chunk_group_of_columns_and_head() {
        let (launch, parameters) = work(SHAPE, ADDRESSES);
        assert_eq!((launch.kernel, launch.grid), ("mivc_exact_weighted_sum_bf16", [10 + 5000 / 1024, 3, 2]));
        assert_eq!((parameters.list.tiles, parameters.list.chunk_rows), (6, 1024));
        let smallest = Hardware { shared_bytes: 99 << 10, ..Hardware::A100 };
        assert!(launch.shared_bytes as usize <= smallest.dynamic_shared_bytes());
    }

    #[test]
    fn sixteen_bytes_at_a_time_where_all_rows_allow() {
        let aligned = |shape, addresses| work(shape, addresses).1.is_aligned == 1;
        assert!(aligned(SHAPE, ADDRESSES) && aligned(SHAPE, Addresses { row_stride: 776, ..ADDRESSES }));
        assert!(!aligned(SHAPE, Addresses { row_stride: 769, ..ADDRESSES }));
        assert!(!aligned(SHAPE, Addresses { values: 0x2002, ..ADDRESSES }));
        assert!(!aligned(Shape { dim: 764, ..SHAPE }, ADDRESSES));
    }

    #[test]
    fn what_does_not_fit() {
        let says = |shape, start: &str| {
            let error = WeightedSum::plan(shape, CALL).unwrap_err().to_string();
            assert!(error.starts_with(start), "{error}");
        };
        says(Shape { outputs: Dtype::F16, ..SHAPE }, "outputs: ");
        says(Shape { heads: 0, ..SHAPE }, "heads: ");
        says(Shape { dim: 0, ..SHAPE }, "dim: ");
        let plan = WeightedSum::plan(SHAPE, CALL).unwrap();
        assert!(plan.steps(Capacity { bags: 11, ..CALL }, ADDRESSES).is_err());
        assert!(plan.steps(Capacity { bags: 0, ..CALL }, ADDRESSES).unwrap().is_none());
    }
}
