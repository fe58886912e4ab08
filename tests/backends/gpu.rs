use std::sync::LazyLock;

use cudarc::driver::{CudaSlice, CudaStream, DeviceRepr};
use mivc::cpu::MaxMeanOutputs;
use mivc::cuda::max_mean::{Inputs, MaxMean, Outputs, Shape};
use mivc::cuda::{Capacity, Kernels, context, device_count};
use mivc::{Bags, Device, Element, Result, Rows};

use super::{Backend, Spread, spread, vm};

/// The CUDA kernels on the first GPU.
#[derive(Debug, Default)]
pub struct GpuBackend;

struct Gpu {
    kernels: Kernels,
    stream: std::sync::Arc<CudaStream>,
}

static GPU: LazyLock<Gpu> = LazyLock::new(|| {
    let context = context(0).expect("availability() says that there is one");
    Gpu { kernels: Kernels::load(&context).expect("the kernels"), stream: context.default_stream() }
});

impl Gpu {
    /// A copy of `values`, and one element where there is none.
    fn upload<T: DeviceRepr + Default + Clone>(&self, values: &[T]) -> CudaSlice<T> {
        let mut padded = values.to_vec();
        padded.resize(values.len().max(1), T::default());
        self.stream.clone_htod(&padded).expect("memory of the device")
    }

    fn download<T: DeviceRepr>(&self, from: Option<CudaSlice<T>>, to: Option<&mut [T]>) {
        if let (Some(from), Some(to)) = (from, to)
            && !to.is_empty()
        {
            self.stream.memcpy_dtoh(&from.slice(..to.len()), to).expect("what the device computed");
        }
    }
}

impl Backend for GpuBackend {
    type Packed = ();

    fn name(&self) -> &'static str {
        "gpu"
    }

    fn covers(&self, test: &str) -> bool {
        let test = test.trim_start_matches("properties::");
        let front_doors = ["mean", "max", "max_mean", "pooling_tokens_without_attention"];
        let is_front_door = front_doors.iter().any(|name| test.starts_with(&format!("front_door::{name}::")));
        vm::calls_max_mean(test) || is_front_door
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

    fn max_mean<E: Element, O: Element>(
        &self,
        features: Rows<'_, E>,
        bags: &Bags<'_>,
        outputs: MaxMeanOutputs<'_, O>,
    ) -> Result<()> {
        let (argmax, dim) = (outputs.argmax.is_some(), features.dim());
        let shape = Shape { dim, features: E::DTYPE, outputs: O::DTYPE, argmax };
        let operation = MaxMean::plan(&GPU.kernels, shape, Capacity { instances: features.len(), bags: bags.len() })?;

        let Spread { data, offset, row_stride } = spread(features);
        let end = if features.is_empty() { offset } else { data.len() - (row_stride - dim) };
        let data = GPU.upload(&data);
        let offsets = GPU.upload(bags.offsets());
        let mask = bags.mask().map(|mask| GPU.upload(mask));
        let mut max = outputs.max.as_deref().map(|max| GPU.upload(max));
        let mut mean = outputs.mean.as_deref().map(|mean| GPU.upload(mean));
        let mut rows = outputs.argmax.as_deref().map(|rows| GPU.upload(rows));
        let pooled = bags.len() * dim;
        let mut scratch = GPU.upload(&vec![0xff_u8; operation.scratch_bytes()]);
        operation.run(
            &GPU.stream,
            Inputs {
                features: data.slice(offset..end),
                row_stride,
                offsets: offsets.as_view(),
                mask: mask.as_ref().map(|mask| mask.slice(..features.len())),
            },
            Outputs {
                max: max.as_mut().map(|max| max.slice_mut(..pooled)),
                mean: mean.as_mut().map(|mean| mean.slice_mut(..pooled)),
                argmax: rows.as_mut().map(|rows| rows.slice_mut(..pooled)),
            },
            scratch.as_view_mut(),
        )?;
        GPU.download(max, outputs.max);
        GPU.download(mean, outputs.mean);
        GPU.download(rows, outputs.argmax);
        Ok(())
    }
}
