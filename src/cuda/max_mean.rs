//! Max and mean pooling, both in one read of the features.
//!
//! ```no_run
//! use mivc::Dtype;
//! use mivc::cuda::max_mean::{Inputs, MaxMean, Outputs, Shape};
//! use mivc::cuda::{Capacity, Kernels, context};
//!
//! let context = context(0)?;
//! let kernels = Kernels::load(&context)?;
//!
//! let shape = Shape { dim: 768, features: Dtype::F32, outputs: Dtype::F32, argmax: false };
//! let operation = MaxMean::plan(&kernels, shape, Capacity { instances: 1 << 16, bags: 512 })?;
//!
//! let stream = context.new_stream()?;
//! let mut scratch = stream.alloc_zeros::<u8>(operation.scratch_bytes())?;
//! let features = stream.clone_htod(&vec![0.5_f32; 5 * 768])?;
//! let offsets = stream.clone_htod(&[0_i64, 2, 5])?;
//! let mut mean = stream.alloc_zeros::<f32>(2 * 768)?;
//!
//! operation.run(
//!     &stream,
//!     Inputs { features: features.as_view(), row_stride: 768, offsets: offsets.as_view(), mask: None },
//!     Outputs { mean: Some(mean.as_view_mut()), ..Default::default() },
//!     scratch.as_view_mut(),
//! )?;
//! assert_eq!(stream.clone_dtoh(&mean)?, [0.5; 2 * 768]);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

use cudarc::driver::{CudaStream, CudaView, CudaViewMut};

use super::arguments::{bags, expect_dtype, expect_exact, expect_mask, expect_output, expect_scratch, rows};
use super::guards::Guards;
use super::{Kernels, Offset};
use crate::element::Element;
use crate::error::Result;
use crate::launch::max_mean::Addresses;
use crate::launch::{Capacity, in_order};

pub use crate::launch::max_mean::Shape;

/// Max and mean pooling of certain shapes, for any number of calls.
#[derive(Debug, Clone)]
pub struct MaxMean {
    pub(super) kernels: Kernels,
    pub(super) plan: in_order::MaxMean,
}

/// What a call reads.
#[derive(Debug)]
pub struct Inputs<'a, E, I = i64> {
    /// `[N, D]`; it ends with the last row: `(N - 1) · row_stride + D` elements, none where `N` is 0.
    pub features: CudaView<'a, E>,
    /// Elements from row to row; `D` where nothing lies between them.
    pub row_stride: usize,
    /// `[B + 1]`, i32 or i64. No host need have seen the values: they are clamped to `0 ..= N`, and each is raised
    /// to the greatest before it.
    pub offsets: CudaView<'a, I>,
    /// `[N]`, 0 = not there.
    pub mask: Option<CudaView<'a, u8>>,
}

/// What a call writes; at least one of them.
#[derive(Debug)]
pub struct Outputs<'a, O> {
    /// `[B, D]`.
    pub max: Option<CudaViewMut<'a, O>>,
    /// `[B, D]`.
    pub mean: Option<CudaViewMut<'a, O>>,
    /// `[B, D]`, where it was planned, and only there: the row that each maximum came from, the lowest of equals,
    /// and the first NaN's where there is one; −1 where the bag is empty.
    pub argmax: Option<CudaViewMut<'a, i64>>,
    /// In [`Order::Exact`](crate::Order::Exact) alone, the sums that the mean is made of, as
    /// [`ExactSums`](super::state::ExactSums) of one head has them; it makes the state of them that merges exactly.
    pub exact: Option<CudaViewMut<'a, i64>>,
}

impl<O> Default for Outputs<'_, O> {
    fn default() -> Self {
        Outputs { max: None, mean: None, argmax: None, exact: None }
    }
}

impl MaxMean {
    /// Prepares for calls of at most this capacity.
    ///
    /// # Errors
    /// [`Error::Argument`](crate::Error::Argument) where the outputs are neither f32 nor of the type of the features,
    /// or a size is beyond what a launch can have.
    pub fn plan(kernels: &Kernels, shape: Shape, capacity: Capacity) -> Result<Self> {
        Ok(MaxMean { kernels: kernels.clone(), plan: in_order::MaxMean::plan(kernels.order(), shape, capacity)? })
    }

    /// Bytes of scratch memory that every call needs. What is in it does not matter, before or after.
    pub fn scratch_bytes(&self) -> usize {
        self.plan.scratch_bytes()
    }

    /// Max and mean of each feature over the instances of each bag: features `[N, D]` → `[B, D]`.
    ///
    /// Queues the work and returns. A NaN makes its feature of its bag NaN, in both. An empty bag gives 0.
    ///
    /// # Errors
    /// [`Error::Argument`](crate::Error::Argument) where a buffer is not of the length, type or alignment that the
    /// shapes ask for, none is to be written, or the call is larger than planned; [`Error::Bags`](crate::Error::Bags)
    /// for the lengths of offsets and mask; [`CudaError`](crate::error::CudaError) where a buffer or the stream is of
    /// another context, or the driver fails.
    pub fn run<E: Element, O: Element, I: Offset>(
        &self,
        stream: &CudaStream,
        inputs: Inputs<'_, E, I>,
        mut outputs: Outputs<'_, O>,
        mut scratch: CudaViewMut<'_, u8>,
    ) -> Result<()> {
        let call = self.expect_inputs(&inputs)?;
        self.expect_outputs(call, &outputs)?;
        expect_scratch(self.scratch_bytes(), &scratch)?;

        let mut guards = Guards::new(&self.kernels, stream)?;
        let addresses = Addresses {
            features: guards.read("features", &inputs.features)?,
            row_stride: inputs.row_stride,
            offsets: I::AT(guards.read("offsets", &inputs.offsets)?),
            mask: guards.read_some("mask", &inputs.mask)?,
            max: guards.write_some("max", &mut outputs.max)?,
            mean: guards.write_some("mean", &mut outputs.mean)?,
            argmax: guards.write_some("argmax", &mut outputs.argmax)?,
            exact: guards.write_some("exact", &mut outputs.exact)?,
            scratch: guards.scratch(&mut scratch)?,
        };
        let steps = self.plan.steps(call, addresses)?;
        // SAFETY: the views are of the lengths that the steps were planned for, and of the types. Whatever the
        // offsets, the kernels stay within N rows and B bags, and the work list within its capacity.
        unsafe { guards.launch(&steps) }
    }

    /// N and B.
    fn expect_inputs<E: Element, I>(&self, inputs: &Inputs<'_, E, I>) -> Result<Capacity> {
        let Shape { dim, features, .. } = self.plan.shape();
        expect_dtype("features", features, E::DTYPE)?;
        let instances = rows("features", inputs.features.len(), dim, ("row_stride", inputs.row_stride))?;
        let bags = bags(&inputs.offsets)?;
        expect_mask(&inputs.mask, instances)?;
        Ok(Capacity { instances, bags })
    }

    fn expect_outputs<O: Element>(&self, call: Capacity, outputs: &Outputs<'_, O>) -> Result<()> {
        let shape = self.plan.shape();
        let pooled = call.bags.saturating_mul(shape.dim);
        for (name, output) in [("max", &outputs.max), ("mean", &outputs.mean)] {
            if output.is_some() {
                expect_dtype(name, shape.outputs, O::DTYPE)?;
            }
            expect_output(name, "[B, D]", pooled, output)?;
        }
        expect_output("argmax", "[B, D]", pooled, &outputs.argmax)?;
        expect_exact(call.bags, 1, shape.dim, &outputs.exact)
    }
}
