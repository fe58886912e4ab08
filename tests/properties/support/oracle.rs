//! The oracle beside the naive evaluation in f32, and the tolerance rule between them.

use mivc::cpu::Values;
use mivc::reference::{self, Bounded};
use mivc::{AttentionParams, AttentionTensors, Bags, Dtype, Element, Rows};
use proptest::prelude::*;

use super::Check;

/// What an output must be, within tolerance.
pub struct Expected {
    pub(super) oracle: Bounded<f64>,
    pub(super) naive: Bounded<f32>,
}

impl Expected {
    /// Fails unless every element lies within the tolerance rule; reports the worst one that does not.
    pub fn check<O: Element>(&self, what: &str, out: &[O]) -> Check {
        prop_assert_eq!(out.len(), self.oracle.value.len(), "{}: lengths differ", what);
        let tolerance = self.oracle.tolerance(&self.naive);
        // By how much an element misses what it is allowed; infinite where only one side is finite.
        let excess = |i: usize| {
            let (out, oracle) = (f64::from(out[i].to_f32()), self.oracle.value[i]);
            match out == oracle || (out.is_nan() && oracle.is_nan()) {
                true => 0.0,
                false if out.is_finite() && oracle.is_finite() => {
                    (out - oracle).abs() - tolerance - half_ulp::<O>(oracle.abs() + tolerance)
                }
                false => f64::INFINITY,
            }
        };
        let worst = (0..out.len()).max_by(|&i, &j| excess(i).total_cmp(&excess(j)));
        if let Some(i) = worst.filter(|&i| excess(i) > 0.0) {
            let wrong = (0..out.len()).filter(|&i| excess(i) > 0.0).count();
            let (out_i, oracle, naive) = (out[i], self.oracle.value[i], self.naive.value[i]);
            prop_assert!(
                false,
                "{what}: {wrong} of {} beyond the tolerance {tolerance:e}, at worst [{i}] = {out_i:?}, \
                 oracle {oracle:e}, naive {naive:e}",
                out.len()
            );
        }
        Ok(())
    }
}

/// Half the distance between neighbours of type `O` at `x`, what rounding an output may add.
fn half_ulp<O: Element>(x: f64) -> f64 {
    let (fraction_bits, smallest_exponent) = match O::DTYPE {
        Dtype::F32 => return 0.0,
        Dtype::F16 => (10, -14),
        Dtype::Bf16 => (7, -126),
    };
    let exponent = (x.log2().floor() as i32).max(smallest_exponent);
    f64::from(exponent - fraction_bits - 1).exp2()
}

pub fn gate<E: Element>(x: &[E], y: &[E]) -> Expected {
    Expected { oracle: reference::gate(&f64s(x), &f64s(y)), naive: reference::gate(&f32s(x), &f32s(y)) }
}

pub fn scores<E: Element>(params: &AttentionParams, features: Rows<'_, E>, mask: Option<&[u8]>) -> Expected {
    let (params, features) = (&rounded::<E>(params), &dense(features));
    Expected {
        oracle: reference::scores(params, &f64s(features), mask),
        naive: reference::scores(params, &f32s(features), mask),
    }
}

/// Of weights and of lse.
pub fn softmax(scores: &[f32], heads: usize, bags: &Bags<'_>) -> [Expected; 2] {
    let oracle = reference::softmax(&Bounded::exact(f64s(scores)), heads, bags);
    let naive = reference::softmax(&Bounded::exact(scores.to_vec()), heads, bags);
    [Expected { oracle: oracle.weights, naive: naive.weights }, Expected { oracle: oracle.lse, naive: naive.lse }]
}

pub fn weighted_sum<E: Element>(weights: &[f32], heads: usize, values: Values<'_, E>, bags: &Bags<'_>) -> Expected {
    let (Values::Shared(rows) | Values::PerHead(rows)) = values;
    let data = &dense(rows);
    Expected {
        oracle: reference::weighted_sum(
            &Bounded::exact(f64s(weights)),
            heads,
            blocks(values, heads, &f64s(data)),
            bags,
        ),
        naive: reference::weighted_sum(
            &Bounded::exact(weights.to_vec()),
            heads,
            blocks(values, heads, &f32s(data)),
            bags,
        ),
    }
}

/// `rows` laid out as `values` are.
pub(super) fn blocks<'r, E: Element, R>(
    values: Values<'_, E>,
    heads: usize,
    rows: &'r [R],
) -> reference::Values<'r, R> {
    match values {
        Values::Shared(values) => reference::Values::Shared { rows, dim: values.dim() },
        Values::PerHead(values) => reference::Values::PerHead { rows, dim: values.dim() / heads },
    }
}

