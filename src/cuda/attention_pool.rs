//! Attention pool: scores, softmax over instances and weighted sum as one operation.

use cudarc::driver::{CudaStream, CudaView, CudaViewMut};

use super::arguments::{bags, expect_dtype, expect_exact, expect_mask, expect_output, expect_scratch, rows};
use super::guards::Guards;
use super::{Offset, PackedAttention};
use crate::element::{Dtype, Element};
use crate::error::{Error, Result, expect_len};
use crate::gradient::ACTIVATIONS;
use crate::launch::attention_pool::{self as launch, Addresses, Path};
use crate::launch::{Capacity, in_order};

/// What does not change from call to call, beside the parameters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    /// D of what is pooled; that of the parameters where the keys are.
    pub value_dim: usize,
    /// Of what is pooled: f32, or as the keys.
    pub outputs: Dtype,
}

/// Attention pool by certain parameters, for any number of calls.
#[derive(Debug, Clone)]
pub struct AttentionPool {
    pub(super) packed: PackedAttention,
    pub(super) plan: in_order::AttentionPool,
}

/// What a call reads.
#[derive(Debug)]
pub struct Inputs<'a, E, I = i64> {
    /// `[N, D']`, what is scored; it ends with the last row: `(N - 1) · key_stride + D'` elements, none where `N` is 0.
    pub keys: CudaView<'a, E>,
    /// Elements from row to row; `D'` where nothing lies between them.
    pub key_stride: usize,
    /// What is pooled; without them, the keys are.
    pub values: Option<Values<'a, E>>,
    /// `[B + 1]`, i32 or i64. No host need have seen the values: they are clamped to `0 ..= N`, and each is raised
    /// to the greatest before it.
    pub offsets: CudaView<'a, I>,
    /// `[N]`, 0 = not there.
    pub mask: Option<CudaView<'a, u8>>,
}

/// Values that are not the keys.
#[derive(Debug)]
pub struct Values<'a, E> {
    /// `[N, D]`; it ends with the last row.
    pub rows: CudaView<'a, E>,
    /// Elements from row to row; `D` where nothing lies between them.
    pub row_stride: usize,
}

/// What a call writes.
#[derive(Debug)]
pub struct Outputs<'a, O> {
    /// `[B, K, D]`.
    pub pooled: CudaViewMut<'a, O>,
    /// `[N, K]`, before the softmax. Instances in no bag, before `offsets[0]` or from `offsets[B]` on, may get none: what
    /// was there stays.
    pub scores: Option<CudaViewMut<'a, f32>>,
    /// `[N, K]`; those of a bag and head add up to 1. Instances in no bag get none: what was there stays.
    pub weights: Option<CudaViewMut<'a, f32>>,
    /// `[B, K]`, the logsumexp of the scores.
    pub lse: Option<CudaViewMut<'a, f32>>,
    /// `[B, K]`: m, the greatest score. With l and what is pooled it is the state of a bag, however long, which merges
    /// with others (see [`state`](super::state) and [`PoolState`](crate::PoolState)). A state's pooled is f32: plan
    /// [`Shape::outputs`] so, as what was rounded to f16 or bf16 would be rounded again with every merge.
    pub max: Option<CudaViewMut<'a, f32>>,
    /// `[B, K]`: l, the sum of exp(s − m).
    pub sum: Option<CudaViewMut<'a, f32>>,
    /// In [`Order::Exact`](crate::Order::Exact) alone, the sums that the others are made of, as
    /// [`ExactSums`](super::state::ExactSums) has them; it makes the state of them that merges exactly.
    pub exact: Option<CudaViewMut<'a, i64>>,
}

impl<'a, O> Outputs<'a, O> {
    /// What is pooled, and nothing else.
    pub fn of(pooled: CudaViewMut<'a, O>) -> Self {
        Outputs { pooled, scores: None, weights: None, lse: None, max: None, sum: None, exact: None }
    }
}

