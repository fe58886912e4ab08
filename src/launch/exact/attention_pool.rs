//! Attention pool: scores, the exact sum of their exponentials, and a weighted sum in integers.

use super::softmax::Totals;
use super::state::ExactSums;
use super::weighted_sum::{Results, Source, Sums};
use crate::error::Result;
use crate::launch::Step;
use crate::launch::abi::MivcExactSoftmax;
use crate::launch::attention_pool::{Addresses, Shape};
use crate::launch::scores::{self, Scores};
use crate::launch::scratch::{Layout, Part};
use crate::launch::softmax::{Normalisers, Statistics};
use crate::launch::weighted_sum::{self, Values};
use crate::launch::work_list::{Capacity, WorkList, too_large};

/// Attention pool of certain shapes. It takes no heed of their path.
#[derive(Debug, Clone, Copy)]
pub struct AttentionPool {
    shape: Shape,
    scores: Part,
    list_of_scores: WorkList,
    totals: Totals,
    list: WorkList,
    sums: Sums,
    scratch_bytes: usize,
}

impl AttentionPool {
    /// As [`attention_pool::AttentionPool::plan`](crate::launch::attention_pool::AttentionPool::plan).
    ///
    /// # Errors
    /// As there.
    pub fn plan(shape: Shape, capacity: Capacity) -> Result<Self> {
        let heads = shape.pack.shape().attention.heads;
        let sum = weighted_sum::Shape {
            dim: shape.value_dim,
            heads,
            per_head: false,
            values: shape.pack.shape().features,
            outputs: shape.outputs,
        };
        let mut layout = Layout::default();
        let list_of_scores = WorkList::plan(capacity, Normalisers::expect_tiles(heads)?, &mut layout)?;
        let totals = Totals::place(heads, capacity, &list_of_scores, &mut layout)?;
        let list = Sums::plan_list(sum, capacity, &mut layout)?;
        let sums = Sums::place(sum, capacity, &list, &mut layout)?;
        let elements = capacity.instances.checked_mul(heads);
        let scores = elements.and_then(|elements| layout.part(elements, size_of::<f32>()));
        let scores = scores.ok_or_else(|| too_large(capacity))?;
        let scratch_bytes = layout.bytes();
        Ok(AttentionPool { shape, scores, list_of_scores, totals, list, sums, scratch_bytes })
    }

    /// What was planned for.
    pub fn shape(&self) -> Shape {
        self.shape
    }

    /// Bytes of scratch memory that every call needs, whatever its size.
    pub fn scratch_bytes(&self) -> usize {
        self.scratch_bytes
    }

    /// As [`attention_pool::AttentionPool::steps`](crate::launch::attention_pool::AttentionPool::steps).
    ///
    /// # Errors
    /// As there.
    pub fn steps(&self, call: Capacity, addresses: Addresses) -> Result<Vec<Step>> {
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

        // The score of a masked instance is -inf already.
        let list = self.list_of_scores.parameters(call.bags, self.totals.tiles(), scratch);
        steps.extend(self.list_of_scores.steps(list, call, addresses.offsets));
        let of_bags = Statistics { max: addresses.max, sum: addresses.sum, lse: addresses.lse };
        let heads = self.shape.pack.shape().attention.heads;
        let [masses, sums] = ExactSums::parts(addresses.exact, call.bags, heads);
        let totals = MivcExactSoftmax { masses, ..self.totals.parameters(list, scores, 0, of_bags, scratch) };
        steps.push(self.totals.step("mivc_exact_softmax", call, totals));

        let list = self.list.parameters(call.bags, self.sums.tiles(), scratch);
        steps.extend(self.list.steps(list, call, addresses.offsets));
        let source = Source::Scores { scores, totals: totals.totals, weights: addresses.weights };
        let values = Values { address: addresses.values, row_stride: addresses.value_stride };
        let results = Results { pooled: addresses.pooled, masses: 0, sums };
        steps.push(self.sums.step((&self.list, list), call, source, values, results, scratch));
        Ok(steps)
    }
}
