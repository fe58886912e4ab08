//! Steps of training on the CPU: an operation, keeping what its backward needs, and its backward with every gradient.

use std::io::{Write, stdin, stdout};
use std::time::Instant;

use half::bf16;
use mivc::cpu::{
    AttentionOutputs, AttentionPoolGradients, AttentionPoolUpstream, Cpu, MaxMeanOutputs, MaxMeanUpstream,
    PackedAttention, PackedBackward, ParamGradients, Saved, ScoresGradients, SoftmaxUpstream, Values,
    WeightedSumGradients,
};
use mivc::{AttentionParams, Bags, Element, Gradient, Rows};
use safetensors::{Dtype, SafeTensors};

use super::{Outcome, USAGE, attention_params};

/// One operation on inputs of its own.
trait Step {
    fn forward(&mut self) -> mivc::Result<()>;
    fn backward(&mut self) -> mivc::Result<()>;

    /// What the last backward gave, in the order of `train.py`.
    fn gradients(&self) -> Vec<f32>;
}

/// Speaks the protocol of `train.py`. Arguments: an operation, a type, inputs, and where it has some, parameters.
pub fn main(mut arguments: impl Iterator<Item = String>) -> Outcome<()> {
    let (operation, dtype, inputs) = (arguments.next(), arguments.next(), arguments.next());
    let (operation, file) = (operation.ok_or(USAGE)?, std::fs::read(inputs.ok_or(USAGE)?)?);
    let params = arguments.next().map(attention_params).transpose()?;
    let tensors = SafeTensors::deserialize(&file)?;
    let step = match dtype.as_deref() {
        Some("f32") => step::<f32>(&operation, &tensors, params)?,
        Some("bf16") => step::<bf16>(&operation, &tensors, params)?,
        _ => return Err(USAGE.into()),
    };
    serve(step)
}

fn step<E: Element>(
    operation: &str,
    tensors: &SafeTensors<'_>,
    params: Option<AttentionParams>,
) -> Outcome<Box<dyn Step>> {
    let cpu = Cpu::detect();
    let upstream = |name| read::<E>(tensors, name);
    Ok(match operation {
        "gated-attention" | "attention" => {
            Box::new(AttentionStep::new(cpu, features(tensors)?, &params.ok_or(USAGE)?, upstream("d_pooled")?))
        }
        "scores" => {
            let d_scores = read(tensors, "d_scores")?;
            Box::new(ScoresStep::new(cpu, features::<E>(tensors)?, &params.ok_or(USAGE)?, d_scores))
        }
        "max-mean" => Box::new(MaxMeanStep::new(cpu, features(tensors)?, [upstream("d_max")?, upstream("d_mean")?])),
        "weighted-sum" => {
            let weights = read(tensors, "weights")?;
            Box::new(WeightedSumStep::new(cpu, features(tensors)?, weights, upstream("d_pooled")?))
        }
        "softmax" => {
            let bags = bags(tensors, "scores")?;
            Box::new(SoftmaxStep::new(cpu, bags, read(tensors, "scores")?, read(tensors, "d_weights")?))
        }
        "gate" => Box::new(GateStep::new(cpu, upstream("x")?, upstream("y")?, upstream("d_g")?)),
        _ => return Err(USAGE.into()),
    })
}

fn serve(mut step: Box<dyn Step>) -> Outcome<()> {
    for line in stdin().lines() {
        let start = Instant::now();
        step.forward()?;
        let forward = start.elapsed().as_secs_f64();
        let start = Instant::now();
        step.backward()?;
        let backward = start.elapsed().as_secs_f64();
        if let Some(path) = line?.strip_prefix("save ") {
            std::fs::write(path, bytemuck::cast_slice(&step.gradients()))?;
        }
        println!("{forward:e} {backward:e}");
        stdout().flush()?;
    }
    Ok(())
}

