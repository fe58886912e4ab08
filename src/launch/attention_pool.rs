//! Attention pool: scores, softmax over instances and weighted sum, over one work list.
//!
//! The weights are made of the scores where they are used; they are written only where they are asked for.

use super::Step;
use super::pack::Pack;
use super::scores::{self, Scores};
use super::scratch::{Layout, Part};
use super::softmax::Normalisers;
use super::weighted_sum::{self, Source, Sums, Values};
use super::work_list::{Capacity, Offsets, WorkList, too_large};
use crate::element::Dtype;
use crate::error::Result;

/// What does not change from call to call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    /// How the parameters are packed; it gives the dimension and type of the keys.
    pub pack: Pack,
    /// D of the values, of the type of the keys. Where the keys are pooled, theirs.
    pub value_dim: usize,
    /// Of what is pooled: f32, or as the features.
    pub outputs: Dtype,
}

/// Where a call finds its arguments: device addresses, 0 where one is left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Addresses {
    /// As [`Pack`] has made it.
    pub packed: u64,
    /// `[N, D']`, rows [`key_stride`](Self::key_stride) elements apart: what is scored.
    pub keys: u64,
    /// Elements from row to row.
    pub key_stride: usize,
    /// `[N, D]`, rows [`value_stride`](Self::value_stride) elements apart: what is pooled. It may be the keys.
    pub values: u64,
    /// Elements from row to row.
    pub value_stride: usize,
    /// `[B + 1]`, any values.
    pub offsets: Offsets,
    /// u8 `[N]`, 0 = not there.
    pub mask: u64,
    /// `[B, K, D]`.
    pub pooled: u64,
    /// f32 `[N, K]`, of all instances.
    pub scores: u64,
    /// f32 `[N, K]`, of the instances in bags.
    pub weights: u64,
    /// f32 `[B, K]`.
    pub lse: u64,
    /// [`AttentionPool::scratch_bytes`], at a multiple of [`SCRATCH_ALIGN`](super::SCRATCH_ALIGN).
    pub scratch: u64,
}

/// Attention pool of certain shapes.
#[derive(Debug, Clone, Copy)]
pub struct AttentionPool {
    shape: Shape,
    list: WorkList,
    scores: Part,
    normalisers: Normalisers,
    sums: Sums,
    scratch_bytes: usize,
}

impl AttentionPool {
    /// Fixes the layout of the scratch memory.
    ///
    /// # Errors
    /// [`Error::Argument`](crate::Error::Argument) where `outputs` is neither f32 nor the type of the features, or a
    /// size is 0 or beyond what a launch can have.
    pub fn plan(shape: Shape, capacity: Capacity) -> Result<Self> {
        let heads = shape.pack.shape().attention.heads;
        let sum = weighted_sum::Shape {
            dim: shape.value_dim,
            heads,
            per_head: false,
            values: shape.pack.shape().features,
            outputs: shape.outputs,
        };
        let tiles = Normalisers::expect_tiles(heads)?.max(Sums::most_tiles(sum)?);
        let mut layout = Layout::default();
        let list = WorkList::plan(capacity, tiles, &mut layout)?;
        let normalisers = Normalisers::place(heads, capacity, &list, &mut layout)?;
        let sums = Sums::place(sum, capacity, &list, &mut layout)?;
        let elements = capacity.instances.checked_mul(heads);
        let scores = elements.and_then(|elements| layout.part(elements, size_of::<f32>()));
        let scores = scores.ok_or_else(|| too_large(capacity))?;
        Ok(AttentionPool { shape, list, scores, normalisers, sums, scratch_bytes: layout.bytes() })
    }

    /// What was planned for.
    pub fn shape(&self) -> Shape {
        self.shape
    }

    /// Bytes of scratch memory that every call needs, whatever its size.
    pub fn scratch_bytes(&self) -> usize {
        self.scratch_bytes
    }

