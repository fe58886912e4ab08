//! Backward of attention pool: of the weighted sum, the softmax and the scores, one after the other.
//!
//! Features are read twice: for the gradients of the weights, which the softmax then needs of whole bags, and for those
//! of everything else. Where they are pooled themselves, what they have as values is added when they are written.

use super::super::Cpu;
use super::super::weighted_sum::Values;
use super::packed::PackedBackward;
use super::scores::{PooledShare, Scored, ScoresGradients};
use super::softmax::{self, SoftmaxUpstream};
use super::target::Target;
use super::{scores, weighted_sum};
use crate::bags::Bags;
use crate::element::Element;
use crate::error::{Error, Result, expect_len};
use crate::gradient::Gradient;
use crate::order::Order;
use crate::rows::Rows;

/// What the forward of attention pool leaves for its backward.
#[derive(Debug, Clone, Copy)]
pub struct Saved<'a, E> {
    /// `[N, K]`.
    pub weights: &'a [f32],
    /// As [`Cpu::attention_pool_keeping`] has kept them; without them they are computed again.
    pub activations: Option<&'a [E]>,
}

/// The gradients of what attention pool returns, of each that the loss depends on.
#[derive(Debug, Clone, Copy, Default)]
pub struct AttentionPoolUpstream<'a, O> {
    /// `[B, K, D]`.
    pub pooled: Option<&'a [O]>,
    /// `[N, K]`.
    pub scores: Option<&'a [f32]>,
    /// `[N, K]`.
    pub weights: Option<&'a [f32]>,
    /// `[B, K]`.
    pub lse: Option<&'a [f32]>,
}

/// What [`Cpu::attention_pool_backward`] writes.
#[derive(Debug)]
pub struct AttentionPoolGradients<'a, G> {
    /// Of the keys, `[N, D']`, and of the parameters. Where the keys are pooled themselves, their gradient has both parts.
    pub scores: ScoresGradients<'a, G>,
    /// Of the values, `[N, D]`, where they are not the keys.
    pub values: Option<Gradient<'a, G>>,
}

impl Cpu {
    /// Backward of [`attention_pool`](Self::attention_pool): keys, values, what the forward saved and the gradients of
    /// its outputs → the gradients of keys, values and parameters.
    ///
    /// Formulas and edge cases are those of
    /// [`reference::attention_pool_backward`](crate::reference::attention_pool_backward). The parameters must not be
    /// packed behind a projection in the forward.
    ///
    /// The working memory is twice `[N, K]`, and `[B, K, D]` where the gradient of the pooled is not f32; for each thread
    /// tiles of 126 instances and of their activations, twice each; and sums like the parameters, padded to whole
    /// vectors, of which a thread has one for each level of the tree over the instances, a thousand of them a leaf.
    ///
    /// ```
    /// use mivc::cpu::{
    ///     AttentionOutputs, AttentionPoolGradients, AttentionPoolUpstream, Cpu, ParamGradients, Saved, ScoresGradients,
    /// };
    /// use mivc::{AttentionParams, Bags, Dtype, Gradient, Rows};
    ///
    /// let params = AttentionParams::load("examples/data/attention_gated.safetensors")?;
    /// let (cpu, bags) = (Cpu::detect(), Bags::from_lengths(&[3, 2])?);
    /// let features: Vec<f32> = (0..5 * 128).map(|i| (i % 7) as f32).collect();
    /// let keys = Rows::new(&features, 128)?;
    ///
    /// let (mut pooled, mut weights) = (vec![0.0_f32; 2 * 128], vec![0.0; 5]);
    /// let outputs = AttentionOutputs { pooled: &mut pooled, scores: None, weights: Some(&mut weights), lse: None };
    /// cpu.attention_pool(&cpu.pack(&params, Dtype::F32), keys, None, &bags, outputs)?;
    ///
    /// // Of the loss Σ z².
    /// let d_pooled: Vec<f32> = pooled.iter().map(|z| 2.0 * z).collect();
    /// let upstream = AttentionPoolUpstream { pooled: Some(&d_pooled), ..Default::default() };
    /// let mut d_w = vec![0.0; params.tensors().w.len()];
    /// let mut d_features = vec![0.0_f32; features.len()];
    /// let gradients = AttentionPoolGradients {
    ///     scores: ScoresGradients {
    ///         features: Some(Gradient::Set(&mut d_features)),
    ///         params: ParamGradients { w: Some(Gradient::Set(&mut d_w)), ..Default::default() },
    ///     },
    ///     values: None,
    /// };
    /// let packed = cpu.pack_backward(&params, Dtype::F32);
    /// let saved = Saved { weights: &weights, activations: None };
    /// cpu.attention_pool_backward(&packed, keys, None, &bags, saved, upstream, gradients)?;
    /// assert!(d_w.iter().any(|x| *x != 0.0));
    /// # Ok::<(), mivc::Error>(())
    /// ```
    ///
    /// # Errors
    /// As of the forward; where a slice is not of the length that its shape asks for, or a gradient is asked for of a
    /// parameter or of values that are not there.
    #[expect(clippy::too_many_arguments, reason = "those of the forward, and three groups")]
    pub fn attention_pool_backward<E: Element, O: Element, G: Element>(
        &self,
        packed: &PackedBackward,
        keys: Rows<'_, E>,
        values: Option<Rows<'_, E>>,
        bags: &Bags<'_>,
        saved: Saved<'_, E>,
        upstream: AttentionPoolUpstream<'_, O>,
        gradients: AttentionPoolGradients<'_, G>,
    ) -> Result<()> {
        packed.expect(*self, "keys", &keys, saved.activations)?;
        bags.expect_instances(keys.len())?;
        packed.expect_gradients(keys.len(), &gradients.scores)?;
        let pooled_rows = values.unwrap_or(keys);
        let (instances, heads) = (keys.len(), packed.shape().heads);
        let elements = instances.saturating_mul(pooled_rows.dim());
        expect_len("values", "[N, D]", elements, pooled_rows.len().saturating_mul(pooled_rows.dim()))?;
        if gradients.values.is_some() && values.is_none() {
            return Err(Error::argument("d_values", "none, as the keys are pooled", "one"));
        }
        Gradient::expect_len(&gradients.values, "d_values", "[N, D]", elements)?;
        let (weights, bag_heads) = (instances.saturating_mul(heads), bags.len().saturating_mul(heads));
        expect_len("weights", "[N, K]", weights, saved.weights.len())?;
        let pooled = bag_heads.saturating_mul(pooled_rows.dim());
        expect_len("d_pooled", "[B, K, D]", pooled, upstream.pooled.map_or(pooled, <[O]>::len))?;
        for (name, shape, expected, slice) in [
            ("d_scores", "[N, K]", weights, upstream.scores),
            ("d_weights", "[N, K]", weights, upstream.weights),
            ("d_lse", "[B, K]", bag_heads, upstream.lse),
        ] {
            expect_len(name, shape, expected, slice.map_or(expected, <[f32]>::len))?;
        }
        let AttentionPoolUpstream { pooled, scores, weights, lse } = upstream;
        let d_pooled = pooled.map(O::f32s);
        let outputs = Upstream { pooled: d_pooled.as_deref(), scores, weights, lse };
        let call = Call { order: self.order(), keys, values, bags, saved, upstream: outputs };
        let ScoresGradients { features, params } = gradients.scores;
        let targets = [features.map(Target::new), gradients.values.map(Target::new)];
        E::attention_pool_backward(packed, call, targets, params);
        Ok(())
    }
}

