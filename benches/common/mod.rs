//! Shapes and inputs that the benches share.

// Each bench is a crate of its own and uses a part of this.
#![allow(dead_code)]

#[cfg(feature = "cuda")]
pub mod cuda;
#[cfg(feature = "cuda")]
pub mod model;

use std::time::Duration;

use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, BenchmarkId, Criterion, SamplingMode, Throughput};
use mivc::{AttentionParams, AttentionShape, AttentionTensors, Bags, Dtype, Element};
use rayon::prelude::*;

/// `bags` bags of `length` instances of `dim` features, and the hidden size of their attention.
#[derive(Debug, Clone, Copy)]
pub struct Shape {
    bags: usize,
    length: usize,
    pub dim: usize,
    pub hidden: usize,
}

/// Many tiny bags, bags of a slide's size, and one huge bag.
pub const SHAPES: [Shape; 3] = [
    Shape { bags: 100_000, length: 7, dim: 768, hidden: 128 },
    Shape { bags: 200, length: 500, dim: 1024, hidden: 256 },
    Shape { bags: 1, length: 100_000, dim: 512, hidden: 128 },
];

/// What a step of training has on the CPU: forward and backward of `SHAPES` would take minutes.
pub const TRAINED: Shape = Shape { bags: 40, length: 500, dim: 1024, hidden: 256 };

/// What scores, on a GPU.
#[derive(Debug, Clone, Copy)]
pub struct Attention {
    pub name: &'static str,
    pub gated: bool,
    pub heads: usize,
}

pub const ATTENTIONS: [Attention; 3] = [
    Attention { name: "cuda-gated", gated: true, heads: 1 },
    Attention { name: "cuda-ungated", gated: false, heads: 1 },
    Attention { name: "cuda-gated-8-heads", gated: true, heads: 8 },
];

/// Bags of attention pool on a GPU, which is fast enough for a million instances, and their length.
const POOLED: [(usize, usize); 3] = [(100_000, 7), (200, 5_000), (1, 1_000_000)];
const POOLED_DIMS: [usize; 5] = [512, 768, 1024, 1536, 2560];

/// Hidden sizes and what scores, such that V and, where gated, U have 128, 256, 512 and 1024 columns.
const POOLED_ATTENTIONS: [(usize, Attention); 4] = [
    (128, Attention { name: "cuda-ungated-L128", gated: false, heads: 1 }),
    (128, Attention { name: "cuda-gated-L128", gated: true, heads: 1 }),
    (256, Attention { name: "cuda-gated-L256", gated: true, heads: 1 }),
    (512, Attention { name: "cuda-gated-L512", gated: true, heads: 1 }),
];
const USUAL: &str = "cuda-gated-L128";
const SEVERAL_HEADS: (usize, Attention) = (128, Attention { name: "cuda-gated-L128-8-heads", gated: true, heads: 8 });

/// Rows of attention pool on a GPU, in groups that have the same features: every number of columns at D = 768, and every
/// D with 256 columns. All of both would be twice as many rows, and tell little more: time goes up with either as the
/// others show.
pub fn pooled() -> Vec<Vec<(Shape, Attention)>> {
    let mut rows = Vec::new();
    for (bags, length) in POOLED {
        for dim in POOLED_DIMS {
            let shape = |(hidden, attention)| (Shape { bags, length, dim, hidden }, attention);
            let of_features = match dim {
                768 => POOLED_ATTENTIONS.into_iter().chain([SEVERAL_HEADS]).map(shape).collect(),
                _ => POOLED_ATTENTIONS.into_iter().filter(|(_, it)| it.name == USUAL).map(shape).collect(),
            };
            rows.push(of_features);
        }
    }
    rows
}

/// Heads of the softmax.
pub const HEADS: [usize; 2] = [1, 8];

impl Shape {
    pub const fn new(bags: usize, length: usize, dim: usize, hidden: usize) -> Self {
        Shape { bags, length, dim, hidden }
    }