    /// What a call on `call` instances and bags does, in order; nothing where there is neither.
    ///
    /// # Errors
    /// [`Error::Argument`](crate::Error::Argument) where the call is larger than the plan.
    pub fn steps(&self, call: Capacity, addresses: Addresses) -> Result<Vec<Step>> {
        self.list.expect(call)?;
        let scratch = addresses.scratch;
        let scores = if addresses.scores == 0 { self.scores.at(scratch) } else { addresses.scores };
        let scoring = scores::Addresses {
            packed: addresses.packed,
            features: addresses.keys,
            row_stride: addresses.key_stride,
            mask: addresses.mask,
            scores,
        };
        let mut steps = Vec::new();
        steps.extend(Scores::plan(self.shape.pack).steps(call.instances, scoring)?.into_iter().flatten());
        if call.bags == 0 {
            return Ok(steps);
        }
        let values = Values { address: addresses.values, row_stride: addresses.value_stride };
        let tiling = self.sums.tiling(&values, addresses.pooled);
        let list = self.list.parameters(call.bags, tiling.tiles().max(self.normalisers.tiles()), scratch);
        steps.extend(self.list.steps(list, call, addresses.offsets));
        // The score of a masked instance is -inf already.
        let normalise = self.normalisers.parameters(list, scores, 0, addresses.lse, scratch);
        steps.push(self.normalisers.step("mivc_softmax", call, normalise));
        let source = Source {
            weights: addresses.weights,
            scores,
            max: self.normalisers.max(scratch),
            sum: self.normalisers.sum(scratch),
            mask: 0,
        };
        steps.push(self.sums.step(list, call, tiling, source, values, addresses.pooled, scratch));
        Ok(steps)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attention::AttentionShape;
    use crate::launch::Launch;
    use crate::launch::pack::{self, F32Product};

    const CALL: Capacity = Capacity { instances: 1000, bags: 10 };
    const ADDRESSES: Addresses = Addresses {
        packed: 0x1000,
        keys: 0x2000,
        key_stride: 768,
        values: 0x2000,
        value_stride: 768,
        offsets: Offsets::I64(0x3000),
        mask: 0,
        pooled: 0x4000,
        scores: 0,
        weights: 0,
        lse: 0,
        scratch: 0x10000,
    };

    fn plan(outputs: Dtype) -> Result<AttentionPool> {
        let attention = AttentionShape { dim: 768, hidden: 128, heads: 2, groups: 1 };
        let shape = pack::Shape { attention, gated: true, features: Dtype::Bf16, f32_product: F32Product::Split };
        AttentionPool::plan(Shape { pack: Pack::plan(shape)?, value_dim: 768, outputs }, CALL)
    }

    fn launches(call: Capacity) -> Vec<Launch> {
        let steps = plan(Dtype::F32).unwrap().steps(call, ADDRESSES).unwrap();
        let launch = |step: &Step| match step {
            Step::Launch(launch) => Some(*launch),
            Step::Clear { .. } => None,
        };
        steps.iter().filter_map(launch).collect()
    }

    #[test]
    fn four_launches() {
        let kernels: Vec<_> = launches(CALL).iter().map(|launch| launch.kernel).collect();
        let expected =
            ["mivc_scores_bf16_large", "mivc_prepare", "mivc_softmax", "mivc_weighted_sum_heads_bf16_vector"];
        assert_eq!(kernels, expected);
    }

    #[test]
    fn without_bags_there_are_scores_and_without_instances_bags() {
        assert_eq!(launches(Capacity { bags: 0, ..CALL }).len(), 1);
        assert_eq!(launches(Capacity { instances: 0, ..CALL }).len(), 3);
        assert_eq!(launches(Capacity { instances: 0, bags: 0 }).len(), 0);
    }

    #[test]
    fn what_does_not_fit() {
        assert!(plan(Dtype::F16).unwrap_err().to_string().starts_with("outputs: "));
        let error = plan(Dtype::F32).unwrap().steps(Capacity { bags: 11, ..CALL }, ADDRESSES).unwrap_err();
        assert!(error.to_string().starts_with("bags: "), "{error}");
    }
}
