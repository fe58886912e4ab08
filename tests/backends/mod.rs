//! What the properties are held against. A backend is one row of the table in `properties/main.rs`.

mod cpu;
#[cfg(feature = "cuda")]
pub mod gpu;
#[cfg(feature = "cuda")]
pub mod vm;

use std::fmt::Debug;

use mivc::cpu::{
    AttentionOutputs, AttentionPoolGradients, AttentionPoolUpstream, MaxMeanOutputs, MaxMeanUpstream, Saved,
    ScoresGradients, SoftmaxUpstream, Values, WeightedSumGradients,
};
use mivc::{AttentionParams, Bags, Device, Dtype, Element, Gradient, Order, PoolState, Result, Rows};

pub use cpu::CpuBackend;

/// The operations of the library on memory of the host. A backend that has memory of its own copies
/// the inputs, and the outputs as they are found, there and the outputs back.
pub trait Backend: Send + Sync + 'static {
    /// Parameters as the backend's kernels read them.
    type Packed: Debug;
    /// The same for the backward.
    type PackedBackward: Debug;

    /// The last part of a trial's name.
    fn name(&self) -> &'static str;

    /// Whether it has the operations that a test, as `agreement::max_mean`, calls.
    fn covers(&self, _test: &str) -> bool {
        true
    }

    /// How many cases it tries of a test for which `count` are asked.
    fn cases(&self, _test: &str, count: u32) -> u32 {
        count
    }

    /// What the order of a bag's instances may change.
    fn order(&self) -> Order {
        Order::Rounding
    }

    /// Why the backend cannot run on this machine. Nothing else is called where it cannot.
    fn availability(&self) -> Result<(), String>;

    /// The device by which the front door runs on this very backend.
    fn device(&self) -> Option<Device>;

    fn max_mean<E: Element, O: Element>(
        &self,
        features: Rows<'_, E>,
        bags: &Bags<'_>,
        outputs: MaxMeanOutputs<'_, O>,
    ) -> Result<()>;

    // A backend without these covers no test that calls them.

    fn pack(&self, _: &AttentionParams, _: Dtype) -> Self::Packed {
        unreachable!("covers() leaves it out")
    }

    fn scores<E: Element>(&self, _: &Self::Packed, _: Rows<'_, E>, _: Option<&[u8]>, _: &mut [f32]) -> Result<()> {
        unreachable!("covers() leaves it out")
    }

    fn gate<E: Element>(&self, _: &[E], _: &[E], _: &mut [E]) -> Result<()> {
        unreachable!("covers() leaves it out")
    }

    fn softmax(&self, _: &[f32], _: usize, _: &Bags<'_>, _: &mut [f32], _: &mut [f32]) -> Result<()> {
        unreachable!("covers() leaves it out")
    }

    fn weighted_sum<E: Element, O: Element>(
        &self,
        _: &[f32],
        _: usize,
        _: Values<'_, E>,
        _: &Bags<'_>,
        _: &mut [O],
    ) -> Result<()> {
        unreachable!("covers() leaves it out")
    }

    /// Without `values` the keys are pooled.
    fn attention_pool<E: Element, O: Element>(
        &self,
        _: &Self::Packed,
        _: Rows<'_, E>,
        _: Option<Rows<'_, E>>,
        _: &Bags<'_>,
        _: AttentionOutputs<'_, O>,
    ) -> Result<()> {
        unreachable!("covers() leaves it out")
    }

    /// Without `values` the keys are pooled.
    fn attention_pool_onto<E: Element>(
        &self,
        _: &Self::Packed,
        _: Rows<'_, E>,
        _: Option<Rows<'_, E>>,
        _: &Bags<'_>,
        _: &mut PoolState,
        _: Option<&mut [f32]>,
    ) -> Result<()> {
        unreachable!("covers() leaves it out")
    }

    /// Instances of a bag that is long for it.
    fn long_bag(&self) -> i64 {
        100_000
    }

    /// In [`Order::Exact`].
    fn mean_onto<E: Element>(&self, _: Rows<'_, E>, _: &Bags<'_>, _: &mut PoolState) -> Result<()> {
        unreachable!("covers() leaves it out")
    }

    /// As [`PoolState::merge`].
    fn merge_state(&self, _: &mut PoolState, _: &PoolState) -> Result<()> {
        unreachable!("covers() leaves it out")
    }

    fn pack_backward(&self, _: &AttentionParams, _: Dtype) -> Self::PackedBackward {
        unreachable!("covers() leaves it out")
    }

    fn scores_keeping<E: Element>(
        &self,
        _: &Self::Packed,
        _: Rows<'_, E>,
        _: Option<&[u8]>,
        _: &mut [f32],
        _: &mut [E],
    ) -> Result<()> {
        unreachable!("covers() leaves it out")
    }

    fn attention_pool_keeping<E: Element, O: Element>(
        &self,
        _: &Self::Packed,
        _: Rows<'_, E>,
        _: Option<Rows<'_, E>>,
        _: &Bags<'_>,
        _: AttentionOutputs<'_, O>,
        _: &mut [E],
    ) -> Result<()> {
        unreachable!("covers() leaves it out")
    }

    fn gate_backward<E: Element>(
        &self,
        _: [&[E]; 3],
        _: Option<Gradient<'_, E>>,
        _: Option<Gradient<'_, E>>,
    ) -> Result<()> {
        unreachable!("covers() leaves it out")
    }

    fn softmax_backward(
        &self,
        _: &[f32],
        _: usize,
        _: &Bags<'_>,
        _: SoftmaxUpstream<'_>,
        _: Gradient<'_, f32>,
    ) -> Result<()> {
        unreachable!("covers() leaves it out")
    }

    fn weighted_sum_backward<E: Element, O: Element>(
        &self,
        _: &[f32],
        _: usize,
        _: Values<'_, E>,
        _: &Bags<'_>,
        _: &[O],
        _: WeightedSumGradients<'_, O>,
    ) -> Result<()> {
        unreachable!("covers() leaves it out")
    }

    fn max_mean_backward<E: Element, O: Element>(
        &self,
        _: Rows<'_, E>,
        _: &Bags<'_>,
        _: MaxMeanUpstream<'_, O>,
        _: Gradient<'_, O>,
    ) -> Result<()> {
        unreachable!("covers() leaves it out")
    }

    fn scores_backward<E: Element, G: Element>(
        &self,
        _: &Self::PackedBackward,
        _: Rows<'_, E>,
        _: Option<&[u8]>,
        _: Option<&[E]>,
        _: &[f32],
        _: ScoresGradients<'_, G>,
    ) -> Result<()> {
        unreachable!("covers() leaves it out")
    }

    /// Without `values` the keys are pooled.
    #[expect(clippy::too_many_arguments, reason = "those of the library")]
    fn attention_pool_backward<E: Element, O: Element>(
        &self,
        _: &Self::PackedBackward,
        _: Rows<'_, E>,
        _: Option<Rows<'_, E>>,
        _: &Bags<'_>,
        _: Saved<'_, E>,
        _: AttentionPoolUpstream<'_, O>,
        _: AttentionPoolGradients<'_, O>,
    ) -> Result<()> {
        unreachable!("covers() leaves it out")
    }
}

