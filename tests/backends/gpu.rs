use std::env;
use std::sync::{Arc, LazyLock};

use cudarc::driver::{CudaSlice, CudaStream, CudaView, CudaViewMut, DeviceRepr};
use mivc::cpu::{
    AttentionOutputs, AttentionPoolGradients, AttentionPoolUpstream, MaxMeanOutputs, MaxMeanUpstream, ParamGradients,
    Saved, ScoresGradients, SoftmaxUpstream, Values, WeightedSumGradients,
};
use mivc::cuda::attention_pool::{self, AttentionPool};
use mivc::cuda::backward::{
    self, attention_pool as attention_pool_backward, gate as gate_backward, max_mean as max_mean_backward,
    scores as scores_backward, softmax as softmax_backward, weighted_sum as weighted_sum_backward,
};
use mivc::cuda::gate::{self, Gate};
use mivc::cuda::max_mean::{self, MaxMean};
use mivc::cuda::scores::{self, Scores};
use mivc::cuda::softmax::{self, Softmax};
use mivc::cuda::state::{Merge, StateMut, StateRef};
use mivc::cuda::weighted_sum::{self, WeightedSum};
use mivc::cuda::{Capacity, Kernels, PackedAttention, PackedBackward, context, device_count};
use mivc::{AttentionParams, Bags, Device, Dtype, Element, Gradient, PoolState, Result, Rows};

use super::{Backend, Spread, spread, spread_aligned, vm};

/// The CUDA kernels on the first GPU.
#[derive(Debug, Default)]
pub struct GpuBackend;

struct Gpu {
    kernels: Kernels,
    stream: Arc<CudaStream>,
}

static GPU: LazyLock<Gpu> = LazyLock::new(|| {
    let context = context(0).expect("availability() says that there is one");
    let load = if wants_sm90() { Kernels::load_with_sm90 } else { Kernels::load };
    Gpu { kernels: load(&context).expect("the kernels"), stream: context.default_stream() }
});

/// Whether the kernels for sm_90a are tested, on keys that they can read, in place of those for any device.
fn wants_sm90() -> bool {
    env::var_os("MIVC_TEST_SM90").is_some()
}

impl Gpu {
    /// A copy of `values`, and one element where there is none.
    fn upload<T: DeviceRepr + Default + Clone>(&self, values: &[T]) -> CudaSlice<T> {
        let mut padded = values.to_vec();
        padded.resize(values.len().max(1), T::default());
        self.stream.clone_htod(&padded).expect("memory of the device")
    }

    /// Poisoned.
    fn scratch(&self, bytes: usize) -> CudaSlice<u8> {
        self.upload(&vec![0xff_u8; bytes])
    }

    fn rows<E: Element>(&self, rows: Rows<'_, E>) -> DeviceRows<E> {
        let Spread { data, offset, row_stride } = if wants_sm90() { spread_aligned(rows) } else { spread(rows) };
        let end = if rows.is_empty() { offset } else { data.len() - (row_stride - rows.dim()) };
        DeviceRows { data: self.upload(&data), offset, end, row_stride }
    }

    /// Copies as much as there is room for.
    fn download<T: DeviceRepr>(&self, from: &CudaSlice<T>, to: &mut [T]) {
        if !to.is_empty() {
            self.stream.memcpy_dtoh(&from.slice(..to.len()), to).expect("what the device computed");
            self.stream.synchronize().expect("what the device computed");
        }
    }

    /// With how many elements there are.
    fn upload_some<T: DeviceRepr + Default + Clone>(&self, values: Option<&[T]>) -> Option<(CudaSlice<T>, usize)> {
        values.map(|values| (self.upload(values), values.len()))
    }

    fn download_some<T: DeviceRepr>(&self, from: Option<CudaSlice<T>>, to: Option<&mut [T]>) {
        if let (Some(from), Some(to)) = (from, to) {
            self.download(&from, to);
        }
    }
}

/// A gradient on the device, as it was found on the host.
struct DeviceGradient<E> {
    data: CudaSlice<E>,
    len: usize,
    adds: bool,
}

impl<E: Element> DeviceGradient<E> {
    fn upload(gradient: &Gradient<'_, E>) -> Self {
        let (adds, data) = match gradient {
            Gradient::Set(data) => (false, data),
            Gradient::Add(data) => (true, data),
        };
        DeviceGradient { data: GPU.upload(data), len: data.len(), adds }
    }

