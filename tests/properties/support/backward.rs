//! Backward calls, and what the oracle expects of them.

use mivc::cpu::{
    AttentionOutputs, AttentionPoolGradients, AttentionPoolUpstream, MaxMeanUpstream, ParamGradients, Saved,
    ScoresGradients, SoftmaxUpstream, Values, WeightedSumGradients,
};
use mivc::reference::{self, Bounded};
use mivc::{AttentionParams, Bags, Dtype, Element, Gradient, Rows};

use super::calls::{Poison, twice};
use super::oracle::{Expected, blocks, dense, f32s, f64s, rounded};
use super::{Bits, Case, Check, Subject, same};
use crate::backends::Backend;

/// Whether a gradient is written over poison, or added to what is there.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Mode {
    Set,
    Add,
}

/// What gradients are added to.
const BASE: f32 = 0.5;

pub fn plus_base(values: &[f32]) -> Vec<f32> {
    values.iter().map(|x| x + BASE).collect()
}

impl Expected {
    /// What is added is what would be written; to the bit where that is not rounded in between.
    pub fn check_added<G: Element>(self, what: &str, set: &[G], added: &[G]) -> Check {
        if G::DTYPE == Dtype::F32 {
            same(what, &f32s(added), &plus_base(&f32s(set)))?;
        }
        let Expected { mut oracle, mut naive } = self;
        oracle.value.iter_mut().chain(&mut oracle.scale).for_each(|x| *x += f64::from(BASE));
        naive.value.iter_mut().for_each(|x| *x += BASE);
        Expected { oracle, naive }.check(what, added)
    }
}

impl Mode {
    fn many<E: Element>(self, poison: Poison, len: usize) -> Vec<E> {
        match self {
            Mode::Set => poison.many(len),
            Mode::Add => vec![E::from_f32(BASE); len],
        }
    }

    fn of<E>(self, to: &mut [E]) -> Gradient<'_, E> {
        match self {
            Mode::Set => Gradient::Set(to),
            Mode::Add => Gradient::Add(to),
        }
    }
}

/// V, its bias, U, its bias, w and its bias, of each that there is.
#[derive(Debug, Clone)]
pub struct ParamValues<T>([Option<T>; 6]);

pub const PARAMS: [&str; 6] = ["d_v", "d_v_bias", "d_u", "d_u_bias", "d_w", "d_w_bias"];

impl ParamValues<Vec<f32>> {
    fn new(params: &AttentionParams, many: impl Fn(usize) -> Vec<f32>) -> Self {
        let it = params.tensors();
        let all = [Some(it.v), it.v_bias, it.u, it.u_bias, Some(it.w), it.w_bias];
        ParamValues(all.map(|tensor| tensor.map(|tensor| many(tensor.len()))))
    }

    fn gradients(&mut self, mode: Mode) -> ParamGradients<'_> {
        let [v, v_bias, u, u_bias, w, w_bias] = self.0.each_mut().map(|to| to.as_mut().map(|to| mode.of(to)));
        ParamGradients { v, v_bias, u, u_bias, w, w_bias }
    }

    pub fn iter(&self) -> impl Iterator<Item = (&'static str, &Vec<f32>)> {
        PARAMS.into_iter().zip(&self.0).filter_map(|(name, values)| Some((name, values.as_ref()?)))
    }
}

impl Bits for ParamValues<Vec<f32>> {
    fn bits(&self) -> Vec<u64> {
        self.iter().flat_map(|(_, values)| values.bits()).collect()
    }
}

/// Of features and parameters.
pub struct ScoresBackward<G> {
    pub features: Vec<G>,
    pub params: ParamValues<Vec<f32>>,
}

impl<G: Element> Bits for ScoresBackward<G> {
    fn bits(&self) -> Vec<u64> {
        [self.features.bits(), self.params.bits()].concat()
    }
}

