//! Softmax with an exact sum of exponentials.

use crate::error::{Error, Result};
use crate::launch::abi::{self, MivcExactMassNode, MivcExactSoftmax, MivcExactTotal, MivcWorkList};
use crate::launch::scratch::{Layout, Part};
use crate::launch::softmax::{Addresses, Normalisers, Statistics};
use crate::launch::work_list::{Capacity, WorkList, too_large};
use crate::launch::{Launch, Parameters, Step};

/// Softmax of certain shapes.
#[derive(Debug, Clone, Copy)]
pub struct Softmax {
    list: WorkList,
    totals: Totals,
    scratch_bytes: usize,
}

impl Softmax {
    /// As [`softmax::Softmax::plan`](crate::launch::softmax::Softmax::plan).
    ///
    /// # Errors
    /// As there.
    pub fn plan(heads: usize, capacity: Capacity) -> Result<Self> {
        let tiles = Normalisers::expect_tiles(heads)?;
        let mut layout = Layout::default();
        let list = WorkList::plan(capacity, tiles, &mut layout)?;
        let totals = Totals::place(heads, capacity, &list, &mut layout)?;
        Ok(Softmax { list, totals, scratch_bytes: layout.bytes() })
    }

    /// K.
    pub fn heads(&self) -> usize {
        self.totals.heads
    }

    /// Bytes of scratch memory that every call needs, whatever its size.
    pub fn scratch_bytes(&self) -> usize {
        self.scratch_bytes
    }

    /// As [`softmax::Softmax::steps`](crate::launch::softmax::Softmax::steps).
    ///
    /// # Errors
    /// As there.
    pub fn steps(&self, call: Capacity, addresses: Addresses) -> Result<Option<Vec<Step>>> {
        self.list.expect(call)?;
        let Addresses { scores, offsets, mask, weights, lse, scratch } = addresses;
        if weights == 0 && lse == 0 {
            return Err(Error::argument("outputs", "weights or lse", "none of them"));
        }
        if call.bags == 0 {
            return Ok(None);
        }
        let list = self.list.parameters(call.bags, self.totals.tiles(), scratch);
        let of_bags = Statistics { max: 0, sum: 0, lse };
        let parameters = MivcExactSoftmax { weights, ..self.totals.parameters(list, scores, mask, of_bags, scratch) };
        let mut steps = Vec::from(self.list.steps(list, call, offsets));
        steps.push(self.totals.step("mivc_exact_softmax", call, parameters));
        if weights != 0 {
            steps.push(self.totals.step("mivc_exact_softmax_weights", call, parameters));
        }
        Ok(Some(steps))
    }
}

/// The sum of the exponentials of each bag and head, and of the chunks of long bags, in scratch memory.
#[derive(Debug, Clone, Copy)]
pub(super) struct Totals {
    heads: usize,
    totals: Part,
    partials: Part,
}

impl Totals {
    pub(super) fn place(heads: usize, capacity: Capacity, list: &WorkList, layout: &mut Layout) -> Result<Self> {
        let mut place = || {
            let totals = layout.part(capacity.bags.checked_mul(heads)?, size_of::<MivcExactTotal>())?;
            let partials = layout.part(list.nodes().checked_mul(heads)?, size_of::<MivcExactMassNode>())?;
            Some(Totals { heads, totals, partials })
        };
        place().ok_or_else(|| too_large(capacity))
    }

    /// Warps that share a chunk.
    pub(super) fn tiles(&self) -> usize {
        self.heads.div_ceil(Normalisers::HEADS_OF_WARP)
    }

    /// Without weights.
    pub(super) fn parameters(
        &self,
        list: MivcWorkList,
        scores: u64,
        mask: u64,
        of_bags: Statistics,
        scratch: u64,
    ) -> MivcExactSoftmax {
        let Statistics { max, sum, lse } = of_bags;
        MivcExactSoftmax {
            list,
            scores,
            mask,
            weights: 0,
            lse,
            max,
            sum,
            totals: self.totals.at(scratch),
            masses: 0,
            partials: self.partials.at(scratch),
            heads: self.heads as i64,
        }
    }

    /// A kernel of which each warp takes a chunk.
    pub(super) fn step(&self, kernel: &'static str, call: Capacity, parameters: MivcExactSoftmax) -> Step {
        let warps = abi::MIVC_THREADS / Normalisers::HEADS_OF_WARP as u32;
        Step::Launch(Launch {
            image: "softmax_exact",
            kernel,
            grid: [WorkList::teams(call).div_ceil(warps), self.tiles() as u32, 1],
            block: [abi::MIVC_THREADS, 1, 1],
            shared_bytes: 0,
            tensor_maps: None,
            parameters: Parameters::ExactSoftmax(parameters),
        })
    }
}