    fn view_mut(&mut self) -> backward::Gradient<'_, E> {
        let at = if self.adds { backward::Gradient::Add } else { backward::Gradient::Set };
        at(self.data.slice_mut(..self.len))
    }

    fn download(&self, gradient: Gradient<'_, E>) {
        let (Gradient::Set(to) | Gradient::Add(to)) = gradient;
        GPU.download(&self.data, to);
    }
}

fn view_some<T>(data: &Option<(CudaSlice<T>, usize)>) -> Option<CudaView<'_, T>> {
    data.as_ref().map(|(data, len)| data.slice(..*len))
}

fn download_gradient<E: Element>(from: Option<DeviceGradient<E>>, to: Option<Gradient<'_, E>>) {
    if let (Some(from), Some(to)) = (from, to) {
        from.download(to);
    }
}

/// Gradients of parameters on the device, as they were found on the host.
struct DeviceParams([Option<DeviceGradient<f32>>; 6]);

impl DeviceParams {
    fn upload(params: &ParamGradients<'_>) -> Self {
        let ParamGradients { v, v_bias, u, u_bias, w, w_bias } = params;
        DeviceParams([v, v_bias, u, u_bias, w, w_bias].map(|to| to.as_ref().map(DeviceGradient::upload)))
    }

    fn views(&mut self) -> scores_backward::ParamGradients<'_> {
        let views = self.0.each_mut().map(|to| to.as_mut().map(DeviceGradient::view_mut));
        let [v, v_bias, u, u_bias, w, w_bias] = views;
        scores_backward::ParamGradients { v, v_bias, u, u_bias, w, w_bias }
    }

    fn download(self, params: ParamGradients<'_>) {
        let ParamGradients { v, v_bias, u, u_bias, w, w_bias } = params;
        for (from, to) in self.0.into_iter().zip([v, v_bias, u, u_bias, w, w_bias]) {
            download_gradient(from, to);
        }
    }
}

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
        DeviceState { max: GPU.upload(state.max()), sum: GPU.upload(state.sum()), pooled: GPU.upload(&pooled), offset }
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
        GPU.download(&self.max, &mut max);
        GPU.download(&self.sum, &mut sum);
        GPU.download(&self.pooled, &mut pooled);
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
    let device_keys = GPU.rows(keys);
    let device_values = values.map(|values| GPU.rows(values));
    let offsets = GPU.upload(bags.offsets());
    let mask = bags.mask().map(|mask| GPU.upload(mask));
    let mut scratch = GPU.scratch(operation.scratch_bytes());
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
        Some(activations) => operation.run_keeping(&GPU.stream, inputs, outputs, activations, scratch),
        None => operation.run(&GPU.stream, inputs, outputs, scratch),
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
    let mut pooled = GPU.upload(outputs.pooled);
    let mut scores = outputs.scores.as_deref().map(|scores| GPU.upload(scores));
    let mut weights = outputs.weights.as_deref().map(|weights| GPU.upload(weights));
    let mut lse = outputs.lse.as_deref().map(|lse| GPU.upload(lse));
    let (weights_len, lse_len) = (keys.len() * packed.shape().heads, bags.len() * packed.shape().heads);
    let device_outputs = attention_pool::Outputs {
        scores: scores.as_mut().map(|scores| scores.slice_mut(..weights_len)),
        weights: weights.as_mut().map(|weights| weights.slice_mut(..weights_len)),
        lse: lse.as_mut().map(|lse| lse.slice_mut(..lse_len)),
        ..attention_pool::Outputs::of(pooled.slice_mut(..outputs.pooled.len()))
    };
    run_attention_pool(packed, keys, values, bags, device_outputs, activations)?;
    GPU.download(&pooled, outputs.pooled);
    GPU.download_some(scores, outputs.scores);
    GPU.download_some(weights, outputs.weights);
    GPU.download_some(lse, outputs.lse);
    Ok(())
}

