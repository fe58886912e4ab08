//! The CUDA kernels on the first GPU_0.

mod attention;
mod backward;

use std::sync::{Arc, LazyLock};

use cudarc::driver::{CudaSlice, CudaStream, CudaView, DeviceRepr};
use mivc::cpu::{
    AttentionOutputs, AttentionPoolGradients, AttentionPoolUpstream, MaxMeanOutputs, MaxMeanUpstream, Saved,
    ScoresGradients, SoftmaxUpstream, Values, WeightedSumGradients,
};
use mivc::cuda::gate::{self, Gate};
use mivc::cuda::max_mean::{self, MaxMean};
use mivc::cuda::softmax::{self, Softmax};
use mivc::cuda::state::ExactSums;
use mivc::cuda::weighted_sum::{self, WeightedSum};
use mivc::cuda::{Capacity, Kernels, OnePass, PackedAttention, PackedBackward, context, device_count};
use mivc::{AttentionParams, Bags, Device, Dtype, Element, Gradient, Order, PoolState, Result, Rows};

use super::{Backend, Spread, spread, vm};

/// The kernels, as they may be loaded.
#[derive(Debug)]
pub struct GpuBackend {
    name: &'static str,
    one_pass: Option<OnePass>,
    order: Order,
}

pub const GPU: GpuBackend = GpuBackend { name: "gpu", one_pass: None, order: Order::Rounding };
pub const GPU_ONE_PASS: GpuBackend = GpuBackend { name: "gpu-one-pass", one_pass: Some(OnePass::Portable), ..GPU };
pub const GPU_SM90: GpuBackend = GpuBackend { name: "gpu-sm90", one_pass: Some(OnePass::Sm90), ..GPU };
pub const GPU_EXACT: GpuBackend = GpuBackend { name: "gpu-exact", order: Order::Exact, ..GPU };

struct Gpu {
    kernels: Kernels,
    stream: Arc<CudaStream>,
}

static GPU_0: LazyLock<Gpu> = LazyLock::new(|| {
    let context = context(0).expect("availability() says that there is one");
    Gpu { kernels: Kernels::load(&context).expect("the kernels"), stream: context.default_stream() }
});
static ONE_PASS: LazyLock<Kernels> = LazyLock::new(|| load_with(OnePass::Portable));
static SM90: LazyLock<Kernels> = LazyLock::new(|| load_with(OnePass::Sm90));

fn load_with(one_pass: OnePass) -> Kernels {
    Kernels::load_with(GPU_0.kernels.context(), one_pass).expect("the kernels")
}

impl GpuBackend {
    fn kernels(&self) -> Kernels {
        let kernels = match self.one_pass {
            None => &GPU_0.kernels,
            Some(OnePass::Portable) => &ONE_PASS,
            Some(OnePass::Sm90) => &SM90,
        };
        kernels.with_order(self.order)
    }

