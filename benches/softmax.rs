//! Softmax over the instances of each bag: scores [N, K] → weights [N, K], lse [B, K].

mod common;

use common::{SHAPES, noise};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use mivc::cpu::Cpu;

fn softmax(criterion: &mut Criterion) {
    let cpu = Cpu::detect();
    let mut group = common::group(criterion, "softmax");
    for shape in SHAPES {
        let bags = shape.bags();
        for heads in [1, 8] {
            let scores = noise::<f32>(shape.instances() * heads, 0);
            let mut weights = vec![0.0; scores.len()];
            let mut lse = vec![0.0; bags.len() * heads];
            group.throughput(Throughput::BytesDecimal(shape.bytes::<f32>(2 * heads)));
            group.bench_function(shape.id::<f32>("", heads), |bencher| {
                bencher.iter(|| cpu.softmax(&scores, heads, &bags, &mut weights, &mut lse).unwrap());
            });
        }
    }
}

criterion_group!(benches, softmax);
criterion_main!(benches);