/// Rows as a device gets them.
#[cfg(feature = "cuda")]
struct Spread<E> {
    data: Vec<E>,
    /// Of the first row.
    offset: usize,
    row_stride: usize,
}

/// Rows whose first lies at a multiple of 16 bytes, or by their number does not, some with NaN between them.
#[cfg(feature = "cuda")]
fn spread<E: Element>(rows: Rows<'_, E>) -> Spread<E> {
    spread_by(rows, rows.len() % 2, rows.len() % 3)
}

/// Rows of which each begins at a multiple of 16 bytes, as the copy engine of sm_90 needs it.
#[cfg(feature = "cuda")]
fn spread_aligned<E: Element>(rows: Rows<'_, E>) -> Spread<E> {
    let row_stride = (rows.dim() + rows.len() % 3).next_multiple_of(16 / E::DTYPE.size());
    spread_by(rows, 0, row_stride - rows.dim())
}

/// Rows with so many NaN before the first, and between one and the next.
#[cfg(feature = "cuda")]
fn spread_by<E: Element>(rows: Rows<'_, E>, offset: usize, gap: usize) -> Spread<E> {
    let row_stride = rows.dim() + gap;
    let mut data = vec![E::from_f32(f32::NAN); offset + rows.len() * row_stride];
    for n in 0..rows.len() {
        data[offset + n * row_stride..][..rows.dim()].copy_from_slice(rows.row(n));
    }
    Spread { data, offset, row_stride }
}