pub struct PoolBackward<G> {
    pub scores: ScoresBackward<G>,
    /// Where the values are not the keys.
    pub values: Option<Vec<G>>,
}

impl<G: Element> Bits for PoolBackward<G> {
    fn bits(&self) -> Vec<u64> {
        let values = self.values.as_ref().map_or_else(Vec::new, Bits::bits);
        [self.scores.bits(), values].concat()
    }
}

impl<A: Bits, B: Bits, C: Bits> Bits for (A, B, C) {
    fn bits(&self) -> Vec<u64> {
        [self.0.bits(), self.1.bits(), self.2.bits()].concat()
    }
}

impl<A: Bits, B: Bits> Bits for (A, B) {
    fn bits(&self) -> Vec<u64> {
        [self.0.bits(), self.1.bits()].concat()
    }
}

/// The gradients of what attention pool returns; NaN for what is masked.
#[derive(Debug, Clone)]
pub struct Upstream<O> {
    pub pooled: Vec<O>,
    pub scores: Option<Vec<f32>>,
    pub weights: Option<Vec<f32>>,
    pub lse: Option<Vec<f32>>,
}

impl<O: Element> Upstream<O> {
    fn views(&self) -> AttentionPoolUpstream<'_, O> {
        let Upstream { pooled, scores, weights, lse } = self;
        let [scores, weights, lse] = [scores, weights, lse].map(Option::as_deref);
        AttentionPoolUpstream { pooled: Some(pooled), scores, weights, lse }
    }

    pub fn map(&self, f: impl Fn(f32) -> f32) -> Self {
        let all = |values: &Option<Vec<f32>>| values.as_ref().map(|values| values.iter().map(|&x| f(x)).collect());
        Upstream {
            pooled: self.pooled.iter().map(|x| O::from_f32(f(x.to_f32()))).collect(),
            scores: all(&self.scores),
            weights: all(&self.weights),
            lse: all(&self.lse),
        }
    }
}

impl Case {
    /// Of the pooled alone, or of all outputs.
    pub fn upstream<O: Element>(&self, bags: &Bags<'_>, dim: usize, all: bool) -> Upstream<O> {
        let bag_heads = bags.len() * self.heads;
        let pooled = self.uniform("d pooled", bag_heads * dim, 1.0).into_iter().map(O::from_f32).collect();
        let of_rows = |what| all.then(|| self.of_rows(what, bags));
        let [scores, weights] = [of_rows("d scores"), of_rows("d weights")];
        Upstream { pooled, scores, weights, lse: all.then(|| self.uniform("d lse", bag_heads, 1.0)) }
    }

    /// `[N, K]`, NaN for what is masked and one in ten 0.
    pub fn of_rows(&self, what: &str, bags: &Bags<'_>) -> Vec<f32> {
        let mut data = self.uniform(what, self.instances() * self.heads, 1.0);
        for (n, row) in data.chunks_mut(self.heads).enumerate() {
            match bags.mask() {
                Some(mask) if mask[n] == 0 => row.fill(f32::NAN),
                _ => row.iter_mut().filter(|x| x.abs() < 0.1).for_each(|x| *x = 0.0),
            }
        }
        data
    }
}

/// What [`Subject::attention_pool_backward`] is called with.
pub struct PoolCall<'a, E, O> {
    pub params: &'a AttentionParams,
    pub keys: Rows<'a, E>,
    pub values: Option<Rows<'a, E>>,
    pub bags: &'a Bags<'a>,
    pub upstream: &'a Upstream<O>,
    /// Whether the activations are kept by the forward.
    pub keeps: bool,
    pub mode: Mode,
}

