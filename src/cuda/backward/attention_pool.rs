//! Backward of attention pool: of the weighted sum, the softmax and the scores, one after the other.
//!
//! ```no_run
//! use mivc::cuda::backward::Gradient;
//! use mivc::cuda::backward::attention_pool::{AttentionPoolBackward, Gradients, Inputs, Shape, Upstream};
//! use mivc::cuda::backward::scores::ParamGradients;
//! use mivc::cuda::{Capacity, Kernels, context};
//! use mivc::{AttentionParams, Dtype};
//!
//! let context = context(0)?;
//! let kernels = Kernels::load(&context)?;
//! let stream = context.new_stream()?;
//!
//! let params = AttentionParams::load("attention_gated.safetensors")?;
//! let packed = kernels.pack_backward(&stream, &params, Dtype::F32)?;
//! let (dim, heads) = (packed.shape().dim, packed.shape().heads);
//! let shape = Shape { value_dim: dim, upstream: Dtype::F32, gradients: Dtype::F32 };
//! let operation = AttentionPoolBackward::plan(&packed, shape, Capacity { instances: 1 << 16, bags: 512 })?;
//!
//! let mut scratch = stream.alloc_zeros::<u8>(operation.scratch_bytes())?;
//! let keys = stream.clone_htod(&vec![0.5_f32; 5 * dim])?;
//! let offsets = stream.clone_htod(&[0_i64, 2, 5])?;
//! // As the forward has written them.
//! let weights = stream.clone_htod(&vec![0.4_f32; 5 * heads])?;
//! let d_pooled = stream.clone_htod(&vec![1.0_f32; 2 * heads * dim])?;
//! let mut d_keys = stream.alloc_zeros::<f32>(5 * dim)?;
//! let mut d_w = stream.alloc_zeros::<f32>(params.tensors().w.len())?;
//!
//! operation.run(
//!     &stream,
//!     Inputs {
//!         keys: keys.as_view(),
//!         key_stride: dim,
//!         values: None,
//!         offsets: offsets.as_view(),
//!         mask: None,
//!         weights: weights.as_view(),
//!         activations: None,
//!     },
//!     Upstream::of(d_pooled.as_view()),
//!     Gradients {
//!         keys: Some(Gradient::Set(d_keys.as_view_mut())),
//!         params: ParamGradients { w: Some(Gradient::Set(d_w.as_view_mut())), ..Default::default() },
//!         values: None,
//!     },
//!     scratch.as_view_mut(),
//! )?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

use cudarc::driver::{CudaStream, CudaView, CudaViewMut};

use super::super::arguments::{bags, expect_dtype, expect_input, expect_mask, expect_scratch, rows};
use super::super::attention_pool::{Values, expect_values};
use super::super::guards::Guards;
use super::super::{Offset, PackedBackward};
use super::Gradient;
use super::scores::ParamGradients;
use crate::element::{Dtype, Element};
use crate::error::{Error, Result, expect_len};
use crate::gradient::ACTIVATIONS;
use crate::launch::Capacity;
use crate::launch::backward::attention_pool::{self as launch, Addresses};

/// What does not change from call to call, beside the parameters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    /// D of what is pooled; that of the parameters where the keys are.
    pub value_dim: usize,
    /// Of the gradient of what was pooled: f32, or as the keys.
    pub upstream: Dtype,
    /// Of the gradients of keys and values: f32, or as the keys.
    pub gradients: Dtype,
}

/// Backward of attention pool by certain parameters, for any number of calls.
#[derive(Debug, Clone)]
pub struct AttentionPoolBackward {
    pub(in crate::cuda) packed: PackedBackward,
    pub(in crate::cuda) plan: launch::AttentionPoolBackward,
}

