//! What is kept of a network: a checkpoint in AMLab's key layout and the features of the held-out bags, as
//! safetensors that `mivc pool` reads, and a picture.

use std::fs;
use std::path::Path;

use mivc::AttentionParams;
use safetensors::serialize;
use safetensors::tensor::{Dtype, TensorView};

use crate::Result;
use crate::data::{Batch, Data, SIDE};
use crate::linear::Linear;
use crate::network::{Attention, FEATURES, Forward, Fusion, Network, checkpoint_params};
use crate::plot;
use crate::training::Run;

/// Writes the three files and prints the command that pools with them.
pub(crate) fn save(out: &Path, run: &Run, data: &Data) -> Result<()> {
    fs::create_dir_all(out)?;
    let (kind, pooling) = match run.fusion {
        Fusion::GatedAttention => ("gated", "gated-attention"),
        _ => ("ungated", "attention"),
    };
    let checkpoint = out.join(format!("attention_{kind}.safetensors"));
    let bags = out.join(format!("bags_{kind}.safetensors"));
    let picture = out.join(format!("attention_{kind}.png"));

    save_checkpoint(&checkpoint, &run.network)?;
    let forward = run.network.forward(&data.test)?;
    save_bags(&bags, &data.test, &forward)?;
    plot::draw(&picture, run.fusion, &data.test, &forward)?;

    println!("{}: {}; pool with its checkpoint:", run.fusion.name(), picture.display());
    println!(
        "  cargo run --release --features cli -- pool {} --pooling {pooling} --params {} --top 3",
        bags.display(),
        checkpoint.display()
    );
    Ok(())
}

/// Nothing is written of a network without attention.
pub(crate) fn save_checkpoint(path: &Path, network: &Network) -> Result<()> {
    let Some(attention) = &network.attention else { return Ok(()) };
    let Attention { v, u, w } = attention;
    let mut layers = vec![("feature_extractor.0", &network.encoder), ("classifier.0", &network.classifier)];
    match u {
        Some(u) => layers.extend([("attention_V.0", v), ("attention_U.0", u), ("attention_w", w)]),
        None => layers.extend([("attention.0", v), ("attention.2", w)]),
    }
    let tensors: Vec<_> = layers.into_iter().map(|(name, layer)| tensors(name, layer)).collect::<Result<_>>()?;
    fs::write(path, serialize(tensors.into_iter().flatten(), None)?)?;

    if AttentionParams::load(path)? != checkpoint_params(&network.encoder, attention)? {
        return Err(format!("{}: read back, it is not what was saved", path.display()).into());
    }
    Ok(())
}

/// Weight `[outputs, inputs]` and bias `[outputs]`, as PyTorch's Linear has them.
fn tensors<'a>(name: &str, layer: &'a Linear) -> Result<[(String, TensorView<'a>); 2]> {
    let tensor = |shape, values: &'a [f32]| TensorView::new(Dtype::F32, shape, bytemuck::cast_slice(values));
    Ok([
        (format!("{name}.weight"), tensor(vec![layer.outputs, layer.inputs], &layer.weight.values)?),
        (format!("{name}.bias"), tensor(vec![layer.outputs], &layer.bias.values)?),
    ])
}

/// As `examples/data/bags_gated.safetensors`.
pub(crate) fn save_bags(path: &Path, batch: &Batch, forward: &Forward) -> Result<()> {
    let (instances, offsets) = (batch.bags.instances(), batch.bags.offsets());
    let labels: Vec<u8> = batch.labels.iter().map(|&label| label.into()).collect();
    let features = bytemuck::cast_slice(&forward.features);
    let tensors = [
        ("features", TensorView::new(Dtype::F32, vec![instances, FEATURES], features)?),
        ("offsets", TensorView::new(Dtype::I64, vec![offsets.len()], bytemuck::cast_slice(offsets))?),
        ("labels", TensorView::new(Dtype::U8, vec![labels.len()], &labels)?),
        ("digits", TensorView::new(Dtype::U8, vec![instances], &batch.digits)?),
        ("images", TensorView::new(Dtype::U8, vec![instances, SIDE, SIDE], &batch.images)?),
    ];
    Ok(fs::write(path, serialize(tensors, None)?)?)
}