impl<B: Backend> Subject<B> {
    /// Scores and activations.
    pub fn scores_keeping<E: Element>(
        &self,
        params: &AttentionParams,
        features: Rows<'_, E>,
        mask: Option<&[u8]>,
    ) -> Check<(Vec<f32>, Vec<E>)> {
        let packed = self.backend().pack(params, E::DTYPE);
        twice(|poison| {
            let mut scores = poison.many(features.len() * params.shape().heads);
            let mut activations = poison.many(features.len() * activations_len(params));
            self.backend().scores_keeping(&packed, features, mask, &mut scores, &mut activations)?;
            Ok((scores, activations))
        })
    }

    pub fn gate_backward<E: Element>(&self, arguments: [&[E]; 3], mode: Mode) -> Check<(Vec<E>, Vec<E>)> {
        twice(|poison| {
            let [mut d_x, mut d_y] = [0; 2].map(|_| mode.many(poison, arguments[0].len()));
            self.backend().gate_backward(arguments, Some(mode.of(&mut d_x)), Some(mode.of(&mut d_y)))?;
            Ok((d_x, d_y))
        })
    }

    pub fn softmax_backward(
        &self,
        weights: &[f32],
        heads: usize,
        bags: &Bags<'_>,
        upstream: SoftmaxUpstream<'_>,
        mode: Mode,
    ) -> Check<Vec<f32>> {
        twice(|poison| {
            let mut d_scores = mode.many(poison, weights.len());
            self.backend().softmax_backward(weights, heads, bags, upstream, mode.of(&mut d_scores))?;
            Ok(d_scores)
        })
    }

    /// Of weights and of values.
    pub fn weighted_sum_backward<E: Element, O: Element>(
        &self,
        weights: &[f32],
        heads: usize,
        values: Values<'_, E>,
        bags: &Bags<'_>,
        d_pooled: &[O],
        mode: Mode,
    ) -> Check<(Vec<f32>, Vec<O>)> {
        let (Values::Shared(rows) | Values::PerHead(rows)) = values;
        twice(|poison| {
            let mut d_weights = mode.many(poison, weights.len());
            let mut d_values = mode.many(poison, rows.len() * rows.dim());
            let gradients =
                WeightedSumGradients { weights: Some(mode.of(&mut d_weights)), values: Some(mode.of(&mut d_values)) };
            self.backend().weighted_sum_backward(weights, heads, values, bags, d_pooled, gradients)?;
            Ok((d_weights, d_values))
        })
    }

    pub fn max_mean_backward<E: Element, O: Element>(
        &self,
        features: Rows<'_, E>,
        bags: &Bags<'_>,
        upstream: MaxMeanUpstream<'_, O>,
        mode: Mode,
    ) -> Check<Vec<O>> {
        twice(|poison| {
            let mut d_features = mode.many(poison, features.len() * features.dim());
            self.backend().max_mean_backward(features, bags, upstream, mode.of(&mut d_features))?;
            Ok(d_features)
        })
    }

    pub fn scores_backward<E: Element, G: Element>(
        &self,
        params: &AttentionParams,
        features: Rows<'_, E>,
        mask: Option<&[u8]>,
        activations: Option<&[E]>,
        d_scores: &[f32],
        mode: Mode,
    ) -> Check<ScoresBackward<G>> {
        let packed = self.backend().pack_backward(params, E::DTYPE);
        let both = twice(|poison| {
            let mut d_features = mode.many(poison, features.len() * features.dim());
            let mut d_params = ParamValues::new(params, |len| mode.many(poison, len));
            let gradients =
                ScoresGradients { features: Some(mode.of(&mut d_features)), params: d_params.gradients(mode) };
            self.backend().scores_backward(&packed, features, mask, activations, d_scores, gradients)?;
            Ok(ScoresBackward { features: d_features, params: d_params })
        })?;
        // The same without the others.
        let mut d_features = mode.many(Poison::NAN, both.features.len());
        let gradients = ScoresGradients { features: Some(mode.of(&mut d_features)), params: ParamGradients::default() };
        self.backend().scores_backward(&packed, features, mask, activations, d_scores, gradients)?;
        same("d_features alone", &d_features, &both.features)?;
        let mut d_params = ParamValues::new(params, |len| mode.many(Poison::NAN, len));
        let gradients = ScoresGradients::<f32> { features: None, params: d_params.gradients(mode) };
        self.backend().scores_backward(&packed, features, mask, activations, d_scores, gradients)?;
        same("parameters alone", &d_params, &both.params)?;
        Ok(both)
    }

