//! Max and mean over the instances of a bag.

use super::term::Term;
use super::{Bounded, Real, expect_len, instances};
use crate::bags::Bags;

/// What [`max_mean`] returns.
#[derive(Debug, Clone, PartialEq)]
pub struct MaxMean<R> {
    /// `[B, D]`; exact, it is one of the features.
    pub max: Vec<R>,
    /// `[B, D]`.
    pub mean: Bounded<R>,
    /// The lowest row that holds the maximum, `[B, D]`; −1 where the bag is empty.
    pub argmax: Vec<i64>,
}

/// features `[N, D]` → max, mean and argmax, each `[B, D]`.
///
/// ```text
/// max[b]    = max_n h[n]
/// mean[b]   = Σ_n h[n] / count
/// S_mean[b] = Σ_n |h[n]| / count
/// ```
///
/// The maximum is that of IEEE 754-2019: NaN where any feature is, and +0 above −0, which still tie in
/// argmax.
pub fn max_mean<R: Real>(features: &[R], dim: usize, bags: &Bags<'_>) -> MaxMean<R> {
    expect_len("features", features, bags.instances() * dim);

    let mut max = vec![R::ZERO; bags.len() * dim];
    let mut mean = Bounded::zeros(bags.len() * dim);
    let mut argmax = vec![-1; bags.len() * dim];
    for b in 0..bags.len() {
        let instances = instances(bags, b);
        if instances.is_empty() {
            continue;
        }
        for d in 0..dim {
            let feature = |&n: &usize| features[n * dim + d];
            let highest = instances.iter().map(feature).fold(-R::INFINITY, R::maximum);
            let first = instances.iter().find(|n| ties(feature(n), highest)).expect("the maximum is one of them");
            let sum: Term<R> = instances.iter().map(|n| Term::exact(feature(n))).sum();

            max[b * dim + d] = highest;
            argmax[b * dim + d] = *first as i64;
            mean.set(b * dim + d, sum / R::from_count(instances.len()));
        }
    }
    MaxMean { max, mean, argmax }
}

/// features `[N, D]`, and the gradients of max and mean `[B, D]`, each if there is one → the gradient of
/// the features `[N, D]`.
///
/// ```text
/// dh[n] = dmax[b] / ties  where h[n] is the maximum  +  dmean[b] / count
/// ```
///
/// Where the maximum is NaN, it is the NaN features that share its gradient.
pub fn max_mean_backward<R: Real>(
    features: &[R],
    dim: usize,
    bags: &Bags<'_>,
    d_max: Option<&Bounded<R>>,
    d_mean: Option<&Bounded<R>>,
) -> Bounded<R> {
    for (what, gradient) in [("d_max", d_max), ("d_mean", d_mean)] {
        if let Some(gradient) = gradient {
            gradient.expect_len(what, bags.len() * dim);
        }
    }
    let MaxMean { max, .. } = max_mean(features, dim, bags);

    let mut d_features = Bounded::zeros(features.len());
    for b in 0..bags.len() {
        let instances = instances(bags, b);
        for d in 0..dim {
            let tied: Vec<usize> =
                instances.iter().copied().filter(|n| ties(features[n * dim + d], max[b * dim + d])).collect();
            if let Some(d_max) = d_max {
                let share = d_max.get(b * dim + d) / R::from_count(tied.len());
                tied.iter().for_each(|n| d_features.add(n * dim + d, share));
            }
            if let Some(d_mean) = d_mean {
                let share = d_mean.get(b * dim + d) / R::from_count(instances.len());
                instances.iter().for_each(|n| d_features.add(n * dim + d, share));
            }
        }
    }
    d_features
}

/// Whether a feature is the maximum: equal to it, or NaN as it is.
fn ties<R: Real>(feature: R, max: R) -> bool {
    feature == max || (feature.is_nan() && max.is_nan())
}
