//! Weighted sum: weights [N, 1], values [N, D] → pooled [B, 1, D].

mod common;

use std::cell::LazyCell;

use common::{SHAPES, noise};
use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, Criterion, Throughput, criterion_group, criterion_main};
use half::bf16;
use mivc::cpu::{Cpu, Values};
use mivc::{Element, Rows};

fn run<E: Element>(group: &mut BenchmarkGroup<'_, WallTime>) {
    let cpu = Cpu::detect();
    for shape in SHAPES {
        let bags = shape.bags();
        let weights = noise::<f32>(shape.instances(), 1);
        let values = LazyCell::new(|| noise::<E>(shape.instances() * shape.dim, 0));
        let mut pooled = vec![0.0_f32; bags.len() * shape.dim];
        group.throughput(Throughput::BytesDecimal(shape.bytes::<E>(shape.dim)));
        group.bench_function(shape.id::<E>("", shape.dim), |bencher| {
            let values = Values::Shared(Rows::new(&values, shape.dim).unwrap());
            bencher.iter(|| cpu.weighted_sum(&weights, 1, values, &bags, &mut pooled).unwrap());
        });
    }
}

fn weighted_sum(criterion: &mut Criterion) {
    let mut group = common::group(criterion, "weighted_sum");
    run::<f32>(&mut group);
    run::<bf16>(&mut group);
}

criterion_group!(benches, weighted_sum);
criterion_main!(benches);