/// What a call reads: what the forward has read, and what it has left.
#[derive(Debug)]
pub struct Inputs<'a, E, I = i64> {
    /// `[N, D']`; it ends with the last row: `(N - 1) · key_stride + D'` elements, none where `N` is 0.
    pub keys: CudaView<'a, E>,
    /// Elements from row to row; `D'` where nothing lies between them.
    pub key_stride: usize,
    /// What was pooled; without them, the keys were.
    pub values: Option<Values<'a, E>>,
    /// `[B + 1]`, i32 or i64. No host need have seen the values: they are clamped to `0 ..= N`, and each is raised
    /// to the greatest before it.
    pub offsets: CudaView<'a, I>,
    /// `[N]`, 0 = not there.
    pub mask: Option<CudaView<'a, u8>>,
    /// `[N, K]`.
    pub weights: CudaView<'a, f32>,
    /// As [`AttentionPool::run_keeping`](crate::cuda::attention_pool::AttentionPool::run_keeping) has kept them; without
    /// them they are computed again.
    pub activations: Option<CudaView<'a, E>>,
}

/// The gradients of what attention pool has written, of each that the loss depends on.
#[derive(Debug)]
pub struct Upstream<'a, O> {
    /// `[B, K, D]`.
    pub pooled: Option<CudaView<'a, O>>,
    /// `[N, K]`.
    pub scores: Option<CudaView<'a, f32>>,
    /// `[N, K]`.
    pub weights: Option<CudaView<'a, f32>>,
    /// `[B, K]`.
    pub lse: Option<CudaView<'a, f32>>,
}

impl<'a, O> Upstream<'a, O> {
    /// Of what is pooled, and nothing else.
    pub fn of(pooled: CudaView<'a, O>) -> Self {
        Upstream { pooled: Some(pooled), scores: None, weights: None, lse: None }
    }
}

/// What a call writes.
#[derive(Debug)]
pub struct Gradients<'a, G> {
    /// Of the keys, `[N, D']`, nothing between its rows. Where the keys are pooled themselves, it has both parts. A frozen
    /// encoder needs none, and then none is computed.
    pub keys: Option<Gradient<'a, G>>,
    /// Of the parameters, of those that there are.
    pub params: ParamGradients<'a>,
    /// Of the values, `[N, D]`, nothing between its rows, where they are not the keys.
    pub values: Option<Gradient<'a, G>>,
}

impl AttentionPoolBackward {
    /// Prepares for calls of at most this capacity. The parameters live as long as this does.
    ///
    /// # Errors
    /// [`Error::Argument`] where the gradients of what was pooled or of keys and values are neither f32 nor of the type
    /// that the parameters are packed for, or a size is 0 or beyond what a launch can have.
    pub fn plan(packed: &PackedBackward, shape: Shape, capacity: Capacity) -> Result<Self> {
        let Shape { value_dim, upstream, gradients } = shape;
        let shape = launch::Shape { pack: packed.plan(), value_dim, upstream, gradients };
        let plan = launch::AttentionPoolBackward::plan(packed.kernels().order(), shape, capacity)?;
        Ok(AttentionPoolBackward { packed: packed.clone(), plan })
    }

    /// Bytes of scratch memory that every call needs. What is in it does not matter, before or after.
    pub fn scratch_bytes(&self) -> usize {
        self.plan.scratch_bytes()
    }