/// A tensor of any shape.
fn read<E: Element>(tensors: &SafeTensors<'_>, name: &str) -> Outcome<Vec<E>> {
    let view = tensors.tensor(name)?;
    match view.dtype() {
        Dtype::F32 => Ok(view.data().chunks_exact(4).map(|x| E::from_f32(bytemuck::pod_read_unaligned(x))).collect()),
        Dtype::BF16 => {
            let widened = |x| bf16::from_bits(bytemuck::pod_read_unaligned(x)).to_f32();
            Ok(view.data().chunks_exact(2).map(|x| E::from_f32(widened(x))).collect())
        }
        other => Err(format!("{name}: expected F32 or BF16, got {other:?}").into()),
    }
}

/// Uniform bags of a tensor `[B, n, …]`.
fn bags(tensors: &SafeTensors<'_>, name: &str) -> Outcome<Bags<'static>> {
    let view = tensors.tensor(name)?;
    let &[bags, length, _] = view.shape() else { return Err(format!("{name}: expected three dimensions").into()) };
    Ok(Bags::from_lengths(&vec![i64::try_from(length)?; bags])?)
}

/// `[B, n, D]`.
struct Features<E> {
    data: Vec<E>,
    dim: usize,
    bags: Bags<'static>,
    /// Their gradient.
    d_data: Vec<E>,
}

fn features<E: Element>(tensors: &SafeTensors<'_>) -> Outcome<Features<E>> {
    let (data, bags) = (read::<E>(tensors, "features")?, bags(tensors, "features")?);
    let dim = tensors.tensor("features")?.shape()[2];
    Ok(Features { d_data: vec![E::default(); data.len()], data, dim, bags })
}

impl<E: Element> Features<E> {
    fn d_data(&self) -> impl Iterator<Item = f32> {
        self.d_data.iter().map(|x| x.to_f32())
    }
}

/// Gradients of V, U, w and their biases; empty where there is none.
struct Params([Vec<f32>; 6]);

impl Params {
    fn new(params: &AttentionParams) -> Self {
        let it = params.tensors();
        let tensors = [Some(it.v), it.v_bias, it.u, it.u_bias, Some(it.w), it.w_bias];
        Params(tensors.map(|tensor| vec![0.0; tensor.map_or(0, <[f32]>::len)]))
    }

    fn gradients(&mut self) -> ParamGradients<'_> {
        let set_if_there = |to| Some(Gradient::Set(to)).filter(|to| !matches!(to, Gradient::Set([])));
        let [v, v_bias, u, u_bias, w, w_bias] = self.0.each_mut().map(|to| set_if_there(&mut to[..]));
        ParamGradients { v, v_bias, u, u_bias, w, w_bias }
    }
}

struct AttentionStep<E> {
    cpu: Cpu,
    packed: PackedAttention,
    packed_backward: PackedBackward,
    features: Features<E>,
    d_pooled: Vec<E>,
    pooled: Vec<E>,
    weights: Vec<f32>,
    activations: Vec<E>,
    d_params: Params,
}

impl<E: Element> AttentionStep<E> {
    fn new(cpu: Cpu, features: Features<E>, params: &AttentionParams, d_pooled: Vec<E>) -> Self {
        let packed = cpu.pack(params, E::DTYPE);
        let instances = features.bags.instances();
        AttentionStep {
            cpu,
            packed_backward: cpu.pack_backward(params, E::DTYPE),
            pooled: vec![E::default(); d_pooled.len()],
            d_pooled,
            weights: vec![0.0; instances],
            activations: vec![E::default(); instances * packed.activations()],
            packed,
            d_params: Params::new(params),
            features,
        }
    }
}

impl<E: Element> Step for AttentionStep<E> {
    fn forward(&mut self) -> mivc::Result<()> {
        let Features { data, dim, bags, .. } = &self.features;
        let outputs =
            AttentionOutputs { pooled: &mut self.pooled, scores: None, weights: Some(&mut self.weights), lse: None };
        let keys = Rows::new(data, *dim)?;
        self.cpu.attention_pool_keeping(&self.packed, keys, None, bags, outputs, &mut self.activations)
    }

