//! Backward of max and mean pooling.
//!
//! ```no_run
//! use mivc::Dtype;
//! use mivc::cuda::backward::Gradient;
//! use mivc::cuda::backward::max_mean::{Inputs, MaxMeanBackward, Shape};
//! use mivc::cuda::{Capacity, Kernels, context};
//!
//! let context = context(0)?;
//! let kernels = Kernels::load(&context)?;
//!
//! let shape = Shape { dim: 768, features: Dtype::F32, upstream: Dtype::F32, gradients: Dtype::F32 };
//! let operation = MaxMeanBackward::plan(&kernels, shape, Capacity { instances: 1 << 16, bags: 512 })?;
//!
//! let stream = context.new_stream()?;
//! let mut scratch = stream.alloc_zeros::<u8>(operation.scratch_bytes())?;
//! let features = stream.clone_htod(&vec![0.5_f32; 4 * 768])?;
//! let offsets = stream.clone_htod(&[0_i64, 2, 4])?;
//! let d_max = stream.clone_htod(&vec![1.0_f32; 2 * 768])?;
//! let mut d_features = stream.alloc_zeros::<f32>(4 * 768)?;
//!
//! operation.run(
//!     &stream,
//!     Inputs {
//!         features: features.as_view(),
//!         row_stride: 768,
//!         d_max: Some(d_max.as_view()),
//!         d_mean: None,
//!         offsets: offsets.as_view(),
//!         mask: None,
//!     },
//!     Gradient::Set(d_features.as_view_mut()),
//!     scratch.as_view_mut(),
//! )?;
//! // Two instances tie in each bag.
//! assert_eq!(stream.clone_dtoh(&d_features)?, [0.5; 4 * 768]);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

use cudarc::driver::{CudaStream, CudaView, CudaViewMut};

use super::super::arguments::{bags, expect_dtype, expect_input, expect_mask, expect_scratch, rows};
use super::super::guards::Guards;
use super::super::{Kernels, Offset};
use super::Gradient;
use crate::element::Element;
use crate::error::{Result, expect_len};
use crate::launch::Capacity;
use crate::launch::backward::max_mean::{self as launch, Addresses};

pub use crate::launch::backward::max_mean::Shape;

/// Backward of max and mean pooling of certain shapes, for any number of calls.
#[derive(Debug, Clone)]
pub struct MaxMeanBackward {
    pub(in crate::cuda) kernels: Kernels,
    pub(in crate::cuda) plan: launch::MaxMeanBackward,
}

/// What a call reads.
#[derive(Debug)]
pub struct Inputs<'a, E, O, I = i64> {
    /// `[N, D]`; it ends with the last row: `(N - 1) · row_stride + D` elements, none where `N` is 0. It is read where
    /// max has a gradient.
    pub features: CudaView<'a, E>,
    /// Elements from row to row; `D` where nothing lies between them.
    pub row_stride: usize,
    /// The gradient of max, `[B, D]`, where the loss depends on it; at least one of the two.
    pub d_max: Option<CudaView<'a, O>>,
    /// The gradient of mean, `[B, D]`, where the loss depends on it.
    pub d_mean: Option<CudaView<'a, O>>,
    /// `[B + 1]`, i32 or i64. No host need have seen the values: they are clamped to `0 ..= N`, and each is raised
    /// to the greatest before it.
    pub offsets: CudaView<'a, I>,
    /// `[N]`, 0 = not there.
    pub mask: Option<CudaView<'a, u8>>,
}

impl MaxMeanBackward {
    /// Prepares for calls of at most this capacity.
    ///
    /// # Errors
    /// [`Error::Argument`](crate::Error::Argument) where the gradients of the outputs or of the features are neither
    /// f32 nor of the type of the features, or a size is beyond what a launch can have.
    pub fn plan(kernels: &Kernels, shape: Shape, capacity: Capacity) -> Result<Self> {
        Ok(MaxMeanBackward { kernels: kernels.clone(), plan: launch::MaxMeanBackward::plan(shape, capacity)? })
    }

    /// Bytes of scratch memory that every call needs. What is in it does not matter, before or after.
    pub fn scratch_bytes(&self) -> usize {
        self.plan.scratch_bytes()
    }

    /// `dh[n] = dmax[b] / ties` where `h[n]` is the maximum, `+ dmean[b] / count`: features `[N, D]` and the gradients of
    /// max and mean → `d_features` `[N, D]`, nothing between its rows.
    ///
    /// Queues the work and returns. Instances that tie at the maximum share its gradient equally, and so do NaNs where
    /// the maximum is one. What is masked is not read, and has gradient 0.
    ///
    /// # Errors
    /// [`Error::Argument`](crate::Error::Argument) where a buffer is not of the length, type or alignment that the
    /// shapes ask for, neither max nor mean has a gradient, or the call is larger than planned;
    /// [`Error::Bags`](crate::Error::Bags) for the lengths of offsets and mask;
    /// [`CudaError`](crate::error::CudaError) where a buffer or the stream is of another context, or the driver fails.
    pub fn run<E: Element, O: Element, G: Element, I: Offset>(
        &self,
        stream: &CudaStream,
        inputs: Inputs<'_, E, O, I>,
        mut d_features: Gradient<'_, G>,
        mut scratch: CudaViewMut<'_, u8>,
    ) -> Result<()> {
        let call = self.expect_inputs(&inputs)?;
        let Shape { dim, gradients, .. } = self.plan.shape();
        expect_dtype("d_features", gradients, G::DTYPE)?;
        expect_len("d_features", "[N, D]", call.instances.saturating_mul(dim), d_features.len())?;
        expect_scratch(self.scratch_bytes(), &scratch)?;

        let mut guards = Guards::new(&self.kernels, stream)?;
        let addresses = Addresses {
            features: guards.read("features", &inputs.features)?,
            row_stride: inputs.row_stride,
            offsets: I::AT(guards.read("offsets", &inputs.offsets)?),
            mask: guards.read_some("mask", &inputs.mask)?,
            d_max: guards.read_some("d_max", &inputs.d_max)?,
            d_mean: guards.read_some("d_mean", &inputs.d_mean)?,
            d_features: d_features.write(&mut guards, "d_features")?,
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
        let Shape { dim, features, upstream, .. } = self.plan.shape();
        expect_dtype("features", features, E::DTYPE)?;
        let instances = rows("features", inputs.features.len(), dim, ("row_stride", inputs.row_stride))?;
        let bags = bags(&inputs.offsets)?;
        expect_mask(&inputs.mask, instances)?;
        for (name, gradient) in [("d_max", &inputs.d_max), ("d_mean", &inputs.d_mean)] {
            if gradient.is_some() {
                expect_dtype(name, upstream, O::DTYPE)?;
            }
            expect_input(name, "[B, D]", bags.saturating_mul(dim), gradient)?;
        }
        Ok(Capacity { instances, bags })
    }
}
