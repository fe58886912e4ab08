//! Softmax over the instances of each bag: scores [N, K] → weights [N, K], lse [B, K].

mod common;

use common::{HEADS, SHAPES, TRAINED, noise};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use mivc::Gradient;
use mivc::cpu::{Cpu, SoftmaxUpstream};

#[cfg(feature = "cuda")]
use {
    common::{
        cuda::{Gpu, ORDERS},
        model,
    },
    criterion::{BenchmarkGroup, measurement::WallTime},
    mivc::cuda::backward::{Gradient as CudaGradient, softmax as backward},
    mivc::cuda::{Capacity, softmax as cuda},
};

#[cfg(feature = "cuda")]
fn run_on_gpu(group: &mut BenchmarkGroup<'_, WallTime>, gpu: &Gpu) {
    for shape in SHAPES {
        let bags = shape.bags();
        let capacity = Capacity { instances: shape.instances(), bags: bags.len() };
        let offsets = gpu.stream.clone_htod(bags.offsets()).unwrap();
        for (heads, (name, order)) in HEADS.into_iter().flat_map(|heads| ORDERS.map(|order| (heads, order))) {
            let operation = cuda::Softmax::plan(&gpu.kernels.with_order(order), heads, capacity).unwrap();
            let scores = gpu.copies(&noise::<f32>(shape.instances() * heads, 0));
            let mut weights = gpu.stream.alloc_zeros::<f32>(shape.instances() * heads).unwrap();
            let mut lse = gpu.stream.alloc_zeros::<f32>(bags.len() * heads).unwrap();
            let mut scratch = gpu.stream.alloc_zeros::<u8>(operation.scratch_bytes()).unwrap();
            let work = model::softmax(&shape, heads);
            gpu.bench(group, shape.id::<f32>(name, heads), &work, |number| {
                let scores = scores[number % scores.len()].as_view();
                let inputs = cuda::Inputs { scores, offsets: offsets.as_view(), mask: None };
                let outputs = cuda::Outputs { weights: Some(weights.as_view_mut()), lse: Some(lse.as_view_mut()) };
                operation.run(&gpu.stream, inputs, outputs, scratch.as_view_mut()).unwrap();
            });
        }
    }
}

#[cfg(feature = "cuda")]
fn run_backward_on_gpu(group: &mut BenchmarkGroup<'_, WallTime>, gpu: &Gpu) {
    for shape in SHAPES {
        let bags = shape.bags();
        let capacity = Capacity { instances: shape.instances(), bags: bags.len() };
        let offsets = gpu.stream.clone_htod(bags.offsets()).unwrap();
        for (heads, (name, order)) in HEADS.into_iter().flat_map(|heads| ORDERS.map(|order| (heads, order))) {
            let kernels = gpu.kernels.with_order(order);
            let operation = backward::SoftmaxBackward::plan(&kernels, heads, capacity).unwrap();
            let [weights, d_weights] = [0, 1].map(|seed| gpu.copies(&noise::<f32>(shape.instances() * heads, seed)));
            let mut d_scores = gpu.stream.alloc_zeros::<f32>(shape.instances() * heads).unwrap();
            let mut scratch = gpu.stream.alloc_zeros::<u8>(operation.scratch_bytes()).unwrap();
            let work = model::backward::softmax(&shape, heads);
            gpu.bench(group, shape.id::<f32>(&format!("{name}-backward"), heads), &work, |number| {
                let inputs = backward::Inputs {
                    weights: weights[number % weights.len()].as_view(),
                    d_weights: Some(d_weights[number % d_weights.len()].as_view()),
                    d_lse: None,
                    offsets: offsets.as_view(),
                    mask: None,
                };
                let to = CudaGradient::Set(d_scores.as_view_mut());
                operation.run(&gpu.stream, inputs, to, scratch.as_view_mut()).unwrap();
            });
        }
    }
}

fn softmax(criterion: &mut Criterion) {
    let cpu = Cpu::detect();
    let mut group = common::group(criterion, "softmax");
    for shape in SHAPES {
        let bags = shape.bags();
        for heads in HEADS {
            let scores = noise::<f32>(shape.instances() * heads, 0);
            let mut weights = vec![0.0; scores.len()];
            let mut lse = vec![0.0; bags.len() * heads];
            group.throughput(Throughput::BytesDecimal(shape.bytes::<f32>(2 * heads)));
            group.bench_function(shape.id::<f32>("", heads), |bencher| {
                bencher.iter(|| cpu.softmax(&scores, heads, &bags, &mut weights, &mut lse).unwrap());
            });
        }
    }
    for heads in HEADS {
        let bags = TRAINED.bags();
        let mut weights = noise::<f32>(TRAINED.instances() * heads, 0);
        weights.iter_mut().for_each(|weight| *weight = weight.abs());
        let d_weights = noise::<f32>(weights.len(), 1);
        let mut d_scores = vec![0.0; weights.len()];
        group.throughput(Throughput::BytesDecimal(TRAINED.bytes::<f32>(3 * heads)));
        group.bench_function(TRAINED.id::<f32>("backward", heads), |bencher| {
            let upstream = SoftmaxUpstream { weights: Some(&d_weights), lse: None };
            bencher.iter(|| {
                cpu.softmax_backward(&weights, heads, &bags, upstream, Gradient::Set(&mut d_scores)).unwrap();
            });
        });
    }
    #[cfg(feature = "cuda")]
    if let Some(gpu) = Gpu::detect() {
        run_on_gpu(&mut group, &gpu);
        run_backward_on_gpu(&mut group, &gpu);
    }
}

criterion_group!(benches, softmax);
criterion_main!(benches);
