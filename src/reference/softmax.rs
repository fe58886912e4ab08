//! Softmax over the instances of a bag: `a[n,k] = exp(s[n,k] − lse[b,k])`.

use super::term::Term;
use super::{Bounded, Real, instances};
use crate::bags::Bags;

/// What [`softmax`] returns.
#[derive(Debug, Clone, PartialEq)]
pub struct Softmax<R> {
    /// a, `[N, K]`.
    pub weights: Bounded<R>,
    /// logsumexp of each bag and head, `[B, K]`.
    pub lse: Bounded<R>,
}

/// scores `[N, K]` → weights `[N, K]`, lse `[B, K]`.
///
/// ```text
/// m        = max_n s[n]                    subtracted, so that ±1e30 stays finite
/// l        = Σ_n exp(s[n] − m)
/// a[n]     = exp(s[n] − m) / l             = exp(s[n] − lse), but m + ln l would round l away at ±1e30
/// lse      = m + ln l
/// S_a[n]   = a[n] · (1 + S_s[n] + Σ_i a[i] S_s[i])
/// S_lse    = 1 + |lse| + Σ_i a[i] S_s[i]
/// ```
///
/// An error `δ[n]` of the scores moves the weights by `a[n] · (δ[n] − Σ_i a[i] δ[i])` and lse by
/// `Σ_i a[i] δ[i]`. The 1 is the relative rounding error of the exponentials and their sum, which the
/// logarithm makes an absolute one: it is there even where lse is 0.
pub fn softmax<R: Real>(scores: &Bounded<R>, heads: usize, bags: &Bags<'_>) -> Softmax<R> {
    scores.expect_len("scores", bags.instances() * heads);

    let mut weights = Bounded::zeros(bags.instances() * heads);
    let mut lse = Bounded::filled(bags.len() * heads, Term { value: -R::INFINITY, scale: R::ZERO });
    for b in 0..bags.len() {
        let instances = instances(bags, b);
        for k in 0..heads {
            let scores: Vec<Term<R>> = instances.iter().map(|&n| scores.get(n * heads + k)).collect();
            // NaN where any score is. At +inf, inf − inf makes l NaN, and with it the whole bag.
            let max = scores.iter().map(|s| s.value).fold(-R::INFINITY, R::maximum);
            if max == -R::INFINITY {
                continue;
            }
            let exps: Vec<R> = scores.iter().map(|s| (s.value - max).exp()).collect();
            let sum = exps.iter().fold(R::ZERO, |sum, &exp| sum + exp);
            let bag_weights: Vec<R> = exps.iter().map(|&exp| exp / sum).collect();

            // A weight of 0 carries no error, not even that of a score −inf, whose S is infinite.
            let scaled = |weight, scale| if weight == R::ZERO { R::ZERO } else { weight * scale };
            let score_scale = scores.iter().zip(&bag_weights).fold(R::ZERO, |sum, (s, &a)| sum + scaled(a, s.scale));
            for ((&n, s), &value) in instances.iter().zip(&scores).zip(&bag_weights) {
                let scale = scaled(value, R::ONE + s.scale + score_scale);
                weights.set(n * heads + k, Term { value, scale });
            }
            let value = max + sum.ln();
            lse.set(b * heads + k, Term { value, scale: R::ONE + value.abs() + score_scale });
        }
    }
    Softmax { weights, lse }
}

/// weights `[N, K]`, and the gradients of weights `[N, K]` and lse `[B, K]`, each if there is one → the
/// gradient of the scores `[N, K]`.
///
/// ```text
/// ds[n] = a[n] · (da[n] − Σ_i a[i] da[i] + dlse)
/// ```
///
/// Rows whose weight is 0 as an f32 are skipped, here and in the sum.
pub fn softmax_backward<R: Real>(
    weights: &Bounded<R>,
    heads: usize,
    bags: &Bags<'_>,
    d_weights: Option<&Bounded<R>>,
    d_lse: Option<&Bounded<R>>,
) -> Bounded<R> {
    weights.expect_len("weights", bags.instances() * heads);
    if let Some(d_weights) = d_weights {
        d_weights.expect_len("d_weights", bags.instances() * heads);
    }
    if let Some(d_lse) = d_lse {
        d_lse.expect_len("d_lse", bags.len() * heads);
    }
    let or_zero = |gradient: Option<&Bounded<R>>, i| gradient.map_or(Term::ZERO, |gradient| gradient.get(i));

    let mut d_scores = Bounded::zeros(bags.instances() * heads);
    for b in 0..bags.len() {
        let instances = instances(bags, b);
        for k in 0..heads {
            let weighted: Vec<usize> =
                instances.iter().map(|n| n * heads + k).filter(|&i| !weights.get(i).vanishes()).collect();
            let mean: Term<R> = weighted.iter().map(|&i| weights.get(i) * or_zero(d_weights, i)).sum();
            let d_lse = or_zero(d_lse, b * heads + k);
            for i in weighted {
                d_scores.set(i, weights.get(i) * (or_zero(d_weights, i) - mean + d_lse));
            }
        }
    }
    d_scores
}
