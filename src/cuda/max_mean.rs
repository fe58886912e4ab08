//! Max and mean pooling, both in one read of the features.

use cudarc::driver::{CudaStream, CudaView, CudaViewMut};

use super::Kernels;
use super::guards::{Guards, expect_aligned};
use crate::element::Element;
use crate::error::{BagsError, Error, Result, expect_len};
use crate::launch::max_mean::{self as launch, Addresses};
use crate::launch::{Capacity, SCRATCH_ALIGN};

pub use crate::launch::max_mean::Shape;

/// Max and mean pooling of certain shapes, for any number of calls.
#[derive(Debug, Clone)]
pub struct MaxMean {
    pub(super) kernels: Kernels,
    pub(super) plan: launch::MaxMean,
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
}

impl<O> Default for Outputs<'_, O> {
    fn default() -> Self {
        Outputs { max: None, mean: None, argmax: None }
    }
}

/// The type of offsets: i32, as `cu_seqlens` are, or i64.
pub trait Offset: sealed::Offset {}
impl Offset for i32 {}
impl Offset for i64 {}

mod sealed {
    use crate::launch::Offsets;

    pub trait Offset {
        const AT: fn(u64) -> Offsets;
    }

    impl Offset for i32 {
        const AT: fn(u64) -> Offsets = Offsets::I32;
    }

    impl Offset for i64 {
        const AT: fn(u64) -> Offsets = Offsets::I64;
    }
}

impl MaxMean {
    /// Prepares for calls of at most this capacity.
    ///
    /// # Errors
    /// [`Error::Argument`] where the outputs are neither f32 nor of the type of the features, or a size is beyond
    /// what a launch can have.
    pub fn plan(kernels: &Kernels, shape: Shape, capacity: Capacity) -> Result<Self> {
        Ok(MaxMean { kernels: kernels.clone(), plan: launch::MaxMean::plan(shape, capacity)? })
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
    /// [`Error::Argument`] where a buffer is not of the length, type or alignment that the shapes ask for, none is
    /// to be written, or the call is larger than planned; [`Error::Bags`] for the lengths of offsets and mask;
    /// [`CudaError`](crate::error::CudaError) where a buffer or the stream is of another context, or the driver fails.
    pub fn run<E: Element, O: Element, I: Offset>(
        &self,
        stream: &CudaStream,
        inputs: Inputs<'_, E, I>,
        mut outputs: Outputs<'_, O>,
        mut scratch: CudaViewMut<'_, u8>,
    ) -> Result<()> {
        let call = self.expect_inputs(&inputs)?;
        self.expect_outputs(call, &outputs)?;
        if scratch.len() < self.scratch_bytes() {
            return Err(Error::argument("scratch", format!("at least {} bytes", self.scratch_bytes()), scratch.len()));
        }

        let mut guards = Guards::new(&self.kernels, stream)?;
        let addresses = Addresses {
            features: guards.read("features", &inputs.features)?,
            row_stride: inputs.row_stride,
            offsets: I::AT(guards.read("offsets", &inputs.offsets)?),
            mask: inputs.mask.as_ref().map_or(Ok(0), |mask| guards.read("mask", mask))?,
            max: outputs.max.as_mut().map_or(Ok(0), |max| guards.write("max", max))?,
            mean: outputs.mean.as_mut().map_or(Ok(0), |mean| guards.write("mean", mean))?,
            argmax: outputs.argmax.as_mut().map_or(Ok(0), |argmax| guards.write("argmax", argmax))?,
            scratch: guards.write("scratch", &mut scratch)?,
        };
        expect_aligned("scratch", addresses.scratch, SCRATCH_ALIGN)?;
        if let Some(steps) = self.plan.steps(call, addresses)? {
            // SAFETY: the views are of the lengths that the steps were planned for, and of the types. Whatever the
            // offsets, the kernels stay within N rows and B bags, and the work list within its capacity.
            unsafe { guards.launch(&steps) }?;
        }
        Ok(())
    }

    /// N and B.
    fn expect_inputs<E: Element, I>(&self, inputs: &Inputs<'_, E, I>) -> Result<Capacity> {
        let Shape { dim, features, .. } = self.plan.shape();
        if E::DTYPE != features {
            return Err(Error::argument("features", format!("{features}, as planned"), E::DTYPE));
        }
        let instances = rows(inputs.features.len(), dim, inputs.row_stride)?;
        let bags = inputs.offsets.len().checked_sub(1).ok_or(BagsError::Empty)?;
        match &inputs.mask {
            Some(mask) if mask.len() != instances => Err(BagsError::MaskLength { instances, got: mask.len() }.into()),
            _ => Ok(Capacity { instances, bags }),
        }
    }

    fn expect_outputs<O: Element>(&self, call: Capacity, outputs: &Outputs<'_, O>) -> Result<()> {
        let shape = self.plan.shape();
        let pooled = call.bags.saturating_mul(shape.dim);
        for (name, output) in [("max", &outputs.max), ("mean", &outputs.mean)] {
            let Some(output) = output else { continue };
            if O::DTYPE != shape.outputs {
                return Err(Error::argument(name, format!("{}, as planned", shape.outputs), O::DTYPE));
            }
            expect_len(name, "[B, D]", pooled, output.len())?;
        }
        expect_len("argmax", "[B, D]", pooled, outputs.argmax.as_ref().map_or(pooled, |argmax| argmax.len()))
    }
}

/// N, of features that end with the last row.
fn rows(len: usize, dim: usize, row_stride: usize) -> Result<usize> {
    if row_stride < dim {
        return Err(Error::argument("row_stride", format!("at least D = {dim}"), row_stride));
    }
    if len == 0 {
        return Ok(0);
    }
    match len.checked_sub(dim) {
        Some(before_last) if before_last.is_multiple_of(row_stride) => Ok(before_last / row_stride + 1),
        _ => Err(Error::argument("features", format!("(N - 1) * {row_stride} + {dim} elements"), len)),
    }
}

#[cfg(test)]
mod tests {
    use super::rows;

    #[test]
    fn features_end_with_the_last_row() {
        assert_eq!(rows(0, 3, 5).unwrap(), 0);
        assert_eq!(rows(3, 3, usize::MAX).unwrap(), 1);
        assert_eq!(rows(13, 3, 5).unwrap(), 3);
        assert_eq!(rows(9, 3, 3).unwrap(), 3);
        for (len, dim, row_stride) in [(2, 3, 3), (10, 3, 3), (15, 3, 5), (9, 3, 2)] {
            assert!(rows(len, dim, row_stride).is_err());
        }
    }
}
