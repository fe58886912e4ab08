//! The oracle: every operation and its backward as plain loops that read like the formulas.
//!
//! Nothing here is fast. A backend is right where it agrees with these functions in f64, to within
//! [`Bounded::tolerance`], and keeps their edge cases to the letter. The same functions in f32 are the
//! *naive* evaluation which that tolerance is measured with.
//!
//! | operation | formula | backward |
//! | --- | --- | --- |
//! | [`scores`] | `s[n,k] = w[k] · (tanh(V h[n] + b_v) ⊙ σ(U h[n] + b_u)) + c[k]`, ungated without σ | [`scores_backward`] |
//! | [`gate`] | `g = tanh(x) ⊙ σ(y)` | [`gate_backward`] |
//! | [`softmax`] | `a[n,k] = exp(s[n,k] − lse[b,k])`, `lse[b,k] = ln Σ_n exp(s[n,k])` | [`softmax_backward`] |
//! | [`weighted_sum`] | `z[b,k] = Σ_n a[n,k] x[n]` | [`weighted_sum_backward`] |
//! | [`max_mean`] | `max_n h[n]`, `Σ_n h[n] / count` | [`max_mean_backward`] |
//! | [`attention_pool`] | scores, softmax and weighted sum | [`attention_pool_backward`] |
//!
//! Sources: M. Ilse, J. M. Tomczak, M. Welling, *Attention-based Deep Multiple Instance Learning*
//! (ICML 2018) for the scores, the gate and the pooling by attention; W. Wu, X. Li, L. Zhong,
//! Y. Huang, *MIVC: Multiple Instance Visual Component for Visual-Language Models* (WACV 2024) for the
//! four fusions of an image set.
//!
//! # S, the scale of rounding errors
//!
//! Beside every value stands S: the same formula with absolute values, that is with `|x|` for each
//! input, `+` for each `−`, and tanh and σ taken of such sums. Arithmetic that rounds to a relative ε
//! is off by a small multiple of ε·S, whatever cancels. Where an operation continues another, S
//! continues too: that of the scores enters the softmax, and that of the weights the weighted sum.
//!
//! # Edge cases
//!
//! | case | result |
//! | --- | --- |
//! | bag that is empty, all masked or all at score −inf | pooled 0, weights 0, lse −inf, argmax −1, gradients 0 |
//! | masked instance | score −inf, weight 0, gradient 0; its features, weight and incoming gradients are never read |
//! | weight that is 0 as an f32 | the row is skipped, forward and backward; in every precision, so that oracle and backends skip the same rows |
//! | score whose gradient is 0 as an f32 | passes no gradient on, whatever its features hold |
//! | NaN or +inf score | its bag and head is NaN: weights, lse, pooled; no other |
//! | NaN feature in max/mean | NaN for that feature of that bag; argmax is the first NaN's row, and the NaNs share the gradient |
//! | max(+0, −0) | +0; they tie |
//! | ties in max | argmax is the lowest row; the gradient is shared equally |
//!
//! Slices whose lengths do not fit together make these functions panic: they are for tests, where that
//! is a mistake of the test.

use std::fmt::Debug;
use std::ops::{Add, AddAssign, Div, Mul, Neg, Sub};

use crate::bags::{Bags, present};

mod attention_pool;
mod gate;
mod max_mean;
mod scores;
mod softmax;
mod term;
#[cfg(test)]
mod tests;
mod weighted_sum;

pub use attention_pool::{
    AttentionPool, AttentionPoolGradients, AttentionPoolUpstream, attention_pool, attention_pool_backward,
};
pub use gate::{GateGradients, gate, gate_backward};
pub use max_mean::{MaxMean, max_mean, max_mean_backward};
pub use scores::{ScoresGradients, activations, scores, scores_backward};
pub use softmax::{Softmax, softmax, softmax_backward};
pub use weighted_sum::{Values, WeightedSumGradients, weighted_sum, weighted_sum_backward};

use term::Term;

mod sealed {
    pub trait Sealed {}
    impl Sealed for f32 {}
    impl Sealed for f64 {}
}

/// What the formulas are evaluated in: `f64` for the oracle, `f32` for the naive evaluation that the
/// tolerance compares with.
pub trait Real:
    sealed::Sealed
    + Copy
    + Debug
    + PartialOrd
    + Add<Output = Self>
    + Sub<Output = Self>
    + Mul<Output = Self>
    + Div<Output = Self>
    + Neg<Output = Self>
    + AddAssign
{
    /// 0.
    const ZERO: Self;
    /// 1.
    const ONE: Self;
    /// +inf.
    const INFINITY: Self;

    /// The same number: every f32 is one.
    fn from_f32(value: f32) -> Self;
    /// The nearest number to a count.
    fn from_count(count: usize) -> Self;
    /// The nearest f32.
    fn to_f32(self) -> f32;
    /// The same number.
    fn to_f64(self) -> f64;

    /// `|x|`.
    fn abs(self) -> Self;
    /// `e^x`.
    fn exp(self) -> Self;
    /// The natural logarithm.
    fn ln(self) -> Self;
    /// The hyperbolic tangent.
    fn tanh(self) -> Self;
    /// Whether this is NaN.
    fn is_nan(self) -> bool;
    /// Whether the sign bit is set, as in −0.
    fn is_sign_negative(self) -> bool;

    /// `σ(x) = 1 / (1 + e^−x)`, the logistic function.
    fn sigmoid(self) -> Self {
        Self::ONE / (Self::ONE + (-self).exp())
    }

    /// `maximum` of IEEE 754-2019: NaN where either is, and +0 above −0.
    fn maximum(self, other: Self) -> Self {
        if self > other || self.is_nan() || (self == other && other.is_sign_negative()) { self } else { other }
    }
}