    fn run_max_mean<E: Element, O: Element>(
        &self,
        features: Rows<'_, E>,
        bags: &Bags<'_>,
        outputs: max_mean::Outputs<'_, O>,
    ) -> Result<()> {
        let shape = max_mean::Shape {
            dim: features.dim(),
            features: E::DTYPE,
            outputs: O::DTYPE,
            argmax: outputs.argmax.is_some(),
        };
        let operation = MaxMean::plan(&self.kernels(), shape, capacity(bags))?;
        let device = GPU_0.rows(features);
        let offsets = GPU_0.upload(bags.offsets());
        let mask = bags.mask().map(|mask| GPU_0.upload(mask));
        let mut scratch = GPU_0.scratch(operation.scratch_bytes());
        let inputs = max_mean::Inputs {
            features: device.view(),
            row_stride: device.row_stride,
            offsets: offsets.as_view(),
            mask: mask.as_ref().map(|mask| mask.slice(..features.len())),
        };
        operation.run(&GPU_0.stream, inputs, outputs, scratch.as_view_mut())
    }
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
        self.spread_rows(rows, spread(rows))
    }

    fn spread_rows<E: Element>(&self, rows: Rows<'_, E>, spread: Spread<E>) -> DeviceRows<E> {
        let Spread { data, offset, row_stride } = spread;
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

fn view_some<T>(data: &Option<(CudaSlice<T>, usize)>) -> Option<CudaView<'_, T>> {
    data.as_ref().map(|(data, len)| data.slice(..*len))
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

/// `Ok` exactly where there is a GPU; without one it panics where that is an error.
pub fn expect_gpu() -> std::result::Result<(), String> {
    if device_count().is_ok_and(|devices| devices > 0) {
        return Ok(());
    }
    assert!(std::env::var("MIVC_REQUIRE_GPU").as_deref() != Ok("1"), "MIVC_REQUIRE_GPU is 1, and there is no GPU");
    Err("no GPU".to_owned())
}

impl Backend for GpuBackend {
    type Packed = PackedAttention;
    type PackedBackward = PackedBackward;

    fn name(&self) -> &'static str {
        self.name
    }

    /// Of malformed arguments those alone that hold no bags: the device's offsets are not seen by the host. No kernel
    /// projects yet.
    fn covers(&self, test: &str) -> bool {
        let short_name = test.trim_start_matches("properties::");
        let is_front_door =
            short_name.starts_with("front_door::") && !short_name.starts_with("front_door::projection::");
        match (self.one_pass, self.order) {
            (_, Order::Exact) => (vm::calls_operations(test) && vm::sums(test)) || is_front_door,
            (Some(one_pass), _) => vm::calls_operations(test) && vm::pools_attention(test, one_pass),
            (None, _) => vm::calls_operations(test) || short_name.starts_with("malformed::gate::") || is_front_door,
        }
    }

    fn availability(&self) -> std::result::Result<(), String> {
        expect_gpu()?;
        let capability = GPU_0.kernels.context().compute_capability().expect("a device has one");
        match self.one_pass {
            Some(OnePass::Sm90) if capability != (9, 0) => Err("not of compute capability 9.0".to_owned()),
            _ => Ok(()),
        }
    }

    fn order(&self) -> Order {
        self.order
    }

    fn device(&self) -> Option<Device> {
        self.one_pass.is_none().then_some(Device::Cuda(0))
    }

    fn pack(&self, params: &AttentionParams, dtype: Dtype) -> PackedAttention {
        self.kernels().pack(&GPU_0.stream, params, dtype).expect("memory of the device")
    }

    fn scores<E: Element>(
        &self,
        packed: &PackedAttention,
        features: Rows<'_, E>,
        mask: Option<&[u8]>,
        scores: &mut [f32],
    ) -> Result<()> {
        attention::scores(packed, features, mask, scores)
    }

    fn scores_keeping<E: Element>(
        &self,
        packed: &PackedAttention,
        features: Rows<'_, E>,
        mask: Option<&[u8]>,
        scores: &mut [f32],
        activations: &mut [E],
    ) -> Result<()> {
        attention::scores_keeping(packed, features, mask, scores, activations)
    }

    fn gate<E: Element>(&self, x: &[E], y: &[E], g: &mut [E]) -> Result<()> {
        let (device_x, device_y, mut device_g) = (GPU_0.upload(x), GPU_0.upload(y), GPU_0.upload(g));
        let inputs = gate::Inputs { x: device_x.slice(..x.len()), y: device_y.slice(..y.len()) };
        Gate::plan(&GPU_0.kernels, E::DTYPE).run(&GPU_0.stream, inputs, device_g.slice_mut(..g.len()))?;
        GPU_0.download(&device_g, g);
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
        let operation = Softmax::plan(&self.kernels(), heads, capacity(bags))?;
        let (device_scores, offsets) = (GPU_0.upload(scores), GPU_0.upload(bags.offsets()));
        let mask = bags.mask().map(|mask| GPU_0.upload(mask));
        let (mut device_weights, mut device_lse) = (GPU_0.upload(weights), GPU_0.upload(lse));
        let mut scratch = GPU_0.scratch(operation.scratch_bytes());
        operation.run(
            &GPU_0.stream,
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
        GPU_0.download(&device_weights, weights);
        GPU_0.download(&device_lse, lse);
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
        let operation = WeightedSum::plan(&self.kernels(), shape, capacity(bags))?;
        let (rows, offsets) = (GPU_0.rows(rows), GPU_0.upload(bags.offsets()));
        let mask = bags.mask().map(|mask| GPU_0.upload(mask));
        let (device_weights, mut device_pooled) = (GPU_0.upload(weights), GPU_0.upload(pooled));
        let mut scratch = GPU_0.scratch(operation.scratch_bytes());
        operation.run(
            &GPU_0.stream,
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
        GPU_0.download(&device_pooled, pooled);
        Ok(())
    }

    fn max_mean<E: Element, O: Element>(
        &self,
        features: Rows<'_, E>,
        bags: &Bags<'_>,
        outputs: MaxMeanOutputs<'_, O>,
    ) -> Result<()> {
        let mut max = outputs.max.as_deref().map(|max| GPU_0.upload(max));
        let mut mean = outputs.mean.as_deref().map(|mean| GPU_0.upload(mean));
        let mut rows = outputs.argmax.as_deref().map(|rows| GPU_0.upload(rows));
        let pooled = bags.len() * features.dim();
        let device_outputs = max_mean::Outputs {
            max: max.as_mut().map(|max| max.slice_mut(..pooled)),
            mean: mean.as_mut().map(|mean| mean.slice_mut(..pooled)),
            argmax: rows.as_mut().map(|rows| rows.slice_mut(..pooled)),
            exact: None,
        };
        self.run_max_mean(features, bags, device_outputs)?;
        GPU_0.download_some(max, outputs.max);
        GPU_0.download_some(mean, outputs.mean);
        GPU_0.download_some(rows, outputs.argmax);
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
        attention::attention_pool(packed, keys, values, bags, outputs)
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
        attention::attention_pool_onto(packed, keys, values, bags, state, scores)
    }

    fn mean_onto<E: Element>(&self, features: Rows<'_, E>, bags: &Bags<'_>, state: &mut PoolState) -> Result<()> {
        let sums = ExactSums::new(bags.len(), 1, features.dim())?;
        // Poisoned.
        let (mut words, mut exact) = (vec![0; sums.len()], GPU_0.upload(&vec![-1_i64; sums.len()]));
        let outputs = max_mean::Outputs::<f32> { exact: Some(exact.slice_mut(..sums.len())), ..Default::default() };
        self.run_max_mean(features, bags, outputs)?;
        GPU_0.download(&exact, &mut words);
        state.merge(&sums.state(&words)?)
    }

    fn merge_state(&self, state: &mut PoolState, other: &PoolState) -> Result<()> {
        attention::merge_state(state, other)
    }

    fn gate_backward<E: Element>(
        &self,
        arguments: [&[E]; 3],
        d_x: Option<Gradient<'_, E>>,
        d_y: Option<Gradient<'_, E>>,
    ) -> Result<()> {
        backward::gate_backward(arguments, d_x, d_y)
    }

    fn pack_backward(&self, params: &AttentionParams, dtype: Dtype) -> PackedBackward {
        GPU_0.kernels.pack_backward(&GPU_0.stream, params, dtype).expect("memory of the device")
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
        attention::attention_pool_keeping(packed, keys, values, bags, outputs, activations)
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
        backward::scores_backward(packed, features, mask, activations, d_scores, gradients)
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
        backward::attention_pool_backward(packed, keys, values, bags, saved, upstream, gradients)
    }

    fn softmax_backward(
        &self,
        weights: &[f32],
        heads: usize,
        bags: &Bags<'_>,
        upstream: SoftmaxUpstream<'_>,
        d_scores: Gradient<'_, f32>,
    ) -> Result<()> {
        backward::softmax_backward(weights, heads, bags, upstream, d_scores)
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
        backward::weighted_sum_backward(weights, heads, values, bags, d_pooled, gradients)
    }

    fn max_mean_backward<E: Element, O: Element>(
        &self,
        features: Rows<'_, E>,
        bags: &Bags<'_>,
        upstream: MaxMeanUpstream<'_, O>,
        d_features: Gradient<'_, O>,
    ) -> Result<()> {
        backward::max_mean_backward(features, bags, upstream, d_features)
    }
}
