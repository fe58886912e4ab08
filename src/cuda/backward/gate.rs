//! Backward of the gate.
//!
//! ```no_run
//! use mivc::Dtype;
//! use mivc::cuda::backward::Gradient;
//! use mivc::cuda::backward::gate::{GateBackward, Gradients, Inputs};
//! use mivc::cuda::{Kernels, context};
//!
//! let context = context(0)?;
//! let operation = GateBackward::plan(&Kernels::load(&context)?, Dtype::F32);
//!
//! let stream = context.new_stream()?;
//! let (x, y) = (stream.clone_htod(&[0.0_f32; 4])?, stream.clone_htod(&[0.0_f32; 4])?);
//! let d_g = stream.clone_htod(&[1.0_f32; 4])?;
//! let mut d_x = stream.clone_htod(&[10.0_f32; 4])?;
//!
//! operation.run(
//!     &stream,
//!     Inputs { x: x.as_view(), y: y.as_view(), d_g: d_g.as_view() },
//!     Gradients { x: Some(Gradient::Add(d_x.as_view_mut())), y: None },
//! )?;
//! assert_eq!(stream.clone_dtoh(&d_x)?, [10.5; 4]);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

use cudarc::driver::{CudaStream, CudaView};

use super::super::Kernels;
use super::super::arguments::expect_dtype;
use super::super::guards::Guards;
use super::Gradient;
use crate::element::{Dtype, Element};
use crate::error::{Result, expect_len};
use crate::launch::backward::gate::{self as launch, Addresses};

/// Backward of the gate of a type of elements, for any number of calls.
#[derive(Debug, Clone)]
pub struct GateBackward {
    pub(in crate::cuda) kernels: Kernels,
    pub(in crate::cuda) plan: launch::GateBackward,
}

/// What a call reads.
#[derive(Debug)]
pub struct Inputs<'a, E> {
    /// `[N, L]`, or any number of elements.
    pub x: CudaView<'a, E>,
    /// As many.
    pub y: CudaView<'a, E>,
    /// The gradient of g, as many.
    pub d_g: CudaView<'a, E>,
}

/// What a call writes, each of as many elements; where there is none, the call does nothing.
#[derive(Debug)]
pub struct Gradients<'a, E> {
    /// Of x.
    pub x: Option<Gradient<'a, E>>,
    /// Of y.
    pub y: Option<Gradient<'a, E>>,
}

impl GateBackward {
    /// Prepares for calls of any size, on arguments and gradients of type `dtype`.
    pub fn plan(kernels: &Kernels, dtype: Dtype) -> Self {
        GateBackward { kernels: kernels.clone(), plan: launch::GateBackward::plan(dtype) }
    }

    /// `dx = dg ⊙ (1 − tanh²(x)) ⊙ σ(y)`, `dy = dg ⊙ tanh(x) ⊙ σ(y) ⊙ (1 − σ(y))`, element by element; all are of one
    /// length.
    ///
    /// Queues the work and returns.
    ///
    /// # Errors
    /// [`Error::Argument`](crate::Error::Argument) where a buffer is not of the length of x, or not of the type or
    /// alignment that was planned; [`CudaError`](crate::error::CudaError) where a buffer or the stream is of another
    /// context, or the driver fails.
    pub fn run<E: Element>(
        &self,
        stream: &CudaStream,
        inputs: Inputs<'_, E>,
        mut gradients: Gradients<'_, E>,
    ) -> Result<()> {
        const SHAPE: &str = "the length of x";
        expect_dtype("x", self.plan.dtype(), E::DTYPE)?;
        let elements = inputs.x.len();
        expect_len("y", SHAPE, elements, inputs.y.len())?;
        expect_len("d_g", SHAPE, elements, inputs.d_g.len())?;
        Gradient::expect_len(&gradients.x, "d_x", SHAPE, elements)?;
        Gradient::expect_len(&gradients.y, "d_y", SHAPE, elements)?;

        let mut guards = Guards::new(&self.kernels, stream)?;
        let addresses = Addresses {
            x: guards.read("x", &inputs.x)?,
            y: guards.read("y", &inputs.y)?,
            d_g: guards.read("d_g", &inputs.d_g)?,
            d_x: Gradient::write_some(&mut gradients.x, &mut guards, "d_x")?,
            d_y: Gradient::write_some(&mut gradients.y, &mut guards, "d_y")?,
        };
        if let Some(steps) = self.plan.steps(elements, addresses)? {
            // SAFETY: the views are of one length and of the type that was planned; gradients are read and written,
            // through views that nothing else has.
            unsafe { guards.launch(&steps) }?;
        }
        Ok(())
    }
}
