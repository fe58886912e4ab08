//! Weighted sum of the values of each bag.

use cudarc::driver::{CudaStream, CudaView, CudaViewMut};

use super::arguments::{bags, expect_dtype, expect_mask, expect_scratch, rows};
use super::guards::Guards;
use super::{Kernels, Offset};
use crate::element::Element;
use crate::error::{Result, expect_len};
use crate::launch::weighted_sum::Addresses;
use crate::launch::{Capacity, in_order};

pub use crate::launch::weighted_sum::Shape;

/// Weighted sums of certain shapes, for any number of calls.
#[derive(Debug, Clone)]
pub struct WeightedSum {
    pub(super) kernels: Kernels,
    pub(super) plan: in_order::WeightedSum,
}

/// What a call reads.
#[derive(Debug)]
pub struct Inputs<'a, E, I = i64> {
    /// `[N, K]`.
    pub weights: CudaView<'a, f32>,
    /// `[N, D]`, or `[N, K, D]` where each head has its own; it ends with the last row.
    pub values: CudaView<'a, E>,
    /// Elements from row to row; `D`, or `K·D`, where nothing lies between them.
    pub row_stride: usize,
    /// `[B + 1]`, i32 or i64. No host need have seen the values: they are clamped to `0 ..= N`, and each is raised
    /// to the greatest before it.
    pub offsets: CudaView<'a, I>,
    /// `[N]`, 0 = not there.
    pub mask: Option<CudaView<'a, u8>>,
}

impl WeightedSum {
    /// Prepares for calls of at most this capacity.
    ///
    /// # Errors
    /// [`Error::Argument`](crate::Error::Argument) where the outputs are neither f32 nor of the type of the values,
    /// or a size is 0 or beyond what a launch can have.
    pub fn plan(kernels: &Kernels, shape: Shape, capacity: Capacity) -> Result<Self> {
        Ok(WeightedSum {
            kernels: kernels.clone(),
            plan: in_order::WeightedSum::plan(kernels.order(), shape, capacity)?,
        })
    }

    /// Bytes of scratch memory that every call needs. What is in it does not matter, before or after.
    pub fn scratch_bytes(&self) -> usize {
        self.plan.scratch_bytes()
    }

    /// `z[b,k] = Σ_n a[n,k]·x[n]` over the instances of each bag: weights `[N, K]` and values `[N, D]` or `[N, K, D]`
    /// → `pooled` `[B, K, D]`.
    ///
    /// Queues the work and returns. What is masked or has weight 0 is not used, NaN or not. An empty bag gives 0.
    ///
    /// # Errors
    /// [`Error::Argument`](crate::Error::Argument) where a buffer is not of the length, type or alignment that the
    /// shapes ask for, or the call is larger than planned; [`Error::Bags`](crate::Error::Bags) for the lengths of
    /// offsets and mask; [`CudaError`](crate::error::CudaError) where a buffer or the stream is of another context, or
    /// the driver fails.
    pub fn run<E: Element, O: Element, I: Offset>(
        &self,
        stream: &CudaStream,
        inputs: Inputs<'_, E, I>,
        mut pooled: CudaViewMut<'_, O>,
        mut scratch: CudaViewMut<'_, u8>,
    ) -> Result<()> {
        let call = self.expect_inputs(&inputs)?;
        let Shape { dim, heads, outputs, .. } = self.plan.shape();
        expect_dtype("pooled", outputs, O::DTYPE)?;
        expect_len("pooled", "[B, K, D]", call.bags.saturating_mul(heads).saturating_mul(dim), pooled.len())?;
        expect_scratch(self.scratch_bytes(), &scratch)?;

        let mut guards = Guards::new(&self.kernels, stream)?;
        let addresses = Addresses {
            weights: guards.read("weights", &inputs.weights)?,
            values: guards.read("values", &inputs.values)?,
            row_stride: inputs.row_stride,
            offsets: I::AT(guards.read("offsets", &inputs.offsets)?),
            mask: guards.read_some("mask", &inputs.mask)?,
            pooled: guards.write("pooled", &mut pooled)?,
            scratch: guards.scratch(&mut scratch)?,
        };
        let steps = self.plan.steps(call, addresses)?;
        // SAFETY: the views are of the lengths that the steps were planned for, and of the types. Whatever the
        // offsets, the kernels stay within N rows and B bags, and the work list within its capacity.
        unsafe { guards.launch(&steps) }
    }

    /// N and B.
    fn expect_inputs<E: Element, I>(&self, inputs: &Inputs<'_, E, I>) -> Result<Capacity> {
        let Shape { dim, heads, per_head, values, .. } = self.plan.shape();
        expect_dtype("values", values, E::DTYPE)?;
        let row = if per_head { heads.saturating_mul(dim) } else { dim };
        let instances = rows("values", inputs.values.len(), row, ("row_stride", inputs.row_stride))?;
        expect_len("weights", "[N, K]", instances.saturating_mul(heads), inputs.weights.len())?;
        let bags = bags(&inputs.offsets)?;
        expect_mask(&inputs.mask, instances)?;
        Ok(Capacity { instances, bags })
    }
}
