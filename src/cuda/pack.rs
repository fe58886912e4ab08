//! The parameters of attention, laid out on a device for the kernels that score and for their backward.

use std::fmt;
use std::mem::ManuallyDrop;
use std::sync::Arc;

use cudarc::driver::{CudaSlice, CudaStream, CudaView, result};

use super::Kernels;
use super::guards::Guards;
use crate::attention::{AttentionParams, AttentionShape};
use crate::element::Dtype;
use crate::error::{CudaError, Result};
use crate::gradient::ParamsThere;
use crate::launch::Step;
use crate::launch::backward::pack::PackBackward;
use crate::launch::pack::{Addresses, Pack, Shape};

/// Attention parameters as the kernels read them; see [`Kernels::pack`]. A clone is another handle of the same.
///
/// Any number of streams may use them at once. The last handle, those within operations included, waits when it is
/// dropped for what the device still does, and frees the memory.
#[derive(Clone)]
pub struct PackedAttention {
    plan: Pack,
    packed: Packed,
}

/// Attention parameters as the kernels of the backward read them; see [`Kernels::pack_backward`]. A handle as
/// [`PackedAttention`] is.
#[derive(Clone)]
pub struct PackedBackward {
    plan: PackBackward,
    there: ParamsThere,
    packed: Packed,
}

/// Memory that holds parameters.
#[derive(Clone)]
struct Packed {
    address: u64,
    memory: Arc<Memory>,
    /// Behind the memory, whose end waits for what runs.
    kernels: Kernels,
}

/// What the kernels read; it is written once.
struct Memory(ManuallyDrop<CudaSlice<u8>>);

impl Drop for Memory {
    fn drop(&mut self) {
        let context = self.0.context();
        // An error that somebody else has yet to be given must neither keep this from waiting nor get lost.
        let kept = context.check_err();
        // Of several streams that read it, cudarc knows the last alone, so this waits for all.
        let waited = context.bind_to_thread().and_then(|()| result::ctx::synchronize());
        context.record_err(kept);
        match waited {
            // SAFETY: this is the only place where it is dropped, and nothing uses it afterwards.
            Ok(()) => unsafe { ManuallyDrop::drop(&mut self.0) },
            // Something may still read it: it goes with the context.
            Err(error) => context.record_err(Err::<(), _>(error)),
        }
    }
}

impl Kernels {
    /// Packs parameters for features of type `features`: V and U rounded to it, w and the biases in f32.
    ///
    /// Uploads the parameters, allocates what [`PackedAttention`] holds, queues the work and returns. Calls on other
    /// streams wait for it by themselves, where they are not [`raw`](super::raw).
    ///
    /// # Errors
    /// [`Error::Argument`](crate::Error::Argument) where the packed parameters would not fit the address space;
    /// [`CudaError`] where the stream is of another context, or the driver fails.
    pub fn pack(&self, stream: &Arc<CudaStream>, params: &AttentionParams, features: Dtype) -> Result<PackedAttention> {
        let plan = Pack::plan(self.pack_shape(params, features))?;
        // SAFETY: the plan is of these parameters.
        let packed = unsafe { self.upload(stream, params, plan.bytes(), |addresses| plan.steps(addresses)) }?;
        Ok(PackedAttention { plan, packed })
    }

    /// The same for a backward, with V and U by feature beside it.
    ///
    /// # Errors
    /// As of [`pack`](Self::pack).
    pub fn pack_backward(
        &self,
        stream: &Arc<CudaStream>,
        params: &AttentionParams,
        features: Dtype,
    ) -> Result<PackedBackward> {
        let plan = PackBackward::plan(self.pack_shape(params, features))?;
        // SAFETY: the plan is of these parameters.
        let packed = unsafe { self.upload(stream, params, plan.bytes(), |addresses| plan.steps(addresses)) }?;
        Ok(PackedBackward { plan, there: ParamsThere::of(params), packed })
    }

    fn pack_shape(&self, params: &AttentionParams, features: Dtype) -> Shape {
        Shape { attention: params.shape(), gated: params.is_gated(), features, f32_product: self.f32_product() }
    }