    /// `N`.
    pub fn instances(&self) -> usize {
        self.bags * self.length
    }

    pub fn bags(&self) -> Bags<'static> {
        Bags::from_lengths(&vec![self.length as i64; self.bags]).unwrap()
    }

    /// Heads whose scores spread by about 1, so that the softmax has something to do.
    pub fn params(&self, gated: bool, heads: usize) -> AttentionParams {
        let Shape { dim, hidden, .. } = *self;
        let shape = AttentionShape { dim, hidden, heads, groups: 1 };
        let matrix = |seed| scaled(noise(hidden * dim, seed), dim);
        let (v, u, bias) = (matrix(1), matrix(2), noise::<f32>(hidden, 3));
        let tensors = AttentionTensors {
            v: &v,
            v_bias: Some(&bias),
            u: gated.then_some(&u),
            u_bias: gated.then_some(&bias),
            w: &scaled(noise(heads * hidden, 4), hidden),
            w_bias: Some(&vec![0.1; heads]),
        };
        AttentionParams::new(shape, tensors).unwrap()
    }

    /// FLOPs of the products with V and, where gated, U; the rest is small beside them.
    pub fn score_flops(&self, gated: bool) -> u64 {
        let matrices = if gated { 2 } else { 1 };
        2 * (matrices * self.instances() * self.dim * self.hidden) as u64
    }

    /// Bytes of `columns` elements per instance.
    pub fn bytes<E>(&self, columns: usize) -> u64 {
        (self.instances() * columns * size_of::<E>()) as u64
    }

    /// For example `gated/100000x7x768/bf16`; `variant` may be empty.
    pub fn id<E: Element>(&self, variant: &str, columns: usize) -> BenchmarkId {
        let label = self.label(columns, E::DTYPE);
        match variant {
            "" => BenchmarkId::from_parameter(label),
            _ => BenchmarkId::new(variant, label),
        }
    }

    /// For example `100000x7x768/bf16`.
    pub fn label(&self, columns: usize, dtype: Dtype) -> String {
        format!("{}x{}x{columns}/{dtype}", self.bags, self.length)
    }
}

/// `len` numbers, uniform in [−1, 1), the same for the same seed.
pub fn noise<E: Element>(len: usize, seed: u64) -> Vec<E> {
    (0..len as u64).into_par_iter().map(|index| E::from_f32(uniform(seed << 48 | index))).collect()
}

/// splitmix64's finaliser, of which the upper 24 bits become the number.
fn uniform(counter: u64) -> f32 {
    let mut bits = counter.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    ((bits ^ (bits >> 31)) >> 40) as f32 / (1 << 23) as f32 - 1.0
}

/// Scaled so that a product with `fan_in` numbers from [`noise`] has a standard deviation of 1.
fn scaled(mut values: Vec<f32>, fan_in: usize) -> Vec<f32> {
    let scale = 3.0 / (fan_in as f32).sqrt();
    values.iter_mut().for_each(|value| *value *= scale);
    values
}

/// A group named like its operation. Inputs of gigabytes make even one run steady, so samples are few.
pub fn group<'c>(criterion: &'c mut Criterion, operation: &str) -> BenchmarkGroup<'c, WallTime> {
    let mut group = criterion.benchmark_group(operation);
    group
        .sample_size(10)
        .sampling_mode(SamplingMode::Flat)
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2));
    group
}

/// For many rows on a GPU, whose own events measure a batch of calls at once: half a second has enough of them.
pub fn shorten(group: &mut BenchmarkGroup<'_, WallTime>) {
    group.warm_up_time(Duration::from_millis(100)).measurement_time(Duration::from_millis(500));
}

/// FLOPs in the place of criterion's elements (so that Gelem/s are GFLOP/s), and bytes beside them.
pub fn flops_and_bytes(flops: u64, bytes: u64) -> Throughput {
    Throughput::ElementsAndBytes { elements: flops, bytes }
}
