//! Pooling on a CUDA device, of features and into results on the host.

use std::sync::{Arc, OnceLock};

use cudarc::driver::{CudaSlice, CudaStream, CudaViewMut, DeviceRepr};

use super::{Attention, Call};
use crate::attention::{AttentionParams, AttentionShape};
use crate::bags::Bags;
use crate::cpu::MaxMeanOutputs;
use crate::cuda::state::ExactSums;
use crate::cuda::{Capacity, Kernels, PackedAttention, attention_pool, context, max_mean};
use crate::element::{Dtype, Element};
use crate::error::{CudaError, Error, Result};
use crate::order::Order;
use crate::rows::Rows;
use crate::state::{PoolState, StateParts};

/// A device with the kernels on it, and what is done there in one order.
#[derive(Debug)]
pub(super) struct Cuda {
    kernels: Kernels,
    stream: Arc<CudaStream>,
    /// The parameters packed for f32, f16 and bf16 features, on first use.
    packed: [OnceLock<PackedAttention>; 3],
}

impl Cuda {
    pub(super) fn new(ordinal: usize) -> Result<Self> {
        let context = context(ordinal)?;
        Ok(Cuda { kernels: Kernels::load(&context)?, stream: context.default_stream(), packed: Default::default() })
    }

    /// # Errors
    /// Always: no kernel projects.
    pub(super) fn project(&self) -> Result<()> {
        Err(Error::argument("device", "the CPU for a projection", "a CUDA device, where there is none yet"))
    }

    pub(super) fn set_order(&mut self, order: Order) {
        self.kernels = self.kernels.with_order(order);
        self.packed = Default::default();
    }

    pub(super) fn order(&self) -> Order {
        self.kernels.order()
    }

    /// Of contiguous rows.
    pub(super) fn max_mean<E: Element>(
        &self,
        rows: Rows<'_, E>,
        bags: &Bags<'_>,
        outputs: MaxMeanOutputs<'_, f32>,
    ) -> Result<()> {
        self.max_mean_and_sums(rows, bags, outputs, None)
    }

    /// Beside them the exact sums of the mean.
    fn max_mean_and_sums<E: Element>(
        &self,
        rows: Rows<'_, E>,
        bags: &Bags<'_>,
        outputs: MaxMeanOutputs<'_, f32>,
        exact: Option<&mut [i64]>,
    ) -> Result<()> {
        if bags.is_empty() {
            return Ok(());
        }
        let MaxMeanOutputs { max, mean, argmax } = outputs;
        let dim = rows.dim();
        let shape = max_mean::Shape { dim, features: E::DTYPE, outputs: Dtype::F32, argmax: argmax.is_some() };
        let capacity = Capacity { instances: rows.len(), bags: bags.len() };
        let operation = max_mean::MaxMean::plan(&self.kernels, shape, capacity)?;

        let features = self.upload(rows.contiguous())?;
        let offsets = self.upload(bags.offsets())?;
        let mask = bags.mask().map(|mask| self.upload(mask)).transpose()?;
        let mut scratch = self.room::<u8>(operation.scratch_bytes())?;
        let mut pooled_max = max.as_ref().map(|max| self.room(max.len())).transpose()?;
        let mut pooled_mean = mean.as_ref().map(|mean| self.room(mean.len())).transpose()?;
        let mut sums = exact.as_ref().map(|exact| self.room(exact.len())).transpose()?;
        let mut pooled_argmax = argmax.as_ref().map(|argmax| self.room(argmax.len())).transpose()?;
        operation.run(
            &self.stream,
            max_mean::Inputs {
                features: features.slice(..rows.contiguous().len()),
                row_stride: dim,
                offsets: offsets.as_view(),
                mask: mask.as_ref().map(|mask| mask.slice(..rows.len())),
            },
            max_mean::Outputs {
                max: pooled_max.as_mut().map(CudaSlice::as_view_mut),
                mean: pooled_mean.as_mut().map(CudaSlice::as_view_mut),
                argmax: pooled_argmax.as_mut().map(CudaSlice::as_view_mut),
                exact: sums.as_mut().map(CudaSlice::as_view_mut),
            },
            scratch.as_view_mut(),
        )?;
        self.download_some(pooled_max, max)?;
        self.download_some(pooled_mean, mean)?;
        self.download_some(pooled_argmax, argmax)?;
        self.download_some(sums, exact)
    }