    /// Pooled, weights and activations.
    pub fn attention_pool_keeping<E: Element>(
        &self,
        params: &AttentionParams,
        keys: Rows<'_, E>,
        bags: &Bags<'_>,
    ) -> Check<(Vec<f32>, Vec<f32>, Vec<E>)> {
        let packed = self.backend().pack(params, E::DTYPE);
        let heads = params.shape().heads;
        twice(|poison| {
            let mut pooled = poison.many(bags.len() * heads * keys.dim());
            let mut weights = poison.many(keys.len() * heads);
            let mut kept = poison.many(keys.len() * activations_len(params));
            let outputs =
                AttentionOutputs { pooled: &mut pooled, scores: None, weights: Some(&mut weights), lse: None };
            self.backend().attention_pool_keeping(&packed, keys, None, bags, outputs, &mut kept)?;
            Ok((pooled, weights, kept))
        })
    }

    /// Forward and backward. The backward gets NaN as the weights of masked instances, which it has no use for.
    pub fn attention_pool_backward<E: Element, O: Element>(
        &self,
        PoolCall { params, keys, values, bags, upstream, keeps, mode }: PoolCall<'_, E, O>,
    ) -> Check<PoolBackward<O>> {
        let (packed, backward) =
            (self.backend().pack(params, E::DTYPE), self.backend().pack_backward(params, E::DTYPE));
        let mut pooled = vec![0.0_f32; upstream.pooled.len()];
        let mut weights = vec![0.0; keys.len() * params.shape().heads];
        let mut kept = vec![E::default(); keys.len() * activations_len(params)];
        let outputs = AttentionOutputs { pooled: &mut pooled, scores: None, weights: Some(&mut weights), lse: None };
        if keeps {
            self.backend().attention_pool_keeping(&packed, keys, values, bags, outputs, &mut kept)?;
        } else {
            self.backend().attention_pool(&packed, keys, values, bags, outputs)?;
        }
        let heads = params.shape().heads;
        for (n, weights) in weights.chunks_mut(heads).enumerate() {
            if bags.mask().is_some_and(|mask| mask[n] == 0) {
                weights.fill(f32::NAN);
            }
        }
        let saved = Saved { weights: &weights, activations: keeps.then_some(&kept[..]) };
        twice(|poison| {
            let mut d_keys = mode.many(poison, keys.len() * keys.dim());
            let mut d_values = values.map(|values| mode.many(poison, values.len() * values.dim()));
            let mut d_params = ParamValues::new(params, |len| mode.many(poison, len));
            let scores = ScoresGradients { features: Some(mode.of(&mut d_keys)), params: d_params.gradients(mode) };
            let gradients = AttentionPoolGradients { scores, values: d_values.as_mut().map(|to| mode.of(to)) };
            let upstream = upstream.views();
            self.backend().attention_pool_backward(&backward, keys, values, bags, saved, upstream, gradients)?;
            Ok(PoolBackward { scores: ScoresBackward { features: d_keys, params: d_params }, values: d_values })
        })
    }
}

fn activations_len(params: &AttentionParams) -> usize {
    let shape = params.shape();
    shape.groups * shape.hidden * if params.is_gated() { 2 } else { 1 }
}

// ---- the oracle ----

pub fn gate<E: Element>([x, y, d_g]: [&[E]; 3]) -> [Expected; 2] {
    let oracle = reference::gate_backward(&f64s(x), &f64s(y), &exact(d_g));
    let naive = reference::gate_backward(&f32s(x), &f32s(y), &Bounded::exact(f32s(d_g)));
    [Expected { oracle: oracle.x, naive: naive.x }, Expected { oracle: oracle.y, naive: naive.y }]
}

