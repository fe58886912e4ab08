//! Max and mean in one read: features [N, D] → max, mean [B, D].

mod common;

use std::cell::LazyCell;

use common::{SHAPES, TRAINED, noise};
use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, Criterion, Throughput, criterion_group, criterion_main};
use half::bf16;
use mivc::cpu::{Cpu, MaxMeanOutputs, MaxMeanUpstream};
use mivc::{Element, Gradient, Rows};

#[cfg(feature = "cuda")]
use {
    common::{
        cuda::{Gpu, ORDERS},
        model,
    },
    half::f16,
    mivc::Dtype,
    mivc::cuda::backward::{Gradient as CudaGradient, max_mean as backward},
    mivc::cuda::{Capacity, max_mean as cuda},
};

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

/// Features and the gradients of max and mean → the gradient of the features, which are read for the maximum, for its
/// ties, and once more.
fn run_backward<E: Element>(group: &mut BenchmarkGroup<'_, WallTime>) {
    let cpu = Cpu::detect();
    let bags = TRAINED.bags();
    let features = noise::<E>(TRAINED.instances() * TRAINED.dim, 0);
    let gradient = noise::<f32>(bags.len() * TRAINED.dim, 1);
    let mut d_features = vec![E::default(); features.len()];
    let rows = Rows::new(&features, TRAINED.dim).unwrap();
    for (variant, max, columns) in [("backward", Some(&gradient[..]), 4), ("backward-of-mean", None, 1)] {
        group.throughput(Throughput::BytesDecimal(TRAINED.bytes::<E>(columns * TRAINED.dim)));
        group.bench_function(TRAINED.id::<E>(variant, TRAINED.dim), |bencher| {
            let upstream = MaxMeanUpstream { max, mean: Some(&gradient[..]) };
            bencher.iter(|| cpu.max_mean_backward(rows, &bags, upstream, Gradient::Set(&mut d_features)).unwrap());
        });
    }
}

/// The features are read once, and max and mean written in f32.
#[cfg(feature = "cuda")]
fn run_on_gpu<E: Element>(group: &mut BenchmarkGroup<'_, WallTime>, gpu: &Gpu) {
    for (shape, (name, order)) in SHAPES.into_iter().flat_map(|shape| ORDERS.map(|order| (shape, order))) {
        let bags = shape.bags();
        let planned = cuda::Shape { dim: shape.dim, features: E::DTYPE, outputs: Dtype::F32, argmax: false };
        let capacity = Capacity { instances: shape.instances(), bags: bags.len() };
        let operation = cuda::MaxMean::plan(&gpu.kernels.with_order(order), planned, capacity).unwrap();

        let features = LazyCell::new(|| gpu.copies(&noise::<E>(shape.instances() * shape.dim, 0)));
        let offsets = gpu.stream.clone_htod(bags.offsets()).unwrap();
        let mut max = gpu.stream.alloc_zeros::<f32>(bags.len() * shape.dim).unwrap();
        let mut mean = max.clone();
        let mut scratch = gpu.stream.alloc_zeros::<u8>(operation.scratch_bytes()).unwrap();
        let work = model::max_mean(&shape, E::DTYPE);
        gpu.bench(group, shape.id::<E>(name, shape.dim), &work, |number| {
            let inputs = cuda::Inputs {
                features: features[number % features.len()].as_view(),
                row_stride: shape.dim,
                offsets: offsets.as_view(),
                mask: None,
            };
            let outputs =
                cuda::Outputs { max: Some(max.as_view_mut()), mean: Some(mean.as_view_mut()), ..Default::default() };
            operation.run(&gpu.stream, inputs, outputs, scratch.as_view_mut()).unwrap();
        });
    }
}

#[cfg(feature = "cuda")]
fn run_backward_on_gpu<E: Element>(group: &mut BenchmarkGroup<'_, WallTime>, gpu: &Gpu) {
    for shape in SHAPES {
        let bags = shape.bags();
        let planned = backward::Shape { dim: shape.dim, features: E::DTYPE, upstream: Dtype::F32, gradients: E::DTYPE };
        let capacity = Capacity { instances: shape.instances(), bags: bags.len() };
        let operation = backward::MaxMeanBackward::plan(&gpu.kernels, planned, capacity).unwrap();

        let len = shape.instances() * shape.dim;
        let features = LazyCell::new(|| gpu.copies(&noise::<E>(len, 0)));
        let gradient = gpu.stream.clone_htod(&noise::<f32>(bags.len() * shape.dim, 1)).unwrap();
        let offsets = gpu.stream.clone_htod(bags.offsets()).unwrap();
        let mut d_features = gpu.stream.clone_htod(&vec![E::default(); len]).unwrap();
        let mut scratch = gpu.stream.alloc_zeros::<u8>(operation.scratch_bytes()).unwrap();
        let work = model::backward::max_mean(&shape, E::DTYPE);
        gpu.bench(group, shape.id::<E>("cuda-backward", shape.dim), &work, |number| {
            let inputs = backward::Inputs {
                features: features[number % features.len()].as_view(),
                row_stride: shape.dim,
                d_max: Some(gradient.as_view()),
                d_mean: Some(gradient.as_view()),
                offsets: offsets.as_view(),
                mask: None,
            };
            let to = CudaGradient::Set(d_features.as_view_mut());
            operation.run(&gpu.stream, inputs, to, scratch.as_view_mut()).unwrap();
        });
    }
}

fn max_mean(criterion: &mut Criterion) {
    let mut group = common::group(criterion, "max_mean");
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

criterion_group!(benches, max_mean);
criterion_main!(benches);
