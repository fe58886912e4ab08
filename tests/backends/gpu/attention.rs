//! Scores, attention pool and states.

use cudarc::driver::{CudaSlice, CudaViewMut};
use mivc::cpu::AttentionOutputs;
use mivc::cuda::PackedAttention;
use mivc::cuda::attention_pool::{self, AttentionPool};
use mivc::cuda::scores::{self, Scores};
use mivc::cuda::state::{ExactSums, Merge, StateMut, StateRef};
use mivc::launch::attention_pool::Path;
use mivc::{Bags, Element, Order, PoolState, Result, Rows};

use super::{GPU_0, capacity, view_some};
use crate::backends::spread_aligned;

/// The parts of a state on the device: m, l, and what is pooled behind so many other elements.
struct DeviceState {
    max: CudaSlice<f32>,
    sum: CudaSlice<f32>,
    pooled: CudaSlice<f32>,
    offset: usize,
}

impl DeviceState {
    fn upload(state: &PoolState, offset: usize) -> Self {
        let pooled = [&vec![f32::NAN; offset], state.pooled()].concat();
        DeviceState {
            max: GPU_0.upload(state.max()),
            sum: GPU_0.upload(state.sum()),
            pooled: GPU_0.upload(&pooled),
            offset,
        }
    }

    fn view_mut(&mut self, rows: usize, dim: usize) -> StateMut<'_> {
        StateMut {
            max: self.max.slice_mut(..rows),
            sum: self.sum.slice_mut(..rows),
            pooled: self.pooled.slice_mut(self.offset..self.offset + rows * dim),
        }
    }

    fn view(&self, rows: usize, dim: usize) -> StateRef<'_> {
        StateRef {
            max: self.max.slice(..rows),
            sum: self.sum.slice(..rows),
            pooled: self.pooled.slice(self.offset..self.offset + rows * dim),
        }
    }

    fn download(&self, like: &PoolState) -> Result<PoolState> {
        let (bags, heads, dim) = (like.bags(), like.heads(), like.dim());
        let (mut max, mut sum) = (vec![0.0; bags * heads], vec![0.0; bags * heads]);
        let mut pooled = vec![0.0; self.offset + bags * heads * dim];
        GPU_0.download(&self.max, &mut max);
        GPU_0.download(&self.sum, &mut sum);
        GPU_0.download(&self.pooled, &mut pooled);
        PoolState::from_parts(bags, heads, dim, max, sum, pooled.split_off(self.offset))
    }
}

/// Pools on the device, into outputs that are there.
fn run_attention_pool<E: Element, O: Element>(
    packed: &PackedAttention,
    keys: Rows<'_, E>,
    values: Option<Rows<'_, E>>,
    bags: &Bags<'_>,
    outputs: attention_pool::Outputs<'_, O>,
    activations: Option<CudaViewMut<'_, E>>,
) -> Result<()> {
    let shape = attention_pool::Shape { value_dim: values.unwrap_or(keys).dim(), outputs: O::DTYPE };
    let operation = AttentionPool::plan(packed, shape, capacity(bags))?;
    let device_keys = match operation.path() {
        Path::Sm90(_) => GPU_0.spread_rows(keys, spread_aligned(keys)),
        _ => GPU_0.rows(keys),
    };
    let device_values = values.map(|values| GPU_0.rows(values));
    let offsets = GPU_0.upload(bags.offsets());
    let mask = bags.mask().map(|mask| GPU_0.upload(mask));
    let mut scratch = GPU_0.scratch(operation.scratch_bytes());
    let values = device_values
        .as_ref()
        .map(|values| attention_pool::Values { rows: values.view(), row_stride: values.row_stride });
    let inputs = attention_pool::Inputs {
        keys: device_keys.view(),
        key_stride: device_keys.row_stride,
        values,
        offsets: offsets.as_view(),
        mask: mask.as_ref().map(|mask| mask.slice(..keys.len())),
    };
    let scratch = scratch.as_view_mut();
    match activations {
        Some(activations) => operation.run_keeping(&GPU_0.stream, inputs, outputs, activations, scratch),
        None => operation.run(&GPU_0.stream, inputs, outputs, scratch),
    }
}

/// The same, from outputs on the host to outputs on the host.
fn pool<E: Element, O: Element>(
    packed: &PackedAttention,
    keys: Rows<'_, E>,
    values: Option<Rows<'_, E>>,
    bags: &Bags<'_>,
    outputs: AttentionOutputs<'_, O>,
    activations: Option<CudaViewMut<'_, E>>,
) -> Result<()> {
    let mut pooled = GPU_0.upload(outputs.pooled);
    let mut scores = outputs.scores.as_deref().map(|scores| GPU_0.upload(scores));
    let mut weights = outputs.weights.as_deref().map(|weights| GPU_0.upload(weights));
    let mut lse = outputs.lse.as_deref().map(|lse| GPU_0.upload(lse));
    let (weights_len, lse_len) = (keys.len() * packed.shape().heads, bags.len() * packed.shape().heads);
    let device_outputs = attention_pool::Outputs {
        scores: scores.as_mut().map(|scores| scores.slice_mut(..weights_len)),
        weights: weights.as_mut().map(|weights| weights.slice_mut(..weights_len)),
        lse: lse.as_mut().map(|lse| lse.slice_mut(..lse_len)),
        ..attention_pool::Outputs::of(pooled.slice_mut(..outputs.pooled.len()))
    };
    run_attention_pool(packed, keys, values, bags, device_outputs, activations)?;
    GPU_0.download(&pooled, outputs.pooled);
    GPU_0.download_some(scores, outputs.scores);
    GPU_0.download_some(weights, outputs.weights);
    GPU_0.download_some(lse, outputs.lse);
    Ok(())
}