type Upstream<'a> = AttentionPoolUpstream<'a, f32>;

/// The arguments of a backward.
pub struct Call<'a, E> {
    order: Order,
    keys: Rows<'a, E>,
    values: Option<Rows<'a, E>>,
    bags: &'a Bags<'a>,
    saved: Saved<'a, E>,
    upstream: Upstream<'a>,
}

/// `d_keys` and `d_values`.
pub(in crate::cpu) fn run<E: Element>(
    packed: &PackedBackward,
    call: Call<'_, E>,
    [d_keys, d_values]: [Option<Target<'_>>; 2],
    params: scores::ParamGradients<'_>,
) {
    let Call { order, keys, values, bags, saved, upstream } = call;
    let heads = packed.shape().heads;
    let mut d_weights = upstream.weights.map_or_else(|| vec![0.0; saved.weights.len()], <[f32]>::to_vec);
    if let Some(d_pooled) = upstream.pooled {
        let targets = [Some(Target::new(Gradient::Add(&mut d_weights))), d_values];
        let values = Values::Shared(values.unwrap_or(keys));
        weighted_sum::run(packed.cpu(), saved.weights, heads, values, bags, d_pooled, targets);
    } else if let Some(mut d_values) = d_values {
        d_values.write_zeros(0..values.map_or(0, |values| values.len() * values.dim()));
    }
    let mut d_scores = upstream.scores.map_or_else(|| vec![0.0; saved.weights.len()], <[f32]>::to_vec);
    let of_weights = SoftmaxUpstream { weights: Some(&d_weights), lse: upstream.lse };
    softmax::run(order, saved.weights, heads, bags, of_weights, Gradient::Add(&mut d_scores));

    let pooled = upstream.pooled.filter(|_| values.is_none());
    let pooled = pooled.map(|d_pooled| PooledShare { weights: saved.weights, d_pooled, bags });
    let scored = Scored {
        features: keys,
        mask: bags.mask(),
        activations: saved.activations,
        d_scores: &d_scores,
        pooled,
        order,
    };
    scores::run(packed, scored, d_keys, params);
}
