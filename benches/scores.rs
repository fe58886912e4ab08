//! Attention scores: features [N, D] → scores [N, 1], gated and ungated.

mod common;

use std::cell::LazyCell;

use common::{SHAPES, TRAINED, flops_and_bytes, noise};
use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, Criterion, criterion_group, criterion_main};
use half::bf16;
use mivc::cpu::{Cpu, ParamGradients, ScoresGradients};
use mivc::{Element, Gradient, Rows};

#[cfg(feature = "cuda")]
use {
    common::{
        ATTENTIONS, Attention,
        cuda::{CudaParams, Gpu},
        model,
    },
    half::f16,
    mivc::cuda::backward::{Gradient as CudaGradient, scores as backward},
    mivc::cuda::scores as cuda,
};

fn run<E: Element>(group: &mut BenchmarkGroup<'_, WallTime>) {
    let cpu = Cpu::detect();
    for shape in SHAPES {
        let features = LazyCell::new(|| noise::<E>(shape.instances() * shape.dim, 0));
        let mut scores = vec![0.0; shape.instances()];
        for (variant, gated) in [("gated", true), ("ungated", false)] {
            let packed = cpu.pack(&shape.params(gated, 1), E::DTYPE);
            group.throughput(flops_and_bytes(shape.score_flops(gated), shape.bytes::<E>(shape.dim)));
            group.bench_function(shape.id::<E>(variant, shape.dim), |bencher| {
                let rows = Rows::new(&features, shape.dim).unwrap();
                bencher.iter(|| cpu.scores(&packed, rows, None, &mut scores).unwrap());
            });
        }
    }
}

/// Features and the gradient of the scores → the gradients of features and parameters, activations computed again.
fn run_backward<E: Element>(group: &mut BenchmarkGroup<'_, WallTime>) {
    let cpu = Cpu::detect();
    let features = noise::<E>(TRAINED.instances() * TRAINED.dim, 0);
    let d_scores = noise::<f32>(TRAINED.instances(), 1);
    let mut d_features = vec![E::default(); features.len()];
    let rows = Rows::new(&features, TRAINED.dim).unwrap();
    for (variant, gated) in [("gated-backward", true), ("ungated-backward", false)] {
        let params = TRAINED.params(gated, 1);
        let packed = cpu.pack_backward(&params, E::DTYPE);
        let [mut d_v, mut d_u] = [0, 1].map(|_| vec![0.0; params.tensors().v.len()]);
        group.throughput(flops_and_bytes(3 * TRAINED.score_flops(gated), TRAINED.bytes::<E>(TRAINED.dim)));
        group.bench_function(TRAINED.id::<E>(variant, TRAINED.dim), |bencher| {
            bencher.iter(|| {
                let params = ParamGradients {
                    v: Some(Gradient::Set(&mut d_v)),
                    u: gated.then_some(Gradient::Set(&mut d_u)),
                    ..ParamGradients::default()
                };
                let gradients = ScoresGradients { features: Some(Gradient::Set(&mut d_features)), params };
                cpu.scores_backward(&packed, rows, None, None, &d_scores, gradients).unwrap();
            });
        });
    }
}

#[cfg(feature = "cuda")]
fn run_on_gpu<E: Element>(group: &mut BenchmarkGroup<'_, WallTime>, gpu: &Gpu) {
    for shape in SHAPES {
        let features = LazyCell::new(|| gpu.copies(&noise::<E>(shape.instances() * shape.dim, 0)));
        for attention in &ATTENTIONS {
            let &Attention { name, gated, heads } = attention;
            let packed = gpu.kernels.pack(&gpu.stream, &shape.params(gated, heads), E::DTYPE).unwrap();
            let operation = cuda::Scores::plan(&packed);
            let mut scores = gpu.stream.alloc_zeros::<f32>(shape.instances() * heads).unwrap();
            let work = model::scores(&shape, attention, E::DTYPE);
            gpu.bench(group, shape.id::<E>(name, shape.dim), &work, |number| {
                let inputs = cuda::Inputs {
                    features: features[number % features.len()].as_view(),
                    row_stride: shape.dim,
                    mask: None,
                };
                operation.run(&gpu.stream, inputs, scores.as_view_mut()).unwrap();
            });
        }
    }
}

/// Activations are computed again.
#[cfg(feature = "cuda")]
fn run_backward_on_gpu<E: Element>(group: &mut BenchmarkGroup<'_, WallTime>, gpu: &Gpu) {
    for shape in SHAPES {
        let (len, instances) = (shape.instances() * shape.dim, shape.instances());
        let features = LazyCell::new(|| gpu.copies(&noise::<E>(len, 0)));
        for attention in &ATTENTIONS {
            let &Attention { name, gated, heads } = attention;
            let params = shape.params(gated, heads);
            let packed = gpu.kernels.pack_backward(&gpu.stream, &params, E::DTYPE).unwrap();
            let operation = backward::ScoresBackward::plan(&packed, E::DTYPE, instances).unwrap();
            let d_scores = gpu.stream.clone_htod(&noise::<f32>(instances * heads, 1)).unwrap();
            let mut d_features = gpu.stream.clone_htod(&vec![E::default(); len]).unwrap();
            let mut gradients = CudaParams::new(gpu, &params);
            let mut scratch = gpu.stream.alloc_zeros::<u8>(operation.scratch_bytes()).unwrap();
            let work = model::backward::scores(&shape, attention, E::DTYPE, false, true);
            gpu.bench(group, shape.id::<E>(&format!("{name}-backward"), shape.dim), &work, |number| {
                let inputs = backward::Inputs {
                    features: features[number % features.len()].as_view(),
                    row_stride: shape.dim,
                    mask: None,
                    activations: None,
                    d_scores: d_scores.as_view(),
                };
                let features = Some(CudaGradient::Set(d_features.as_view_mut()));
                let gradients = backward::Gradients { features, params: gradients.views() };
                operation.run(&gpu.stream, inputs, gradients, scratch.as_view_mut()).unwrap();
            });
        }
    }
}

fn scores(criterion: &mut Criterion) {
    let mut group = common::group(criterion, "scores");
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

criterion_group!(benches, scores);
criterion_main!(benches);