impl AttentionPool {
    /// Prepares for calls of at most this capacity. The parameters live as long as this does.
    ///
    /// # Errors
    /// [`Error::Argument`] where the outputs are neither f32 nor of the type that the parameters are packed for, or a
    /// size is 0 or beyond what a launch can have.
    pub fn plan(packed: &PackedAttention, shape: Shape, capacity: Capacity) -> Result<Self> {
        let Shape { value_dim, outputs } = shape;
        let (path, order) = (Path::of(&packed.plan(), packed.kernels().hardware()), packed.kernels().order());
        let shape = launch::Shape { pack: packed.plan(), value_dim, outputs, path };
        Ok(AttentionPool { packed: packed.clone(), plan: in_order::AttentionPool::plan(order, shape, capacity)? })
    }

    /// How keys that are pooled themselves are: as the kernels were [loaded](super::Kernels::load_with) for, where that fits.
    pub fn path(&self) -> Path {
        self.plan.shape().path
    }

    /// Bytes of scratch memory that every call needs. What is in it does not matter, before or after.
    pub fn scratch_bytes(&self) -> usize {
        self.plan.scratch_bytes()
    }

    /// Scores of the keys, softmax over each bag, weighted sum of the values: keys `[N, D']` and values `[N, D]` →
    /// `pooled` `[B, K, D]`. Keys that are pooled themselves are read once where [`path`](Self::path) says so.
    ///
    /// Queues the work and returns. A masked instance has score −inf and weight 0, and is not used, NaN or not. A bag
    /// that is empty, or of scores of −inf alone, gives 0 with weights 0 and lse −inf. A score of NaN or +inf makes its
    /// head of its bag NaN.
    ///
    /// # Errors
    /// [`Error::Argument`] where a buffer is not of the length, type or alignment that the shapes ask for, or the
    /// call is larger than planned; [`Error::Bags`] for the lengths of offsets and mask;
    /// [`CudaError`](crate::error::CudaError) where a buffer or the stream is of another context, or the driver fails.
    pub fn run<E: Element, O: Element, I: Offset>(
        &self,
        stream: &CudaStream,
        inputs: Inputs<'_, E, I>,
        outputs: Outputs<'_, O>,
        scratch: CudaViewMut<'_, u8>,
    ) -> Result<()> {
        self.run_some(stream, inputs, outputs, None, scratch)
    }

    /// As [`run`](Self::run) in two passes, and keeps what the [backward](super::backward::attention_pool) would compute
    /// again: `activations`, as [`Scores::run_keeping`](super::scores::Scores::run_keeping) has them. Where
    /// [`path`](Self::path) takes one pass, last bits of the other outputs differ from those of `run`.
    ///
    /// # Errors
    /// As of [`run`](Self::run).
    pub fn run_keeping<E: Element, O: Element, I: Offset>(
        &self,
        stream: &CudaStream,
        inputs: Inputs<'_, E, I>,
        outputs: Outputs<'_, O>,
        activations: CudaViewMut<'_, E>,
        scratch: CudaViewMut<'_, u8>,
    ) -> Result<()> {
        self.run_some(stream, inputs, outputs, Some(activations), scratch)
    }

