//! Backward of the softmax.
//!
//! ```no_run
//! use mivc::cuda::backward::Gradient;
//! use mivc::cuda::backward::softmax::{Inputs, SoftmaxBackward};
//! use mivc::cuda::{Capacity, Kernels, context};
//!
//! let context = context(0)?;
//! let operation = SoftmaxBackward::plan(&Kernels::load(&context)?, 1, Capacity { instances: 1 << 16, bags: 512 })?;
//!
//! let stream = context.new_stream()?;
//! let mut scratch = stream.alloc_zeros::<u8>(operation.scratch_bytes())?;
//! let weights = stream.clone_htod(&[0.5_f32, 0.5])?;
//! let d_weights = stream.clone_htod(&[1.0_f32, 3.0])?;
//! let offsets = stream.clone_htod(&[0_i64, 2])?;
//! let mut d_scores = stream.alloc_zeros::<f32>(2)?;
//!
//! operation.run(
//!     &stream,
//!     Inputs {
//!         weights: weights.as_view(),
//!         d_weights: Some(d_weights.as_view()),
//!         d_lse: None,
//!         offsets: offsets.as_view(),
//!         mask: None,
//!     },
//!     Gradient::Set(d_scores.as_view_mut()),
//!     scratch.as_view_mut(),
//! )?;
//! assert_eq!(stream.clone_dtoh(&d_scores)?, [-0.5, 0.5]);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

use cudarc::driver::{CudaStream, CudaView, CudaViewMut};

use super::super::arguments::{bags, expect_input, expect_mask, expect_scratch};
use super::super::guards::Guards;
use super::super::{Kernels, Offset};
use super::Gradient;
use crate::error::{Error, Result, expect_len};
use crate::launch::Capacity;
use crate::launch::backward::softmax::{self as launch, Addresses};

/// Backward of the softmax of certain shapes, for any number of calls.
#[derive(Debug, Clone)]
pub struct SoftmaxBackward {
    pub(in crate::cuda) kernels: Kernels,
    pub(in crate::cuda) plan: launch::SoftmaxBackward,
}

/// What a call reads.
#[derive(Debug)]
pub struct Inputs<'a, I = i64> {
    /// `[N, K]`, as the forward has written them.
    pub weights: CudaView<'a, f32>,
    /// The gradient of the weights, `[N, K]`, where the loss depends on them.
    pub d_weights: Option<CudaView<'a, f32>>,
    /// The gradient of lse, `[B, K]`, where the loss depends on it.
    pub d_lse: Option<CudaView<'a, f32>>,
    /// `[B + 1]`, i32 or i64. No host need have seen the values: they are clamped to `0 ..= N`, and each is raised
    /// to the greatest before it.
    pub offsets: CudaView<'a, I>,
    /// `[N]`, 0 = not there.
    pub mask: Option<CudaView<'a, u8>>,
}

impl SoftmaxBackward {
    /// Prepares for calls of at most this capacity, on weights of `heads` heads.
    ///
    /// # Errors
    /// [`Error::Argument`] where `heads` is 0, or a size is beyond what a launch can have.
    pub fn plan(kernels: &Kernels, heads: usize, capacity: Capacity) -> Result<Self> {
        let plan = launch::SoftmaxBackward::plan(kernels.order(), heads, capacity)?;
        Ok(SoftmaxBackward { kernels: kernels.clone(), plan })
    }

    /// Bytes of scratch memory that every call needs. What is in it does not matter, before or after.
    pub fn scratch_bytes(&self) -> usize {
        self.plan.scratch_bytes()
    }

    /// `ds[n,k] = a[n,k]·(da[n,k] − Σ_i a[i,k]·da[i,k] + dlse[b,k])` over the instances of each bag: weights `[N, K]`
    /// and the gradients of weights and lse → `d_scores` `[N, K]`.
    ///
    /// Queues the work and returns. The gradient is 0 where the weight is: of a masked instance, of one at −∞. What is
    /// masked is not read.
    ///
    /// # Errors
    /// [`Error::Argument`] where a buffer is not of the length or alignment that the shapes ask for, or the call is
    /// larger than planned; [`Error::Bags`] for the lengths of offsets and mask;
    /// [`CudaError`](crate::error::CudaError) where a buffer or the stream is of another context, or the driver fails.
    pub fn run<I: Offset>(
        &self,
        stream: &CudaStream,
        inputs: Inputs<'_, I>,
        mut d_scores: Gradient<'_, f32>,
        mut scratch: CudaViewMut<'_, u8>,
    ) -> Result<()> {
        let call = self.expect_inputs(&inputs)?;
        expect_len("d_scores", "[N, K]", inputs.weights.len(), d_scores.len())?;
        expect_scratch(self.scratch_bytes(), &scratch)?;

        let mut guards = Guards::new(&self.kernels, stream)?;
        let addresses = Addresses {
            weights: guards.read("weights", &inputs.weights)?,
            offsets: I::AT(guards.read("offsets", &inputs.offsets)?),
            mask: guards.read_some("mask", &inputs.mask)?,
            d_weights: guards.read_some("d_weights", &inputs.d_weights)?,
            d_lse: guards.read_some("d_lse", &inputs.d_lse)?,
            d_scores: d_scores.write(&mut guards, "d_scores")?,
            scratch: guards.scratch(&mut scratch)?,
        };
        if let Some(steps) = self.plan.steps(call, addresses)? {
            // SAFETY: the views are of the lengths that the steps were planned for. Whatever the offsets, the kernels
            // stay within N rows and B bags, and the work list within its capacity.
            unsafe { guards.launch(&steps) }?;
        }
        Ok(())
    }

    /// N and B.
    fn expect_inputs<I>(&self, inputs: &Inputs<'_, I>) -> Result<Capacity> {
        let (heads, weights) = (self.plan.heads(), inputs.weights.len());
        if !weights.is_multiple_of(heads) {
            return Err(Error::argument("weights", format!("[N, K], a multiple of K = {heads} elements"), weights));
        }
        let call = Capacity { instances: weights / heads, bags: bags(&inputs.offsets)? };
        expect_mask(&inputs.mask, call.instances)?;
        expect_input("d_weights", "[N, K]", weights, &inputs.d_weights)?;
        expect_input("d_lse", "[B, K]", call.bags.saturating_mul(heads), &inputs.d_lse)?;
        Ok(call)
    }
}
