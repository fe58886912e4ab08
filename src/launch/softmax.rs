//! Softmax over the instances of each bag.

use super::abi::{self, MivcSoftmax, MivcWorkList};
use super::scratch::{Layout, Part};
use super::work_list::{Capacity, Offsets, WorkList, too_large};
use super::{Launch, MAX_GRID_Y, Parameters, Step};
use crate::error::{Error, Result};

/// Where a call finds its arguments: device addresses, 0 where one is left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Addresses {
    /// f32 `[N, K]`.
    pub scores: u64,
    /// `[B + 1]`, any values.
    pub offsets: Offsets,
    /// u8 `[N]`, 0 = not there.
    pub mask: u64,
    /// f32 `[N, K]`.
    pub weights: u64,
    /// f32 `[B, K]`.
    pub lse: u64,
    /// [`Softmax::scratch_bytes`], at a multiple of [`SCRATCH_ALIGN`](super::SCRATCH_ALIGN).
    pub scratch: u64,
}

/// Softmax of certain shapes.
#[derive(Debug, Clone, Copy)]
pub struct Softmax {
    list: WorkList,
    normalisers: Normalisers,
    scratch_bytes: usize,
}

impl Softmax {
    /// Fixes the layout of the scratch memory, for scores of `heads` heads.
    ///
    /// # Errors
    /// [`Error::Argument`] where a size is beyond what a launch can have, or `heads` is 0.
    pub fn plan(heads: usize, capacity: Capacity) -> Result<Self> {
        let tiles = Normalisers::expect_tiles(heads)?;
        let mut layout = Layout::default();
        let list = WorkList::plan(capacity, tiles, &mut layout)?;
        let normalisers = Normalisers::place(heads, capacity, &list, &mut layout)?;
        Ok(Softmax { list, normalisers, scratch_bytes: layout.bytes() })
    }

    /// K.
    pub fn heads(&self) -> usize {
        self.normalisers.heads
    }

    /// Bytes of scratch memory that every call needs, whatever its size.
    pub fn scratch_bytes(&self) -> usize {
        self.scratch_bytes
    }

    /// What a call on `call` instances and bags does, in order; nothing where there is no bag.
    ///
    /// Instances behind the last bag get no weight written.
    ///
    /// # Errors
    /// [`Error::Argument`] where the call is larger than the plan, or no output is asked for.
    pub fn steps(&self, call: Capacity, addresses: Addresses) -> Result<Option<Vec<Step>>> {
        self.list.expect(call)?;
        let Addresses { scores, offsets, mask, weights, lse, scratch } = addresses;
        if weights == 0 && lse == 0 {
            return Err(Error::argument("outputs", "weights or lse", "none of them"));
        }
        if call.bags == 0 {
            return Ok(None);
        }
        let list = self.list.parameters(call.bags, self.normalisers.tiles(), scratch);
        let of_bags = Statistics { max: 0, sum: 0, lse };
        let parameters = MivcSoftmax { weights, ..self.normalisers.parameters(list, scores, mask, of_bags, scratch) };
        let mut steps = Vec::from(self.list.steps(list, call, offsets));
        steps.push(self.normalisers.step("mivc_softmax", call, parameters));
        if weights != 0 {
            steps.push(self.normalisers.step("mivc_softmax_weights", call, parameters));
        }
        Ok(Some(steps))
    }
}

/// Where m, l and lse of each bag and head go, `[B, K]`. m and l go to scratch memory where nobody wants them.
pub(super) struct Statistics {
    pub(super) max: u64,
    pub(super) sum: u64,
    pub(super) lse: u64,
}

/// m and l of each bag and head, and of the chunks of long bags, in scratch memory.
#[derive(Debug, Clone, Copy)]
pub(super) struct Normalisers {
    heads: usize,
    max: Part,
    sum: Part,
    partial_max: Part,
    partial_sum: Part,
}

impl Normalisers {
    /// Heads that a warp takes at most: one for each lane.
    pub(super) const HEADS_OF_WARP: usize = 32;

