//! Max and mean in one read: features [N, D] → max, mean [B, D].

mod common;

use std::cell::LazyCell;

use common::{SHAPES, noise};
use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, Criterion, Throughput, criterion_group, criterion_main};
use half::bf16;
use mivc::cpu::{Cpu, MaxMeanOutputs};
use mivc::{Element, Rows};

fn run<E: Element>(group: &mut BenchmarkGroup<'_, WallTime>) {
    let cpu = Cpu::detect();
    for shape in SHAPES {
        let bags = shape.bags();
        let features = LazyCell::new(|| noise::<E>(shape.instances() * shape.dim, 0));
        let mut max = vec![0.0_f32; bags.len() * shape.dim];
        let mut mean = max.clone();
        group.throughput(Throughput::BytesDecimal(shape.bytes::<E>(shape.dim)));
        group.bench_function(shape.id::<E>("", shape.dim), |bencher| {
            let rows = Rows::new(&features, shape.dim).unwrap();
            bencher.iter(|| {
                let outputs = MaxMeanOutputs { max: Some(&mut max), mean: Some(&mut mean), argmax: None };
                cpu.max_mean(rows, &bags, outputs).unwrap();
            });
        });
    }
}

fn max_mean(criterion: &mut Criterion) {
    let mut group = common::group(criterion, "max_mean");
    run::<f32>(&mut group);
    run::<bf16>(&mut group);
}

criterion_group!(benches, max_mean);
criterion_main!(benches);