pub fn softmax(weights: &[f32], heads: usize, bags: &Bags<'_>, upstream: SoftmaxUpstream<'_>) -> Expected {
    let SoftmaxUpstream { weights: d_weights, lse: d_lse } = upstream;
    let wide = [d_weights, d_lse].map(|gradient| gradient.map(exact));
    let narrow = [d_weights, d_lse].map(|gradient| gradient.map(|gradient| Bounded::exact(gradient.to_vec())));
    Expected {
        oracle: reference::softmax_backward(&exact(weights), heads, bags, wide[0].as_ref(), wide[1].as_ref()),
        naive: reference::softmax_backward(
            &Bounded::exact(weights.to_vec()),
            heads,
            bags,
            narrow[0].as_ref(),
            narrow[1].as_ref(),
        ),
    }
}

/// Of weights and of values.
pub fn weighted_sum<E: Element, O: Element>(
    weights: &[f32],
    heads: usize,
    values: Values<'_, E>,
    bags: &Bags<'_>,
    d_pooled: &[O],
) -> [Expected; 2] {
    let (Values::Shared(rows) | Values::PerHead(rows)) = values;
    let data = &dense(rows);
    let (wide, narrow) = (f64s(data), f32s(data));
    let oracle =
        reference::weighted_sum_backward(&exact(weights), heads, blocks(values, heads, &wide), bags, &exact(d_pooled));
    let naive = reference::weighted_sum_backward(
        &Bounded::exact(weights.to_vec()),
        heads,
        blocks(values, heads, &narrow),
        bags,
        &Bounded::exact(f32s(d_pooled)),
    );
    [Expected { oracle: oracle.weights, naive: naive.weights }, Expected { oracle: oracle.values, naive: naive.values }]
}

pub fn max_mean<E: Element, O: Element>(
    features: Rows<'_, E>,
    bags: &Bags<'_>,
    upstream: MaxMeanUpstream<'_, O>,
) -> Expected {
    let (data, dim) = (&dense(features), features.dim());
    let wide = [upstream.max, upstream.mean].map(|gradient| gradient.map(exact));
    let narrow = [upstream.max, upstream.mean].map(|gradient| gradient.map(|gradient| Bounded::exact(f32s(gradient))));
    Expected {
        oracle: reference::max_mean_backward(&f64s(data), dim, bags, wide[0].as_ref(), wide[1].as_ref()),
        naive: reference::max_mean_backward(&f32s(data), dim, bags, narrow[0].as_ref(), narrow[1].as_ref()),
    }
}

/// Of features and parameters.
pub struct ExpectedScores {
    pub features: Expected,
    pub params: [Option<Expected>; 6],
}

impl ExpectedScores {
    fn new(oracle: reference::ScoresGradients<f64>, naive: reference::ScoresGradients<f32>) -> Self {
        let tensors = [
            (Some(oracle.v), Some(naive.v)),
            (oracle.v_bias, naive.v_bias),
            (oracle.u, naive.u),
            (oracle.u_bias, naive.u_bias),
            (Some(oracle.w), Some(naive.w)),
            (oracle.w_bias, naive.w_bias),
        ];
        let params = tensors.map(|(oracle, naive)| Some(Expected { oracle: oracle?, naive: naive? }));
        ExpectedScores { features: Expected { oracle: oracle.features, naive: naive.features }, params }
    }

    pub fn check<G: Element>(&self, out: &ScoresBackward<G>) -> Check {
        self.features.check("d_features", &out.features)?;
        let expected = PARAMS.into_iter().zip(&self.params).filter_map(|(_, expected)| expected.as_ref());
        out.params.iter().zip(expected).try_for_each(|((name, values), expected)| expected.check(name, values))
    }
}

