//! candle's side of the comparison: attention pooling and max/mean as tensor programs.
//!
//! Speaks the protocol described in `../run.py`.

use std::collections::HashMap;
use std::error::Error;
use std::io::{Write, stdin, stdout};
use std::path::Path;
use std::time::Instant;

use candle_core::{DType, Device, Tensor, safetensors};
use candle_nn::ops::{sigmoid, softmax_last_dim};
use candle_nn::{Linear, Module};

/// V, U and w as layers, in the features' type.
struct Attention {
    v: Linear,
    u: Option<Linear>,
    w: Linear,
}

impl Attention {
    fn new(tensors: &HashMap<String, Tensor>, dtype: DType) -> candle_core::Result<Self> {
        let layer = |name: &str| -> candle_core::Result<Option<Linear>> {
            let Some(weight) = tensors.get(name) else { return Ok(None) };
            let bias = &tensors[&format!("{name}_bias")];
            Ok(Some(Linear::new(weight.to_dtype(dtype)?, Some(bias.to_dtype(dtype)?))))
        };
        let required = |name: &str| layer(name)?.ok_or_else(|| candle_core::Error::msg(format!("no {name}")));
        Ok(Attention { v: required("v")?, u: layer("u")?, w: required("w")? })
    }

    /// `[B, n, D]` → `[B, D]`.
    fn pool(&self, features: &Tensor) -> candle_core::Result<Tensor> {
        let instances = features.flatten(0, 1)?;
        let mut hidden = self.v.forward(&instances)?.tanh()?;
        if let Some(u) = &self.u {
            hidden = (hidden * sigmoid(&u.forward(&instances)?)?)?;
        }
        let (bags, length, _) = features.dims3()?;
        let scores = self.w.forward(&hidden)?.reshape((bags, 1, length))?;
        // In f32 whatever the features are: candle sums in the type of the tensor, and 100,000 bf16
        // exponentials do not add up.
        let weights = softmax_last_dim(&scores.to_dtype(DType::F32)?)?;
        weights.to_dtype(features.dtype())?.matmul(features)?.squeeze(1)
    }
}

/// `[B, n, D]` → `[2, B, D]`, the maxima and the means.
fn max_mean(features: &Tensor) -> candle_core::Result<Tensor> {
    // The mean in f32 for the reason given above.
    let mean = features.to_dtype(DType::F32)?.mean(1)?.to_dtype(features.dtype())?;
    Tensor::stack(&[features.max(1)?, mean], 0)
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let tensor_file = |index: usize| {
        let path = arguments.get(index).ok_or("usage: mivc-peer-candle FEATURES [PARAMETERS]")?;
        Ok::<_, Box<dyn Error>>(safetensors::load(Path::new(path), &Device::Cpu)?)
    };
    let features = tensor_file(0)?.remove("features").ok_or("no features")?;
    let attention = match arguments.len() {
        1 => None,
        _ => Some(Attention::new(&tensor_file(1)?, features.dtype())?),
    };
    let operation = || match &attention {
        Some(attention) => attention.pool(&features),
        None => max_mean(&features),
    };

    for line in stdin().lines() {
        let start = Instant::now();
        let output = operation()?;
        let seconds = start.elapsed().as_secs_f64();
        if let Some(path) = line?.strip_prefix("save ") {
            let values = output.to_dtype(DType::F32)?.flatten_all()?.to_vec1::<f32>()?;
            std::fs::write(path, values.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<u8>>())?;
        }
        // Freed before the next program's turn, not during it.
        drop(output);
        println!("{seconds:e}");
        stdout().flush()?;
    }
    Ok(())
}
