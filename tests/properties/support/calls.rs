//! The operations of a backend, with outputs allocated. Each call is made twice, on outputs poisoned
//! in two ways: what differs was not written, or not decided by the inputs.

use mivc::cpu::{AttentionOutputs, MaxMeanOutputs, Values};
use mivc::{AttentionParams, Bags, Element, Rows};

use super::{Bits, Check, Subject, same};
use crate::backends::Backend;

/// weights `[N, K]`, lse `[B, K]`.
pub struct Softmax {
    pub weights: Vec<f32>,
    pub lse: Vec<f32>,
}

/// All `[B, D]`.
pub struct MaxMean<O> {
    pub max: Vec<O>,
    pub mean: Vec<O>,
    pub argmax: Vec<i64>,
}

/// pooled `[B, K, D]`, scores and weights `[N, K]`, lse `[B, K]`.
pub struct Pool<O> {
    pub pooled: Vec<O>,
    pub scores: Vec<f32>,
    pub weights: Vec<f32>,
    pub lse: Vec<f32>,
}

impl<B: Backend> Subject<B> {
    pub fn scores<E: Element>(
        &self,
        params: &AttentionParams,
        features: Rows<'_, E>,
        mask: Option<&[u8]>,
    ) -> Check<Vec<f32>> {
        let packed = self.backend.pack(params, E::DTYPE);
        twice(|poison| {
            let mut scores = poison.many(features.len() * params.shape().heads);
            self.backend.scores(&packed, features, mask, &mut scores)?;
            Ok(scores)
        })
    }

    pub fn gate<E: Element>(&self, x: &[E], y: &[E]) -> Check<Vec<E>> {
        twice(|poison| {
            let mut g = poison.many(x.len());
            self.backend.gate(x, y, &mut g)?;
            Ok(g)
        })
    }

    pub fn softmax(&self, scores: &[f32], heads: usize, bags: &Bags<'_>) -> Check<Softmax> {
        twice(|poison| {
            let mut weights = poison.many(bags.instances() * heads);
            let mut lse = poison.many(bags.len() * heads);
            self.backend.softmax(scores, heads, bags, &mut weights, &mut lse)?;
            Ok(Softmax { weights, lse })
        })
    }

    pub fn weighted_sum<E: Element, O: Element>(
        &self,
        weights: &[f32],
        heads: usize,
        values: Values<'_, E>,
        bags: &Bags<'_>,
    ) -> Check<Vec<O>> {
        let row = match values {
            Values::Shared(rows) => heads * rows.dim(),
            Values::PerHead(rows) => rows.dim(),
        };
        twice(|poison| {
            let mut pooled = poison.many(bags.len() * row);
            self.backend.weighted_sum(weights, heads, values, bags, &mut pooled)?;
            Ok(pooled)
        })
    }

    pub fn max_mean<E: Element, O: Element>(&self, features: Rows<'_, E>, bags: &Bags<'_>) -> Check<MaxMean<O>> {
        let len = bags.len() * features.dim();
        twice(|poison| {
            let (mut max, mut mean) = (poison.many(len), poison.many(len));
            let mut argmax = vec![poison.index; len];
            let outputs = MaxMeanOutputs { max: Some(&mut max), mean: Some(&mut mean), argmax: Some(&mut argmax) };
            self.backend.max_mean(features, bags, outputs)?;
            Ok(MaxMean { max, mean, argmax })
        })
    }

    pub fn attention_pool<E: Element, O: Element>(
        &self,
        params: &AttentionParams,
        keys: Rows<'_, E>,
        values: Option<Rows<'_, E>>,
        bags: &Bags<'_>,
    ) -> Check<Pool<O>> {
        let packed = self.backend.pack(params, E::DTYPE);
        let heads = params.shape().heads;
        let dim = values.unwrap_or(keys).dim();
        twice(|poison| {
            let mut pooled = poison.many(bags.len() * heads * dim);
            let mut scores = poison.many(bags.instances() * heads);
            let mut weights = poison.many(bags.instances() * heads);
            let mut lse = poison.many(bags.len() * heads);
            let outputs = AttentionOutputs {
                pooled: &mut pooled,
                scores: Some(&mut scores),
                weights: Some(&mut weights),
                lse: Some(&mut lse),
            };
            self.backend.attention_pool(&packed, keys, values, bags, outputs)?;
            Ok(Pool { pooled, scores, weights, lse })
        })
    }
}

/// What an output holds before it is written.
#[derive(Clone, Copy)]
pub(super) struct Poison {
    float: f32,
    index: i64,
}

impl Poison {
    pub(super) const NAN: Poison = Poison { float: f32::NAN, index: i64::MIN };

    pub(super) fn many<E: Element>(self, len: usize) -> Vec<E> {
        vec![E::from_f32(self.float); len]
    }
}

pub(super) fn twice<T: Bits>(call: impl Fn(Poison) -> mivc::Result<T>) -> Check<T> {
    let first = call(Poison::NAN)?;
    let second = call(Poison { float: 12345.0, index: 12345 })?;
    same("two calls on outputs poisoned in two ways", &first, &second)?;
    Ok(first)
}

impl Bits for Softmax {
    fn bits(&self) -> Vec<u64> {
        [self.weights.bits(), self.lse.bits()].concat()
    }
}

impl<O: Element> Bits for MaxMean<O> {
    fn bits(&self) -> Vec<u64> {
        let argmax = self.argmax.iter().map(|&row| row as u64).collect();
        [self.max.bits(), self.mean.bits(), argmax].concat()
    }
}

impl<O: Element> Bits for Pool<O> {
    fn bits(&self) -> Vec<u64> {
        [self.pooled.bits(), self.scores.bits(), self.weights.bits(), self.lse.bits()].concat()
    }
}
