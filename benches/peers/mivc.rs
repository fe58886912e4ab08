//! This library's side of the comparison. Speaks the protocol described in `run.py`, and with `--train` that of `train.py`.

#[cfg(feature = "cuda")]
mod mivc_cuda;
mod mivc_train;

use std::error::Error;
use std::io::{Write, stdin, stdout};
use std::time::Instant;

use half::bf16;
use half::vec::HalfBitsVecExt;
use mivc::cpu::{AttentionOutputs, Cpu, MaxMeanOutputs, PackedAttention};
use mivc::{AttentionParams, AttentionShape, AttentionTensors, Bags, Element, Rows};
use safetensors::{Dtype, SafeTensors};

type Outcome<T> = Result<T, Box<dyn Error>>;

const USAGE: &str = "usage: mivc-peer [--device cpu|cuda] FEATURES [PARAMETERS], or mivc-peer --train OPERATION TYPE INPUTS [PARAMETERS]";

/// Uniform bags `[B, n, D]`.
struct Features<E> {
    data: Vec<E>,
    dim: usize,
    bags: Bags<'static>,
}

/// Attention pool → `[B, D]`, or without parameters max and mean → `[2, B, D]`; all in the type of the features.
trait Operation {
    /// Runs it, and gives the seconds that one run takes.
    fn run(&mut self) -> Outcome<f64>;

    /// What the last run gave.
    fn pooled(&self) -> Outcome<Vec<f32>>;
}

fn main() -> Outcome<()> {
    let mut arguments = std::env::args().skip(1).peekable();
    if arguments.next_if(|argument| argument == "--train").is_some() {
        return mivc_train::main(arguments);
    }
    let device = arguments.next_if(|argument| argument == "--device").and_then(|_| arguments.next());
    let path = arguments.next().ok_or(USAGE)?;
    let params = arguments.next().map(attention_params).transpose()?;

    let file = std::fs::read(path)?;
    let tensors = SafeTensors::deserialize(&file)?;
    let features = tensors.tensor("features")?;
    let &[bags, length, dim] = features.shape() else { return Err("features: expected [B, n, D]".into()) };
    let bags = Bags::from_lengths(&vec![i64::try_from(length)?; bags])?;
    match features.dtype() {
        Dtype::F32 => {
            let data = bytemuck::pod_collect_to_vec::<u8, f32>(features.data());
            drop(file);
            serve(device.as_deref(), Features { data, dim, bags }, params)
        }
        Dtype::BF16 => {
            let data = bytemuck::pod_collect_to_vec::<u8, u16>(features.data()).reinterpret_into::<bf16>();
            drop(file);
            serve(device.as_deref(), Features { data, dim, bags }, params)
        }
        other => Err(format!("features: expected F32 or BF16, got {other:?}").into()),
    }
}

fn attention_params(path: String) -> Outcome<AttentionParams> {
    let file = std::fs::read(path)?;
    let tensors = SafeTensors::deserialize(&file)?;
    let read = |name: &str| tensors.tensor(name).ok().map(|view| bytemuck::pod_collect_to_vec::<u8, f32>(view.data()));
    let &[hidden, dim] = tensors.tensor("v")?.shape() else { return Err("v: expected [L, D]".into()) };
    let (v, u, w) = (read("v").unwrap_or_default(), read("u"), read("w").unwrap_or_default());
    let (v_bias, u_bias, w_bias) = (read("v_bias"), read("u_bias"), read("w_bias"));
    let tensors = AttentionTensors {
        v: &v,
        v_bias: v_bias.as_deref(),
        u: u.as_deref(),
        u_bias: u_bias.as_deref(),
        w: &w,
        w_bias: w_bias.as_deref(),
    };
    Ok(AttentionParams::new(AttentionShape { dim, hidden, heads: 1, groups: 1 }, tensors)?)
}

fn serve<E: Element>(device: Option<&str>, features: Features<E>, params: Option<AttentionParams>) -> Outcome<()> {
    let mut operation: Box<dyn Operation> = match device {
        None | Some("cpu") => Box::new(OnCpu::new(features, params)),
        #[cfg(feature = "cuda")]
        Some("cuda") => mivc_cuda::operation(features, params)?,
        #[cfg(not(feature = "cuda"))]
        Some("cuda") => return Err("built without the feature cuda".into()),
        _ => return Err(USAGE.into()),
    };
    for line in stdin().lines() {
        let seconds = operation.run()?;
        if let Some(path) = line?.strip_prefix("save ") {
            std::fs::write(path, bytemuck::cast_slice(&operation.pooled()?))?;
        }
        println!("{seconds:e}");
        stdout().flush()?;
    }
    Ok(())
}

struct OnCpu<E> {
    cpu: Cpu,
    packed: Option<PackedAttention>,
    features: Features<E>,
    pooled: Vec<E>,
}

impl<E: Element> OnCpu<E> {
    fn new(features: Features<E>, params: Option<AttentionParams>) -> Self {
        let cpu = Cpu::detect();
        let packed = params.map(|params| cpu.pack(&params, E::DTYPE));
        let pooled = vec![E::default(); features.bags.len() * features.dim * if packed.is_some() { 1 } else { 2 }];
        OnCpu { cpu, packed, features, pooled }
    }

    fn pool(&mut self) -> mivc::Result<()> {
        let OnCpu { cpu, packed, features: Features { data, dim, bags }, pooled } = self;
        let rows = Rows::new(data, *dim)?;
        if let Some(packed) = packed {
            let outputs = AttentionOutputs { pooled, scores: None, weights: None, lse: None };
            return cpu.attention_pool(packed, rows, None, bags, outputs);
        }
        let middle = pooled.len() / 2;
        let (max, mean) = pooled.split_at_mut(middle);
        cpu.max_mean(rows, bags, MaxMeanOutputs { max: Some(max), mean: Some(mean), argmax: None })
    }
}

impl<E: Element> Operation for OnCpu<E> {
    fn run(&mut self) -> Outcome<f64> {
        let start = Instant::now();
        self.pool()?;
        Ok(start.elapsed().as_secs_f64())
    }

    fn pooled(&self) -> Outcome<Vec<f32>> {
        Ok(self.pooled.iter().map(|x| x.to_f32()).collect())
    }
}
