//! Backward of the weighted sum.
//!
//! ```no_run
//! use mivc::Dtype;
//! use mivc::cuda::backward::Gradient;
//! use mivc::cuda::backward::weighted_sum::{Gradients, Inputs, Shape, WeightedSumBackward};
//! use mivc::cuda::{Capacity, Kernels, context};
//!
//! let context = context(0)?;
//! let kernels = Kernels::load(&context)?;
//!
//! let (dim, heads, f32) = (768, 1, Dtype::F32);
//! let shape = Shape { dim, heads, per_head: false, values: f32, upstream: f32, gradients: f32 };
//! let operation = WeightedSumBackward::plan(&kernels, shape, Capacity { instances: 1 << 16, bags: 512 })?;
//!
//! let stream = context.new_stream()?;
//! let mut scratch = stream.alloc_zeros::<u8>(operation.scratch_bytes())?;
//! let weights = stream.clone_htod(&[0.25_f32; 5])?;
//! let values = stream.clone_htod(&vec![0.5_f32; 5 * 768])?;
//! let offsets = stream.clone_htod(&[0_i64, 2, 5])?;
//! let d_pooled = stream.clone_htod(&vec![1.0_f32; 2 * 768])?;
//! let mut d_weights = stream.alloc_zeros::<f32>(5)?;
//! let mut d_values = stream.alloc_zeros::<f32>(5 * 768)?;
//!
//! operation.run(
//!     &stream,
//!     Inputs {
//!         weights: weights.as_view(),
//!         values: values.as_view(),
//!         row_stride: 768,
//!         d_pooled: d_pooled.as_view(),
//!         offsets: offsets.as_view(),
//!         mask: None,
//!     },
//!     Gradients {
//!         weights: Some(Gradient::Set(d_weights.as_view_mut())),
//!         values: Some(Gradient::Set(d_values.as_view_mut())),
//!     },
//!     scratch.as_view_mut(),
//! )?;
//! assert_eq!(stream.clone_dtoh(&d_weights)?, [384.0; 5]);
//! assert_eq!(stream.clone_dtoh(&d_values)?, [0.25; 5 * 768]);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

use cudarc::driver::{CudaStream, CudaView, CudaViewMut};

use super::super::arguments::{bags, expect_dtype, expect_mask, expect_scratch, rows};
use super::super::guards::Guards;
use super::super::{Kernels, Offset};
use super::Gradient;
use crate::element::Element;
use crate::error::{Result, expect_len};
use crate::launch::Capacity;
use crate::launch::backward::weighted_sum::{self as launch, Addresses};

pub use crate::launch::backward::weighted_sum::Shape;

/// Backward of weighted sums of certain shapes, for any number of calls.
#[derive(Debug, Clone)]
pub struct WeightedSumBackward {
    pub(in crate::cuda) kernels: Kernels,
    pub(in crate::cuda) plan: launch::WeightedSumBackward,
}

/// What a call reads.
#[derive(Debug)]
pub struct Inputs<'a, E, O, I = i64> {
    /// `[N, K]`.
    pub weights: CudaView<'a, f32>,
    /// `[N, D]`, or `[N, K, D]` where each head has its own; it ends with the last row. It is read where a gradient of
    /// the weights is asked for.
    pub values: CudaView<'a, E>,
    /// Elements from row to row; `D`, or `K·D`, where nothing lies between them.
    pub row_stride: usize,
    /// The gradient of what was pooled, `[B, K, D]`.
    pub d_pooled: CudaView<'a, O>,
    /// `[B + 1]`, i32 or i64. No host need have seen the values: they are clamped to `0 ..= N`, and each is raised
    /// to the greatest before it.
    pub offsets: CudaView<'a, I>,
    /// `[N]`, 0 = not there.
    pub mask: Option<CudaView<'a, u8>>,
}

/// What a call writes; where there is none, it does nothing.
#[derive(Debug)]
pub struct Gradients<'a, G> {
    /// Of the weights, `[N, K]`.
    pub weights: Option<Gradient<'a, f32>>,
    /// Of the values, `[N, D]` or `[N, K, D]` as they are, nothing between its rows.
    pub values: Option<Gradient<'a, G>>,
}

