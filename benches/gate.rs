//! Gated sigmoid weighting: x, y [N, L] → g = tanh(x) ⊙ σ(y).

mod common;

use std::cell::LazyCell;

use common::{SHAPES, TRAINED, noise};
use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, Criterion, Throughput, criterion_group, criterion_main};
use half::bf16;
use mivc::cpu::Cpu;
use mivc::{Element, Gradient};

#[cfg(feature = "cuda")]
use {
    common::{cuda::Gpu, model},
    half::f16,
    mivc::cuda::backward::{Gradient as CudaGradient, gate as backward},
    mivc::cuda::gate as cuda,
};

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

/// x, y and the gradient of g → the gradients of x and y.
fn run_backward<E: Element>(group: &mut BenchmarkGroup<'_, WallTime>) {
    let cpu = Cpu::detect();
    let len = TRAINED.instances() * TRAINED.hidden;
    let [x, y, d_g] = [0, 1, 2].map(|seed| noise::<E>(len, seed));
    let [mut d_x, mut d_y] = [0, 1].map(|_| vec![E::default(); len]);
    group.throughput(Throughput::BytesDecimal(TRAINED.bytes::<E>(5 * TRAINED.hidden)));
    group.bench_function(TRAINED.id::<E>("backward", TRAINED.hidden), |bencher| {
        bencher.iter(|| {
            let gradients = [&mut d_x, &mut d_y].map(|to| Some(Gradient::Set(&mut to[..])));
            let [d_x, d_y] = gradients;
            cpu.gate_backward(&x, &y, &d_g, d_x, d_y).unwrap();
        });
    });
}

#[cfg(feature = "cuda")]
fn run_on_gpu<E: Element>(group: &mut BenchmarkGroup<'_, WallTime>, gpu: &Gpu) {
    for shape in SHAPES {
        let len = shape.instances() * shape.hidden;
        let operation = cuda::Gate::plan(&gpu.kernels, E::DTYPE);
        let inputs = LazyCell::new(|| [0, 1].map(|seed| gpu.copies(&noise::<E>(len, seed))));
        // All zeros are 0 in every type.
        let mut g = gpu.stream.clone_htod(&vec![E::default(); len]).unwrap();
        let work = model::gate(&shape, E::DTYPE);
        gpu.bench(group, shape.id::<E>("cuda", shape.hidden), &work, |number| {
            let [x, y] = inputs.each_ref().map(|copies| copies[number % copies.len()].as_view());
            operation.run(&gpu.stream, cuda::Inputs { x, y }, g.as_view_mut()).unwrap();
        });
    }
}

#[cfg(feature = "cuda")]
fn run_backward_on_gpu<E: Element>(group: &mut BenchmarkGroup<'_, WallTime>, gpu: &Gpu) {
    for shape in SHAPES {
        let len = shape.instances() * shape.hidden;
        let operation = backward::GateBackward::plan(&gpu.kernels, E::DTYPE);
        let inputs = LazyCell::new(|| [0, 1, 2].map(|seed| gpu.copies(&noise::<E>(len, seed))));
        let [mut d_x, mut d_y] = [0, 1].map(|_| gpu.stream.clone_htod(&vec![E::default(); len]).unwrap());
        let work = model::backward::gate(&shape, E::DTYPE);
        gpu.bench(group, shape.id::<E>("cuda-backward", shape.hidden), &work, |number| {
            let [x, y, d_g] = inputs.each_ref().map(|copies| copies[number % copies.len()].as_view());
            let [x_to, y_to] = [&mut d_x, &mut d_y].map(|to| Some(CudaGradient::Set(to.as_view_mut())));
            let gradients = backward::Gradients { x: x_to, y: y_to };
            operation.run(&gpu.stream, backward::Inputs { x, y, d_g }, gradients).unwrap();
        });
    }
}

fn gate(criterion: &mut Criterion) {
    let mut group = common::group(criterion, "gate");
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

criterion_group!(benches, gate);
criterion_main!(benches);