    fn run_some<E: Element, O: Element, I: Offset>(
        &self,
        stream: &CudaStream,
        inputs: Inputs<'_, E, I>,
        mut outputs: Outputs<'_, O>,
        mut activations: Option<CudaViewMut<'_, E>>,
        mut scratch: CudaViewMut<'_, u8>,
    ) -> Result<()> {
        let call = self.expect_inputs(&inputs)?;
        self.expect_outputs(call, &outputs)?;
        let kept = call.instances.saturating_mul(self.packed.activations());
        expect_output("activations", ACTIVATIONS, kept, &activations)?;
        expect_scratch(self.scratch_bytes(), &scratch)?;

        let packed = self.packed.view();
        let mut guards = Guards::new(self.packed.kernels(), stream)?;
        let keys = guards.read("keys", &inputs.keys)?;
        let (values, value_stride) = match &inputs.values {
            Some(values) => (guards.read("values", &values.rows)?, values.row_stride),
            None => (keys, inputs.key_stride),
        };
        let addresses = Addresses {
            packed: guards.read("packed", &packed)?,
            keys,
            key_stride: inputs.key_stride,
            values,
            value_stride,
            offsets: I::AT(guards.read("offsets", &inputs.offsets)?),
            mask: guards.read_some("mask", &inputs.mask)?,
            pooled: guards.write("pooled", &mut outputs.pooled)?,
            scores: guards.write_some("scores", &mut outputs.scores)?,
            weights: guards.write_some("weights", &mut outputs.weights)?,
            lse: guards.write_some("lse", &mut outputs.lse)?,
            activations: guards.write_some("activations", &mut activations)?,
            max: guards.write_some("max", &mut outputs.max)?,
            sum: guards.write_some("sum", &mut outputs.sum)?,
            exact: guards.write_some("exact", &mut outputs.exact)?,
            scratch: guards.scratch(&mut scratch)?,
        };
        // SAFETY: the views are of the lengths that the steps were planned for, and of the types. Whatever the
        // offsets, the kernels stay within N rows and B bags, and the work list within its capacity.
        unsafe { guards.launch(&self.plan.steps(call, addresses)?) }
    }

    /// N and B.
    fn expect_inputs<E: Element, I>(&self, inputs: &Inputs<'_, E, I>) -> Result<Capacity> {
        let (key_dim, value_dim) = (self.packed.shape().dim, self.plan.shape().value_dim);
        expect_dtype("keys", self.packed.dtype(), E::DTYPE)?;
        let instances = rows("keys", inputs.keys.len(), key_dim, ("key_stride", inputs.key_stride))?;
        expect_values(&inputs.values, instances, value_dim, key_dim)?;
        let bags = bags(&inputs.offsets)?;
        expect_mask(&inputs.mask, instances)?;
        Ok(Capacity { instances, bags })
    }

    fn expect_outputs<O: Element>(&self, call: Capacity, outputs: &Outputs<'_, O>) -> Result<()> {
        let (heads, shape) = (self.packed.shape().heads, self.plan.shape());
        let (weights, bag_heads) = (call.instances.saturating_mul(heads), call.bags.saturating_mul(heads));
        expect_dtype("pooled", shape.outputs, O::DTYPE)?;
        expect_len("pooled", "[B, K, D]", bag_heads.saturating_mul(shape.value_dim), outputs.pooled.len())?;
        expect_output("scores", "[N, K]", weights, &outputs.scores)?;
        expect_output("weights", "[N, K]", weights, &outputs.weights)?;
        expect_output("lse", "[B, K]", bag_heads, &outputs.lse)?;
        expect_output("max", "[B, K]", bag_heads, &outputs.max)?;
        expect_output("sum", "[B, K]", bag_heads, &outputs.sum)?;
        expect_exact(call.bags, heads, shape.value_dim, &outputs.exact)
    }
}

/// `Ok` exactly when there are as many rows of values as of keys, or none where the keys have their dimension.
pub(super) fn expect_values<E>(
    values: &Option<Values<'_, E>>,
    instances: usize,
    value_dim: usize,
    key_dim: usize,
) -> Result<()> {
    match values {
        Some(values) => {
            let got = rows("values", values.rows.len(), value_dim, ("values.row_stride", values.row_stride))?;
            if got != instances {
                return Err(Error::argument("values", format!("{instances} rows, as there are keys"), got));
            }
            Ok(())
        }
        None if value_dim != key_dim => {
            let expected = format!("rows of D = {value_dim}, as planned");
            Err(Error::argument("values", expected, format!("none, and keys of {key_dim}")))
        }
        None => Ok(()),
    }
}
