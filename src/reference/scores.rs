//! Attention scores: `s[n,k] = w[k] · (tanh(V h[n] + b_v) ⊙ σ(U h[n] + b_u)) + c[k]`.

use super::gate::gate_slopes;
use super::term::Term;
use super::{Bounded, Real, row};
use crate::attention::{AttentionParams, AttentionShape};
use crate::bags::present;

/// features `[N, D]`, mask `[N]` → scores `[N, K]`.
///
/// ```text
/// ungated  s[n,k] = w[k] · tanh(V h[n] + b_v) + c[k]
/// gated    s[n,k] = w[k] · (tanh(V h[n] + b_v) ⊙ σ(U h[n] + b_u)) + c[k]
/// S[n,k]          = |w[k]| · (tanh(|V| |h[n]| + |b_v|) ⊙ σ(|U| |h[n]| + |b_u|)) + |c[k]|
/// ```
///
/// V and U are those of the head's group. A masked instance has score −inf, with S = 0.
pub fn scores<R: Real>(params: &AttentionParams, features: &[R], mask: Option<&[u8]>) -> Bounded<R> {
    let AttentionShape { dim, hidden, heads, .. } = params.shape();
    let tensors = params.tensors();
    let instances = count_instances(features, dim, mask);

    let mut scores = Bounded::filled(instances * heads, Term { value: -R::INFINITY, scale: R::ZERO });
    for n in (0..instances).filter(|&n| present(mask, n)) {
        let units = hidden_units(params, row(features, dim, n));
        for k in 0..heads {
            let units = row(&units, hidden, group(params, k));
            let w = row(tensors.w, hidden, k);
            let c = tensors.w_bias.map_or(Term::ZERO, |c| Term::param(c[k]));
            let dot: Term<R> = w.iter().zip(units).map(|(&w, unit)| Term::param(w) * unit.tanh * unit.sigmoid).sum();
            scores.set(n * heads + k, dot + c);
        }
    }
    scores
}

/// features `[N, D]`, mask `[N]` → what a backward need not compute again: `[N, G, L]` of `tanh(V h[n] + b_v)`, or
/// `[N, 2, G, L]` of that and `σ(U h[n] + b_u)` where the attention is gated.
///
/// Those of masked instances are 0.
pub fn activations<R: Real>(params: &AttentionParams, features: &[R], mask: Option<&[u8]>) -> Bounded<R> {
    let dim = params.shape().dim;
    let instances = count_instances(features, dim, mask);
    let len = activations_len(params);
    let mut activations = Bounded::zeros(instances * len);
    for n in (0..instances).filter(|&n| present(mask, n)) {
        let units = hidden_units(params, row(features, dim, n));
        let tanhs = units.iter().map(|unit| unit.tanh);
        let sigmoids = units.iter().filter(|_| params.is_gated()).map(|unit| unit.sigmoid);
        tanhs.chain(sigmoids).enumerate().for_each(|(i, activation)| activations.set(n * len + i, activation));
    }
    activations
}

fn activations_len(params: &AttentionParams) -> usize {
    let AttentionShape { hidden, groups, .. } = params.shape();
    groups * hidden * if params.is_gated() { 2 } else { 1 }
}

/// What [`scores_backward`] returns; a parameter that is not there has no gradient.
#[derive(Debug, Clone, PartialEq)]
pub struct ScoresGradients<R> {
    /// Of the features, `[N, D]`.
    pub features: Bounded<R>,
    /// Of V, `[G, L, D]`.
    pub v: Bounded<R>,
    /// Of the bias of V, `[G, L]`.
    pub v_bias: Option<Bounded<R>>,
    /// Of U, `[G, L, D]`.
    pub u: Option<Bounded<R>>,
    /// Of the bias of U, `[G, L]`.
    pub u_bias: Option<Bounded<R>>,
    /// Of w, `[K, L]`.
    pub w: Bounded<R>,
    /// Of c, the bias of w, `[K]`.
    pub w_bias: Option<Bounded<R>>,
}

impl<R: Real> ScoresGradients<R> {
    fn zeros(params: &AttentionParams, features: usize) -> Self {
        let tensors = params.tensors();
        let optional = |tensor: Option<&[f32]>| tensor.map(|tensor| Bounded::zeros(tensor.len()));
        ScoresGradients {
            features: Bounded::zeros(features),
            v: Bounded::zeros(tensors.v.len()),
            v_bias: optional(tensors.v_bias),
            u: optional(tensors.u),
            u_bias: optional(tensors.u_bias),
            w: Bounded::zeros(tensors.w.len()),
            w_bias: optional(tensors.w_bias),
        }
    }
}