    /// Of contiguous rows.
    pub(super) fn mean_onto<E: Element>(
        &self,
        rows: Rows<'_, E>,
        bags: &Bags<'_>,
        state: &mut PoolState,
    ) -> Result<()> {
        if self.order() == Order::Exact {
            let sums = ExactSums::new(bags.len(), 1, rows.dim())?;
            let mut exact = vec![0; sums.len()];
            self.max_mean_and_sums(rows, bags, MaxMeanOutputs::default(), Some(&mut exact))?;
            return state.merge(&sums.state(&exact)?);
        }
        let mut piece = PoolState::empty(bags.len(), 1, rows.dim())?;
        let parts = piece.parts_mut();
        let outputs = MaxMeanOutputs { mean: Some(&mut *parts.pooled), ..Default::default() };
        self.max_mean(rows, bags, outputs)?;
        parts.count_instances(bags);
        state.merge(&piece)
    }

    pub(super) fn attention<E: Element>(&self, params: &AttentionParams, call: Call<'_, E>) -> Result<Attention> {
        let mut attention = Attention::new(params.shape(), &call);
        let Attention { embeddings, weights, scores } = &mut attention;
        self.attention_pool(
            params,
            call,
            Outputs { embeddings, scores, weights: Some(weights), ..Default::default() },
        )?;
        Ok(attention)
    }

    /// The state comes to the host, where it is merged: what that takes is next to nothing beside the copies of features.
    pub(super) fn attention_state<E: Element>(
        &self,
        params: &AttentionParams,
        call: Call<'_, E>,
    ) -> Result<(PoolState, Vec<f32>)> {
        let AttentionShape { heads, dim, .. } = params.shape();
        let dim = call.values.map_or(dim, |values| values.dim());
        let (positions, bags) = (call.positions, call.positions.saturating_mul(call.bags.len()));
        let mut scores = vec![0.0; positions * call.bags.instances() * heads];
        if self.order() == Order::Exact {
            let sums = ExactSums::new(call.bags.len(), heads, dim)?;
            let mut exact = vec![0; positions.saturating_mul(sums.len())];
            let outputs = Outputs { scores: &mut scores, exact: Some(&mut exact), ..Default::default() };
            self.attention_pool(params, call, outputs)?;
            let of_positions = (0..positions).map(|t| sums.of_heads(&exact[t * sums.len()..(t + 1) * sums.len()]));
            let of_heads = of_positions.collect::<Result<Vec<_>>>()?.concat();
            return Ok((PoolState::from_heads(bags, heads, dim, of_heads)?, scores));
        }
        let mut state = PoolState::empty(bags, heads, dim)?;
        let StateParts { max, sum, pooled: embeddings, .. } = state.parts_mut();
        let (max, sum) = (Some(max), Some(sum));
        self.attention_pool(params, call, Outputs { embeddings, scores: &mut scores, max, sum, ..Default::default() })?;
        Ok((state, scores))
    }

