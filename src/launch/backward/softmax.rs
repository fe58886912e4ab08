//! Backward of the softmax.

use super::super::abi::{self, MivcExactMeanNode, MivcSoftmaxBackward};
use super::super::scratch::{Layout, Part};
use super::super::softmax::Normalisers;
use super::super::work_list::{Capacity, Offsets, WorkList, too_large};
use super::super::{Launch, Parameters, Step};
use super::Gradient;
use crate::element::Dtype;
use crate::error::Result;
use crate::order::Order;

const WARP: u32 = 32;

/// Where a call finds its arguments: device addresses, 0 where one is left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Addresses {
    /// f32 `[N, K]`.
    pub weights: u64,
    /// `[B + 1]`, any values.
    pub offsets: Offsets,
    /// u8 `[N]`, 0 = not there.
    pub mask: u64,
    /// f32 `[N, K]`, the gradient of the weights; may be left out.
    pub d_weights: u64,
    /// f32 `[B, K]`, the gradient of lse; may be left out.
    pub d_lse: u64,
    /// f32 `[N, K]`.
    pub d_scores: Gradient,
    /// [`SoftmaxBackward::scratch_bytes`], at a multiple of [`SCRATCH_ALIGN`](crate::launch::SCRATCH_ALIGN).
    pub scratch: u64,
}

/// Backward of the softmax of certain shapes.
#[derive(Debug, Clone, Copy)]
pub struct SoftmaxBackward {
    order: Order,
    heads: usize,
    /// Warps that share a chunk.
    tiles: usize,
    list: WorkList,
    partial_means: Part,
    scratch_bytes: usize,
}

impl SoftmaxBackward {
    /// Fixes the layout of the scratch memory, for weights of `heads` heads, and whether Σ a·da may depend on the order of
    /// instances.
    ///
    /// # Errors
    /// [`Error::Argument`](crate::Error::Argument) where a size is beyond what a launch can have, or `heads` is 0.
    pub fn plan(order: Order, heads: usize, capacity: Capacity) -> Result<Self> {
        let tiles = Normalisers::expect_tiles(heads)?;
        let mut layout = Layout::default();
        let list = WorkList::plan(capacity, tiles, &mut layout)?;
        let node = match order {
            Order::Rounding => size_of::<f32>(),
            Order::Exact => size_of::<MivcExactMeanNode>(),
        };
        let means = list.nodes().checked_mul(heads).and_then(|means| layout.part(means, node));
        let partial_means = means.ok_or_else(|| too_large(capacity))?;
        Ok(SoftmaxBackward { order, heads, tiles, list, partial_means, scratch_bytes: layout.bytes() })
    }

    /// K.
    pub fn heads(&self) -> usize {
        self.heads
    }

    /// Bytes of scratch memory that every call needs, whatever its size.
    pub fn scratch_bytes(&self) -> usize {
        self.scratch_bytes
    }

    /// The ranges of the bags, that the steps leave in the scratch memory.
    pub(super) fn ranges(&self, scratch: u64) -> u64 {
        self.list.parameters(0, self.tiles, scratch).ranges
    }

    /// `Ok` exactly when a call is not larger than the plan.
    pub(super) fn expect(&self, call: Capacity) -> Result<()> {
        self.list.expect(call)
    }

    /// What a call on `call` instances and bags does, in order; nothing where there is no bag.
    ///
    /// # Errors
    /// [`Error::Argument`](crate::Error::Argument) where the call is larger than the plan.
    pub fn steps(&self, call: Capacity, addresses: Addresses) -> Result<Option<Vec<Step>>> {
        self.list.expect(call)?;
        if call.bags == 0 {
            return Ok(None);
        }
        let Addresses { weights, offsets, mask, d_weights, d_lse, d_scores, scratch } = addresses;
        let list = self.list.parameters(call.bags, self.tiles, scratch);
        let parameters = MivcSoftmaxBackward {
            list,
            weights,
            mask,
            d_weights,
            d_lse,
            d_scores: Gradient::parameters(Some(d_scores), Dtype::F32),
            partial_means: self.partial_means.at(scratch),
            heads: self.heads as i64,
        };
        let (image, of_all, of_long) = match self.order {
            Order::Rounding => ("softmax_backward", "mivc_softmax_backward", "mivc_softmax_backward_long"),
            Order::Exact => {
                ("softmax_backward_exact", "mivc_exact_softmax_backward", "mivc_exact_softmax_backward_long")
            }
        };
        let mut steps = Vec::from(self.list.steps(list, call, offsets));
        steps.push(self.step(image, of_all, call, parameters));
        if d_weights != 0 && self.list.has_long_bags(call) {
            steps.push(self.step(image, of_long, call, parameters));
        }
        Ok(Some(steps))
    }

    /// A kernel of which each warp takes a chunk.
    fn step(&self, image: &'static str, kernel: &'static str, call: Capacity, parameters: MivcSoftmaxBackward) -> Step {
        Step::Launch(Launch {
            image,
            kernel,
            grid: [WorkList::teams(call).div_ceil(abi::MIVC_THREADS / WARP), self.tiles as u32, 1],
            block: [abi::MIVC_THREADS, 1, 1],
            shared_bytes: 0,
            tensor_maps: None,
            parameters: Parameters::SoftmaxBackward(parameters),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CALL: Capacity = Capacity { instances: 700_000, bags: 100_000 };
    const ADDRESSES: Addresses = Addresses {
        weights: 0x1000,
        offsets: Offsets::I64(0x2000),
        mask: 0,
        d_weights: 0x3000,
        d_lse: 0x4000,
        d_scores: Gradient::Set(0x5000),
        scratch: 0x10000,
    };

    fn kernels(call: Capacity, addresses: Addresses) -> Vec<(&'static str, [u32; 3])> {
        let steps = SoftmaxBackward::plan(Order::Rounding, 40, CALL).unwrap().steps(call, addresses).unwrap().unwrap();
        steps.iter().filter_map(Step::as_launch).map(|launch| (launch.kernel, launch.grid)).collect()
    }

    #[test]
    fn four_warps_of_a_block_take_four_chunks_and_32_heads() {
        let teams = 100_000 + 700_000_u32 / 256;
        let grid = [teams.div_ceil(4), 2, 1];
        let [_, short, long] = kernels(CALL, ADDRESSES)[..] else { panic!() };
        assert_eq!((short, long), (("mivc_softmax_backward", grid), ("mivc_softmax_backward_long", grid)));
    }

    #[test]
    fn bags_that_cannot_be_long_need_no_launch() {
        assert_eq!(kernels(Capacity { instances: 256, bags: 3 }, ADDRESSES).len(), 2);
        assert_eq!(kernels(Capacity { instances: 257, bags: 3 }, ADDRESSES).len(), 3);
        // Without a gradient of the weights there is nothing to be known of a bag before.
        assert_eq!(kernels(CALL, Addresses { d_weights: 0, ..ADDRESSES }).len(), 2);
    }

    #[test]
    fn what_does_not_fit() {
        assert!(SoftmaxBackward::plan(Order::Rounding, 0, CALL).unwrap_err().to_string().starts_with("heads: "));
        let larger = Capacity { bags: 100_001, ..CALL };
        let error = SoftmaxBackward::plan(Order::Rounding, 40, CALL).unwrap().steps(larger, ADDRESSES).unwrap_err();
        assert!(error.to_string().starts_with("bags: "), "{error}");
    }
}
