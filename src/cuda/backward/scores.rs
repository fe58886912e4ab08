//! Backward of the scores.
//!
//! ```no_run
//! use mivc::cuda::backward::Gradient;
//! use mivc::cuda::backward::scores::{Gradients, Inputs, ParamGradients, ScoresBackward};
//! use mivc::cuda::{Kernels, context};
//! use mivc::{AttentionParams, Dtype};
//!
//! let context = context(0)?;
//! let kernels = Kernels::load(&context)?;
//! let stream = context.new_stream()?;
//!
//! let params = AttentionParams::load("attention_gated.safetensors")?;
//! let packed = kernels.pack_backward(&stream, &params, Dtype::F32)?;
//! let operation = ScoresBackward::plan(&packed, Dtype::F32, 1 << 16)?;
//!
//! let (dim, heads) = (packed.shape().dim, packed.shape().heads);
//! let mut scratch = stream.alloc_zeros::<u8>(operation.scratch_bytes())?;
//! let features = stream.clone_htod(&vec![0.5_f32; 5 * dim])?;
//! let d_scores = stream.clone_htod(&vec![1.0_f32; 5 * heads])?;
//! let mut d_features = stream.alloc_zeros::<f32>(5 * dim)?;
//! let mut d_v = stream.alloc_zeros::<f32>(params.tensors().v.len())?;
//!
//! operation.run(
//!     &stream,
//!     Inputs {
//!         features: features.as_view(),
//!         row_stride: dim,
//!         mask: None,
//!         activations: None,
//!         d_scores: d_scores.as_view(),
//!     },
//!     Gradients {
//!         features: Some(Gradient::Set(d_features.as_view_mut())),
//!         params: ParamGradients { v: Some(Gradient::Add(d_v.as_view_mut())), ..Default::default() },
//!     },
//!     scratch.as_view_mut(),
//! )?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

use cudarc::driver::{CudaStream, CudaView, CudaViewMut};

use super::super::PackedBackward;
use super::super::arguments::{expect_dtype, expect_input, expect_mask, expect_scratch, rows};
use super::super::guards::Guards;
use super::Gradient;
use crate::element::{Dtype, Element};
use crate::error::{Result, expect_len};
use crate::gradient::ACTIVATIONS;
use crate::launch::backward::scores::{self as launch, Addresses};

/// Backward of the scores by certain parameters, for any number of calls.
#[derive(Debug, Clone)]
pub struct ScoresBackward {
    pub(in crate::cuda) packed: PackedBackward,
    pub(in crate::cuda) plan: launch::ScoresBackward,
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
    /// As [`Scores::run_keeping`](crate::cuda::scores::Scores::run_keeping) has kept them; without them they are
    /// computed again.
    pub activations: Option<CudaView<'a, E>>,
    /// The gradient of the scores, `[N, K]`.
    pub d_scores: CudaView<'a, f32>,
}

/// What a call writes: of the parameters only what they have.
#[derive(Debug)]
pub struct Gradients<'a, G> {
    /// Of the features, `[N, D]`, nothing between its rows. A frozen encoder needs none, and then none is computed.
    pub features: Option<Gradient<'a, G>>,
    /// Of the parameters.
    pub params: ParamGradients<'a>,
}

/// Gradients of [`AttentionParams`](crate::AttentionParams), of each that is asked for.
#[derive(Debug, Default)]
pub struct ParamGradients<'a> {
    /// Of V, `[G, L, D]`.
    pub v: Option<Gradient<'a, f32>>,
    /// Of the bias of V, `[G, L]`.
    pub v_bias: Option<Gradient<'a, f32>>,
    /// Of U, `[G, L, D]`.
    pub u: Option<Gradient<'a, f32>>,
    /// Of the bias of U, `[G, L]`.
    pub u_bias: Option<Gradient<'a, f32>>,
    /// Of w, `[K, L]`.
    pub w: Option<Gradient<'a, f32>>,
    /// Of the bias of w, `[K]`.
    pub w_bias: Option<Gradient<'a, f32>>,
}

impl ParamGradients<'_> {
    /// `Ok` exactly when all that is asked for is there, and fits.
    pub(super) fn expect(&self, packed: &PackedBackward) -> Result<()> {
        let ParamGradients { v, v_bias, u, u_bias, w, w_bias } = self;
        packed.there().expect([v, v_bias, u, u_bias, w, w_bias].map(|to| to.as_ref().map(Gradient::len)))
    }

    pub(super) fn write<'a>(&'a mut self, guards: &mut Guards<'a>) -> Result<launch::ParamGradients> {
        Ok(launch::ParamGradients {
            v: Gradient::write_some(&mut self.v, guards, "d_v")?,
            v_bias: Gradient::write_some(&mut self.v_bias, guards, "d_v_bias")?,
            u: Gradient::write_some(&mut self.u, guards, "d_u")?,
            u_bias: Gradient::write_some(&mut self.u_bias, guards, "d_u_bias")?,
            w: Gradient::write_some(&mut self.w, guards, "d_w")?,
            w_bias: Gradient::write_some(&mut self.w_bias, guards, "d_w_bias")?,
        })
    }
}

