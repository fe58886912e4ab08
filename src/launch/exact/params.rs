//! Instances in an order of their own content, in which gradients of parameters are summed as they always are.

use super::super::abi::{self, MivcExactEntry, MivcExactGather, MivcExactOrder, MivcSlice};
use super::super::pack::Pack;
use super::super::scratch::{Layout, Part};
use super::super::{Launch, Parameters, Step};
use crate::attention::AttentionShape;
use crate::element::Dtype;

/// Rows that a block puts in order.
const RUN_ROWS: usize = abi::MIVC_EXACT_RUN_ROWS as usize;

/// What the backward of the scores reads of instances, and where they are in bags or masked: device addresses, 0 where one
/// is left out.
#[derive(Debug, Clone, Copy)]
pub(in crate::launch) struct Instances {
    pub(in crate::launch) slice: MivcSlice,
    pub(in crate::launch) d_scores: u64,
    pub(in crate::launch) features: u64,
    pub(in crate::launch) row_stride: usize,
    pub(in crate::launch) activations: u64,
}

/// The order, and a slice of what the backward of the scores reads in it, in scratch memory.
#[derive(Debug, Clone, Copy)]
pub(in crate::launch) struct Sorted {
    pack: Pack,
    /// Of all instances; each pass reads one and writes the other.
    entries: [Part; 2],
    mask: Part,
    d_scores: Part,
    features: Part,
    activations: Part,
}

impl Sorted {
    /// For calls of at most so many instances, in slices of so many rows.
    pub(in crate::launch) fn place(
        pack: Pack,
        instances: usize,
        slice_rows: usize,
        layout: &mut Layout,
    ) -> Option<Self> {
        let AttentionShape { dim, heads, .. } = pack.shape().attention;
        let element = pack.shape().features.size();
        let mut entries = || layout.part(instances, size_of::<MivcExactEntry>());
        Some(Sorted {
            pack,
            entries: [entries()?, entries()?],
            mask: layout.part(slice_rows, 1)?,
            d_scores: layout.part(slice_rows.checked_mul(heads)?, size_of::<f32>())?,
            features: layout.part(slice_rows.checked_mul(dim)?, element)?,
            activations: layout.part(slice_rows.checked_mul(pack.activations())?, element)?,
        })
    }

    /// Puts all instances in order.
    pub(in crate::launch) fn order_steps(&self, all: Instances, scratch: u64) -> Vec<Step> {
        let instances = all.slice.rows as usize;
        let parameters = |from: u64, to: Part, run_rows: usize| MivcExactOrder {
            slice: all.slice,
            d_scores: all.d_scores,
            features: all.features,
            from,
            to: to.at(scratch),
            heads: self.attention().heads as i64,
            dim: self.attention().dim as i64,
            row_stride: all.row_stride as i64,
            run_rows: run_rows as i64,
        };
        let [order, merge, _] = self.kernels();
        let blocks = instances.div_ceil(RUN_ROWS);
        let step = |kernel, order| step(kernel, blocks, abi::MIVC_EXACT_RUN_ROWS, Parameters::ExactOrder(order));
        let mut steps = Vec::new();
        if instances > 0 {
            steps.push(step(order, parameters(0, self.entries[0], 0)));
        }
        for pass in 0..merges(instances) {
            let (from, to) = (self.entries[pass % 2], self.entries[(pass + 1) % 2]);
            steps.push(step(merge, parameters(from.at(scratch), to, RUN_ROWS << pass)));
        }
        steps
    }

    /// Copies those of `rows` rows in order from the `first` on, and says where they then are.
    pub(in crate::launch) fn gather(
        &self,
        all: Instances,
        (first, rows): (usize, usize),
        scratch: u64,
    ) -> (Step, Instances) {
        let order = self.entries[merges(all.slice.rows as usize) % 2].at(scratch);
        let gather = MivcExactGather {
            entries: order + (first * size_of::<MivcExactEntry>()) as u64,
            d_scores: all.d_scores,
            features: all.features,
            activations: all.activations,
            to_mask: self.mask.at(scratch),
            to_d_scores: self.d_scores.at(scratch),
            to_features: self.features.at(scratch),
            to_activations: self.activations.at(scratch),
            heads: self.attention().heads as i64,
            dim: self.attention().dim as i64,
            row_stride: all.row_stride as i64,
            activation_count: self.pack.activations() as i64,
        };
        let gathered = Instances {
            slice: MivcSlice { mask: gather.to_mask, ranges: 0, bags: 0, first: 0, rows: rows as i64, flows: 0 },
            d_scores: gather.to_d_scores,
            features: gather.to_features,
            row_stride: self.attention().dim,
            activations: if all.activations == 0 { 0 } else { gather.to_activations },
        };
        let [_, _, kernel] = self.kernels();
        (step(kernel, rows, abi::MIVC_THREADS, Parameters::ExactGather(gather)), gathered)
    }

    fn attention(&self) -> AttentionShape {
        self.pack.shape().attention
    }

    fn kernels(&self) -> [&'static str; 3] {
        match self.pack.shape().features {
            Dtype::F32 => ["mivc_exact_order_b32", "mivc_exact_merge_b32", "mivc_exact_gather_b32"],
            Dtype::F16 | Dtype::Bf16 => ["mivc_exact_order_b16", "mivc_exact_merge_b16", "mivc_exact_gather_b16"],
        }
    }
}

/// Passes that merge runs until there is one.
fn merges(instances: usize) -> usize {
    instances.div_ceil(RUN_ROWS).max(1).next_power_of_two().ilog2() as usize
}

fn step(kernel: &'static str, blocks: usize, threads: u32, parameters: Parameters) -> Step {
    Step::Launch(Launch {
        image: "params_exact",
        kernel,
        grid: [blocks as u32, 1, 1],
        block: [threads, 1, 1],
        shared_bytes: 0,
        tensor_maps: None,
        parameters,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_many_passes_as_runs_must_double() {
        for (instances, passes) in [(0, 0), (1, 0), (256, 0), (257, 1), (512, 1), (513, 2), (20_000, 7)] {
            assert_eq!(merges(instances), passes, "{instances}");
        }
    }
}