impl WeightedSumBackward {
    /// Prepares for calls of at most this capacity.
    ///
    /// # Errors
    /// [`Error::Argument`](crate::Error::Argument) where the gradients of what was pooled or of the values are neither
    /// f32 nor of the type of the values, or a size is 0 or beyond what a launch can have.
    pub fn plan(kernels: &Kernels, shape: Shape, capacity: Capacity) -> Result<Self> {
        Ok(WeightedSumBackward { kernels: kernels.clone(), plan: launch::WeightedSumBackward::plan(shape, capacity)? })
    }

    /// Bytes of scratch memory that every call needs. What is in it does not matter, before or after.
    pub fn scratch_bytes(&self) -> usize {
        self.plan.scratch_bytes()
    }

    /// `da[n,k] = dz[b,k]·x[n]` and `dx[n] = Σ_k a[n,k]·dz[b,k]`: weights `[N, K]`, values and the gradient of what was
    /// pooled → the gradients of weights and values.
    ///
    /// Queues the work and returns. Both are 0 where the weight is, as the forward skips such a row: it is not read.
    ///
    /// # Errors
    /// [`Error::Argument`](crate::Error::Argument) where a buffer is not of the length, type or alignment that the
    /// shapes ask for, or the call is larger than planned; [`Error::Bags`](crate::Error::Bags) for the lengths of
    /// offsets and mask; [`CudaError`](crate::error::CudaError) where a buffer or the stream is of another context, or
    /// the driver fails.
    pub fn run<E: Element, O: Element, G: Element, I: Offset>(
        &self,
        stream: &CudaStream,
        inputs: Inputs<'_, E, O, I>,
        mut gradients: Gradients<'_, G>,
        mut scratch: CudaViewMut<'_, u8>,
    ) -> Result<()> {
        let call = self.expect_inputs(&inputs)?;
        self.expect_gradients(call, &gradients)?;
        expect_scratch(self.scratch_bytes(), &scratch)?;

        let mut guards = Guards::new(&self.kernels, stream)?;
        let addresses = Addresses {
            weights: guards.read("weights", &inputs.weights)?,
            values: guards.read("values", &inputs.values)?,
            row_stride: inputs.row_stride,
            offsets: I::AT(guards.read("offsets", &inputs.offsets)?),
            mask: guards.read_some("mask", &inputs.mask)?,
            d_pooled: guards.read("d_pooled", &inputs.d_pooled)?,
            d_weights: Gradient::write_some(&mut gradients.weights, &mut guards, "d_weights")?,
            d_values: Gradient::write_some(&mut gradients.values, &mut guards, "d_values")?,
            scratch: guards.scratch(&mut scratch)?,
        };
        if let Some(steps) = self.plan.steps(call, addresses)? {
            // SAFETY: the views are of the lengths that the steps were planned for, and of the types. Whatever the
            // offsets, the kernels stay within N rows and B bags, and the work list within its capacity.
            unsafe { guards.launch(&steps) }?;
        }
        Ok(())
    }

    /// N and B.
    fn expect_inputs<E: Element, O: Element, I>(&self, inputs: &Inputs<'_, E, O, I>) -> Result<Capacity> {
        let Shape { dim, heads, values, upstream, .. } = self.plan.shape();
        expect_dtype("values", values, E::DTYPE)?;
        expect_dtype("d_pooled", upstream, O::DTYPE)?;
        let instances = rows("values", inputs.values.len(), self.row(), ("row_stride", inputs.row_stride))?;
        expect_len("weights", "[N, K]", instances.saturating_mul(heads), inputs.weights.len())?;
        let bags = bags(&inputs.offsets)?;
        expect_mask(&inputs.mask, instances)?;
        let pooled = bags.saturating_mul(heads).saturating_mul(dim);
        expect_len("d_pooled", "[B, K, D]", pooled, inputs.d_pooled.len())?;
        Ok(Capacity { instances, bags })
    }

    fn expect_gradients<G: Element>(&self, call: Capacity, gradients: &Gradients<'_, G>) -> Result<()> {
        let shape = self.plan.shape();
        Gradient::expect_len(&gradients.weights, "d_weights", "[N, K]", call.instances.saturating_mul(shape.heads))?;
        if gradients.values.is_some() {
            expect_dtype("d_values", shape.gradients, G::DTYPE)?;
        }
        let values = if shape.per_head { "[N, K, D]" } else { "[N, D]" };
        Gradient::expect_len(&gradients.values, "d_values", values, call.instances.saturating_mul(self.row()))
    }

    /// Elements of a row of values.
    fn row(&self) -> usize {
        let Shape { dim, heads, per_head, .. } = self.plan.shape();
        if per_head { heads.saturating_mul(dim) } else { dim }
    }
}