pub fn activations<E: Element>(params: &AttentionParams, features: Rows<'_, E>, mask: Option<&[u8]>) -> Expected {
    let (params, features) = (&rounded::<E>(params), &dense(features));
    Expected {
        oracle: reference::activations(params, &f64s(features), mask),
        naive: reference::activations(params, &f32s(features), mask),
    }
}

/// `activations` as a backend has kept them.
pub fn scores<E: Element>(
    params: &AttentionParams,
    features: Rows<'_, E>,
    mask: Option<&[u8]>,
    activations: Option<&[E]>,
    d_scores: &[f32],
) -> ExpectedScores {
    let (params, features) = (&rounded::<E>(params), &dense(features));
    let (wide, narrow) = (activations.map(f64s), activations.map(f32s));
    ExpectedScores::new(
        reference::scores_backward(params, &f64s(features), mask, wide.as_deref(), &exact(d_scores)),
        reference::scores_backward(
            params,
            &f32s(features),
            mask,
            narrow.as_deref(),
            &Bounded::exact(d_scores.to_vec()),
        ),
    )
}

pub struct ExpectedPool {
    pub scores: ExpectedScores,
    pub values: Option<Expected>,
}

impl ExpectedPool {
    pub fn check<G: Element>(&self, out: &PoolBackward<G>) -> Check {
        self.scores.check(&out.scores)?;
        match (&self.values, &out.values) {
            (Some(expected), Some(values)) => expected.check("d_values", values),
            _ => Ok(()),
        }
    }
}

pub fn attention_pool<E: Element, O: Element>(
    params: &AttentionParams,
    keys: Rows<'_, E>,
    values: Option<Rows<'_, E>>,
    bags: &Bags<'_>,
    upstream: &Upstream<O>,
) -> ExpectedPool {
    let (params, keys_are_values, dim) = (&rounded::<E>(params), values.is_none(), values.unwrap_or(keys).dim());
    let (keys, values) = (&dense(keys), &dense(values.unwrap_or(keys)));
    let Upstream { pooled, scores, weights, lse } = upstream;
    let oracle = {
        let [scores, weights, lse] = [scores, weights, lse].map(|it| it.as_deref().map(exact));
        let upstream = reference::AttentionPoolUpstream {
            pooled: &exact(pooled),
            scores: scores.as_ref(),
            weights: weights.as_ref(),
            lse: lse.as_ref(),
        };
        let values = reference::Values::Shared { rows: &f64s(values), dim };
        reference::attention_pool_backward(params, &f64s(keys), values, bags, None, upstream)
    };
    let naive = {
        let [scores, weights, lse] = [scores, weights, lse].map(|it| it.clone().map(Bounded::exact));
        let upstream = reference::AttentionPoolUpstream {
            pooled: &Bounded::exact(f32s(pooled)),
            scores: scores.as_ref(),
            weights: weights.as_ref(),
            lse: lse.as_ref(),
        };
        let values = reference::Values::Shared { rows: &f32s(values), dim };
        reference::attention_pool_backward(params, &f32s(keys), values, bags, None, upstream)
    };
    let mut scores = ExpectedScores::new(oracle.scores, naive.scores);
    if keys_are_values {
        add(&mut scores.features.oracle, &oracle.values);
        add(&mut scores.features.naive, &naive.values);
        return ExpectedPool { scores, values: None };
    }
    ExpectedPool { scores, values: Some(Expected { oracle: oracle.values, naive: naive.values }) }
}

fn add<R: Copy + std::ops::AddAssign>(to: &mut Bounded<R>, other: &Bounded<R>) {
    to.value.iter_mut().zip(&other.value).for_each(|(x, &y)| *x += y);
    to.scale.iter_mut().zip(&other.scale).for_each(|(x, &y)| *x += y);
}

fn exact<O: Element>(data: &[O]) -> Bounded<f64> {
    Bounded::exact(f64s(data))
}