/// Calls with features on the device.
fn with_scores_inputs<E: Element>(
    features: Rows<'_, E>,
    mask: Option<&[u8]>,
    call: impl FnOnce(scores::Inputs<'_, E>) -> Result<()>,
) -> Result<()> {
    let (rows, mask) = (GPU.rows(features), GPU.upload_some(mask));
    call(scores::Inputs { features: rows.view(), row_stride: rows.row_stride, mask: view_some(&mask) })
}

/// Merges on the device what `other` has seen into `state`.
fn merge(state: &mut PoolState, other: &DeviceState) -> Result<()> {
    let (rows, dim) = (state.max().len(), state.dim());
    // At a multiple of 16 bytes, or by the number of rows not.
    let mut device = DeviceState::upload(state, rows % 2);
    Merge::plan(&GPU.kernels, dim)?.run(&GPU.stream, device.view_mut(rows, dim), other.view(rows, dim))?;
    *state = device.download(state)?;
    Ok(())
}

/// Rows as `spread` lays them out.
struct DeviceRows<E> {
    data: CudaSlice<E>,
    offset: usize,
    end: usize,
    row_stride: usize,
}

impl<E> DeviceRows<E> {
    fn view(&self) -> CudaView<'_, E> {
        self.data.slice(self.offset..self.end)
    }
}

fn capacity(bags: &Bags<'_>) -> Capacity {
    Capacity { instances: bags.instances(), bags: bags.len() }
}

impl Backend for GpuBackend {
    type Packed = PackedAttention;
    type PackedBackward = PackedBackward;

