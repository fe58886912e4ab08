//! What `Order::Exact` costs on the CPU: each operation in both orders, in turns, and the ratio of the medians.
//!
//! `cargo bench --bench exact`, with a part of a row's name behind it for some of them.

mod common;

use std::env;
use std::time::{Duration, Instant};

use common::{Shape, TRAINED, noise};
use half::bf16;
use mivc::cpu::{
    AttentionOutputs, AttentionPoolGradients, AttentionPoolUpstream, Cpu, MaxMeanOutputs, ParamGradients, Saved,
    ScoresGradients, Values,
};
use mivc::{Bags, Element, Gradient, Order, Rows};

const ROUNDS: usize = 15;
/// A round of what is faster repeats it.
const LEAST: Duration = Duration::from_millis(20);

const SHAPES: [Shape; 3] = [Shape::new(1, 20_000, 1024, 256), TRAINED, Shape::new(10_000, 7, 768, 128)];

fn main() {
    let only = env::args().skip(1).find(|argument| !argument.starts_with('-')).unwrap_or_default();
    println!("| operation | default, ms | exact, ms | ratio |\n| --- | ---: | ---: | ---: |");
    for shape in SHAPES {
        rows::<f32>(&only, shape);
        rows::<bf16>(&only, shape);
    }
}

fn rows<E: Element>(only: &str, shape: Shape) {
    let row = |operation: &str, columns: usize, run: &mut dyn FnMut(Cpu)| {
        let name = format!("{operation}/{}", shape.label(columns, E::DTYPE));
        if name.contains(only) {
            compare(&name, run);
        }
    };
    let (bags, dim, instances) = (&shape.bags(), shape.dim, shape.instances());
    let features = noise::<E>(instances * dim, 0);
    let features = Rows::new(&features, dim).unwrap();
    let mut pooled = vec![0.0_f32; bags.len() * dim];

    row("mean", dim, &mut |cpu| {
        let outputs = MaxMeanOutputs { mean: Some(&mut pooled), ..Default::default() };
        cpu.max_mean(features, bags, outputs).unwrap();
    });
    let weights = softmax_of_noise(bags, instances);
    row("weighted sum", dim, &mut |cpu| {
        cpu.weighted_sum(&weights, 1, Values::Shared(features), bags, &mut pooled).unwrap();
    });
    let params = shape.params(true, 1);
    let packed = Cpu::detect().pack(&params, E::DTYPE);
    row("gated attention", dim, &mut |cpu| {
        let outputs = AttentionOutputs { pooled: &mut pooled, scores: None, weights: None, lse: None };
        cpu.attention_pool(&packed, features, None, bags, outputs).unwrap();
    });

    let packed = Cpu::detect().pack_backward(&params, E::DTYPE);
    let d_pooled = noise::<f32>(bags.len() * dim, 5);
    let mut d_features = vec![E::default(); instances * dim];
    let [mut d_v, mut d_u] = [(); 2].map(|()| vec![0.0; shape.hidden * dim]);
    row("gated attention, backward", dim, &mut |cpu| {
        let upstream = AttentionPoolUpstream { pooled: Some(&d_pooled), ..Default::default() };
        let (v, u) = (Some(Gradient::Set(&mut d_v[..])), Some(Gradient::Set(&mut d_u[..])));
        let params = ParamGradients { v, u, ..Default::default() };
        let scores = ScoresGradients { features: Some(Gradient::Set(&mut d_features)), params };
        let gradients = AttentionPoolGradients { scores, values: None };
        let saved = Saved { weights: &weights, activations: None };
        cpu.attention_pool_backward(&packed, features, None, bags, saved, upstream, gradients).unwrap();
    });
    if E::DTYPE == mivc::Dtype::F32 {
        let (scores, mut lse) = (noise::<f32>(instances, 1), vec![0.0; bags.len()]);
        let mut weights = vec![0.0; instances];
        row("softmax", 1, &mut |cpu| cpu.softmax(&scores, 1, bags, &mut weights, &mut lse).unwrap());
    }
}

/// Weights of scores of a spread of 2.
fn softmax_of_noise(bags: &Bags<'_>, instances: usize) -> Vec<f32> {
    let scores: Vec<f32> = noise::<f32>(instances, 1).iter().map(|score| score * 4.0).collect();
    let (mut weights, mut lse) = (vec![0.0; instances], vec![0.0; bags.len()]);
    Cpu::detect().softmax(&scores, 1, bags, &mut weights, &mut lse).unwrap();
    weights
}

fn compare(name: &str, run: &mut dyn FnMut(Cpu)) {
    let orders = [Order::Rounding, Order::Exact].map(|order| Cpu::detect().with_order(order));
    let repeats = orders.map(|cpu| {
        run(cpu);
        let once = time(1, cpu, run);
        (LEAST.as_secs_f64() / once).ceil().max(1.0) as usize
    });
    let mut seconds = [(); 2].map(|()| Vec::new());
    for _ in 0..ROUNDS {
        for ((cpu, repeats), seconds) in orders.into_iter().zip(repeats).zip(&mut seconds) {
            seconds.push(time(repeats, cpu, run));
        }
    }
    let [default, exact] = seconds.map(|mut seconds| {
        seconds.sort_unstable_by(f64::total_cmp);
        seconds[ROUNDS / 2] * 1e3
    });
    println!("| {name} | {default:.3} | {exact:.3} | {:.2} |", exact / default);
}

/// Seconds of one of `repeats` runs.
fn time(repeats: usize, cpu: Cpu, run: &mut dyn FnMut(Cpu)) -> f64 {
    let start = Instant::now();
    (0..repeats).for_each(|_| run(cpu));
    start.elapsed().as_secs_f64() / repeats as f64
}