macro_rules! impl_real {
    ($($real:ident),+) => {$(
        impl Real for $real {
            const ZERO: Self = 0.0;
            const ONE: Self = 1.0;
            const INFINITY: Self = $real::INFINITY;

            fn from_f32(value: f32) -> Self {
                value.into()
            }
            fn from_count(count: usize) -> Self {
                count as $real
            }
            fn to_f32(self) -> f32 {
                self as f32
            }
            fn to_f64(self) -> f64 {
                self.into()
            }
            fn abs(self) -> Self {
                self.abs()
            }
            fn exp(self) -> Self {
                self.exp()
            }
            fn ln(self) -> Self {
                self.ln()
            }
            fn tanh(self) -> Self {
                self.tanh()
            }
            fn is_nan(self) -> bool {
                self.is_nan()
            }
            fn is_sign_negative(self) -> bool {
                self.is_sign_negative()
            }
        }
    )+};
}
impl_real!(f32, f64);

/// Values with S, the same formula with absolute values, beside them.
#[derive(Debug, Clone, PartialEq)]
pub struct Bounded<R> {
    /// The values.
    pub value: Vec<R>,
    /// S, one per value.
    pub scale: Vec<R>,
}

impl<R: Real> Bounded<R> {
    /// Exactly known values: S is their absolute value.
    pub fn exact(value: Vec<R>) -> Self {
        let scale = value.iter().map(|x| x.abs()).collect();
        Bounded { value, scale }
    }

    fn filled(len: usize, term: Term<R>) -> Self {
        Bounded { value: vec![term.value; len], scale: vec![term.scale; len] }
    }

    fn zeros(len: usize) -> Self {
        Bounded::filled(len, Term::ZERO)
    }

    fn get(&self, i: usize) -> Term<R> {
        Term { value: self.value[i], scale: self.scale[i] }
    }

    fn set(&mut self, i: usize, term: Term<R>) {
        self.value[i] = term.value;
        self.scale[i] = term.scale;
    }

    fn add(&mut self, i: usize, term: Term<R>) {
        self.set(i, self.get(i) + term);
    }

    /// Adds `factor · row` to row `r`, where rows are as long as `row`.
    fn add_row(&mut self, r: usize, factor: Term<R>, row: impl ExactSizeIterator<Item = Term<R>>) {
        let start = r * row.len();
        for (i, x) in row.enumerate() {
            self.add(start + i, factor * x);
        }
    }

    /// The terms of row `r` of a row-major matrix with `dim` columns.
    fn row(&self, dim: usize, r: usize) -> impl ExactSizeIterator<Item = Term<R>> + '_ {
        (r * dim..(r + 1) * dim).map(|i| self.get(i))
    }

    /// Adds other values, where there are any.
    fn add_all(&mut self, what: &str, other: Option<&Bounded<R>>) {
        let Some(other) = other else { return };
        other.expect_len(what, self.value.len());
        for i in 0..self.value.len() {
            self.add(i, other.get(i));
        }
    }

    fn expect_len(&self, what: &str, len: usize) {
        expect_len(what, &self.value, len);
        expect_len(what, &self.scale, len);
    }
}

impl Bounded<f64> {
    /// How far a backend may be from these values: `2·max|naive − ref| + 1e-6·max S`, where `naive` is
    /// the same formula evaluated in f32.
    ///
    /// Differences and S that are not finite are left out of both maxima: the score −inf of a masked
    /// instance or a bag that is NaN widens the tolerance of nothing else. Such entries have no
    /// tolerance; a test compares them by kind (NaN, −inf).
    ///
    /// # Panics
    /// Where `naive` is of another length.
    pub fn tolerance(&self, naive: &Bounded<f32>) -> f64 {
        naive.expect_len("naive", self.value.len());
        let finite_max = |max: f64, x: f64| if x.is_finite() { max.max(x) } else { max };
        let differences = self.value.iter().zip(&naive.value).map(|(&x, &y)| (x - f64::from(y)).abs());
        2.0 * differences.fold(0.0, finite_max) + 1e-6 * self.scale.iter().copied().fold(0.0, finite_max)
    }
}

fn expect_len<T>(what: &str, slice: &[T], len: usize) {
    assert_eq!(slice.len(), len, "{what}: expected {len} elements, got {}", slice.len());
}

/// Row `n` of a row-major matrix with `dim` columns.
fn row<T>(matrix: &[T], dim: usize, n: usize) -> &[T] {
    &matrix[n * dim..(n + 1) * dim]
}

/// The rows of bag `b` that are not masked out.
fn instances(bags: &Bags<'_>, b: usize) -> Vec<usize> {
    bags.range(b).filter(|&n| present(bags.mask(), n)).collect()
}
