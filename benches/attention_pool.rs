//! Scores, softmax and weighted sum in one pass: features [N, D] → pooled [B, 1, D], gated and ungated.

mod common;

use std::cell::LazyCell;

use common::{SHAPES, flops_and_bytes, noise};
use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, Criterion, criterion_group, criterion_main};
use half::bf16;
use mivc::cpu::{AttentionOutputs, Cpu};
use mivc::{Element, Rows};

#[cfg(feature = "cuda")]
use {
    common::{ATTENTIONS, Attention, cuda::Gpu, model},
    half::f16,
    mivc::Dtype,
    mivc::cuda::{Capacity, attention_pool as cuda},
};

fn run<E: Element>(group: &mut BenchmarkGroup<'_, WallTime>) {
    let cpu = Cpu::detect();
    for shape in SHAPES {
        let bags = shape.bags();
        let features = LazyCell::new(|| noise::<E>(shape.instances() * shape.dim, 0));
        let mut pooled = vec![0.0_f32; bags.len() * shape.dim];
        for (variant, gated) in [("gated", true), ("ungated", false)] {
            let packed = cpu.pack(&shape.params(gated, 1), E::DTYPE);
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

#[cfg(feature = "cuda")]
fn run_on_gpu<E: Element>(group: &mut BenchmarkGroup<'_, WallTime>, gpu: &Gpu) {
    for shape in SHAPES {
        let bags = shape.bags();
        let capacity = Capacity { instances: shape.instances(), bags: bags.len() };
        let features = LazyCell::new(|| gpu.copies(&noise::<E>(shape.instances() * shape.dim, 0)));
        let offsets = gpu.stream.clone_htod(bags.offsets()).unwrap();
        for Attention { name, gated, heads } in ATTENTIONS {
            let packed = gpu.kernels.pack(&gpu.stream, &shape.params(gated, heads), E::DTYPE).unwrap();
            let planned = cuda::Shape { value_dim: shape.dim, outputs: Dtype::F32 };
            let operation = cuda::AttentionPool::plan(&packed, planned, capacity).unwrap();
            let mut pooled = gpu.stream.alloc_zeros::<f32>(bags.len() * heads * shape.dim).unwrap();
            let mut scratch = gpu.stream.alloc_zeros::<u8>(operation.scratch_bytes()).unwrap();
            let work = model::attention_pool(&shape, gated, heads, E::DTYPE);
            gpu.bench(group, shape.id::<E>(name, shape.dim), &work, |number| {
                let inputs = cuda::Inputs {
                    keys: features[number % features.len()].as_view(),
                    key_stride: shape.dim,
                    values: None,
                    offsets: offsets.as_view(),
                    mask: None,
                };
                let outputs = cuda::Outputs::of(pooled.as_view_mut());
                operation.run(&gpu.stream, inputs, outputs, scratch.as_view_mut()).unwrap();
            });
        }
    }
}

fn attention_pool(criterion: &mut Criterion) {
    let mut group = common::group(criterion, "attention_pool");
    run::<f32>(&mut group);
    run::<bf16>(&mut group);
    #[cfg(feature = "cuda")]
    if let Some(gpu) = Gpu::detect() {
        run_on_gpu::<f32>(&mut group, &gpu);
        run_on_gpu::<f16>(&mut group, &gpu);
        run_on_gpu::<bf16>(&mut group, &gpu);
    }
}

criterion_group!(benches, attention_pool);
criterion_main!(benches);