/// Calls with features on the device.
fn with_scores_inputs<E: Element>(
    features: Rows<'_, E>,
    mask: Option<&[u8]>,
    call: impl FnOnce(scores::Inputs<'_, E>) -> Result<()>,
) -> Result<()> {
    let (rows, mask) = (GPU_0.rows(features), GPU_0.upload_some(mask));
    call(scores::Inputs { features: rows.view(), row_stride: rows.row_stride, mask: view_some(&mask) })
}

/// Merges on the device what `other` has seen into `state`.
fn merge(state: &mut PoolState, other: &DeviceState) -> Result<()> {
    let (rows, dim) = (state.max().len(), state.dim());
    // At a multiple of 16 bytes, or by the number of rows not.
    let mut device = DeviceState::upload(state, rows % 2);
    Merge::plan(&GPU_0.kernels, dim)?.run(&GPU_0.stream, device.view_mut(rows, dim), other.view(rows, dim))?;
    *state = device.download(state)?;
    Ok(())
}

pub(super) fn scores<E: Element>(
    packed: &PackedAttention,
    features: Rows<'_, E>,
    mask: Option<&[u8]>,
    scores: &mut [f32],
) -> Result<()> {
    let mut device_scores = GPU_0.upload(scores);
    with_scores_inputs(features, mask, |inputs| {
        Scores::plan(packed).run(&GPU_0.stream, inputs, device_scores.slice_mut(..scores.len()))
    })?;
    GPU_0.download(&device_scores, scores);
    Ok(())
}

pub(super) fn scores_keeping<E: Element>(
    packed: &PackedAttention,
    features: Rows<'_, E>,
    mask: Option<&[u8]>,
    scores: &mut [f32],
    activations: &mut [E],
) -> Result<()> {
    let (mut device_scores, mut kept) = (GPU_0.upload(scores), GPU_0.upload(activations));
    with_scores_inputs(features, mask, |inputs| {
        let scores = device_scores.slice_mut(..scores.len());
        Scores::plan(packed).run_keeping(&GPU_0.stream, inputs, scores, kept.slice_mut(..activations.len()))
    })?;
    GPU_0.download(&device_scores, scores);
    GPU_0.download(&kept, activations);
    Ok(())
}

pub(super) fn attention_pool<E: Element, O: Element>(
    packed: &PackedAttention,
    keys: Rows<'_, E>,
    values: Option<Rows<'_, E>>,
    bags: &Bags<'_>,
    outputs: AttentionOutputs<'_, O>,
) -> Result<()> {
    pool(packed, keys, values, bags, outputs, None)
}

pub(super) fn attention_pool_onto<E: Element>(
    packed: &PackedAttention,
    keys: Rows<'_, E>,
    values: Option<Rows<'_, E>>,
    bags: &Bags<'_>,
    state: &mut PoolState,
    scores: Option<&mut [f32]>,
) -> Result<()> {
    let (rows, dim, order) = (state.max().len(), state.dim(), state.order());
    let mut device_scores = scores.as_deref().map(|scores| GPU_0.upload(scores));
    // Poisoned.
    let poison = |len| GPU_0.upload(&vec![f32::NAN; len]);
    let mut piece = DeviceState { max: poison(rows), sum: poison(rows), pooled: poison(rows * dim), offset: 0 };
    let StateMut { max, sum, pooled } = piece.view_mut(rows, dim);
    if order == Order::Exact {
        let sums = ExactSums::new(state.bags(), state.heads(), dim)?;
        // Poisoned.
        let (mut words, mut exact) = (vec![0; sums.len()], GPU_0.upload(&vec![-1_i64; sums.len()]));
        let outputs = attention_pool::Outputs {
            scores: device_scores.as_mut().map(|scores| scores.slice_mut(..keys.len() * packed.shape().heads)),
            exact: Some(exact.slice_mut(..sums.len())),
            ..attention_pool::Outputs::of(pooled)
        };
        run_attention_pool(packed, keys, values, bags, outputs, None)?;
        GPU_0.download_some(device_scores, scores);
        GPU_0.download(&exact, &mut words);
        return state.merge(&sums.state(&words)?);
    }
    let outputs = attention_pool::Outputs {
        scores: device_scores.as_mut().map(|scores| scores.slice_mut(..keys.len() * packed.shape().heads)),
        max: Some(max),
        sum: Some(sum),
        ..attention_pool::Outputs::of(pooled)
    };
    run_attention_pool(packed, keys, values, bags, outputs, None)?;
    GPU_0.download_some(device_scores, scores);
    merge(state, &piece)
}

pub(super) fn attention_pool_keeping<E: Element, O: Element>(
    packed: &PackedAttention,
    keys: Rows<'_, E>,
    values: Option<Rows<'_, E>>,
    bags: &Bags<'_>,
    outputs: AttentionOutputs<'_, O>,
    activations: &mut [E],
) -> Result<()> {
    let mut kept = GPU_0.upload(activations);
    pool(packed, keys, values, bags, outputs, Some(kept.slice_mut(..activations.len())))?;
    GPU_0.download(&kept, activations);
    Ok(())
}

pub(super) fn merge_state(state: &mut PoolState, other: &PoolState) -> Result<()> {
    merge(state, &DeviceState::upload(other, other.max().len() % 3))
}
