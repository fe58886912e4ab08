//! Instances in an order of their own content, in which gradients of parameters are summed as they always are.

use super::super::abi::{self, MivcExactEntry, MivcExactGather, MivcExactOrder, MivcSlice};
use super::super::backward::scores::{Addresses, InBags};
use super::super::pack::Pack;
use super::super::scratch::{Layout, Part};
use super::super::{Launch, Parameters, Step};
use crate::attention::AttentionShape;
use crate::element::Dtype;

/// Rows that a block puts in order.
const RUN_ROWS: usize = abi::MIVC_EXACT_RUN_ROWS as usize;

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
    pub(in crate::launch) fn order_steps(
        &self,
        instances: usize,
        addresses: &Addresses,
        in_bags: Option<InBags>,
    ) -> Vec<Step> {
        let parameters = |from: u64, to: Part, run_rows: usize| MivcExactOrder {
            slice: MivcSlice {
                mask: addresses.mask,
                ranges: in_bags.map_or(0, |bags| bags.ranges),
                bags: in_bags.map_or(0, |bags| bags.bags as i64),
                first: 0,
                rows: instances as i64,
                flows: 0,
            },
            d_scores: addresses.d_scores,
            features: addresses.features,
            from,
            to: to.at(addresses.scratch),
            heads: self.attention().heads as i64,
            dim: self.attention().dim as i64,
            row_stride: addresses.row_stride as i64,
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
            steps.push(step(merge, parameters(from.at(addresses.scratch), to, RUN_ROWS << pass)));
        }
        steps
    }

    /// Brings the rows from the `first` in order on where [`addresses`](Self::addresses) has them.
    pub(in crate::launch) fn gather_step(
        &self,
        instances: usize,
        first: usize,
        rows: usize,
        addresses: &Addresses,
    ) -> Step {
        let Addresses { d_scores, features, row_stride, activations, scratch, .. } = *addresses;
        let entries = self.entries[merges(instances) % 2].at(scratch) + (first * size_of::<MivcExactEntry>()) as u64;
        let gather = MivcExactGather {
            entries,
            d_scores,
            features,
            activations,
            to_mask: self.mask.at(scratch),
            to_d_scores: self.d_scores.at(scratch),
            to_features: self.features.at(scratch),
            to_activations: self.activations.at(scratch),
            heads: self.attention().heads as i64,
            dim: self.attention().dim as i64,
            row_stride: row_stride as i64,
            activation_count: self.pack.activations() as i64,
        };
        let [_, _, kernel] = self.kernels();
        step(kernel, rows, abi::MIVC_THREADS, Parameters::ExactGather(gather))
    }

    /// Those of a slice in order, for the gradients of parameters alone.
    pub(in crate::launch) fn addresses(&self, all: &Addresses) -> Addresses {
        let scratch = all.scratch;
        Addresses {
            features: self.features.at(scratch),
            row_stride: self.attention().dim,
            mask: self.mask.at(scratch),
            activations: if all.activations == 0 { 0 } else { self.activations.at(scratch) },
            d_scores: self.d_scores.at(scratch),
            d_features: None,
            ..*all
        }
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