    /// Of contiguous keys and values, which are uploaded once, whatever the number of positions.
    fn attention_pool<E: Element>(
        &self,
        params: &AttentionParams,
        call: Call<'_, E>,
        outputs: Outputs<'_>,
    ) -> Result<()> {
        let Call { keys, values, positions, bags } = call;
        let (key_dim, heads) = (params.shape().dim, params.shape().heads);
        if keys.dim() != key_dim {
            return Err(Error::argument("keys", format!("rows of {key_dim}, the dim of the parameters"), keys.dim()));
        }
        if bags.is_empty() {
            return Ok(());
        }
        let value_dim = values.map_or(key_dim, |values| values.dim());
        let shape = attention_pool::Shape { value_dim, outputs: Dtype::F32 };
        let capacity = Capacity { instances: bags.instances(), bags: bags.len() };
        let operation = attention_pool::AttentionPool::plan(self.packed(params, E::DTYPE)?, shape, capacity)?;

        let device_keys = self.upload(keys.contiguous())?;
        let device_values = values.map(|values| self.upload(values.contiguous())).transpose()?;
        let offsets = self.upload(bags.offsets())?;
        let mask = bags.mask().map(|mask| self.upload(mask)).transpose()?;
        let mut scratch = self.room::<u8>(operation.scratch_bytes())?;
        let room = |part: &Option<&mut [f32]>| part.as_ref().map(|part| self.room(part.len())).transpose();
        let mut scores = Some(self.room(outputs.scores.len())?);
        let mut weights = room(&outputs.weights)?;
        let (mut max, mut sum) = (room(&outputs.max)?, room(&outputs.sum)?);
        let mut exact = outputs.exact.as_ref().map(|exact| self.room(exact.len())).transpose()?;

        let (row, images) = (positions * key_dim, bags.instances());
        let (bag_heads, weights_len) = (bags.len() * heads, images * heads);
        let embeddings_len = bag_heads * value_dim;
        let exact_len = outputs.exact.as_ref().map_or(0, |exact| exact.len() / positions);
        let mut embeddings = self.room(positions * embeddings_len)?;
        for t in 0..positions {
            // Up to the end of the last row of this position.
            let end = if images == 0 { 0 } else { (images - 1) * row + (t + 1) * key_dim };
            let start = end.min(t * key_dim);
            let values = device_values.as_ref().zip(values);
            operation.run(
                &self.stream,
                attention_pool::Inputs {
                    keys: device_keys.slice(start..end),
                    key_stride: row,
                    values: values.map(|(device, host)| attention_pool::Values {
                        rows: device.slice(..host.contiguous().len()),
                        row_stride: value_dim,
                    }),
                    offsets: offsets.as_view(),
                    mask: mask.as_ref().map(|mask| mask.slice(..images)),
                },
                attention_pool::Outputs {
                    pooled: embeddings.slice_mut(t * embeddings_len..(t + 1) * embeddings_len),
                    scores: of_position(&mut scores, t, weights_len),
                    weights: of_position(&mut weights, t, weights_len),
                    lse: None,
                    max: of_position(&mut max, t, bag_heads),
                    sum: of_position(&mut sum, t, bag_heads),
                    exact: of_position(&mut exact, t, exact_len),
                },
                scratch.as_view_mut(),
            )?;
        }
        self.download(&embeddings, outputs.embeddings)?;
        self.download_some(scores, Some(outputs.scores))?;
        self.download_some(weights, outputs.weights)?;
        self.download_some(max, outputs.max)?;
        self.download_some(sum, outputs.sum)?;
        self.download_some(exact, outputs.exact)
    }

    fn packed(&self, params: &AttentionParams, dtype: Dtype) -> Result<&PackedAttention> {
        let slot = &self.packed[dtype as usize];
        if let Some(packed) = slot.get() {
            return Ok(packed);
        }
        let packed = self.kernels.pack(&self.stream, params, dtype)?;
        Ok(slot.get_or_init(|| packed))
    }

    /// Memory for at least one element: the driver has none of 0 bytes.
    fn room<T: DeviceRepr>(&self, len: usize) -> Result<CudaSlice<T>, CudaError> {
        // SAFETY: what is in it is numbers, any bits of which are valid, and written before it is read.
        Ok(unsafe { self.stream.alloc(len.max(1)) }?)
    }

    fn upload<T: DeviceRepr>(&self, from: &[T]) -> Result<CudaSlice<T>, CudaError> {
        let mut to = self.room(from.len())?;
        self.stream.memcpy_htod(from, &mut to)?;
        Ok(to)
    }

    /// As [`download`](Self::download), where there is something and somebody wants it.
    fn download_some<T: DeviceRepr>(&self, from: Option<CudaSlice<T>>, to: Option<&mut [T]>) -> Result<()> {
        match (from, to) {
            (Some(from), Some(to)) => self.download(&from, to),
            _ => Ok(()),
        }
    }

    /// Copies as much as there is room for, and waits for it.
    fn download<T: DeviceRepr>(&self, from: &CudaSlice<T>, to: &mut [T]) -> Result<()> {
        if !to.is_empty() {
            self.stream.memcpy_dtoh(&from.slice(..to.len()), to).map_err(CudaError::from)?;
            self.stream.synchronize().map_err(CudaError::from)?;
        }
        Ok(())
    }
}

/// Where on the host what attention pool gives goes, those of the first position first.
#[derive(Default)]
struct Outputs<'a> {
    /// `[P, B, K, D]`, or nothing.
    embeddings: &'a mut [f32],
    /// `[P, N, K]`.
    scores: &'a mut [f32],
    /// `[P, N, K]`.
    weights: Option<&'a mut [f32]>,
    /// `[P, B, K]`.
    max: Option<&'a mut [f32]>,
    /// `[P, B, K]`.
    sum: Option<&'a mut [f32]>,
    /// Of each position as [`ExactSums`] has them.
    exact: Option<&'a mut [i64]>,
}

/// The part of position `t`, each of `len` elements.
fn of_position<T>(part: &mut Option<CudaSlice<T>>, t: usize, len: usize) -> Option<CudaViewMut<'_, T>> {
    part.as_mut().map(|part| part.slice_mut(t * len..(t + 1) * len))
}
