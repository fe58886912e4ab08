//! Encoder, pooling and classifier. All that concerns bags is done by mivc, forward and backward.

use clap::ValueEnum;
use mivc::cpu::{
    AttentionOutputs, AttentionPoolGradients, AttentionPoolUpstream, Cpu, MaxMeanOutputs, MaxMeanUpstream,
    ParamGradients, Saved, ScoresGradients,
};
use mivc::{AttentionParams, AttentionShape, AttentionTensors, Bags, Dtype, Gradient, Projection, Rows};

use crate::Result;
use crate::data::{Batch, PIXELS};
use crate::linear::{Linear, Parameter};
use crate::random::Random;

/// `D`, features of an image.
pub(crate) const FEATURES: usize = 128;
/// `L`, hidden units of the attention.
const HIDDEN: usize = 64;

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Fusion {
    Mean,
    Max,
    Attention,
    GatedAttention,
}

impl Fusion {
    pub(crate) const ALL: [Fusion; 4] = [Fusion::Mean, Fusion::Max, Fusion::Attention, Fusion::GatedAttention];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Fusion::Mean => "mean",
            Fusion::Max => "max",
            Fusion::Attention => "attention",
            Fusion::GatedAttention => "gated attention",
        }
    }

    pub(crate) fn is_attention(self) -> bool {
        matches!(self, Fusion::Attention | Fusion::GatedAttention)
    }
}

#[derive(Clone)]
pub(crate) struct Network {
    cpu: Cpu,
    pub(crate) fusion: Fusion,
    /// A ReLU follows.
    pub(crate) encoder: Linear,
    /// None where mean or max pools.
    pub(crate) attention: Option<Attention>,
    /// From what is pooled to a logit.
    pub(crate) classifier: Linear,
}

/// s = w · (tanh(V h) ⊙ σ(U h)), each with its bias; without the second factor where there is no U.
#[derive(Clone)]
pub(crate) struct Attention {
    pub(crate) v: Linear,
    pub(crate) u: Option<Linear>,
    pub(crate) w: Linear,
}

/// What a forward comes to, and what its backward needs.
pub(crate) struct Forward {
    /// h, `[N, D]`.
    pub(crate) features: Vec<f32>,
    /// z, `[B, D]`.
    pooled: Vec<f32>,
    /// None where mean or max pools.
    pub(crate) attended: Option<Attended>,
    /// `[B]`.
    pub(crate) logits: Vec<f32>,
}

pub(crate) struct Attended {
    /// Those that pooled.
    params: AttentionParams,
    /// `[N]`, as there is one head.
    pub(crate) weights: Vec<f32>,
    /// tanh and σ, as mivc keeps them.
    activations: Vec<f32>,
}

impl Network {
    /// With the same `random`, encoder and classifier start the same in all fusions, and V and w in both attentions.
    pub(crate) fn new(fusion: Fusion, random: &mut Random) -> Self {
        let encoder = Linear::new(PIXELS, FEATURES, random);
        let classifier = Linear::new(FEATURES, 1, random);
        let attention = fusion.is_attention().then(|| {
            let (v, w) = (Linear::new(FEATURES, HIDDEN, random), Linear::new(HIDDEN, 1, random));
            let u = (fusion == Fusion::GatedAttention).then(|| Linear::new(FEATURES, HIDDEN, random));
            Attention { v, u, w }
        });
        Network { cpu: Cpu::detect(), fusion, encoder, attention, classifier }
    }

    /// Always in the same order.
    pub(crate) fn parameters_mut(&mut self) -> Vec<&mut Parameter> {
        let mut parameters = Vec::new();
        parameters.extend(self.encoder.parameters_mut());
        if let Some(Attention { v, u, w }) = &mut self.attention {
            parameters.extend(v.parameters_mut());
            parameters.extend(u.iter_mut().flat_map(Linear::parameters_mut));
            parameters.extend(w.parameters_mut());
        }
        parameters.extend(self.classifier.parameters_mut());
        parameters
    }

    pub(crate) fn forward(&self, batch: &Batch) -> Result<Forward> {
        let mut features = self.encoder.forward(&batch.pixels);
        features.iter_mut().for_each(|h| *h = h.max(0.0));
        let (pooled, attended) = self.pool(&features, &batch.bags)?;
        let logits = self.classifier.forward(&pooled);
        Ok(Forward { features, pooled, attended, logits })
    }

    /// Sets the gradients of all parameters and returns the loss: binary cross-entropy, mean over the bags.
    pub(crate) fn backward(&mut self, batch: &Batch, forward: &Forward) -> Result<f64> {
        let (loss, d_logits) = cross_entropy(&forward.logits, &batch.labels);
        self.classifier.backward(&forward.pooled, &d_logits);
        let d_pooled = self.classifier.backward_input(&d_logits);

        let mut d_features = self.pool_backward(&batch.bags, forward, &d_pooled)?;
        // The ReLU.
        for (d, &h) in d_features.iter_mut().zip(&forward.features) {
            *d = if h > 0.0 { *d } else { 0.0 };
        }
        self.encoder.backward(&batch.pixels, &d_features);
        Ok(loss)
    }