    fn name(&self) -> &'static str {
        "gpu"
    }

    /// How attention pool goes is the library's choice here. Of malformed arguments those alone that hold no bags: the
    /// device's offsets are not seen by the host. No kernel projects yet.
    fn covers(&self, test: &str) -> bool {
        let test = test.trim_start_matches("properties::");
        let is_front_door = test.starts_with("front_door::") && !test.starts_with("front_door::projection::");
        (vm::calls_operations(test) && !vm::is_of_two_passes(test))
            || test.starts_with("malformed::gate::")
            || is_front_door
    }

    fn availability(&self) -> std::result::Result<(), String> {
        if device_count().is_ok_and(|devices| devices > 0) {
            return Ok(());
        }
        assert!(std::env::var("MIVC_REQUIRE_GPU").as_deref() != Ok("1"), "MIVC_REQUIRE_GPU is 1, and there is no GPU");
        Err("no GPU".to_owned())
    }

    fn device(&self) -> Option<Device> {
        Some(Device::Cuda(0))
    }

    fn pack(&self, params: &AttentionParams, dtype: Dtype) -> PackedAttention {
        GPU.kernels.pack(&GPU.stream, params, dtype).expect("memory of the device")
    }

    fn scores<E: Element>(
        &self,
        packed: &PackedAttention,
        features: Rows<'_, E>,
        mask: Option<&[u8]>,
        scores: &mut [f32],
    ) -> Result<()> {
        let mut device_scores = GPU.upload(scores);
        with_scores_inputs(features, mask, |inputs| {
            Scores::plan(packed).run(&GPU.stream, inputs, device_scores.slice_mut(..scores.len()))
        })?;
        GPU.download(&device_scores, scores);
        Ok(())
    }

    fn scores_keeping<E: Element>(
        &self,
        packed: &PackedAttention,
        features: Rows<'_, E>,
        mask: Option<&[u8]>,
        scores: &mut [f32],
        activations: &mut [E],
    ) -> Result<()> {
        let (mut device_scores, mut kept) = (GPU.upload(scores), GPU.upload(activations));
        with_scores_inputs(features, mask, |inputs| {
            let scores = device_scores.slice_mut(..scores.len());
            Scores::plan(packed).run_keeping(&GPU.stream, inputs, scores, kept.slice_mut(..activations.len()))
        })?;
        GPU.download(&device_scores, scores);
        GPU.download(&kept, activations);
        Ok(())
    }

    fn gate<E: Element>(&self, x: &[E], y: &[E], g: &mut [E]) -> Result<()> {
        let (device_x, device_y, mut device_g) = (GPU.upload(x), GPU.upload(y), GPU.upload(g));
        let inputs = gate::Inputs { x: device_x.slice(..x.len()), y: device_y.slice(..y.len()) };
        Gate::plan(&GPU.kernels, E::DTYPE).run(&GPU.stream, inputs, device_g.slice_mut(..g.len()))?;
        GPU.download(&device_g, g);
        Ok(())
    }

    fn softmax(
        &self,
        scores: &[f32],
        heads: usize,
        bags: &Bags<'_>,
        weights: &mut [f32],
        lse: &mut [f32],
    ) -> Result<()> {
        let operation = Softmax::plan(&GPU.kernels, heads, capacity(bags))?;
        let (device_scores, offsets) = (GPU.upload(scores), GPU.upload(bags.offsets()));
        let mask = bags.mask().map(|mask| GPU.upload(mask));
        let (mut device_weights, mut device_lse) = (GPU.upload(weights), GPU.upload(lse));
        let mut scratch = GPU.scratch(operation.scratch_bytes());
        operation.run(
            &GPU.stream,
            softmax::Inputs {
                scores: device_scores.slice(..scores.len()),
                offsets: offsets.as_view(),
                mask: mask.as_ref().map(|mask| mask.slice(..bags.instances())),
            },
            softmax::Outputs {
                weights: Some(device_weights.slice_mut(..weights.len())),
                lse: Some(device_lse.slice_mut(..lse.len())),
            },
            scratch.as_view_mut(),
        )?;
        GPU.download(&device_weights, weights);
        GPU.download(&device_lse, lse);
        Ok(())
    }

    fn weighted_sum<E: Element, O: Element>(
        &self,
        weights: &[f32],
        heads: usize,
        values: Values<'_, E>,
        bags: &Bags<'_>,
        pooled: &mut [O],
    ) -> Result<()> {
        let (rows, dim, per_head) = match values {
            Values::Shared(rows) => (rows, rows.dim(), false),
            Values::PerHead(rows) => (rows, rows.dim() / heads, true),
        };
        let shape = weighted_sum::Shape { dim, heads, per_head, values: E::DTYPE, outputs: O::DTYPE };
        let operation = WeightedSum::plan(&GPU.kernels, shape, capacity(bags))?;
        let (rows, offsets) = (GPU.rows(rows), GPU.upload(bags.offsets()));
        let mask = bags.mask().map(|mask| GPU.upload(mask));
        let (device_weights, mut device_pooled) = (GPU.upload(weights), GPU.upload(pooled));
        let mut scratch = GPU.scratch(operation.scratch_bytes());
        operation.run(
            &GPU.stream,
            weighted_sum::Inputs {
                weights: device_weights.slice(..weights.len()),
                values: rows.view(),
                row_stride: rows.row_stride,
                offsets: offsets.as_view(),
                mask: mask.as_ref().map(|mask| mask.slice(..bags.instances())),
            },
            device_pooled.slice_mut(..pooled.len()),
            scratch.as_view_mut(),
        )?;
        GPU.download(&device_pooled, pooled);
        Ok(())
    }

    fn max_mean<E: Element, O: Element>(
        &self,
        features: Rows<'_, E>,
        bags: &Bags<'_>,
        outputs: MaxMeanOutputs<'_, O>,
    ) -> Result<()> {
        let (argmax, dim) = (outputs.argmax.is_some(), features.dim());
        let shape = max_mean::Shape { dim, features: E::DTYPE, outputs: O::DTYPE, argmax };
        let operation = MaxMean::plan(&GPU.kernels, shape, Capacity { instances: features.len(), bags: bags.len() })?;

        let device = GPU.rows(features);
        let offsets = GPU.upload(bags.offsets());
        let mask = bags.mask().map(|mask| GPU.upload(mask));
        let mut max = outputs.max.as_deref().map(|max| GPU.upload(max));
        let mut mean = outputs.mean.as_deref().map(|mean| GPU.upload(mean));
        let mut rows = outputs.argmax.as_deref().map(|rows| GPU.upload(rows));
        let pooled = bags.len() * dim;
        let mut scratch = GPU.scratch(operation.scratch_bytes());
        operation.run(
            &GPU.stream,
            max_mean::Inputs {
                features: device.view(),
                row_stride: device.row_stride,
                offsets: offsets.as_view(),
                mask: mask.as_ref().map(|mask| mask.slice(..features.len())),
            },
            max_mean::Outputs {
                max: max.as_mut().map(|max| max.slice_mut(..pooled)),
                mean: mean.as_mut().map(|mean| mean.slice_mut(..pooled)),
                argmax: rows.as_mut().map(|rows| rows.slice_mut(..pooled)),
            },
            scratch.as_view_mut(),
        )?;
        GPU.download_some(max, outputs.max);
        GPU.download_some(mean, outputs.mean);
        GPU.download_some(rows, outputs.argmax);
        Ok(())
    }

    fn attention_pool<E: Element, O: Element>(
        &self,
        packed: &PackedAttention,
        keys: Rows<'_, E>,
        values: Option<Rows<'_, E>>,
        bags: &Bags<'_>,
        outputs: AttentionOutputs<'_, O>,
    ) -> Result<()> {
        pool(packed, keys, values, bags, outputs, None)
    }

    fn attention_pool_onto<E: Element>(
        &self,
        packed: &PackedAttention,
        keys: Rows<'_, E>,
        values: Option<Rows<'_, E>>,
        bags: &Bags<'_>,
        state: &mut PoolState,
        scores: Option<&mut [f32]>,
    ) -> Result<()> {
        let (rows, dim) = (state.max().len(), state.dim());
        let mut device_scores = scores.as_deref().map(|scores| GPU.upload(scores));
        // Poisoned.
        let poison = |len| GPU.upload(&vec![f32::NAN; len]);
        let mut piece = DeviceState { max: poison(rows), sum: poison(rows), pooled: poison(rows * dim), offset: 0 };
        let StateMut { max, sum, pooled } = piece.view_mut(rows, dim);
        let outputs = attention_pool::Outputs {
            scores: device_scores.as_mut().map(|scores| scores.slice_mut(..keys.len() * packed.shape().heads)),
            max: Some(max),
            sum: Some(sum),
            ..attention_pool::Outputs::of(pooled)
        };
        run_attention_pool(packed, keys, values, bags, outputs, None)?;
        GPU.download_some(device_scores, scores);
        merge(state, &piece)
    }

    fn merge_state(&self, state: &mut PoolState, other: &PoolState) -> Result<()> {
        merge(state, &DeviceState::upload(other, other.max().len() % 3))
    }

    fn gate_backward<E: Element>(
        &self,
        [x, y, d_g]: [&[E]; 3],
        d_x: Option<Gradient<'_, E>>,
        d_y: Option<Gradient<'_, E>>,
    ) -> Result<()> {
        let inputs = [x, y, d_g].map(|data| GPU.upload(data));
        let [mut of_x, mut of_y] = [&d_x, &d_y].map(|gradient| gradient.as_ref().map(DeviceGradient::upload));
        let operation = gate_backward::GateBackward::plan(&GPU.kernels, E::DTYPE);
        operation.run(
            &GPU.stream,
            gate_backward::Inputs {
                x: inputs[0].slice(..x.len()),
                y: inputs[1].slice(..y.len()),
                d_g: inputs[2].slice(..d_g.len()),
            },
            gate_backward::Gradients {
                x: of_x.as_mut().map(DeviceGradient::view_mut),
                y: of_y.as_mut().map(DeviceGradient::view_mut),
            },
        )?;
        for (from, to) in [(of_x, d_x), (of_y, d_y)] {
            if let (Some(from), Some(to)) = (from, to) {
                from.download(to);
            }
        }
        Ok(())
    }

    fn pack_backward(&self, params: &AttentionParams, dtype: Dtype) -> PackedBackward {
        GPU.kernels.pack_backward(&GPU.stream, params, dtype).expect("memory of the device")
    }

    fn attention_pool_keeping<E: Element, O: Element>(
        &self,
        packed: &PackedAttention,
        keys: Rows<'_, E>,
        values: Option<Rows<'_, E>>,
        bags: &Bags<'_>,
        outputs: AttentionOutputs<'_, O>,
        activations: &mut [E],
    ) -> Result<()> {
        let mut kept = GPU.upload(activations);
        pool(packed, keys, values, bags, outputs, Some(kept.slice_mut(..activations.len())))?;
        GPU.download(&kept, activations);
        Ok(())
    }

    fn scores_backward<E: Element, G: Element>(
        &self,
        packed: &PackedBackward,
        features: Rows<'_, E>,
        mask: Option<&[u8]>,
        activations: Option<&[E]>,
        d_scores: &[f32],
        gradients: ScoresGradients<'_, G>,
    ) -> Result<()> {
        let operation = scores_backward::ScoresBackward::plan(packed, G::DTYPE, features.len())?;
        let (rows, mask, activations) = (GPU.rows(features), GPU.upload_some(mask), GPU.upload_some(activations));
        let device_d_scores = GPU.upload(d_scores);
        let mut of_features = gradients.features.as_ref().map(DeviceGradient::upload);
        let mut of_params = DeviceParams::upload(&gradients.params);
        let mut scratch = GPU.scratch(operation.scratch_bytes());
        operation.run(
            &GPU.stream,
            scores_backward::Inputs {
                features: rows.view(),
                row_stride: rows.row_stride,
                mask: view_some(&mask),
                activations: view_some(&activations),
                d_scores: device_d_scores.slice(..d_scores.len()),
            },
            scores_backward::Gradients {
                features: of_features.as_mut().map(DeviceGradient::view_mut),
                params: of_params.views(),
            },
            scratch.as_view_mut(),
        )?;
        download_gradient(of_features, gradients.features);
        of_params.download(gradients.params);
        Ok(())
    }

    fn attention_pool_backward<E: Element, O: Element>(
        &self,
        packed: &PackedBackward,
        keys: Rows<'_, E>,
        values: Option<Rows<'_, E>>,
        bags: &Bags<'_>,
        saved: Saved<'_, E>,
        upstream: AttentionPoolUpstream<'_, O>,
        gradients: AttentionPoolGradients<'_, O>,
    ) -> Result<()> {
        let value_dim = values.unwrap_or(keys).dim();
        let shape = attention_pool_backward::Shape { value_dim, upstream: O::DTYPE, gradients: O::DTYPE };
        let operation = attention_pool_backward::AttentionPoolBackward::plan(packed, shape, capacity(bags))?;
        let (device_keys, device_values) = (GPU.rows(keys), values.map(|values| GPU.rows(values)));
        let (offsets, mask) = (GPU.upload(bags.offsets()), GPU.upload_some(bags.mask()));
        let (weights, activations) = (GPU.upload_some(Some(saved.weights)), GPU.upload_some(saved.activations));
        let d_pooled = GPU.upload_some(upstream.pooled);
        let [d_scores, d_weights, d_lse] =
            [upstream.scores, upstream.weights, upstream.lse].map(|data| GPU.upload_some(data));
        let AttentionPoolGradients { scores: to_scores, values: to_values } = gradients;
        let mut of_keys = to_scores.features.as_ref().map(DeviceGradient::upload);
        let mut of_values = to_values.as_ref().map(DeviceGradient::upload);
        let mut of_params = DeviceParams::upload(&to_scores.params);
        let mut scratch = GPU.scratch(operation.scratch_bytes());
        let values = device_values
            .as_ref()
            .map(|values| attention_pool::Values { rows: values.view(), row_stride: values.row_stride });
        operation.run(
            &GPU.stream,
            attention_pool_backward::Inputs {
                keys: device_keys.view(),
                key_stride: device_keys.row_stride,
                values,
                offsets: offsets.as_view(),
                mask: view_some(&mask),
                weights: view_some(&weights).expect("it was uploaded"),
                activations: view_some(&activations),
            },
            attention_pool_backward::Upstream {
                pooled: view_some(&d_pooled),
                scores: view_some(&d_scores),
                weights: view_some(&d_weights),
                lse: view_some(&d_lse),
            },
            attention_pool_backward::Gradients {
                keys: of_keys.as_mut().map(DeviceGradient::view_mut),
                params: of_params.views(),
                values: of_values.as_mut().map(DeviceGradient::view_mut),
            },
            scratch.as_view_mut(),
        )?;
        download_gradient(of_keys, to_scores.features);
        download_gradient(of_values, to_values);
        of_params.download(to_scores.params);
        Ok(())
    }

    fn softmax_backward(
        &self,
        weights: &[f32],
        heads: usize,
        bags: &Bags<'_>,
        upstream: SoftmaxUpstream<'_>,
        d_scores: Gradient<'_, f32>,
    ) -> Result<()> {
        let operation = softmax_backward::SoftmaxBackward::plan(&GPU.kernels, heads, capacity(bags))?;
        let (device_weights, offsets) = (GPU.upload(weights), GPU.upload(bags.offsets()));
        let mask = bags.mask().map(|mask| GPU.upload(mask));
        let [d_weights, d_lse] = [upstream.weights, upstream.lse].map(|data| GPU.upload_some(data));
        let mut of_scores = DeviceGradient::upload(&d_scores);
        let mut scratch = GPU.scratch(operation.scratch_bytes());
        operation.run(
            &GPU.stream,
            softmax_backward::Inputs {
                weights: device_weights.slice(..weights.len()),
                d_weights: view_some(&d_weights),
                d_lse: view_some(&d_lse),
                offsets: offsets.as_view(),
                mask: mask.as_ref().map(|mask| mask.slice(..bags.instances())),
            },
            of_scores.view_mut(),
            scratch.as_view_mut(),
        )?;
        of_scores.download(d_scores);
        Ok(())
    }

    fn weighted_sum_backward<E: Element, O: Element>(
        &self,
        weights: &[f32],
        heads: usize,
        values: Values<'_, E>,
        bags: &Bags<'_>,
        d_pooled: &[O],
        gradients: WeightedSumGradients<'_, O>,
    ) -> Result<()> {
        let (rows, dim, per_head) = match values {
            Values::Shared(rows) => (rows, rows.dim(), false),
            Values::PerHead(rows) => (rows, rows.dim() / heads, true),
        };
        let (values, upstream) = (E::DTYPE, O::DTYPE);
        let shape = weighted_sum_backward::Shape { dim, heads, per_head, values, upstream, gradients: upstream };
        let operation = weighted_sum_backward::WeightedSumBackward::plan(&GPU.kernels, shape, capacity(bags))?;
        let (rows, offsets) = (GPU.rows(rows), GPU.upload(bags.offsets()));
        let mask = bags.mask().map(|mask| GPU.upload(mask));
        let (device_weights, device_d_pooled) = (GPU.upload(weights), GPU.upload(d_pooled));
        let mut of_weights = gradients.weights.as_ref().map(DeviceGradient::upload);
        let mut of_values = gradients.values.as_ref().map(DeviceGradient::upload);
        let mut scratch = GPU.scratch(operation.scratch_bytes());
        operation.run(
            &GPU.stream,
            weighted_sum_backward::Inputs {
                weights: device_weights.slice(..weights.len()),
                values: rows.view(),
                row_stride: rows.row_stride,
                d_pooled: device_d_pooled.slice(..d_pooled.len()),
                offsets: offsets.as_view(),
                mask: mask.as_ref().map(|mask| mask.slice(..bags.instances())),
            },
            weighted_sum_backward::Gradients {
                weights: of_weights.as_mut().map(DeviceGradient::view_mut),
                values: of_values.as_mut().map(DeviceGradient::view_mut),
            },
            scratch.as_view_mut(),
        )?;
        download_gradient(of_weights, gradients.weights);
        download_gradient(of_values, gradients.values);
        Ok(())
    }

    fn max_mean_backward<E: Element, O: Element>(
        &self,
        features: Rows<'_, E>,
        bags: &Bags<'_>,
        upstream: MaxMeanUpstream<'_, O>,
        d_features: Gradient<'_, O>,
    ) -> Result<()> {
        let (dim, upstream_dtype) = (features.dim(), O::DTYPE);
        let shape =
            max_mean_backward::Shape { dim, features: E::DTYPE, upstream: upstream_dtype, gradients: upstream_dtype };
        let operation = max_mean_backward::MaxMeanBackward::plan(&GPU.kernels, shape, capacity(bags))?;
        let (device, offsets) = (GPU.rows(features), GPU.upload(bags.offsets()));
        let mask = bags.mask().map(|mask| GPU.upload(mask));
        let [d_max, d_mean] = [upstream.max, upstream.mean].map(|data| data.map(|data| GPU.upload(data)));
        let pooled = bags.len() * features.dim();
        let mut of_features = DeviceGradient::upload(&d_features);
        let mut scratch = GPU.scratch(operation.scratch_bytes());
        operation.run(
            &GPU.stream,
            max_mean_backward::Inputs {
                features: device.view(),
                row_stride: device.row_stride,
                d_max: d_max.as_ref().map(|data| data.slice(..pooled)),
                d_mean: d_mean.as_ref().map(|data| data.slice(..pooled)),
                offsets: offsets.as_view(),
                mask: mask.as_ref().map(|mask| mask.slice(..features.len())),
            },
            of_features.view_mut(),
            scratch.as_view_mut(),
        )?;
        of_features.download(d_features);
        Ok(())
    }
}
