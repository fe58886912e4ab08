//! Weighted sum: weights [N, 1], values [N, D] → pooled [B, 1, D].

mod common;

use std::cell::LazyCell;

use common::{SHAPES, TRAINED, noise};
use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, Criterion, Throughput, criterion_group, criterion_main};
use half::bf16;
use mivc::cpu::{Cpu, Values, WeightedSumGradients};
use mivc::{Element, Gradient, Rows};

#[cfg(feature = "cuda")]
use {
    common::{
        cuda::{Gpu, ORDERS},
        model,
    },
    half::f16,
    mivc::Dtype,
    mivc::cuda::backward::{Gradient as CudaGradient, weighted_sum as backward},
    mivc::cuda::{Capacity, weighted_sum as cuda},
};

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

/// Weights, values and the gradient of the pooled → the gradients of weights and values.
fn run_backward<E: Element>(group: &mut BenchmarkGroup<'_, WallTime>) {
    let cpu = Cpu::detect();
    let bags = TRAINED.bags();
    let (weights, values) = (noise::<f32>(TRAINED.instances(), 1), noise::<E>(TRAINED.instances() * TRAINED.dim, 0));
    let d_pooled = noise::<f32>(bags.len() * TRAINED.dim, 2);
    let (mut d_weights, mut d_values) = (vec![0.0; weights.len()], vec![E::default(); values.len()]);
    group.throughput(Throughput::BytesDecimal(TRAINED.bytes::<E>(2 * TRAINED.dim)));
    group.bench_function(TRAINED.id::<E>("backward", TRAINED.dim), |bencher| {
        let values = Values::Shared(Rows::new(&values, TRAINED.dim).unwrap());
        bencher.iter(|| {
            let gradients = WeightedSumGradients {
                weights: Some(Gradient::Set(&mut d_weights)),
                values: Some(Gradient::Set(&mut d_values)),
            };
            cpu.weighted_sum_backward(&weights, 1, values, &bags, &d_pooled, gradients).unwrap();
        });
    });
}

#[cfg(feature = "cuda")]
fn run_on_gpu<E: Element>(group: &mut BenchmarkGroup<'_, WallTime>, gpu: &Gpu) {
    for (shape, (name, order)) in SHAPES.into_iter().flat_map(|shape| ORDERS.map(|order| (shape, order))) {
        let bags = shape.bags();
        let planned = cuda::Shape { dim: shape.dim, heads: 1, per_head: false, values: E::DTYPE, outputs: Dtype::F32 };
        let capacity = Capacity { instances: shape.instances(), bags: bags.len() };
        let operation = cuda::WeightedSum::plan(&gpu.kernels.with_order(order), planned, capacity).unwrap();

        let values = LazyCell::new(|| gpu.copies(&noise::<E>(shape.instances() * shape.dim, 0)));
        let weights = gpu.stream.clone_htod(&noise::<f32>(shape.instances(), 1)).unwrap();
        let offsets = gpu.stream.clone_htod(bags.offsets()).unwrap();
        let mut pooled = gpu.stream.alloc_zeros::<f32>(bags.len() * shape.dim).unwrap();
        let mut scratch = gpu.stream.alloc_zeros::<u8>(operation.scratch_bytes()).unwrap();
        let work = model::weighted_sum(&shape, 1, E::DTYPE);
        gpu.bench(group, shape.id::<E>(name, shape.dim), &work, |number| {
            let inputs = cuda::Inputs {
                weights: weights.as_view(),
                values: values[number % values.len()].as_view(),
                row_stride: shape.dim,
                offsets: offsets.as_view(),
                mask: None,
            };
            operation.run(&gpu.stream, inputs, pooled.as_view_mut(), scratch.as_view_mut()).unwrap();
        });
    }
}

#[cfg(feature = "cuda")]
fn run_backward_on_gpu<E: Element>(group: &mut BenchmarkGroup<'_, WallTime>, gpu: &Gpu) {
    for shape in SHAPES {
        let (bags, instances) = (shape.bags(), shape.instances());
        let (upstream, gradients) = (Dtype::F32, E::DTYPE);
        let planned =
            backward::Shape { dim: shape.dim, heads: 1, per_head: false, values: E::DTYPE, upstream, gradients };
        let capacity = Capacity { instances, bags: bags.len() };
        let operation = backward::WeightedSumBackward::plan(&gpu.kernels, planned, capacity).unwrap();

        let values = LazyCell::new(|| gpu.copies(&noise::<E>(instances * shape.dim, 0)));
        let weights = gpu.stream.clone_htod(&noise::<f32>(instances, 1)).unwrap();
        let d_pooled = gpu.stream.clone_htod(&noise::<f32>(bags.len() * shape.dim, 2)).unwrap();
        let offsets = gpu.stream.clone_htod(bags.offsets()).unwrap();
        let mut d_weights = gpu.stream.alloc_zeros::<f32>(instances).unwrap();
        let mut d_values = gpu.stream.clone_htod(&vec![E::default(); instances * shape.dim]).unwrap();
        let mut scratch = gpu.stream.alloc_zeros::<u8>(operation.scratch_bytes()).unwrap();
        let work = model::backward::weighted_sum(&shape, 1, E::DTYPE);
        gpu.bench(group, shape.id::<E>("cuda-backward", shape.dim), &work, |number| {
            let inputs = backward::Inputs {
                weights: weights.as_view(),
                values: values[number % values.len()].as_view(),
                row_stride: shape.dim,
                d_pooled: d_pooled.as_view(),
                offsets: offsets.as_view(),
                mask: None,
            };
            let gradients = backward::Gradients {
                weights: Some(CudaGradient::Set(d_weights.as_view_mut())),
                values: Some(CudaGradient::Set(d_values.as_view_mut())),
            };
            operation.run(&gpu.stream, inputs, gradients, scratch.as_view_mut()).unwrap();
        });
    }
}

fn weighted_sum(criterion: &mut Criterion) {
    let mut group = common::group(criterion, "weighted_sum");
    run::<f32>(&mut group);
    run::<bf16>(&mut group);
    run_backward::<f32>(&mut group);
    run_backward::<bf16>(&mut group);
    #[cfg(feature = "cuda")]
    if let Some(gpu) = Gpu::detect() {
        run_on_gpu::<f32>(&mut group, &gpu);
        run_on_gpu::<f16>(&mut group, &gpu);
        run_on_gpu::<bf16>(&mut group, &gpu);
        run_backward_on_gpu::<f32>(&mut group, &gpu);
        run_backward_on_gpu::<bf16>(&mut group, &gpu);
    }
}

criterion_group!(benches, weighted_sum);
criterion_main!(benches);