    /// Warps that share a chunk, where a launch can have as many.
    pub(super) fn expect_tiles(heads: usize) -> Result<usize> {
        let tiles = heads.div_ceil(Self::HEADS_OF_WARP);
        if heads == 0 || tiles > MAX_GRID_Y {
            return Err(Error::argument("heads", format!("1 to {}", MAX_GRID_Y * Self::HEADS_OF_WARP), heads));
        }
        Ok(tiles)
    }

    pub(super) fn place(heads: usize, capacity: Capacity, list: &WorkList, layout: &mut Layout) -> Result<Self> {
        let mut part = |rows: usize| layout.part(rows.checked_mul(heads)?, size_of::<f32>());
        let mut place = || {
            Some(Normalisers {
                heads,
                max: part(capacity.bags)?,
                sum: part(capacity.bags)?,
                partial_max: part(list.nodes())?,
                partial_sum: part(list.nodes())?,
            })
        };
        place().ok_or_else(|| too_large(capacity))
    }

    /// Warps that share a chunk.
    pub(super) fn tiles(&self) -> usize {
        self.heads.div_ceil(Self::HEADS_OF_WARP)
    }

    /// Without weights.
    pub(super) fn parameters(
        &self,
        list: MivcWorkList,
        scores: u64,
        mask: u64,
        of_bags: Statistics,
        scratch: u64,
    ) -> MivcSoftmax {
        let Statistics { max, sum, lse } = of_bags;
        MivcSoftmax {
            list,
            scores,
            mask,
            weights: 0,
            lse,
            max: if max == 0 { self.max.at(scratch) } else { max },
            sum: if sum == 0 { self.sum.at(scratch) } else { sum },
            partial_max: self.partial_max.at(scratch),
            partial_sum: self.partial_sum.at(scratch),
            heads: self.heads as i64,
        }
    }

    /// A kernel of which each warp takes a chunk.
    pub(super) fn step(&self, kernel: &'static str, call: Capacity, parameters: MivcSoftmax) -> Step {
        Step::Launch(Launch {
            image: "softmax",
            kernel,
            grid: [
                WorkList::teams(call).div_ceil(abi::MIVC_THREADS / Self::HEADS_OF_WARP as u32),
                self.tiles() as u32,
                1,
            ],
            block: [abi::MIVC_THREADS, 1, 1],
            shared_bytes: 0,
            tensor_maps: None,
            parameters: Parameters::Softmax(parameters),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CALL: Capacity = Capacity { instances: 700_000, bags: 100_000 };
    const ADDRESSES: Addresses =
        Addresses { scores: 0x1000, offsets: Offsets::I64(0x2000), mask: 0, weights: 0x3000, lse: 0, scratch: 0x10000 };

    fn kernels(addresses: Addresses) -> Vec<(&'static str, [u32; 3])> {
        let steps = Softmax::plan(40, CALL).unwrap().steps(CALL, addresses).unwrap().unwrap();
        steps.iter().filter_map(Step::as_launch).map(|launch| (launch.kernel, launch.grid)).collect()
    }

    #[test]
    fn four_warps_of_a_block_take_four_chunks_and_32_heads() {
        let teams = 100_000 + 700_000_u32 / 256;
        let grid = [teams.div_ceil(4), 2, 1];
        let [_, statistics, weights] = kernels(ADDRESSES)[..] else { panic!() };
        assert_eq!((statistics, weights), (("mivc_softmax", grid), ("mivc_softmax_weights", grid)));
    }

    #[test]
    fn weights_that_nobody_wants_are_not_made() {
        assert_eq!(kernels(Addresses { weights: 0, lse: 0x4000, ..ADDRESSES }).len(), 2);
        let error = Softmax::plan(1, CALL).unwrap().steps(CALL, Addresses { weights: 0, ..ADDRESSES }).unwrap_err();
        assert!(error.to_string().starts_with("outputs: "), "{error}");
        assert!(Softmax::plan(0, CALL).unwrap_err().to_string().starts_with("heads: "));
    }
}
