//! Attention pool: scores, softmax and weighted sum as one operation.

use super::{
    Bounded, Real, ScoresGradients, Softmax, Values, WeightedSumGradients, scores, scores_backward, softmax,
    softmax_backward, weighted_sum, weighted_sum_backward,
};
use crate::attention::AttentionParams;
use crate::bags::Bags;

/// What [`attention_pool`] returns.
#[derive(Debug, Clone, PartialEq)]
pub struct AttentionPool<R> {
    /// s, `[N, K]`.
    pub scores: Bounded<R>,
    /// a, `[N, K]`, and lse, `[B, K]`.
    pub softmax: Softmax<R>,
    /// z, `[B, K, D]`.
    pub pooled: Bounded<R>,
}

/// keys `[N, D']`, which are scored, and values `[N, D]` or `[N, K, D]`, which are pooled: the same
/// features, as a rule.
pub fn attention_pool<R: Real>(
    params: &AttentionParams,
    keys: &[R],
    values: Values<'_, R>,
    bags: &Bags<'_>,
) -> AttentionPool<R> {
    let heads = params.shape().heads;
    let scores = scores(params, keys, bags.mask());
    let softmax = softmax(&scores, heads, bags);
    let pooled = weighted_sum(&softmax.weights, heads, values, bags);
    AttentionPool { scores, softmax, pooled }
}

/// The gradients of what [`attention_pool`] returns: of the pooled, and of each other output that the
/// loss depends on.
#[derive(Debug, Clone, Copy)]
pub struct AttentionPoolUpstream<'a, R> {
    /// Of z, `[B, K, D]`.
    pub pooled: &'a Bounded<R>,
    /// Of s, `[N, K]`.
    pub scores: Option<&'a Bounded<R>>,
    /// Of a, `[N, K]`.
    pub weights: Option<&'a Bounded<R>>,
    /// Of lse, `[B, K]`.
    pub lse: Option<&'a Bounded<R>>,
}

/// What [`attention_pool_backward`] returns. Where the same features are keys and values, their gradient
/// is the sum of both.
#[derive(Debug, Clone, PartialEq)]
pub struct AttentionPoolGradients<R> {
    /// Of the keys (its `features`, `[N, D']`) and of the parameters.
    pub scores: ScoresGradients<R>,
    /// Of the values, shaped like them.
    pub values: Bounded<R>,
}

/// keys, values, and the gradients of the outputs → the gradients of keys, values and parameters.
///
/// ```text
/// dx[n]   = Σ_k a[n,k] dz[b,k]
/// da[n,k] = dz[b,k] · x[n]  + upstream
/// ds[n,k] = a[n,k] · (da[n,k] − Σ_i a[i,k] da[i,k] + dlse[b,k])  + upstream
/// ```
///
/// and from there as in [`scores_backward`], with the activations where these are given.
pub fn attention_pool_backward<R: Real>(
    params: &AttentionParams,
    keys: &[R],
    values: Values<'_, R>,
    bags: &Bags<'_>,
    activations: Option<&[R]>,
    upstream: AttentionPoolUpstream<'_, R>,
) -> AttentionPoolGradients<R> {
    let heads = params.shape().heads;
    let Softmax { weights, .. } = attention_pool(params, keys, values, bags).softmax;

    let WeightedSumGradients { weights: mut d_weights, values } =
        weighted_sum_backward(&weights, heads, values, bags, upstream.pooled);
    d_weights.add_all("d_weights", upstream.weights);
    let mut d_scores = softmax_backward(&weights, heads, bags, Some(&d_weights), upstream.lse);
    d_scores.add_all("d_scores", upstream.scores);
    AttentionPoolGradients { scores: scores_backward(params, keys, bags.mask(), activations, &d_scores), values }
}
