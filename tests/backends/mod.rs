//! What the properties are held against. A backend is one row of the table in `properties/main.rs`.

mod cpu;
#[cfg(feature = "cuda")]
mod gpu;
#[cfg(feature = "cuda")]
pub mod vm;

use std::fmt::Debug;

use mivc::cpu::{AttentionOutputs, MaxMeanOutputs, Values};
use mivc::{AttentionParams, Bags, Device, Dtype, Element, Result, Rows};

pub use cpu::CpuBackend;
#[cfg(feature = "cuda")]
pub use {gpu::GpuBackend, vm::VmBackend};

/// The operations of the library on memory of the host. A backend that has memory of its own copies
/// the inputs, and the outputs as they are found, there and the outputs back.
pub trait Backend: Send + Sync + 'static {
    /// Parameters as the backend's kernels read them.
    type Packed: Debug;

    /// The last part of a trial's name.
    fn name(&self) -> &'static str;

    /// Whether it has the operations that a test, as `agreement::max_mean`, calls.
    fn covers(&self, _test: &str) -> bool {
        true
    }

    /// Why the backend cannot run on this machine. Nothing else is called where it cannot.
    fn availability(&self) -> Result<(), String>;

    /// The device by which the front door runs on this very backend.
    fn device(&self) -> Option<Device>;

    fn pack(&self, params: &AttentionParams, dtype: Dtype) -> Self::Packed;

    fn scores<E: Element>(
        &self,
        packed: &Self::Packed,
        features: Rows<'_, E>,
        mask: Option<&[u8]>,
        scores: &mut [f32],
    ) -> Result<()>;

    fn gate<E: Element>(&self, x: &[E], y: &[E], g: &mut [E]) -> Result<()>;

    fn softmax(
        &self,
        scores: &[f32],
        heads: usize,
        bags: &Bags<'_>,
        weights: &mut [f32],
        lse: &mut [f32],
    ) -> Result<()>;

    fn weighted_sum<E: Element, O: Element>(
        &self,
        weights: &[f32],
        heads: usize,
        values: Values<'_, E>,
        bags: &Bags<'_>,
        pooled: &mut [O],
    ) -> Result<()>;

    fn max_mean<E: Element, O: Element>(
        &self,
        features: Rows<'_, E>,
        bags: &Bags<'_>,
        outputs: MaxMeanOutputs<'_, O>,
    ) -> Result<()>;

    /// Without `values` the keys are pooled.
    fn attention_pool<E: Element, O: Element>(
        &self,
        packed: &Self::Packed,
        keys: Rows<'_, E>,
        values: Option<Rows<'_, E>>,
        bags: &Bags<'_>,
        outputs: AttentionOutputs<'_, O>,
    ) -> Result<()>;
}