    fn backward(&mut self) -> mivc::Result<()> {
        let Features { data, dim, bags, d_data } = &mut self.features;
        let scores = ScoresGradients { features: Some(Gradient::Set(d_data)), params: self.d_params.gradients() };
        self.cpu.attention_pool_backward(
            &self.packed_backward,
            Rows::new(data, *dim)?,
            None,
            bags,
            Saved { weights: &self.weights, activations: Some(&self.activations) },
            AttentionPoolUpstream { pooled: Some(&self.d_pooled), ..Default::default() },
            AttentionPoolGradients { scores, values: None },
        )
    }

    fn gradients(&self) -> Vec<f32> {
        self.features.d_data().chain(self.d_params.0.iter().flatten().copied()).collect()
    }
}

struct ScoresStep<E> {
    cpu: Cpu,
    packed: PackedAttention,
    packed_backward: PackedBackward,
    features: Features<E>,
    d_scores: Vec<f32>,
    scores: Vec<f32>,
    activations: Vec<E>,
    d_params: Params,
}

impl<E: Element> ScoresStep<E> {
    fn new(cpu: Cpu, features: Features<E>, params: &AttentionParams, d_scores: Vec<f32>) -> Self {
        let packed = cpu.pack(params, E::DTYPE);
        ScoresStep {
            cpu,
            packed_backward: cpu.pack_backward(params, E::DTYPE),
            scores: vec![0.0; d_scores.len()],
            d_scores,
            activations: vec![E::default(); features.bags.instances() * packed.activations()],
            packed,
            d_params: Params::new(params),
            features,
        }
    }
}

impl<E: Element> Step for ScoresStep<E> {
    fn forward(&mut self) -> mivc::Result<()> {
        let rows = Rows::new(&self.features.data, self.features.dim)?;
        self.cpu.scores_keeping(&self.packed, rows, None, &mut self.scores, &mut self.activations)
    }

    fn backward(&mut self) -> mivc::Result<()> {
        let Features { data, dim, d_data, .. } = &mut self.features;
        let gradients = ScoresGradients { features: Some(Gradient::Set(d_data)), params: self.d_params.gradients() };
        let (rows, kept) = (Rows::new(data, *dim)?, Some(&self.activations[..]));
        self.cpu.scores_backward(&self.packed_backward, rows, None, kept, &self.d_scores, gradients)
    }

    fn gradients(&self) -> Vec<f32> {
        self.features.d_data().chain(self.d_params.0.iter().flatten().copied()).collect()
    }
}

struct MaxMeanStep<E> {
    cpu: Cpu,
    features: Features<E>,
    /// Of max and of mean.
    upstream: [Vec<E>; 2],
    outputs: [Vec<E>; 2],
}

impl<E: Element> MaxMeanStep<E> {
    fn new(cpu: Cpu, features: Features<E>, upstream: [Vec<E>; 2]) -> Self {
        MaxMeanStep { cpu, features, outputs: upstream.clone(), upstream }
    }
}

impl<E: Element> Step for MaxMeanStep<E> {
    fn forward(&mut self) -> mivc::Result<()> {
        let Features { data, dim, bags, .. } = &self.features;
        let [max, mean] = &mut self.outputs;
        let outputs = MaxMeanOutputs { max: Some(max), mean: Some(mean), argmax: None };
        self.cpu.max_mean(Rows::new(data, *dim)?, bags, outputs)
    }

    fn backward(&mut self) -> mivc::Result<()> {
        let Features { data, dim, bags, d_data } = &mut self.features;
        let [max, mean] = &self.upstream;
        let upstream = MaxMeanUpstream { max: Some(max), mean: Some(mean) };
        self.cpu.max_mean_backward(Rows::new(data, *dim)?, bags, upstream, Gradient::Set(d_data))
    }

    fn gradients(&self) -> Vec<f32> {
        self.features.d_data().collect()
    }
}