pub struct MaxMean {
    /// Known exactly.
    pub max: Vec<f32>,
    pub mean: Expected,
    pub argmax: Vec<i64>,
}

impl MaxMean {
    pub fn check<O: Element>(&self, out: &super::MaxMean<O>) -> Check {
        let max: Vec<O> = self.max.iter().map(|&x| O::from_f32(x)).collect();
        prop_assert_eq!(out.max.len(), max.len());
        let wrong = (0..max.len()).filter(|&i| max[i] != out.max[i] && !(is_nan(max[i]) && is_nan(out.max[i])));
        if let Some(i) = wrong.min() {
            prop_assert!(false, "max: [{i}] is {:?}, not {:?}", out.max[i], max[i]);
        }
        prop_assert_eq!(&out.argmax, &self.argmax);
        self.mean.check("mean", &out.mean)
    }
}

pub fn max_mean<E: Element>(features: Rows<'_, E>, bags: &Bags<'_>) -> MaxMean {
    let data = dense(features);
    let oracle = reference::max_mean(&f64s(&data), features.dim(), bags);
    let naive = reference::max_mean(&f32s(&data), features.dim(), bags);
    MaxMean { max: naive.max, mean: Expected { oracle: oracle.mean, naive: naive.mean }, argmax: oracle.argmax }
}

pub struct Pool {
    pub scores: Expected,
    pub weights: Expected,
    pub lse: Expected,
    pub pooled: Expected,
}

impl Pool {
    fn new(oracle: reference::AttentionPool<f64>, naive: reference::AttentionPool<f32>) -> Self {
        Pool {
            scores: Expected { oracle: oracle.scores, naive: naive.scores },
            weights: Expected { oracle: oracle.softmax.weights, naive: naive.softmax.weights },
            lse: Expected { oracle: oracle.softmax.lse, naive: naive.softmax.lse },
            pooled: Expected { oracle: oracle.pooled, naive: naive.pooled },
        }
    }

    pub fn check<O: Element>(&self, out: &super::Pool<O>) -> Check {
        self.scores.check("scores", &out.scores)?;
        self.weights.check("weights", &out.weights)?;
        self.lse.check("lse", &out.lse)?;
        self.pooled.check("pooled", &out.pooled)
    }
}

pub fn attention_pool<E: Element>(
    params: &AttentionParams,
    keys: Rows<'_, E>,
    values: Option<Rows<'_, E>>,
    bags: &Bags<'_>,
) -> Pool {
    let values = values.unwrap_or(keys);
    let (params, dim) = (&rounded::<E>(params), values.dim());
    let (keys, values) = (&dense(keys), &dense(values));
    let shared = reference::Values::Shared { rows: &f64s(values), dim };
    let oracle = reference::attention_pool(params, &f64s(keys), shared, bags);
    let shared = reference::Values::Shared { rows: &f32s(values), dim };
    let naive = reference::attention_pool(params, &f32s(keys), shared, bags);
    Pool::new(oracle, naive)
}

/// Of features that are pooled themselves, where exact and naive have parameters and features of
/// their own.
pub fn attention_pool_between(
    exact: (&AttentionParams, &[f32]),
    naive: (&AttentionParams, &[f32]),
    bags: &Bags<'_>,
) -> Pool {
    let dim = exact.0.shape().dim;
    let wide = &f64s(exact.1);
    let oracle = reference::attention_pool(exact.0, wide, reference::Values::Shared { rows: wide, dim }, bags);
    let naive = reference::attention_pool(naive.0, naive.1, reference::Values::Shared { rows: naive.1, dim }, bags);
    Pool::new(oracle, naive)
}

/// The parameters as they are packed for features of type `E`: V and U rounded to it.
pub fn rounded<E: Element>(params: &AttentionParams) -> AttentionParams {
    let round = |data: &[f32]| data.iter().map(|&x| E::from_f32(x).to_f32()).collect::<Vec<_>>();
    let tensors = params.tensors();
    let (v, u) = (round(tensors.v), tensors.u.map(round));
    AttentionParams::new(params.shape(), AttentionTensors { v: &v, u: u.as_deref(), ..tensors }).unwrap()
}

pub(super) fn dense<E: Element>(rows: Rows<'_, E>) -> Vec<E> {
    (0..rows.len()).flat_map(|n| rows.row(n)).copied().collect()
}

fn is_nan<E: Element>(x: E) -> bool {
    x.to_f32().is_nan()
}

pub(super) fn f64s<E: Element>(data: &[E]) -> Vec<f64> {
    data.iter().map(|x| f64::from(x.to_f32())).collect()
}

pub(super) fn f32s<E: Element>(data: &[E]) -> Vec<f32> {
    data.iter().map(|x| x.to_f32()).collect()
}
