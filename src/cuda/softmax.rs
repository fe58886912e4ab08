//! Softmax over the instances of each bag.

use cudarc::driver::{CudaStream, CudaView, CudaViewMut};

use super::arguments::{bags, expect_mask, expect_output, expect_scratch};
use super::guards::Guards;
use super::{Kernels, Offset};
use crate::error::{Error, Result};
use crate::launch::softmax::Addresses;
use crate::launch::{Capacity, in_order};

/// Softmax of certain shapes, for any number of calls.
#[derive(Debug, Clone)]
pub struct Softmax {
    pub(super) kernels: Kernels,
    pub(super) plan: in_order::Softmax,
}

/// What a call reads.
#[derive(Debug)]
pub struct Inputs<'a, I = i64> {
    /// `[N, K]`.
    pub scores: CudaView<'a, f32>,
    /// `[B + 1]`, i32 or i64. No host need have seen the values: they are clamped to `0 ..= N`, and each is raised
    /// to the greatest before it.
    pub offsets: CudaView<'a, I>,
    /// `[N]`, 0 = not there.
    pub mask: Option<CudaView<'a, u8>>,
}

/// What a call writes; at least one of them.
#[derive(Debug, Default)]
pub struct Outputs<'a> {
    /// `[N, K]`; those of a bag and head add up to 1. Instances in no bag, before `offsets[0]` or from `offsets[B]`
    /// on, get none: what was there stays.
    pub weights: Option<CudaViewMut<'a, f32>>,
    /// `[B, K]`, the logsumexp of the scores.
    pub lse: Option<CudaViewMut<'a, f32>>,
}

impl Softmax {
    /// Prepares for calls of at most this capacity, on scores of `heads` heads.
    ///
    /// # Errors
    /// [`Error::Argument`] where `heads` is 0, or a size is beyond what a launch can have.
    pub fn plan(kernels: &Kernels, heads: usize, capacity: Capacity) -> Result<Self> {
        Ok(Softmax { kernels: kernels.clone(), plan: in_order::Softmax::plan(kernels.order(), heads, capacity)? })
    }

    /// Bytes of scratch memory that every call needs. What is in it does not matter, before or after.
    pub fn scratch_bytes(&self) -> usize {
        self.plan.scratch_bytes()
    }

    /// `a[n,k] = exp(s[n,k] − lse[b,k])`, where lse is the logsumexp over the bag: scores `[N, K]` → weights
    /// `[N, K]`, lse `[B, K]`.
    ///
    /// Queues the work and returns. A masked instance has weight 0. A bag that is empty, or of scores of −inf alone,
    /// has weights 0 and lse −inf; a score of NaN or +inf makes its head of its bag NaN.
    ///
    /// # Errors
    /// [`Error::Argument`] where a buffer is not of the length or alignment that the shapes ask for, none is to be
    /// written, or the call is larger than planned; [`Error::Bags`] for the lengths of offsets and mask;
    /// [`CudaError`](crate::error::CudaError) where a buffer or the stream is of another context, or the driver fails.
    pub fn run<I: Offset>(
        &self,
        stream: &CudaStream,
        inputs: Inputs<'_, I>,
        mut outputs: Outputs<'_>,
        mut scratch: CudaViewMut<'_, u8>,
    ) -> Result<()> {
        let call = self.expect_arguments(&inputs, &outputs)?;
        expect_scratch(self.scratch_bytes(), &scratch)?;

        let mut guards = Guards::new(&self.kernels, stream)?;
        let addresses = Addresses {
            scores: guards.read("scores", &inputs.scores)?,
            offsets: I::AT(guards.read("offsets", &inputs.offsets)?),
            mask: guards.read_some("mask", &inputs.mask)?,
            weights: guards.write_some("weights", &mut outputs.weights)?,
            lse: guards.write_some("lse", &mut outputs.lse)?,
            scratch: guards.scratch(&mut scratch)?,
        };
        let steps = self.plan.steps(call, addresses)?;
        // SAFETY: the views are of the lengths that the steps were planned for. Whatever the offsets, the kernels
        // stay within N rows and B bags, and the work list within its capacity.
        unsafe { guards.launch(&steps) }
    }

    /// N and B.
    fn expect_arguments<I>(&self, inputs: &Inputs<'_, I>, outputs: &Outputs<'_>) -> Result<Capacity> {
        let (heads, scores) = (self.plan.heads(), inputs.scores.len());
        if !scores.is_multiple_of(heads) {
            return Err(Error::argument("scores", format!("[N, K], a multiple of K = {heads} elements"), scores));
        }
        let call = Capacity { instances: scores / heads, bags: bags(&inputs.offsets)? };
        expect_mask(&inputs.mask, call.instances)?;
        expect_output("weights", "[N, K]", scores, &outputs.weights)?;
        expect_output("lse", "[B, K]", call.bags.saturating_mul(heads), &outputs.lse)?;
        Ok(call)
    }
}