    /// Keys `[N, D']`, values `[N, D]`, what the forward has left and the gradients of its outputs → the gradients of
    /// keys, values and parameters, by the formulas of
    /// [`reference::attention_pool_backward`](crate::reference::attention_pool_backward).
    ///
    /// Queues the work and returns. Masked instances and those of weight 0 add to no gradient, and their own is 0. Those
    /// in no bag add to none, and their own is left as it is; but where values have a gradient and what was pooled has
    /// none, it is 0 for all.
    ///
    /// # Errors
    /// [`Error::Argument`] where a buffer is not of the length, type or alignment that the shapes ask for, a gradient is
    /// asked for of what is not there, or the call is larger than planned; [`Error::Bags`] for the lengths of offsets
    /// and mask; [`CudaError`](crate::error::CudaError) where a buffer or the stream is of another context, or the
    /// driver fails.
    pub fn run<E: Element, O: Element, G: Element, I: Offset>(
        &self,
        stream: &CudaStream,
        inputs: Inputs<'_, E, I>,
        upstream: Upstream<'_, O>,
        mut gradients: Gradients<'_, G>,
        mut scratch: CudaViewMut<'_, u8>,
    ) -> Result<()> {
        let call = self.expect_inputs(&inputs)?;
        self.expect_upstream(call, &upstream)?;
        self.expect_gradients(call, &inputs, &gradients)?;
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
            weights: guards.read("weights", &inputs.weights)?,
            activations: guards.read_some("activations", &inputs.activations)?,
            d_pooled: guards.read_some("d_pooled", &upstream.pooled)?,
            d_scores: guards.read_some("d_scores", &upstream.scores)?,
            d_weights: guards.read_some("d_weights", &upstream.weights)?,
            d_lse: guards.read_some("d_lse", &upstream.lse)?,
            d_keys: Gradient::write_some(&mut gradients.keys, &mut guards, "d_keys")?,
            d_values: Gradient::write_some(&mut gradients.values, &mut guards, "d_values")?,
            params: gradients.params.write(&mut guards)?,
            scratch: guards.scratch(&mut scratch)?,
        };
        // SAFETY: the views are of the lengths that the steps were planned for, and of the types. Whatever the
        // offsets, the kernels stay within N rows and B bags, and the work lists within their capacity.
        unsafe { guards.launch(&self.plan.steps(call, addresses)?) }
    }

    /// N and B.
    fn expect_inputs<E: Element, I>(&self, inputs: &Inputs<'_, E, I>) -> Result<Capacity> {
        let shape = self.packed.shape();
        expect_dtype("keys", self.packed.dtype(), E::DTYPE)?;
        let instances = rows("keys", inputs.keys.len(), shape.dim, ("key_stride", inputs.key_stride))?;
        expect_values(&inputs.values, instances, self.plan.shape().value_dim, shape.dim)?;
        let bags = bags(&inputs.offsets)?;
        expect_mask(&inputs.mask, instances)?;
        expect_len("weights", "[N, K]", instances.saturating_mul(shape.heads), inputs.weights.len())?;
        let kept = instances.saturating_mul(self.packed.activations());
        expect_input("activations", ACTIVATIONS, kept, &inputs.activations)?;
        Ok(Capacity { instances, bags })
    }

    fn expect_upstream<O: Element>(&self, call: Capacity, upstream: &Upstream<'_, O>) -> Result<()> {
        let (heads, shape) = (self.packed.shape().heads, self.plan.shape());
        let (weights, bag_heads) = (call.instances.saturating_mul(heads), call.bags.saturating_mul(heads));
        if upstream.pooled.is_some() {
            expect_dtype("d_pooled", shape.upstream, O::DTYPE)?;
        }
        expect_input("d_pooled", "[B, K, D]", bag_heads.saturating_mul(shape.value_dim), &upstream.pooled)?;
        expect_input("d_scores", "[N, K]", weights, &upstream.scores)?;
        expect_input("d_weights", "[N, K]", weights, &upstream.weights)?;
        expect_input("d_lse", "[B, K]", bag_heads, &upstream.lse)
    }

    fn expect_gradients<E, G: Element, I>(
        &self,
        call: Capacity,
        inputs: &Inputs<'_, E, I>,
        gradients: &Gradients<'_, G>,
    ) -> Result<()> {
        let shape = self.plan.shape();
        for (name, gradient) in [("d_keys", &gradients.keys), ("d_values", &gradients.values)] {
            if gradient.is_some() {
                expect_dtype(name, shape.gradients, G::DTYPE)?;
            }
        }
        let of_dim = |dim: usize| call.instances.saturating_mul(dim);
        Gradient::expect_len(&gradients.keys, "d_keys", "[N, D']", of_dim(self.packed.shape().dim))?;
        if gradients.values.is_some() && inputs.values.is_none() {
            return Err(Error::argument("d_values", "none, as the keys are pooled", "one"));
        }
        Gradient::expect_len(&gradients.values, "d_values", "[N, D]", of_dim(shape.value_dim))?;
        gradients.params.expect(&self.packed)
    }
}
