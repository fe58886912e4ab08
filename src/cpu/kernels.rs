//! The operations on features of one type.
//!
//! What is generic is compiled in every crate that calls it, and the kernels for four instruction sets
//! take long to compile. So the public operations are thin: they check, and call through this trait,
//! whose methods are compiled here.

use std::borrow::Cow;
use std::ops::Range;

use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};

use super::backward::{self, PackedBackward, ParamGradients, Target};
use super::weighted_sum::Values;
use super::{Cpu, PackedAttention, attention_pool, exact, gate, max_mean, scores, weighted_sum};
use crate::bags::Bags;
use crate::element::Element;
use crate::exact::sum::Head;
use crate::order::Order;
use crate::rows::Rows;

/// Where f32 results are written, in the type that the caller asked for.
pub enum Output<'a> {
    F32(&'a mut [f32]),
    F16(&'a mut [f16]),
    Bf16(&'a mut [bf16]),
}

impl<'a> Output<'a> {
    /// Cuts off the first `n` elements.
    pub(super) fn take(&mut self, n: usize) -> Output<'a> {
        use super::chunks::take;
        match self {
            Output::F32(to) => Output::F32(take(to, n)),
            Output::F16(to) => Output::F16(take(to, n)),
            Output::Bf16(to) => Output::Bf16(take(to, n)),
        }
    }

    /// Writes the elements `at`, rounded to nearest.
    pub(super) fn write(&mut self, at: Range<usize>, from: &[f32]) {
        match self {
            Output::F32(to) => to[at].copy_from_slice(from),
            Output::F16(to) => to[at].convert_from_f32_slice(from),
            Output::Bf16(to) => to[at].iter_mut().zip(from).for_each(|(to, &x)| *to = Element::from_f32(x)),
        }
    }

    /// Adds to the elements `at`, each sum rounded to nearest once.
    pub(super) fn add(&mut self, at: Range<usize>, from: &[f32]) {
        match self {
            Output::F32(to) => to[at].iter_mut().zip(from).for_each(|(to, x)| *to += x),
            Output::F16(to) => to[at].iter_mut().zip(from).for_each(|(to, x)| *to = f16::from_f32(to.to_f32() + x)),
            Output::Bf16(to) => {
                to[at].iter_mut().zip(from).for_each(|(to, x)| *to = Element::from_f32(to.to_f32() + x))
            }
        }
    }

    /// Writes `x` to the elements `at`.
    pub(super) fn fill(&mut self, at: Range<usize>, x: f32) {
        match self {
            Output::F32(to) => to[at].fill(x),
            Output::F16(to) => to[at].fill(f16::from_f32(x)),
            Output::Bf16(to) => to[at].fill(bf16::from_f32(x)),
        }
    }
}

/// The operations on features of type `Self`, their arguments checked already.
pub trait Kernels: Sized {
    fn output(to: &mut [Self]) -> Output<'_>;
    /// The same numbers as f32.
    fn f32s(from: &[Self]) -> Cow<'_, [f32]>;
    fn scores(
        packed: &PackedAttention,
        features: Rows<'_, Self>,
        mask: Option<&[u8]>,
        scores: &mut [f32],
        activations: Option<Output<'_>>,
    );
    fn gate(cpu: Cpu, x: &[Self], y: &[Self], g: &mut [Self]);
    fn weighted_sum(cpu: Cpu, weights: &[f32], heads: usize, values: Values<'_, Self>, bags: &Bags<'_>, to: Output<'_>);
    fn max_mean(cpu: Cpu, features: Rows<'_, Self>, bags: &Bags<'_>, outputs: max_mean::Outputs<'_>);
    fn exact_mean(cpu: Cpu, features: Rows<'_, Self>, bags: &Bags<'_>, heads: &mut [Head]);
    fn attention_pool(
        packed: &PackedAttention,
        order: Order,
        keys: Rows<'_, Self>,
        values: Option<Rows<'_, Self>>,
        bags: &Bags<'_>,
        outputs: attention_pool::Outputs<'_>,
    );
    fn gate_backward(cpu: Cpu, x: &[Self], y: &[Self], d_g: &[Self], gradients: [Option<Target<'_>>; 2]);
    fn weighted_sum_backward(
        cpu: Cpu,
        weights: &[f32],
        heads: usize,
        values: Values<'_, Self>,
        bags: &Bags<'_>,
        d_pooled: &[f32],
        gradients: [Option<Target<'_>>; 2],
    );
    fn max_mean_backward(
        cpu: Cpu,
        features: Rows<'_, Self>,
        bags: &Bags<'_>,
        upstream: [Option<Vec<f32>>; 2],
        d_features: Target<'_>,
    );
    fn scores_backward(
        packed: &PackedBackward,
        scored: backward::scores::Scored<'_, Self>,
        d_features: Option<Target<'_>>,
        params: ParamGradients<'_>,
    );
    fn attention_pool_backward(
        packed: &PackedBackward,
        call: backward::attention_pool::Call<'_, Self>,
        gradients: [Option<Target<'_>>; 2],
        params: ParamGradients<'_>,
    );
}

macro_rules! kernels {
    ($element:ty, $output:ident, |$from:ident| $f32s:expr) => {
        impl Kernels for $element {
            fn output(to: &mut [Self]) -> Output<'_> {
                Output::$output(to)
            }

            fn f32s($from: &[Self]) -> Cow<'_, [f32]> {
                $f32s
            }

            fn scores(
                packed: &PackedAttention,
                features: Rows<'_, Self>,
                mask: Option<&[u8]>,
                scores: &mut [f32],
                activations: Option<Output<'_>>,
            ) {
                scores::run(packed, features, mask, scores, activations);
            }

            fn gate(cpu: Cpu, x: &[Self], y: &[Self], g: &mut [Self]) {
                gate::run(cpu, x, y, g);
            }

            fn weighted_sum(
                cpu: Cpu,
                weights: &[f32],
                heads: usize,
                values: Values<'_, Self>,
                bags: &Bags<'_>,
                to: Output<'_>,
            ) {
                weighted_sum::run(cpu, weights, heads, values, bags, to);
            }

            fn max_mean(cpu: Cpu, features: Rows<'_, Self>, bags: &Bags<'_>, outputs: max_mean::Outputs<'_>) {
                max_mean::run(cpu, features, bags, outputs);
            }

            fn exact_mean(cpu: Cpu, features: Rows<'_, Self>, bags: &Bags<'_>, heads: &mut [Head]) {
                exact::weighted_sum::mean_heads(cpu, features, bags, heads);
            }

            fn attention_pool(
                packed: &PackedAttention,
                order: Order,
                keys: Rows<'_, Self>,
                values: Option<Rows<'_, Self>>,
                bags: &Bags<'_>,
                outputs: attention_pool::Outputs<'_>,
            ) {
                attention_pool::run(packed, order, keys, values, bags, outputs);
            }

            fn gate_backward(cpu: Cpu, x: &[Self], y: &[Self], d_g: &[Self], gradients: [Option<Target<'_>>; 2]) {
                backward::gate::run(cpu, x, y, d_g, gradients);
            }

            fn weighted_sum_backward(
                cpu: Cpu,
                weights: &[f32],
                heads: usize,
                values: Values<'_, Self>,
                bags: &Bags<'_>,
                d_pooled: &[f32],
                gradients: [Option<Target<'_>>; 2],
            ) {
                backward::weighted_sum::run(cpu, weights, heads, values, bags, d_pooled, gradients);
            }

            fn max_mean_backward(
                cpu: Cpu,
                features: Rows<'_, Self>,
                bags: &Bags<'_>,
                upstream: [Option<Vec<f32>>; 2],
                d_features: Target<'_>,
            ) {
                backward::max_mean::run(cpu, features, bags, upstream, d_features);
            }

            fn scores_backward(
                packed: &PackedBackward,
                scored: backward::scores::Scored<'_, Self>,
                d_features: Option<Target<'_>>,
                params: ParamGradients<'_>,
            ) {
                backward::scores::run(packed, scored, d_features, params);
            }

            fn attention_pool_backward(
                packed: &PackedBackward,
                call: backward::attention_pool::Call<'_, Self>,
                gradients: [Option<Target<'_>>; 2],
                params: ParamGradients<'_>,
            ) {
                backward::attention_pool::run(packed, call, gradients, params);
            }
        }
    };
}

kernels!(f32, F32, |from| Cow::Borrowed(from));
kernels!(f16, F16, |from| Cow::Owned(from.iter().map(|x| x.to_f32()).collect()));
kernels!(bf16, Bf16, |from| Cow::Owned(from.iter().map(|x| x.to_f32()).collect()));
