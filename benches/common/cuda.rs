//! What the benches need on a GPU: time by the device's own events, inputs that its second-level cache does not
//! hold, and beside each rate the one at which the device copies, measured in the same run, and what a model expects.

use std::cell::RefCell;
use std::sync::Arc;
use std::time::Duration;

use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, BenchmarkId};
use cudarc::driver::sys::CUdevice_attribute::CU_DEVICE_ATTRIBUTE_L2_CACHE_SIZE;
use cudarc::driver::sys::CUevent_flags::CU_EVENT_DEFAULT;
use cudarc::driver::{CudaEvent, CudaSlice, CudaStream, DeviceRepr};
use mivc::cuda::backward::Gradient;
use mivc::cuda::backward::scores::ParamGradients;
use mivc::cuda::{Kernels, context};
use mivc::{AttentionParams, AttentionTensors, Order};

use super::flops_and_bytes;
use super::model::Work;

/// Of one copy: long enough that all calls of a batch are queued before it ends.
const COPY_BYTES: usize = 1 << 30;
const COPIES: usize = 16;

/// Calls between two events.
const BATCH: usize = 16;

/// Inputs that take turns are this many times as large as the cache.
const CACHES: usize = 4;

/// Rows of an operation that has a sum, and the order of each.
pub const ORDERS: [(&str, Order); 2] = [("cuda", Order::Rounding), ("cuda-exact", Order::Exact)];

/// The first GPU.
pub struct Gpu {
    pub kernels: Kernels,
    pub stream: Arc<CudaStream>,
    source: CudaSlice<u8>,
    destination: RefCell<CudaSlice<u8>>,
    /// Bytes read and written per second.
    copy_rate: f64,
}

impl Gpu {
    /// Says so where there is none.
    pub fn detect() -> Option<Self> {
        let context = context(0).inspect_err(|error| eprintln!("no GPU: {error}")).ok()?;
        let stream = context.default_stream();
        let mut gpu = Gpu {
            kernels: Kernels::load(&context).unwrap(),
            source: stream.alloc_zeros(COPY_BYTES).unwrap(),
            destination: stream.alloc_zeros(COPY_BYTES).unwrap().into(),
            stream,
            copy_rate: 0.0,
        };
        gpu.copy_rate = gpu.measure_copy();
        println!("{}: copies {:.3} TB/s, read and written", context.name().unwrap(), gpu.copy_rate / 1e12);
        Some(gpu)
    }

    /// Copies of `values`, to be used in turns: when the first is used again, the cache holds none of it.
    pub fn copies<T: DeviceRepr>(&self, values: &[T]) -> Vec<CudaSlice<T>> {
        let cache = self.stream.context().attribute(CU_DEVICE_ATTRIBUTE_L2_CACHE_SIZE).unwrap() as usize;
        let count = (CACHES * cache).div_ceil(size_of_val(values)).max(1);
        (0..count).map(|_| self.stream.clone_htod(values).unwrap()).collect()
    }

    /// Measures what `call` queues; it gets a number that rises from call to call.
    pub fn bench(
        &self,
        group: &mut BenchmarkGroup<'_, WallTime>,
        id: BenchmarkId,
        work: &Work,
        mut call: impl FnMut(usize),
    ) {
        let mut times = Vec::new();
        group.throughput(flops_and_bytes(work.flops(), work.bytes()));
        group.bench_function(id, |bencher| {
            // Inputs that are made at the first call are made now.
            call(0);
            bencher.iter_custom(|calls| {
                let time = self.time(calls as usize, &mut call);
                times.push(time.as_secs_f64() / calls as f64);
                time
            });
        });
        times.sort_by(f64::total_cmp);
        if let Some(&median) = times.get(times.len() / 2) {
            self.compare(work, median);
        }
    }

    /// A line beneath criterion's: the rates, and how many times as long as expected it took.
    fn compare(&self, work: &Work, seconds: f64) {
        let rate = work.bytes() as f64 / seconds;
        let copied = 100.0 * rate / self.copy_rate;
        print!("{:24}{:.3} TB/s, {copied:.1} % of the copy's; ", "", rate / 1e12);
        if work.flops() > 0 {
            print!("{:.0} TFLOP/s; ", work.flops() as f64 / seconds / 1e12);
        }
        let (expected, bound) = (work.seconds(), work.bound());
        println!("{:.2} × the {:.1} µs expected of an H200, by {bound}", seconds / expected, 1e6 * expected);
    }

    /// Time of the device, in batches. It copies while the host queues one, and so never waits for the host; the
    /// first call of each is not timed, as it pays for what the copy has left in the cache.
    fn time(&self, calls: usize, mut call: impl FnMut(usize)) -> Duration {
        let batch = |first: usize| {
            self.copy();
            call(first);
            let start = self.record();
            (first..calls.min(first + BATCH)).for_each(|number| call(number + 1));
            seconds(&start, &self.record())
        };
        Duration::from_secs_f64((0..calls).step_by(BATCH).map(batch).sum())
    }

    fn measure_copy(&self) -> f64 {
        self.copy();
        let start = self.record();
        (0..COPIES).for_each(|_| self.copy());
        (COPIES * 2 * COPY_BYTES) as f64 / seconds(&start, &self.record())
    }

    fn copy(&self) {
        self.stream.memcpy_dtod(&self.source, &mut *self.destination.borrow_mut()).unwrap();
    }

    fn record(&self) -> CudaEvent {
        self.stream.record_event(Some(CU_EVENT_DEFAULT)).unwrap()
    }
}

/// Between two events, when both have come to pass.
fn seconds(start: &CudaEvent, end: &CudaEvent) -> f64 {
    f64::from(start.elapsed_ms(end).unwrap()) / 1e3
}

/// Gradients of all parameters that there are.
pub struct CudaParams([Option<CudaSlice<f32>>; 6]);

impl CudaParams {
    pub fn new(gpu: &Gpu, params: &AttentionParams) -> Self {
        let AttentionTensors { v, v_bias, u, u_bias, w, w_bias } = params.tensors();
        let tensors = [Some(v), v_bias, u, u_bias, Some(w), w_bias];
        CudaParams(tensors.map(|tensor| tensor.map(|tensor| gpu.stream.alloc_zeros(tensor.len()).unwrap())))
    }

    pub fn views(&mut self) -> ParamGradients<'_> {
        let views = self.0.each_mut().map(|to| to.as_mut().map(|to| Gradient::Set(to.as_view_mut())));
        let [v, v_bias, u, u_bias, w, w_bias] = views;
        ParamGradients { v, v_bias, u, u_bias, w, w_bias }
    }
}
