//! Attention pool by the launches of its parts. The weights are made of the scores where they are used; they are written
//! only where they are asked for.

use super::{Addresses, Shape};
use crate::error::Result;
use crate::launch::Step;
use crate::launch::scores::{self, Scores};
use crate::launch::scratch::{Layout, Part};
use crate::launch::softmax::{Normalisers, Statistics};
use crate::launch::weighted_sum::{self, Source, Sums, Values};
use crate::launch::work_list::{Capacity, WorkList, too_large};

/// Where things lie in the scratch memory.
#[derive(Debug, Clone, Copy)]
pub(super) struct TwoPasses {
    shape: Shape,
    list: WorkList,
    scores: Part,
    normalisers: Normalisers,
    sums: Sums,
}

impl TwoPasses {
    pub(super) fn place(shape: Shape, capacity: Capacity, layout: &mut Layout) -> Result<Self> {
        let heads = shape.pack.shape().attention.heads;
        let sum = weighted_sum::Shape {
            dim: shape.value_dim,
            heads,
            per_head: false,
            values: shape.pack.shape().features,
            outputs: shape.outputs,
        };
        let tiles = Normalisers::expect_tiles(heads)?.max(Sums::most_tiles(sum)?);
        let list = WorkList::plan(capacity, tiles, layout)?;
        let normalisers = Normalisers::place(heads, capacity, &list, layout)?;
        let sums = Sums::place(sum, capacity, &list, layout)?;
        let elements = capacity.instances.checked_mul(heads);
        let scores = elements.and_then(|elements| layout.part(elements, size_of::<f32>()));
        let scores = scores.ok_or_else(|| too_large(capacity))?;
        Ok(TwoPasses { shape, list, scores, normalisers, sums })
    }

    pub(super) fn steps(&self, call: Capacity, addresses: Addresses) -> Result<Vec<Step>> {
        self.list.expect(call)?;
        if call.bags == 0 {
            return Ok(Vec::new());
        }
        let scratch = addresses.scratch;
        let scores = if addresses.scores == 0 { self.scores.at(scratch) } else { addresses.scores };
        let scoring = scores::Addresses {
            packed: addresses.packed,
            features: addresses.keys,
            row_stride: addresses.key_stride,
            mask: addresses.mask,
            scores,
            activations: addresses.activations,
        };
        let mut steps = Vec::new();
        steps.extend(Scores::plan(self.shape.pack).steps(call.instances, scoring)?.into_iter().flatten());
        let values = Values { address: addresses.values, row_stride: addresses.value_stride };
        let tiling = self.sums.tiling(&values, addresses.pooled);
        let list = self.list.parameters(call.bags, tiling.tiles().max(self.normalisers.tiles()), scratch);
        steps.extend(self.list.steps(list, call, addresses.offsets));
        // The score of a masked instance is -inf already.
        let of_bags = Statistics { max: addresses.max, sum: addresses.sum, lse: addresses.lse };
        let normalise = self.normalisers.parameters(list, scores, 0, of_bags, scratch);
        steps.push(self.normalisers.step("mivc_softmax", call, normalise));
        let source = Source { weights: addresses.weights, scores, max: normalise.max, sum: normalise.sum, mask: 0 };
        steps.push(self.sums.step(list, call, tiling, source, values, addresses.pooled, scratch));
        Ok(steps)
    }
}
