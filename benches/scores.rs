//! Attention scores: features [N, D] → scores [N, 1], gated and ungated.

mod common;

use std::cell::LazyCell;

use common::{SHAPES, flops_and_bytes, noise};
use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, Criterion, criterion_group, criterion_main};
use half::bf16;
use mivc::cpu::Cpu;
use mivc::{Element, Rows};

fn run<E: Element>(group: &mut BenchmarkGroup<'_, WallTime>) {
    let cpu = Cpu::detect();
    for shape in SHAPES {
        let features = LazyCell::new(|| noise::<E>(shape.instances() * shape.dim, 0));
        let mut scores = vec![0.0; shape.instances()];
        for (variant, gated) in [("gated", true), ("ungated", false)] {
            let packed = cpu.pack(&shape.params(gated), E::DTYPE);
            group.throughput(flops_and_bytes(shape.score_flops(gated), shape.bytes::<E>(shape.dim)));
            group.bench_function(shape.id::<E>(variant, shape.dim), |bencher| {
                let rows = Rows::new(&features, shape.dim).unwrap();
                bencher.iter(|| cpu.scores(&packed, rows, None, &mut scores).unwrap());
            });
        }
    }
}

fn scores(criterion: &mut Criterion) {
    let mut group = common::group(criterion, "scores");
    run::<f32>(&mut group);
    run::<bf16>(&mut group);
}

criterion_group!(benches, scores);
criterion_main!(benches);
