//! How many lane instructions a second the virtual machine runs, on one thread of the host where races are
//! checked, on all of them where they are not.

#[path = "../tests/support/nvcc.rs"]
#[allow(dead_code)]
mod nvcc;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use ptx_vm::{Checks, Device, Launch, Module, Parameters, Pointer};

const ROWS: usize = 64;
const DIM: usize = 256;

/// `ragged_pool` over bags of 64 rows.
struct Pool {
    module: Module,
    device: Device,
    launch: Launch,
    parameters: Parameters,
}

impl Pool {
    fn new(bags: usize, checks: Checks) -> Self {
        let ptx = nvcc::compile("ragged_pool.cu", &[("BUG", 0)]).expect("the kernel compiles");
        let mut device = Device::new();
        let value = |i: usize| (i * 2_654_435_761 % 1000) as f32 / 1000.0 - 0.5;
        let mut upload = |name: &str, bytes: Vec<u8>| -> Pointer { device.upload(name, &bytes) };
        let floats = |len: usize| (0..len).flat_map(|i| value(i).to_le_bytes()).collect::<Vec<u8>>();
        let x = upload("x", floats(bags * ROWS * DIM));
        let w = upload("w", floats(DIM));
        let offsets = upload("offsets", (0..=bags).flat_map(|bag| ((bag * ROWS) as i32).to_le_bytes()).collect());
        let out = upload("out", vec![0; 4 * bags * DIM]);
        let seen = upload("rows_seen", vec![0; 4]);
        let parameters =
            Parameters::new().pointer(x).pointer(w).pointer(offsets).pointer(out).pointer(seen).i32(DIM as i32);
        let launch = Launch { grid: [bags as u32, 1, 1], block: [256, 1, 1], checks, ..Launch::default() };
        Pool { module: Module::load(&ptx).expect("the module loads"), device, launch, parameters }
    }

    fn run(&mut self) -> u64 {
        let statistics = self.device.launch(&self.module, "ragged_pool", &self.launch, self.parameters.bytes());
        statistics.expect("the kernel is right").lane_instructions
    }
}

fn speed(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("ragged_pool");
    group.sample_size(10);
    for (name, bags, checks) in [("bounds", 256, Checks::Bounds), ("all checks", 64, Checks::Full)] {
        let mut pool = Pool::new(bags, checks);
        group.throughput(Throughput::Elements(pool.run()));
        group.bench_function(name, |bencher| bencher.iter(|| pool.run()));
    }
    group.finish();
}

criterion_group!(benches, speed);
criterion_main!(benches);