    /// Features `[N, D]` → pooled `[B, D]`.
    fn pool(&self, features: &[f32], bags: &Bags<'_>) -> Result<(Vec<f32>, Option<Attended>)> {
        let rows = Rows::new(features, FEATURES)?;
        let mut pooled = vec![0.0; bags.len() * FEATURES];
        let Some(attention) = &self.attention else {
            let outputs = match self.fusion {
                Fusion::Max => MaxMeanOutputs { max: Some(&mut pooled[..]), ..Default::default() },
                _ => MaxMeanOutputs { mean: Some(&mut pooled[..]), ..Default::default() },
            };
            self.cpu.max_mean(rows, bags, outputs)?;
            return Ok((pooled, None));
        };
        let params = attention.params()?;
        let packed = self.cpu.pack(&params, Dtype::F32);
        let mut weights = vec![0.0; rows.len()];
        let mut activations = vec![0.0; rows.len() * packed.activations()];
        let outputs = AttentionOutputs { pooled: &mut pooled, scores: None, weights: Some(&mut weights), lse: None };
        self.cpu.attention_pool_keeping(&packed, rows, None, bags, outputs, &mut activations)?;
        Ok((pooled, Some(Attended { params, weights, activations })))
    }

    /// Sets the gradients of the attention, where there is one, and returns that of the features, `[N, D]`.
    fn pool_backward(&mut self, bags: &Bags<'_>, forward: &Forward, d_pooled: &[f32]) -> Result<Vec<f32>> {
        let rows = Rows::new(&forward.features, FEATURES)?;
        let mut d_features = vec![0.0; forward.features.len()];
        let (Some(attention), Some(attended)) = (&mut self.attention, &forward.attended) else {
            let upstream = match self.fusion {
                Fusion::Max => MaxMeanUpstream { max: Some(d_pooled), mean: None },
                _ => MaxMeanUpstream { max: None, mean: Some(d_pooled) },
            };
            self.cpu.max_mean_backward(rows, bags, upstream, Gradient::Set(&mut d_features))?;
            return Ok(d_features);
        };
        let packed = self.cpu.pack_backward(&attended.params, Dtype::F32);
        let saved = Saved { weights: &attended.weights, activations: Some(&attended.activations) };
        let upstream = AttentionPoolUpstream { pooled: Some(d_pooled), ..Default::default() };
        let features = Some(Gradient::Set(&mut d_features[..]));
        let scores = ScoresGradients { features, params: attention.gradients() };
        let gradients = AttentionPoolGradients { scores, values: None };
        self.cpu.attention_pool_backward(&packed, rows, None, bags, saved, upstream, gradients)?;
        Ok(d_features)
    }
}

impl Attention {
    /// As mivc takes them.
    fn params(&self) -> mivc::Result<AttentionParams> {
        let tensors = AttentionTensors {
            v: &self.v.weight.values,
            v_bias: Some(&self.v.bias.values),
            u: self.u.as_ref().map(|u| &u.weight.values[..]),
            u_bias: self.u.as_ref().map(|u| &u.bias.values[..]),
            w: &self.w.weight.values,
            w_bias: Some(&self.w.bias.values),
        };
        AttentionParams::new(AttentionShape { dim: FEATURES, hidden: HIDDEN, heads: 1, groups: 1 }, tensors)
    }

    /// Where mivc writes the gradients.
    fn gradients(&mut self) -> ParamGradients<'_> {
        let Attention { v, u, w } = self;
        let (u, u_bias) = u.as_mut().map(|u| (&mut u.weight, &mut u.bias)).unzip();
        ParamGradients {
            v: set(&mut v.weight),
            v_bias: set(&mut v.bias),
            u: u.and_then(set),
            u_bias: u_bias.and_then(set),
            w: set(&mut w.weight),
            w_bias: set(&mut w.bias),
        }
    }
}

fn set(parameter: &mut Parameter) -> Option<Gradient<'_, f32>> {
    Some(Gradient::Set(&mut parameter.gradient))
}

/// The attention with the encoder in front, as a checkpoint holds them.
pub(crate) fn checkpoint_params(encoder: &Linear, attention: &Attention) -> mivc::Result<AttentionParams> {
    let (weight, bias) = (encoder.weight.values.clone(), encoder.bias.values.clone());
    attention.params()?.with_projection(Projection::new(encoder.inputs, weight, Some(bias))?)
}

pub(crate) fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + (-x).exp())
}

/// Its mean over the bags, and the gradient of that, `[B]`.
fn cross_entropy(logits: &[f32], labels: &[bool]) -> (f64, Vec<f32>) {
    let mut loss = 0.0;
    let mut d_logits = Vec::new();
    for (&x, &label) in logits.iter().zip(labels) {
        d_logits.push((sigmoid(x) - f32::from(label)) / labels.len() as f32);
        // −y ln σ(x) − (1 − y) ln(1 − σ(x)), in a form that no x is too large for.
        let (x, y) = (f64::from(x), f64::from(label));
        loss += x.max(0.0) - x * y + (-x.abs()).exp().ln_1p();
    }
    (loss / labels.len() as f64, d_logits)
}
