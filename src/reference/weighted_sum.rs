//! Weighted sum over the instances of a bag: `z[b,k] = Σ_n a[n,k] x[n]`.

use super::term::Term;
use super::{Bounded, Real, expect_len, instances, row};
use crate::bags::Bags;

/// The values x of a weighted sum.
#[derive(Debug, Clone, Copy)]
pub enum Values<'a, R> {
    /// The same for every head.
    Shared {
        /// `[N, D]`.
        rows: &'a [R],
        /// `D`.
        dim: usize,
    },
    /// One block for each head.
    PerHead {
        /// `[N, K, D]`.
        rows: &'a [R],
        /// `D`.
        dim: usize,
    },
}

impl<'a, R: Real> Values<'a, R> {
    /// `D`.
    fn dim(&self) -> usize {
        match *self {
            Values::Shared { dim, .. } | Values::PerHead { dim, .. } => dim,
        }
    }

    /// Where the block of head `k` of instance `n` is, counted in blocks of `D`.
    fn block(&self, n: usize, k: usize, heads: usize) -> usize {
        match self {
            Values::Shared { .. } => n,
            Values::PerHead { .. } => n * heads + k,
        }
    }

    /// The values of instance `n` for head `k`, `[D]`.
    fn row(&self, n: usize, k: usize, heads: usize) -> &'a [R] {
        let (Values::Shared { rows, dim } | Values::PerHead { rows, dim }) = *self;
        row(rows, dim, self.block(n, k, heads))
    }

    fn expect_instances(&self, instances: usize, heads: usize) {
        match *self {
            Values::Shared { rows, dim } => expect_len("values", rows, instances * dim),
            Values::PerHead { rows, dim } => expect_len("values", rows, instances * heads * dim),
        }
    }
}

/// weights `[N, K]`, values `[N, D]` or `[N, K, D]` → pooled `[B, K, D]`.
///
/// ```text
/// z[b,k] = Σ_n a[n,k] x[n]         x[n,k] for values per head
/// S[b,k] = Σ_n S_a[n,k] |x[n]|
/// ```
///
/// Rows whose weight is 0 as an f32 are skipped.
pub fn weighted_sum<R: Real>(weights: &Bounded<R>, heads: usize, values: Values<'_, R>, bags: &Bags<'_>) -> Bounded<R> {
    weights.expect_len("weights", bags.instances() * heads);
    values.expect_instances(bags.instances(), heads);
    let dim = values.dim();

    let mut pooled = Bounded::zeros(bags.len() * heads * dim);
    for b in 0..bags.len() {
        for n in instances(bags, b) {
            for k in 0..heads {
                let weight = weights.get(n * heads + k);
                if weight.vanishes() {
                    continue;
                }
                let x = values.row(n, k, heads).iter().map(|&x| Term::exact(x));
                pooled.add_row(b * heads + k, weight, x);
            }
        }
    }
    pooled
}

/// What [`weighted_sum_backward`] returns.
#[derive(Debug, Clone, PartialEq)]
pub struct WeightedSumGradients<R> {
    /// Of the weights, `[N, K]`.
    pub weights: Bounded<R>,
    /// Of the values, shaped like them.
    pub values: Bounded<R>,
}

/// weights, values, and the gradient of the pooled `[B, K, D]` → the gradients of weights and values.
///
/// ```text
/// da[n,k] = dz[b,k] · x[n]
/// dx[n]   = Σ_k a[n,k] dz[b,k]     dx[n,k] = a[n,k] dz[b,k] for values per head
/// ```
///
/// A row that the forward skips is skipped here too: its da is 0, not `dz · x`. Behind a softmax that
/// changes nothing, as its backward multiplies da by the weight.
pub fn weighted_sum_backward<R: Real>(
    weights: &Bounded<R>,
    heads: usize,
    values: Values<'_, R>,
    bags: &Bags<'_>,
    d_pooled: &Bounded<R>,
) -> WeightedSumGradients<R> {
    weights.expect_len("weights", bags.instances() * heads);
    values.expect_instances(bags.instances(), heads);
    let dim = values.dim();
    d_pooled.expect_len("d_pooled", bags.len() * heads * dim);

    let (Values::Shared { rows, .. } | Values::PerHead { rows, .. }) = values;
    let mut gradients =
        WeightedSumGradients { weights: Bounded::zeros(bags.instances() * heads), values: Bounded::zeros(rows.len()) };
    for b in 0..bags.len() {
        for n in instances(bags, b) {
            for k in 0..heads {
                let weight = weights.get(n * heads + k);
                if weight.vanishes() {
                    continue;
                }
                let x = values.row(n, k, heads).iter().map(|&x| Term::exact(x));
                let d_z = || d_pooled.row(dim, b * heads + k);
                gradients.weights.set(n * heads + k, d_z().zip(x).map(|(d_z, x)| d_z * x).sum());
                gradients.values.add_row(values.block(n, k, heads), weight, d_z());
            }
        }
    }
    gradients
}
