//! A step of training on the CPU: attention pool that keeps its activations, and its backward.

use std::time::Instant;

use mivc::cpu::{
    AttentionOutputs, AttentionPoolGradients, AttentionPoolUpstream, Cpu, PackedAttention, PackedBackward,
    ParamGradients, Saved, ScoresGradients,
};
use mivc::{AttentionParams, Element, Gradient, Rows};

use super::{Features, Outcome};

pub struct Step<E> {
    cpu: Cpu,
    packed: PackedAttention,
    packed_backward: PackedBackward,
    features: Features<E>,
    d_pooled: Vec<E>,
    pooled: Vec<E>,
    weights: Vec<f32>,
    activations: Vec<E>,
    d_features: Vec<E>,
    /// Of V, U, w and their biases; empty where there is none.
    d_params: [Vec<f32>; 6],
}

impl<E: Element> Step<E> {
    /// `d_pooled` is `[B, D]`.
    pub fn new(features: Features<E>, params: &AttentionParams, d_pooled: Vec<E>) -> Self {
        let cpu = Cpu::detect();
        let packed = cpu.pack(params, E::DTYPE);
        let instances = features.bags.instances();
        let it = params.tensors();
        let tensors = [Some(it.v), it.v_bias, it.u, it.u_bias, Some(it.w), it.w_bias];
        Step {
            cpu,
            packed_backward: cpu.pack_backward(params, E::DTYPE),
            pooled: vec![E::default(); d_pooled.len()],
            d_pooled,
            weights: vec![0.0; instances],
            activations: vec![E::default(); instances * packed.activations()],
            packed,
            d_features: vec![E::default(); features.data.len()],
            d_params: tensors.map(|tensor| vec![0.0; tensor.map_or(0, <[f32]>::len)]),
            features,
        }
    }

    /// Seconds of the forward and of the backward.
    pub fn run(&mut self) -> Outcome<[f64; 2]> {
        let keys = Rows::new(&self.features.data, self.features.dim)?;
        let bags = &self.features.bags;
        let start = Instant::now();
        let outputs =
            AttentionOutputs { pooled: &mut self.pooled, scores: None, weights: Some(&mut self.weights), lse: None };
        self.cpu.attention_pool_keeping(&self.packed, keys, None, bags, outputs, &mut self.activations)?;
        let forward = start.elapsed().as_secs_f64();

        let start = Instant::now();
        let [v, v_bias, u, u_bias, w, w_bias] = self.d_params.each_mut().map(|to| set_if_there(to));
        let params = ParamGradients { v, v_bias, u, u_bias, w, w_bias };
        let scores = ScoresGradients { features: Some(Gradient::Set(&mut self.d_features)), params };
        self.cpu.attention_pool_backward(
            &self.packed_backward,
            keys,
            None,
            bags,
            Saved { weights: &self.weights, activations: Some(&self.activations) },
            AttentionPoolUpstream { pooled: Some(&self.d_pooled), ..Default::default() },
            AttentionPoolGradients { scores, values: None },
        )?;
        Ok([forward, start.elapsed().as_secs_f64()])
    }

    /// Of the features, then of the parameters in the order of their names in `train.py`.
    pub fn gradients(&self) -> Vec<f32> {
        let features = self.d_features.iter().map(|x| x.to_f32());
        features.chain(self.d_params.iter().flatten().copied()).collect()
    }
}

fn set_if_there(to: &mut [f32]) -> Option<Gradient<'_, f32>> {
    (!to.is_empty()).then_some(Gradient::Set(to))
}