/// features `[N, D]`, mask `[N]`, and the gradient of the scores `[N, K]` → the gradients of features
/// and parameters.
///
/// ```text
/// t  = tanh(x),  x = V h[n] + b_v            of the head's group
/// σ  = σ(y),     y = U h[n] + b_u            1 where the attention is not gated
/// dc[k] = Σ_n ds[n,k]
/// dw[k] = Σ_n ds[n,k] t ⊙ σ
/// dx    = ds[n,k] w[k] ⊙ (1 − t²) ⊙ σ        dy    = ds[n,k] w[k] ⊙ t ⊙ σ ⊙ (1 − σ)
/// dV    = Σ_n,k dx ⊗ h[n],  db_v = Σ_n,k dx  dU    = Σ_n,k dy ⊗ h[n],  db_u = Σ_n,k dy
/// dh[n] = Σ_k Vᵀ dx + Uᵀ dy
/// ```
///
/// t and σ are computed, or those of [`activations`] where these are given: what was rounded when it was kept is then
/// taken as it is. Masked instances, and pairs of instance and head whose ds is 0 as an f32, add to no gradient.
pub fn scores_backward<R: Real>(
    params: &AttentionParams,
    features: &[R],
    mask: Option<&[u8]>,
    activations: Option<&[R]>,
    d_scores: &Bounded<R>,
) -> ScoresGradients<R> {
    let AttentionShape { dim, heads, .. } = params.shape();
    let instances = count_instances(features, dim, mask);
    d_scores.expect_len("d_scores", instances * heads);
    let len = activations_len(params);
    if let Some(activations) = activations {
        super::expect_len("activations", activations, instances * len);
    }

    let mut gradients = ScoresGradients::zeros(params, features.len());
    for n in (0..instances).filter(|&n| present(mask, n)) {
        let h = row(features, dim, n);
        let kept = activations.map(|activations| kept_units(params, row(activations, len, n)));
        let units = kept.unwrap_or_else(|| hidden_units(params, h));
        for k in 0..heads {
            let d_score = d_scores.get(n * heads + k);
            if !d_score.vanishes() {
                score_backward(params, Instance { n, h, units: &units }, k, d_score, &mut gradients);
            }
        }
    }
    gradients
}

/// Row `n` of the features, and its hidden units `[G, L]`.
struct Instance<'a, R> {
    n: usize,
    h: &'a [R],
    units: &'a [HiddenUnit<R>],
}

/// Adds what the score of one instance and head `k` contributes.
fn score_backward<R: Real>(
    params: &AttentionParams,
    Instance { n, h, units }: Instance<'_, R>,
    k: usize,
    d_score: Term<R>,
    gradients: &mut ScoresGradients<R>,
) {
    let AttentionShape { dim, hidden, .. } = params.shape();
    let tensors = params.tensors();
    let h = || h.iter().map(|&h| Term::exact(h));
    let params_of = |matrix, i| row(matrix, dim, i).iter().map(|&m| Term::param(m));

    if let Some(d_c) = &mut gradients.w_bias {
        d_c.add(k, d_score);
    }
    for l in 0..hidden {
        let i = group(params, k) * hidden + l;
        let HiddenUnit { tanh, sigmoid } = units[i];
        gradients.w.add(k * hidden + l, d_score * tanh * sigmoid);

        let d_g = d_score * Term::param(tensors.w[k * hidden + l]);
        let slopes = gate_slopes(tanh, sigmoid);
        let (d_x, d_y) = (d_g * slopes.x, d_g * slopes.y);

        gradients.v.add_row(i, d_x, h());
        gradients.features.add_row(n, d_x, params_of(tensors.v, i));
        if let Some(d_bias) = &mut gradients.v_bias {
            d_bias.add(i, d_x);
        }
        if let (Some(u), Some(d_u)) = (tensors.u, &mut gradients.u) {
            d_u.add_row(i, d_y, h());
            gradients.features.add_row(n, d_y, params_of(u, i));
        }
        if let Some(d_bias) = &mut gradients.u_bias {
            d_bias.add(i, d_y);
        }
    }
}

/// A hidden unit of one instance: `tanh(V h + b_v)[l]` and `σ(U h + b_u)[l]`, the latter 1 where the
/// attention is not gated.
#[derive(Clone, Copy)]
struct HiddenUnit<R> {
    tanh: Term<R>,
    sigmoid: Term<R>,
}

/// The hidden units of the instance `h`, `[G, L]`.
fn hidden_units<R: Real>(params: &AttentionParams, h: &[R]) -> Vec<HiddenUnit<R>> {
    let AttentionShape { hidden, groups, .. } = params.shape();
    let tensors = params.tensors();
    let hidden_unit = |i| HiddenUnit {
        tanh: affine(tensors.v, tensors.v_bias, i, h).tanh(),
        sigmoid: tensors.u.map_or(Term::ONE, |u| affine(u, tensors.u_bias, i, h).sigmoid()),
    };
    (0..groups * hidden).map(hidden_unit).collect()
}

/// The same, `[G, L]`, from the activations of an instance.
fn kept_units<R: Real>(params: &AttentionParams, activations: &[R]) -> Vec<HiddenUnit<R>> {
    let (tanhs, sigmoids) = match params.is_gated() {
        true => activations.split_at(activations.len() / 2),
        false => (activations, &[][..]),
    };
    let sigmoid = |i| sigmoids.get(i).map_or(Term::ONE, |&sigmoid| Term::exact(sigmoid));
    tanhs.iter().enumerate().map(|(i, &tanh)| HiddenUnit { tanh: Term::exact(tanh), sigmoid: sigmoid(i) }).collect()
}

/// Element `i` of `M h + b`.
fn affine<R: Real>(matrix: &[f32], bias: Option<&[f32]>, i: usize, h: &[R]) -> Term<R> {
    let product: Term<R> = row(matrix, h.len(), i).iter().zip(h).map(|(&m, &h)| Term::param(m) * Term::exact(h)).sum();
    product + bias.map_or(Term::ZERO, |b| Term::param(b[i]))
}

/// The group whose V and U head `k` uses.
fn group(params: &AttentionParams, k: usize) -> usize {
    let AttentionShape { heads, groups, .. } = params.shape();
    k / (heads / groups)
}

/// `N` of features `[N, D]`, which the mask has to share.
fn count_instances<R: Real>(features: &[R], dim: usize, mask: Option<&[u8]>) -> usize {
    let instances = features.len() / dim;
    super::expect_len("features", features, instances * dim);
    if let Some(mask) = mask {
        super::expect_len("mask", mask, instances);
    }
    instances
}
