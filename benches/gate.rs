//! Gated sigmoid weighting: x, y [N, L] → g = tanh(x) ⊙ σ(y).

mod common;

use std::cell::LazyCell;

use common::{SHAPES, noise};
use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, Criterion, Throughput, criterion_group, criterion_main};
use half::bf16;
use mivc::Element;
use mivc::cpu::Cpu;

fn run<E: Element>(group: &mut BenchmarkGroup<'_, WallTime>) {
    let cpu = Cpu::detect();
    for shape in SHAPES {
        let len = shape.instances() * shape.hidden;
        let mut inputs = LazyCell::new(|| (noise::<E>(len, 0), noise::<E>(len, 1), vec![E::default(); len]));
        group.throughput(Throughput::BytesDecimal(shape.bytes::<E>(3 * shape.hidden)));
        group.bench_function(shape.id::<E>("", shape.hidden), |bencher| {
            let (x, y, g) = &mut *inputs;
            bencher.iter(|| cpu.gate(x, y, g).unwrap());
        });
    }
}

fn gate(criterion: &mut Criterion) {
    let mut group = common::group(criterion, "gate");
    run::<f32>(&mut group);
    run::<bf16>(&mut group);
}

criterion_group!(benches, gate);
criterion_main!(benches);
