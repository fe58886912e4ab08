//! Attention scores.

use cudarc::driver::{CudaStream, CudaView, CudaViewMut};

use super::PackedAttention;
use super::arguments::{expect_dtype, expect_mask, expect_output, rows};
use super::guards::Guards;
use crate::element::Element;
use crate::error::{Result, expect_len};
use crate::gradient::ACTIVATIONS;
use crate::launch::scores::{self as launch, Addresses};

/// Scores by certain parameters, for any number of calls.
#[derive(Debug, Clone)]
pub struct Scores {
    pub(super) packed: PackedAttention,
    pub(super) plan: launch::Scores,
}

/// What a call reads.
#[derive(Debug)]
pub struct Inputs<'a, E> {
    /// `[N, D]`; it ends with the last row: `(N - 1) · row_stride + D` elements, none where `N` is 0.
    pub features: CudaView<'a, E>,
    /// Elements from row to row; `D` where nothing lies between them.
    pub row_stride: usize,
    /// `[N]`, 0 = not there.
    pub mask: Option<CudaView<'a, u8>>,
}

impl Scores {
    /// Prepares for calls of any size. The parameters live as long as this does.
    pub fn plan(packed: &PackedAttention) -> Self {
        Scores { packed: packed.clone(), plan: launch::Scores::plan(packed.plan()) }
    }

    /// `s[n,k] = w[k]·tanh(V h[n] + b_v) + c[k]`, or `w[k]·(tanh(V h[n] + b_v) ⊙ σ(U h[n] + b_u)) + c[k]` where it is
    /// gated: features `[N, D]` → `scores` `[N, K]`.
    ///
    /// Queues the work and returns. The score of a masked instance is −inf, and its features are not used.
    ///
    /// # Errors
    /// [`Error::Argument`](crate::Error::Argument) where a buffer is not of the length, type or alignment that the
    /// parameters ask for, or there are more instances than a launch can have;
    /// [`Error::Bags`](crate::Error::Bags) for the length of the mask; [`CudaError`](crate::error::CudaError) where a
    /// buffer or the stream is of another context, or the driver fails.
    pub fn run<E: Element>(
        &self,
        stream: &CudaStream,
        inputs: Inputs<'_, E>,
        scores: CudaViewMut<'_, f32>,
    ) -> Result<()> {
        self.run_some(stream, inputs, scores, None)
    }

    /// The same scores, and what their [backward](super::backward::scores) would compute again: `activations`,
    /// `[N, G, L]` of tanh(V h + b_v), or `[N, 2, G, L]` of that and σ(U h + b_u) where the attention is gated. Those of
    /// masked instances are 0.
    ///
    /// # Errors
    /// As of [`run`](Self::run).
    pub fn run_keeping<E: Element>(
        &self,
        stream: &CudaStream,
        inputs: Inputs<'_, E>,
        scores: CudaViewMut<'_, f32>,
        activations: CudaViewMut<'_, E>,
    ) -> Result<()> {
        self.run_some(stream, inputs, scores, Some(activations))
    }

    fn run_some<E: Element>(
        &self,
        stream: &CudaStream,
        inputs: Inputs<'_, E>,
        mut scores: CudaViewMut<'_, f32>,
        mut activations: Option<CudaViewMut<'_, E>>,
    ) -> Result<()> {
        let shape = self.packed.shape();
        expect_dtype("features", self.packed.dtype(), E::DTYPE)?;
        let instances = rows("features", inputs.features.len(), shape.dim, ("row_stride", inputs.row_stride))?;
        expect_mask(&inputs.mask, instances)?;
        expect_len("scores", "[N, K]", instances.saturating_mul(shape.heads), scores.len())?;
        let kept = instances.saturating_mul(self.packed.activations());
        expect_output("activations", ACTIVATIONS, kept, &activations)?;

        let packed = self.packed.view();
        let mut guards = Guards::new(self.packed.kernels(), stream)?;
        let addresses = Addresses {
            packed: guards.read("packed", &packed)?,
            features: guards.read("features", &inputs.features)?,
            row_stride: inputs.row_stride,
            mask: guards.read_some("mask", &inputs.mask)?,
            scores: guards.write("scores", &mut scores)?,
            activations: guards.write_some("activations", &mut activations)?,
        };
        if let Some(steps) = self.plan.steps(instances, addresses)? {
            // SAFETY: the views are of the lengths and types that the parameters ask for, and the kernel stays within
            // N rows.
            unsafe { guards.launch(&steps) }?;
        }
        Ok(())
    }
}
