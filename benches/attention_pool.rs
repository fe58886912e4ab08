//! Scores, softmax and weighted sum in one pass: features [N, D] → pooled [B, 1, D], gated and ungated.

mod common;

use std::cell::LazyCell;

use common::{SHAPES, flops_and_bytes, noise};
use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, Criterion, criterion_group, criterion_main};
use half::bf16;
use mivc::cpu::{AttentionOutputs, Cpu};
use mivc::{Element, Rows};

fn run<E: Element>(group: &mut BenchmarkGroup<'_, WallTime>) {
    let cpu = Cpu::detect();
    for shape in SHAPES {
        let bags = shape.bags();
        let features = LazyCell::new(|| noise::<E>(shape.instances() * shape.dim, 0));
        let mut pooled = vec![0.0_f32; bags.len() * shape.dim];
        for (variant, gated) in [("gated", true), ("ungated", false)] {
            let packed = cpu.pack(&shape.params(gated), E::DTYPE);
            group.throughput(flops_and_bytes(shape.score_flops(gated), shape.bytes::<E>(shape.dim)));
            group.bench_function(shape.id::<E>(variant, shape.dim), |bencher| {
                let rows = Rows::new(&features, shape.dim).unwrap();
                bencher.iter(|| {
                    let outputs = AttentionOutputs { pooled: &mut pooled, scores: None, weights: None, lse: None };
                    cpu.attention_pool(&packed, rows, None, &bags, outputs).unwrap();
                });
            });
        }
    }
}

fn attention_pool(criterion: &mut Criterion) {
    let mut group = common::group(criterion, "attention_pool");
    run::<f32>(&mut group);
    run::<bf16>(&mut group);
}

criterion_group!(benches, attention_pool);
criterion_main!(benches);