    /// Uploads parameters and queues what packs them into so many bytes.
    ///
    /// # Safety
    /// The steps read tensors of the lengths that the shape of `params` asks for, and write within so many bytes.
    unsafe fn upload<const N: usize>(
        &self,
        stream: &Arc<CudaStream>,
        params: &AttentionParams,
        bytes: usize,
        steps: impl FnOnce(Addresses) -> Result<[Step; N]>,
    ) -> Result<Packed> {
        self.expect_context("stream", stream.context())?;
        let tensors = params.tensors();
        let upload = |tensor: &[f32]| stream.clone_htod(tensor).map_err(CudaError::from);
        let upload_some = |tensor: Option<&[f32]>| tensor.map(upload).transpose();
        let (v, w) = (upload(tensors.v)?, upload(tensors.w)?);
        let u = upload_some(tensors.u)?;
        let (v_bias, u_bias) = (upload_some(tensors.v_bias)?, upload_some(tensors.u_bias)?);
        let w_bias = upload_some(tensors.w_bias)?;
        // SAFETY: any bits are u8, and the kernel writes what others read.
        let mut packed = unsafe { stream.alloc::<u8>(bytes) }.map_err(CudaError::from)?;

        let address = {
            let [v, w] = [&v, &w].map(CudaSlice::as_view);
            let [u, v_bias, u_bias, w_bias] = [&u, &v_bias, &u_bias, &w_bias].map(view);
            let mut memory = packed.as_view_mut();
            let mut guards = Guards::new(self, stream)?;
            let addresses = Addresses {
                v: guards.read("v", &v)?,
                v_bias: guards.read_some("v_bias", &v_bias)?,
                u: guards.read_some("u", &u)?,
                u_bias: guards.read_some("u_bias", &u_bias)?,
                w: guards.read("w", &w)?,
                w_bias: guards.read_some("w_bias", &w_bias)?,
                packed: guards.scratch(&mut memory)?,
            };
            // SAFETY: `AttentionParams` has tensors of the lengths that its shape asks for; the rest the caller
            // promises.
            unsafe { guards.launch(&steps(addresses)?) }?;
            addresses.packed
        };
        let memory = Arc::new(Memory(ManuallyDrop::new(packed)));
        Ok(Packed { address, memory, kernels: self.clone() })
    }
}

fn view(slice: &Option<CudaSlice<f32>>) -> Option<CudaView<'_, f32>> {
    slice.as_ref().map(CudaSlice::as_view)
}

impl PackedAttention {
    /// All sizes.
    pub fn shape(&self) -> AttentionShape {
        self.plan.shape().attention
    }

    /// Whether there is a U.
    pub fn is_gated(&self) -> bool {
        self.plan.shape().gated
    }

    /// The type of the features that they were packed for.
    pub fn dtype(&self) -> Dtype {
        self.plan.shape().features
    }

    /// Elements that the activations of an instance have, where they are kept: `G·L`, and twice that where there is a U.
    pub fn activations(&self) -> usize {
        self.plan.activations()
    }

    /// How they are laid out.
    pub fn plan(&self) -> Pack {
        self.plan
    }

    /// Where they are, for [`raw`](super::raw): a device address that is good for as long as there is a handle, and
    /// in the order of the stream that packed them.
    pub fn address(&self) -> u64 {
        self.packed.address
    }

    pub(super) fn view(&self) -> CudaView<'_, u8> {
        self.packed.memory.0.as_view()
    }

    pub(super) fn kernels(&self) -> &Kernels {
        &self.packed.kernels
    }
}

impl PackedBackward {
    /// All sizes.
    pub fn shape(&self) -> AttentionShape {
        self.plan.forward().shape().attention
    }

    /// Whether there is a U.
    pub fn is_gated(&self) -> bool {
        self.plan.forward().shape().gated
    }

    /// The type of the features that they were packed for.
    pub fn dtype(&self) -> Dtype {
        self.plan.forward().shape().features
    }

    /// As [`PackedAttention::activations`].
    pub fn activations(&self) -> usize {
        self.plan.forward().activations()
    }

    /// How they are laid out.
    pub fn plan(&self) -> PackBackward {
        self.plan
    }

    /// As [`PackedAttention::address`].
    pub fn address(&self) -> u64 {
        self.packed.address
    }

    pub(super) fn view(&self) -> CudaView<'_, u8> {
        self.packed.memory.0.as_view()
    }

    pub(super) fn kernels(&self) -> &Kernels {
        &self.packed.kernels
    }

    /// Which parameters there are.
    pub(super) fn there(&self) -> &ParamsThere {
        &self.there
    }
}

impl fmt::Debug for PackedAttention {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        describe("PackedAttention", &self.plan, f)
    }
}

impl fmt::Debug for PackedBackward {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        describe("PackedBackward", &self.plan.forward(), f)
    }
}

fn describe(name: &str, plan: &Pack, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let Shape { attention, gated, features, .. } = plan.shape();
    f.debug_struct(name)
        .field("shape", &attention)
        .field("gated", &gated)
        .field("dtype", &features)
        .finish_non_exhaustive()
}
