//! Scores, softmax and weighted sum in one pass: features [N, D] → pooled [B, 1, D], gated and ungated.

mod common;

use std::cell::LazyCell;

use common::{SHAPES, TRAINED, flops_and_bytes, noise};
use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, Criterion, criterion_group, criterion_main};
use half::bf16;
use mivc::cpu::{
    AttentionOutputs, AttentionPoolGradients, AttentionPoolUpstream, Cpu, ParamGradients, Saved, ScoresGradients,
};
use mivc::{Element, Gradient, Rows};

#[cfg(feature = "cuda")]
use {
    common::model,
    common::{
        ATTENTIONS, Attention, Shape,
        cuda::{CudaParams, Gpu},
    },
    cudarc::driver::CudaSlice,
    half::f16,
    mivc::cuda::backward::{Gradient as CudaGradient, attention_pool as backward},
    mivc::cuda::{Capacity, Kernels, OnePass, attention_pool as cuda},
    mivc::launch::attention_pool::Path,
    mivc::{Dtype, Order},
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

/// The forward of a step of training, and its backward with activations kept or computed again, and without the gradient
/// of the features, as behind a frozen encoder.
fn run_backward<E: Element>(group: &mut BenchmarkGroup<'_, WallTime>) {
    let (cpu, shape) = (Cpu::detect(), TRAINED);
    let (bags, instances) = (shape.bags(), shape.instances());
    let features = noise::<E>(instances * shape.dim, 0);
    let keys = Rows::new(&features, shape.dim).unwrap();
    let mut pooled = vec![0.0_f32; bags.len() * shape.dim];
    let d_pooled = noise::<f32>(pooled.len(), 5);
    let mut weights = vec![0.0; instances];
    let mut d_features = vec![E::default(); features.len()];
    for (variant, gated) in [("gated", true), ("ungated", false)] {
        let params = shape.params(gated, 1);
        let (packed, backward) = (cpu.pack(&params, E::DTYPE), cpu.pack_backward(&params, E::DTYPE));
        let mut activations = vec![E::default(); instances * packed.activations()];
        let mut gradients =
            [Some(params.tensors().v), params.tensors().u].map(|m| vec![0.0; m.map_or(0, <[f32]>::len)]);
        let id = |name: &str| shape.id::<E>(&format!("{variant}-{name}"), shape.dim);
        let flops = |products: u64| flops_and_bytes(products * shape.score_flops(gated), shape.bytes::<E>(shape.dim));

        group.throughput(flops(1));
        group.bench_function(id("forward"), |bencher| {
            bencher.iter(|| {
                let outputs =
                    AttentionOutputs { pooled: &mut pooled, scores: None, weights: Some(&mut weights), lse: None };
                cpu.attention_pool_keeping(&packed, keys, None, &bags, outputs, &mut activations).unwrap();
            });
        });
        for (name, products, keeps, wants_features) in
            [("backward", 2, true, true), ("backward-recomputed", 3, false, true), ("backward-frozen", 1, true, false)]
        {
            group.throughput(flops(products));
            group.bench_function(id(name), |bencher| {
                bencher.iter(|| {
                    let [v, u] = &mut gradients;
                    let params = ParamGradients {
                        v: Some(Gradient::Set(v)),
                        u: gated.then_some(Gradient::Set(u)),
                        ..ParamGradients::default()
                    };
                    let features = wants_features.then_some(Gradient::Set(&mut d_features));
                    let gradients =
                        AttentionPoolGradients { scores: ScoresGradients { features, params }, values: None };
                    let saved = Saved { weights: &weights, activations: keeps.then_some(&activations) };
                    let upstream = AttentionPoolUpstream { pooled: Some(&d_pooled), ..Default::default() };
                    cpu.attention_pool_backward(&backward, keys, None, &bags, saved, upstream, gradients).unwrap();
                });
            });
        }
    }
}

/// In two passes, in either order, and where a tile fits, in one.
#[cfg(feature = "cuda")]
fn run_on_gpu<E: Element>(group: &mut BenchmarkGroup<'_, WallTime>, gpu: &Gpu) {
    let load_with = |one_pass| Kernels::load_with(gpu.kernels.context(), one_pass);
    let portable = load_with(OnePass::Portable).unwrap();
    // There is none but on devices of compute capability 9.0.
    let sm90 = load_with(OnePass::Sm90).ok();
    let exact = gpu.kernels.with_order(Order::Exact);
    for rows in common::pooled() {
        let (shape, _) = rows[0];
        let features = LazyCell::new(|| gpu.copies(&noise::<E>(shape.instances() * shape.dim, 0)));
        for (shape, attention) in &rows {
            let in_two_passes = [("", Some(&gpu.kernels)), ("-exact", Some(&exact))];
            let in_one = [("-in-one-pass", Some(&portable)), ("-sm90", sm90.as_ref())];
            for (suffix, kernels) in in_two_passes.into_iter().chain(in_one) {
                if let Some(kernels) = kernels {
                    run_row(group, gpu, (suffix, kernels), &features, shape, attention);
                }
            }
        }
    }
}

#[cfg(feature = "cuda")]
fn run_row<E: Element>(
    group: &mut BenchmarkGroup<'_, WallTime>,
    gpu: &Gpu,
    (suffix, kernels): (&str, &Kernels),
    features: &LazyCell<Vec<CudaSlice<E>>, impl FnOnce() -> Vec<CudaSlice<E>>>,
    shape: &Shape,
    attention: &Attention,
) {
    let (bags, len) = (shape.bags(), shape.instances() * shape.dim);
    let capacity = Capacity { instances: shape.instances(), bags: bags.len() };
    let &Attention { name, gated, heads } = attention;
    let packed = kernels.pack(&gpu.stream, &shape.params(gated, heads), E::DTYPE).unwrap();
    let planned = cuda::Shape { value_dim: shape.dim, outputs: Dtype::F32 };
    let operation = cuda::AttentionPool::plan(&packed, planned, capacity).unwrap();
    let work = match operation.path() {
        Path::OnePass(_) => model::in_one_pass(shape, attention, E::DTYPE).unwrap(),
        Path::Sm90(_) => model::by_warpgroups(shape, attention, E::DTYPE).unwrap(),
        Path::TwoPasses if ["", "-exact"].contains(&suffix) => model::in_two_passes(shape, attention, E::DTYPE),
        // No tile fits.
        Path::TwoPasses => return,
    };
    let offsets = gpu.stream.clone_htod(bags.offsets()).unwrap();
    let mut pooled = gpu.stream.alloc_zeros::<f32>(bags.len() * heads * shape.dim).unwrap();
    let mut scratch = gpu.stream.alloc_zeros::<u8>(operation.scratch_bytes()).unwrap();
    gpu.bench(group, shape.id::<E>(&format!("{name}{suffix}"), shape.dim), &work, |number| {
        let inputs = cuda::Inputs {
            keys: features[number % features.len()].slice(..len),
            key_stride: shape.dim,
            values: None,
            offsets: offsets.as_view(),
            mask: None,
        };
        let outputs = cuda::Outputs::of(pooled.as_view_mut());
        operation.run(&gpu.stream, inputs, outputs, scratch.as_view_mut()).unwrap();
    });
}

/// As `run_backward`, of keys that are pooled themselves, in the shapes of the other operations.
#[cfg(feature = "cuda")]
fn run_backward_on_gpu<E: Element>(group: &mut BenchmarkGroup<'_, WallTime>, gpu: &Gpu) {
    for shape in SHAPES {
        let features = LazyCell::new(|| gpu.copies(&noise::<E>(shape.instances() * shape.dim, 0)));
        for attention in ATTENTIONS.iter().filter(|attention| attention.heads == 1) {
            for (suffix, order) in [("", Order::Rounding), ("-exact", Order::Exact)] {
                let kernels = gpu.kernels.with_order(order);
                run_step_of_training(group, gpu, (suffix, &kernels), &features, &shape, attention);
            }
        }
    }
}

#[cfg(feature = "cuda")]
fn run_step_of_training<E: Element>(
    group: &mut BenchmarkGroup<'_, WallTime>,
    gpu: &Gpu,
    (suffix, kernels): (&str, &Kernels),
    features: &LazyCell<Vec<CudaSlice<E>>, impl FnOnce() -> Vec<CudaSlice<E>>>,
    shape: &Shape,
    attention: &Attention,
) {
    let (bags, instances) = (shape.bags(), shape.instances());
    let capacity = Capacity { instances, bags: bags.len() };
    let &Attention { name, gated, heads } = attention;
    let params = shape.params(gated, heads);
    let zeros = |len: usize| gpu.stream.clone_htod(&vec![E::default(); len]).unwrap();
    let offsets = gpu.stream.clone_htod(bags.offsets()).unwrap();
    let mut weights = gpu.stream.alloc_zeros::<f32>(instances * heads).unwrap();

    let packed = kernels.pack(&gpu.stream, &params, E::DTYPE).unwrap();
    let planned = cuda::Shape { value_dim: shape.dim, outputs: Dtype::F32 };
    let operation = cuda::AttentionPool::plan(&packed, planned, capacity).unwrap();
    let mut activations = zeros(instances * packed.activations());
    let mut pooled = gpu.stream.alloc_zeros::<f32>(bags.len() * heads * shape.dim).unwrap();
    let mut scratch = gpu.stream.alloc_zeros::<u8>(operation.scratch_bytes()).unwrap();
    let work = model::in_two_passes(shape, attention, E::DTYPE);
    gpu.bench(group, shape.id::<E>(&format!("{name}-forward{suffix}"), shape.dim), &work, |number| {
        let inputs = cuda::Inputs {
            keys: features[number % features.len()].as_view(),
            key_stride: shape.dim,
            values: None,
            offsets: offsets.as_view(),
            mask: None,
        };
        let outputs = cuda::Outputs { weights: Some(weights.as_view_mut()), ..cuda::Outputs::of(pooled.as_view_mut()) };
        let (activations, scratch) = (activations.as_view_mut(), scratch.as_view_mut());
        operation.run_keeping(&gpu.stream, inputs, outputs, activations, scratch).unwrap();
    });

    let packed = kernels.pack_backward(&gpu.stream, &params, E::DTYPE).unwrap();
    let planned = backward::Shape { value_dim: shape.dim, upstream: Dtype::F32, gradients: E::DTYPE };
    let operation = backward::AttentionPoolBackward::plan(&packed, planned, capacity).unwrap();
    let d_pooled = gpu.stream.clone_htod(&noise::<f32>(bags.len() * heads * shape.dim, 5)).unwrap();
    let mut d_features = zeros(instances * shape.dim);
    let mut gradients = CudaParams::new(gpu, &params);
    let mut scratch = gpu.stream.alloc_zeros::<u8>(operation.scratch_bytes()).unwrap();
    for (mode, keeps, wants_features) in model::backward::MODES {
        let work = model::backward::attention_pool(shape, attention, E::DTYPE, keeps, wants_features);
        gpu.bench(group, shape.id::<E>(&format!("{name}-{mode}{suffix}"), shape.dim), &work, |number| {
            let inputs = backward::Inputs {
                keys: features[number % features.len()].as_view(),
                key_stride: shape.dim,
                values: None,
                offsets: offsets.as_view(),
                mask: None,
                weights: weights.as_view(),
                activations: keeps.then_some(activations.as_view()),
            };
            let keys = wants_features.then(|| CudaGradient::Set(d_features.as_view_mut()));
            let gradients = backward::Gradients { keys, params: gradients.views(), values: None };
            let upstream = backward::Upstream::of(d_pooled.as_view());
            operation.run(&gpu.stream, inputs, upstream, gradients, scratch.as_view_mut()).unwrap();
        });
    }
}

fn attention_pool(criterion: &mut Criterion) {
    let mut group = common::group(criterion, "attention_pool");
    run::<f32>(&mut group);
    run::<bf16>(&mut group);
    run_backward::<f32>(&mut group);
    run_backward::<bf16>(&mut group);
    #[cfg(feature = "cuda")]
    if let Some(gpu) = Gpu::detect() {
        common::shorten(&mut group);
        run_on_gpu::<f32>(&mut group, &gpu);
        run_on_gpu::<f16>(&mut group, &gpu);
        run_on_gpu::<bf16>(&mut group, &gpu);
        run_backward_on_gpu::<f32>(&mut group, &gpu);
        run_backward_on_gpu::<bf16>(&mut group, &gpu);
    }
}

criterion_group!(benches, attention_pool);
criterion_main!(benches);
