//! Gated sigmoid weighting.

use cudarc::driver::{CudaStream, CudaView, CudaViewMut};

use super::Kernels;
use super::arguments::expect_dtype;
use super::guards::Guards;
use crate::element::{Dtype, Element};
use crate::error::{Result, expect_len};
use crate::launch::gate::{self as launch, Addresses};

/// The gate of a type of elements, for any number of calls.
#[derive(Debug, Clone)]
pub struct Gate {
    pub(super) kernels: Kernels,
    pub(super) plan: launch::Gate,
}

/// What a call reads.
#[derive(Debug)]
pub struct Inputs<'a, E> {
    /// `[N, L]`, or any number of elements.
    pub x: CudaView<'a, E>,
    /// As many.
    pub y: CudaView<'a, E>,
}

impl Gate {
    /// Prepares for calls of any size, on x, y and g of type `dtype`.
    pub fn plan(kernels: &Kernels, dtype: Dtype) -> Self {
        Gate { kernels: kernels.clone(), plan: launch::Gate::plan(dtype) }
    }

    /// `g = tanh(x) ⊙ σ(y)`, element by element; all three are of one length.
    ///
    /// Queues the work and returns.
    ///
    /// # Errors
    /// [`Error::Argument`](crate::Error::Argument) where a buffer is not of the length of x, or not of the type or
    /// alignment that was planned; [`CudaError`](crate::error::CudaError) where a buffer or the stream is of another
    /// context, or the driver fails.
    pub fn run<E: Element>(&self, stream: &CudaStream, inputs: Inputs<'_, E>, mut g: CudaViewMut<'_, E>) -> Result<()> {
        expect_dtype("x", self.plan.dtype(), E::DTYPE)?;
        let elements = inputs.x.len();
        expect_len("y", "the length of x", elements, inputs.y.len())?;
        expect_len("g", "the length of x", elements, g.len())?;

        let mut guards = Guards::new(&self.kernels, stream)?;
        let addresses = Addresses {
            x: guards.read("x", &inputs.x)?,
            y: guards.read("y", &inputs.y)?,
            g: guards.write("g", &mut g)?,
        };
        if let Some(steps) = self.plan.steps(elements, addresses)? {
            // SAFETY: the views are of one length and of the type that was planned.
            unsafe { guards.launch(&steps) }?;
        }
        Ok(())
    }
}