struct WeightedSumStep<E> {
    cpu: Cpu,
    features: Features<E>,
    weights: Vec<f32>,
    d_pooled: Vec<E>,
    pooled: Vec<E>,
    d_weights: Vec<f32>,
}

impl<E: Element> WeightedSumStep<E> {
    fn new(cpu: Cpu, features: Features<E>, weights: Vec<f32>, d_pooled: Vec<E>) -> Self {
        WeightedSumStep { cpu, features, pooled: d_pooled.clone(), d_pooled, d_weights: weights.clone(), weights }
    }
}

impl<E: Element> Step for WeightedSumStep<E> {
    fn forward(&mut self) -> mivc::Result<()> {
        let Features { data, dim, bags, .. } = &self.features;
        let values = Values::Shared(Rows::new(data, *dim)?);
        self.cpu.weighted_sum(&self.weights, 1, values, bags, &mut self.pooled)
    }

    fn backward(&mut self) -> mivc::Result<()> {
        let Features { data, dim, bags, d_data } = &mut self.features;
        let (weights, values) = (Some(Gradient::Set(&mut self.d_weights[..])), Some(Gradient::Set(&mut d_data[..])));
        let gradients = WeightedSumGradients { weights, values };
        let values = Values::Shared(Rows::new(data, *dim)?);
        self.cpu.weighted_sum_backward(&self.weights, 1, values, bags, &self.d_pooled, gradients)
    }

    fn gradients(&self) -> Vec<f32> {
        self.d_weights.iter().copied().chain(self.features.d_data()).collect()
    }
}

struct SoftmaxStep {
    cpu: Cpu,
    bags: Bags<'static>,
    scores: Vec<f32>,
    d_weights: Vec<f32>,
    weights: Vec<f32>,
    lse: Vec<f32>,
    d_scores: Vec<f32>,
}

impl SoftmaxStep {
    fn new(cpu: Cpu, bags: Bags<'static>, scores: Vec<f32>, d_weights: Vec<f32>) -> Self {
        let lse = vec![0.0; bags.len()];
        SoftmaxStep { cpu, bags, weights: scores.clone(), d_scores: scores.clone(), scores, d_weights, lse }
    }
}

impl Step for SoftmaxStep {
    fn forward(&mut self) -> mivc::Result<()> {
        self.cpu.softmax(&self.scores, 1, &self.bags, &mut self.weights, &mut self.lse)
    }

    fn backward(&mut self) -> mivc::Result<()> {
        let upstream = SoftmaxUpstream { weights: Some(&self.d_weights), lse: None };
        self.cpu.softmax_backward(&self.weights, 1, &self.bags, upstream, Gradient::Set(&mut self.d_scores))
    }

    fn gradients(&self) -> Vec<f32> {
        self.d_scores.clone()
    }
}

struct GateStep<E> {
    cpu: Cpu,
    x: Vec<E>,
    y: Vec<E>,
    d_g: Vec<E>,
    g: Vec<E>,
    d_x: Vec<E>,
    d_y: Vec<E>,
}

impl<E: Element> GateStep<E> {
    fn new(cpu: Cpu, x: Vec<E>, y: Vec<E>, d_g: Vec<E>) -> Self {
        GateStep { cpu, g: x.clone(), d_x: x.clone(), d_y: x.clone(), x, y, d_g }
    }
}

impl<E: Element> Step for GateStep<E> {
    fn forward(&mut self) -> mivc::Result<()> {
        self.cpu.gate(&self.x, &self.y, &mut self.g)
    }

    fn backward(&mut self) -> mivc::Result<()> {
        let [d_x, d_y] = [&mut self.d_x, &mut self.d_y].map(|to| Some(Gradient::Set(&mut to[..])));
        self.cpu.gate_backward(&self.x, &self.y, &self.d_g, d_x, d_y)
    }

    fn gradients(&self) -> Vec<f32> {
        self.d_x.iter().chain(&self.d_y).map(|x| x.to_f32()).collect()
    }
}
