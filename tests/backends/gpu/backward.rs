//! Backwards.

use cudarc::driver::CudaSlice;
use mivc::cpu::{
    AttentionPoolGradients, AttentionPoolUpstream, MaxMeanUpstream, ParamGradients, Saved, ScoresGradients,
    SoftmaxUpstream, Values, WeightedSumGradients,
};
use mivc::cuda::PackedBackward;
use mivc::cuda::attention_pool;
use mivc::cuda::backward::{
    self, attention_pool as attention_pool_backward, gate as gate_backward, max_mean as max_mean_backward,
    scores as scores_backward, softmax as softmax_backward, weighted_sum as weighted_sum_backward,
};
use mivc::{Bags, Element, Gradient, Result, Rows};

use super::{GPU_0, capacity, view_some};

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
        DeviceGradient { data: GPU_0.upload(data), len: data.len(), adds }
    }

    fn view_mut(&mut self) -> backward::Gradient<'_, E> {
        let at = if self.adds { backward::Gradient::Add } else { backward::Gradient::Set };
        at(self.data.slice_mut(..self.len))
    }

    fn download(&self, gradient: Gradient<'_, E>) {
        let (Gradient::Set(to) | Gradient::Add(to)) = gradient;
        GPU_0.download(&self.data, to);
    }
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

pub(super) fn gate_backward<E: Element>(
    [x, y, d_g]: [&[E]; 3],
    d_x: Option<Gradient<'_, E>>,
    d_y: Option<Gradient<'_, E>>,
) -> Result<()> {
    let inputs = [x, y, d_g].map(|data| GPU_0.upload(data));
    let [mut of_x, mut of_y] = [&d_x, &d_y].map(|gradient| gradient.as_ref().map(DeviceGradient::upload));
    let operation = gate_backward::GateBackward::plan(&GPU_0.kernels, E::DTYPE);
    operation.run(
        &GPU_0.stream,
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
    download_gradient(of_x, d_x);
    download_gradient(of_y, d_y);
    Ok(())
}

pub(super) fn scores_backward<E: Element, G: Element>(
    packed: &PackedBackward,
    features: Rows<'_, E>,
    mask: Option<&[u8]>,
    activations: Option<&[E]>,
    d_scores: &[f32],
    gradients: ScoresGradients<'_, G>,
) -> Result<()> {
    let operation = scores_backward::ScoresBackward::plan(packed, G::DTYPE, features.len())?;
    let (rows, mask, activations) = (GPU_0.rows(features), GPU_0.upload_some(mask), GPU_0.upload_some(activations));
    let device_d_scores = GPU_0.upload(d_scores);
    let mut of_features = gradients.features.as_ref().map(DeviceGradient::upload);
    let mut of_params = DeviceParams::upload(&gradients.params);
    let mut scratch = GPU_0.scratch(operation.scratch_bytes());
    operation.run(
        &GPU_0.stream,
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

pub(super) fn attention_pool_backward<E: Element, O: Element>(
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
    let (device_keys, device_values) = (GPU_0.rows(keys), values.map(|values| GPU_0.rows(values)));
    let (offsets, mask) = (GPU_0.upload(bags.offsets()), GPU_0.upload_some(bags.mask()));
    let (weights, activations) = (GPU_0.upload_some(Some(saved.weights)), GPU_0.upload_some(saved.activations));
    let d_pooled = GPU_0.upload_some(upstream.pooled);
    let [d_scores, d_weights, d_lse] =
        [upstream.scores, upstream.weights, upstream.lse].map(|data| GPU_0.upload_some(data));
    let AttentionPoolGradients { scores: to_scores, values: to_values } = gradients;
    let mut of_keys = to_scores.features.as_ref().map(DeviceGradient::upload);
    let mut of_values = to_values.as_ref().map(DeviceGradient::upload);
    let mut of_params = DeviceParams::upload(&to_scores.params);
    let mut scratch = GPU_0.scratch(operation.scratch_bytes());
    let values = device_values
        .as_ref()
        .map(|values| attention_pool::Values { rows: values.view(), row_stride: values.row_stride });
    operation.run(
        &GPU_0.stream,
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

pub(super) fn softmax_backward(
    weights: &[f32],
    heads: usize,
    bags: &Bags<'_>,
    upstream: SoftmaxUpstream<'_>,
    d_scores: Gradient<'_, f32>,
) -> Result<()> {
    let operation = softmax_backward::SoftmaxBackward::plan(&GPU_0.kernels, heads, capacity(bags))?;
    let (device_weights, offsets) = (GPU_0.upload(weights), GPU_0.upload(bags.offsets()));
    let mask = bags.mask().map(|mask| GPU_0.upload(mask));
    let [d_weights, d_lse] = [upstream.weights, upstream.lse].map(|data| GPU_0.upload_some(data));
    let mut of_scores = DeviceGradient::upload(&d_scores);
    let mut scratch = GPU_0.scratch(operation.scratch_bytes());
    operation.run(
        &GPU_0.stream,
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

pub(super) fn weighted_sum_backward<E: Element, O: Element>(
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
    let operation = weighted_sum_backward::WeightedSumBackward::plan(&GPU_0.kernels, shape, capacity(bags))?;
    let (rows, offsets) = (GPU_0.rows(rows), GPU_0.upload(bags.offsets()));
    let mask = bags.mask().map(|mask| GPU_0.upload(mask));
    let (device_weights, device_d_pooled) = (GPU_0.upload(weights), GPU_0.upload(d_pooled));
    let mut of_weights = gradients.weights.as_ref().map(DeviceGradient::upload);
    let mut of_values = gradients.values.as_ref().map(DeviceGradient::upload);
    let mut scratch = GPU_0.scratch(operation.scratch_bytes());
    operation.run(
        &GPU_0.stream,
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

pub(super) fn max_mean_backward<E: Element, O: Element>(
    features: Rows<'_, E>,
    bags: &Bags<'_>,
    upstream: MaxMeanUpstream<'_, O>,
    d_features: Gradient<'_, O>,
) -> Result<()> {
    let (dim, upstream_dtype) = (features.dim(), O::DTYPE);
    let shape =
        max_mean_backward::Shape { dim, features: E::DTYPE, upstream: upstream_dtype, gradients: upstream_dtype };
    let operation = max_mean_backward::MaxMeanBackward::plan(&GPU_0.kernels, shape, capacity(bags))?;
    let (device, offsets) = (GPU_0.rows(features), GPU_0.upload(bags.offsets()));
    let mask = bags.mask().map(|mask| GPU_0.upload(mask));
    let [d_max, d_mean] = [upstream.max, upstream.mean].map(|data| data.map(|data| GPU_0.upload(data)));
    let pooled = bags.len() * features.dim();
    let mut of_features = DeviceGradient::upload(&d_features);
    let mut scratch = GPU_0.scratch(operation.scratch_bytes());
    operation.run(
        &GPU_0.stream,
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
