//! This library's side of the comparison. Speaks the protocol described in `run.py`.

use std::error::Error;
use std::io::{Write, stdin, stdout};
use std::time::Instant;

use half::bf16;
use half::vec::HalfBitsVecExt;
use mivc::cpu::{AttentionOutputs, Cpu, MaxMeanOutputs, PackedAttention};
use mivc::{AttentionParams, AttentionShape, AttentionTensors, Bags, Element, Rows};
use safetensors::{Dtype, SafeTensors};

/// Uniform bags `[B, n, D]`.
struct Features<E> {
    data: Vec<E>,
    dim: usize,
    bags: Bags<'static>,
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let path = arguments.next().ok_or("usage: mivc-peer FEATURES [PARAMETERS]")?;
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
            serve(Features { data, dim, bags }, params)
        }
        Dtype::BF16 => {
            let data = bytemuck::pod_collect_to_vec::<u8, u16>(features.data()).reinterpret_into::<bf16>();
            drop(file);
            serve(Features { data, dim, bags }, params)
        }
        other => Err(format!("features: expected F32 or BF16, got {other:?}").into()),
    }
}

fn attention_params(path: String) -> Result<AttentionParams, Box<dyn Error>> {
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

fn serve<E: Element>(features: Features<E>, params: Option<AttentionParams>) -> Result<(), Box<dyn Error>> {
    let cpu = Cpu::detect();
    let packed = params.map(|params| cpu.pack(&params, E::DTYPE));
    let mut pooled = vec![E::default(); features.bags.len() * features.dim * if packed.is_some() { 1 } else { 2 }];

    for line in stdin().lines() {
        let start = Instant::now();
        run(&cpu, packed.as_ref(), &features, &mut pooled)?;
        let seconds = start.elapsed().as_secs_f64();
        if let Some(path) = line?.strip_prefix("save ") {
            std::fs::write(path, pooled.iter().flat_map(|x| x.to_f32().to_le_bytes()).collect::<Vec<u8>>())?;
        }
        println!("{seconds:e}");
        stdout().flush()?;
    }
    Ok(())
}

/// Attention pool → `[B, D]`, or without parameters max and mean → `[2, B, D]`.
fn run<E: Element>(
    cpu: &Cpu,
    packed: Option<&PackedAttention>,
    features: &Features<E>,
    pooled: &mut [E],
) -> mivc::Result<()> {
    let rows = Rows::new(&features.data, features.dim)?;
    if let Some(packed) = packed {
        let outputs = AttentionOutputs { pooled, scores: None, weights: None, lse: None };
        return cpu.attention_pool(packed, rows, None, &features.bags, outputs);
    }
    let (max, mean) = pooled.split_at_mut(pooled.len() / 2);
    cpu.max_mean(rows, &features.bags, MaxMeanOutputs { max: Some(max), mean: Some(mean), argmax: None })
}