impl ScoresBackward {
    /// Prepares for calls of at most so many instances, with a gradient of the features of type `gradients`. The
    /// parameters live as long as this does.
    ///
    /// # Errors
    /// [`Error::Argument`](crate::Error::Argument) where `gradients` is neither f32 nor of the type that the parameters
    /// are packed for, or a size is beyond what a launch can have.
    pub fn plan(packed: &PackedBackward, gradients: Dtype, instances: usize) -> Result<Self> {
        let (order, shape) = (packed.kernels().order(), launch::Shape { pack: packed.plan(), gradients });
        Ok(ScoresBackward { packed: packed.clone(), plan: launch::ScoresBackward::plan(order, shape, instances)? })
    }

    /// Bytes of scratch memory that every call needs. What is in it does not matter, before or after.
    pub fn scratch_bytes(&self) -> usize {
        self.plan.scratch_bytes()
    }

    /// Features `[N, D]` and the gradient of the scores `[N, K]` → the gradients of features and parameters, by the
    /// formulas of [`reference::scores_backward`](crate::reference::scores_backward).
    ///
    /// Queues the work and returns. Masked instances, and scores whose gradient is 0, add to no gradient, whatever the
    /// features hold. Products are of f32 gradients whatever the type of the features: where they go to the matrix units,
    /// as two TF32 each. There a gradient that is infinite may come out as NaN.
    ///
    /// # Errors
    /// [`Error::Argument`](crate::Error::Argument) where a buffer is not of the length, type or alignment that the
    /// parameters ask for, a gradient is asked for of a parameter that is not there, or the call is larger than planned;
    /// [`Error::Bags`](crate::Error::Bags) for the length of the mask; [`CudaError`](crate::error::CudaError) where a
    /// buffer or the stream is of another context, or the driver fails.
    pub fn run<E: Element, G: Element>(
        &self,
        stream: &CudaStream,
        inputs: Inputs<'_, E>,
        mut gradients: Gradients<'_, G>,
        mut scratch: CudaViewMut<'_, u8>,
    ) -> Result<()> {
        let instances = self.expect_inputs(&inputs)?;
        if gradients.features.is_some() {
            expect_dtype("d_features", self.plan.shape().gradients, G::DTYPE)?;
        }
        let elements = instances.saturating_mul(self.packed.shape().dim);
        Gradient::expect_len(&gradients.features, "d_features", "[N, D]", elements)?;
        gradients.params.expect(&self.packed)?;
        expect_scratch(self.scratch_bytes(), &scratch)?;

        let packed = self.packed.view();
        let mut guards = Guards::new(self.packed.kernels(), stream)?;
        let addresses = Addresses {
            packed: guards.read("packed", &packed)?,
            features: guards.read("features", &inputs.features)?,
            row_stride: inputs.row_stride,
            mask: guards.read_some("mask", &inputs.mask)?,
            activations: guards.read_some("activations", &inputs.activations)?,
            d_scores: guards.read("d_scores", &inputs.d_scores)?,
            d_features: Gradient::write_some(&mut gradients.features, &mut guards, "d_features")?,
            params: gradients.params.write(&mut guards)?,
            scratch: guards.scratch(&mut scratch)?,
        };
        let steps = self.plan.steps(instances, addresses)?;
        // SAFETY: the views are of the lengths that the steps were planned for, and of the types, and the kernels stay
        // within N rows.
        unsafe { guards.launch(&steps) }
    }

    /// N.
    fn expect_inputs<E: Element>(&self, inputs: &Inputs<'_, E>) -> Result<usize> {
        let shape = self.packed.shape();
        expect_dtype("features", self.packed.dtype(), E::DTYPE)?;
        let instances = rows("features", inputs.features.len(), shape.dim, ("row_stride", inputs.row_stride))?;
        expect_mask(&inputs.mask, instances)?;
        let kept = instances.saturating_mul(self.packed.activations());
        expect_input("activations", ACTIVATIONS, kept, &inputs.activations)?;
        expect_len("d_scores", "[N, K]", instances.saturating_mul(shape.heads), inputs.d_scores.len())?;
        Ok(instances)
    }
}
