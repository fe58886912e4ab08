//! Images of several tokens each, pooled in the three ways.
//!
//! Run from the root of the repository with `cargo run --release --example tokens`.

use std::error::Error;

use mivc::{AttentionParams, AttentionShape, AttentionTensors, Bags, Device, Features, Pooled, Pooler, Pooling};

/// `T` tokens of `D` features per image, as a vision transformer gives them.
const TOKENS: usize = 4;
const DIM: usize = 16;
/// `L`.
const HIDDEN: usize = 8;

fn main() -> Result<(), Box<dyn Error>> {
    // 1. Five images in two bags: [N, T, D].
    let bags = Bags::from_lengths(&[3, 2])?;
    let images = bags.instances();
    let data = noise(images * TOKENS * DIM, 1.0);

    // 2. One weight per image. Something has to stand for the image when it is scored: here its first
    //    token (the class token of many encoders). All its tokens are then pooled with that weight.
    let keys: Vec<f32> = data.chunks_exact(TOKENS * DIM).flat_map(|image| image[..DIM].to_vec()).collect();
    let per_image = Features::per_image(&keys, DIM, &data, TOKENS, DIM)?;
    show("per image", pool(&per_image, &bags)?, &[2, 1, TOKENS, DIM], 2.0)?;

    // 3. One weight per image and token position: token t of the result comes from the tokens t alone.
    let per_position = Features::per_position(&data, TOKENS, DIM)?;
    show("per position", pool(&per_position, &bags)?, &[2, TOKENS, 1, DIM], 2.0 * TOKENS as f32)?;

    // 4. One weight per token: all tokens of all images of a bag end in one embedding.
    let all_tokens = Features::all_tokens(&data, TOKENS, DIM)?;
    show("all tokens", pool(&all_tokens, &bags)?, &[2, 1, DIM], 2.0)
}

fn pool(features: &Features<'_, f32>, bags: &Bags<'_>) -> mivc::Result<Pooled> {
    let (v, u, w) = (noise(HIDDEN * DIM, 0.5), noise(HIDDEN * DIM, -0.5), noise(HIDDEN, 1.0));
    let tensors = AttentionTensors { v: &v, u: Some(&u), w: &w, ..Default::default() };
    let params = AttentionParams::new(AttentionShape { dim: DIM, hidden: HIDDEN, heads: 1, groups: 1 }, tensors)?;
    Pooler::new(Pooling::Attention(params), Device::Cpu)?.pool(features, bags)
}

/// Prints shapes and a few weights, and checks the shape and that the weights of each bag add up to 1.
fn show(name: &str, pooled: Pooled, shape: &[usize], weight_sum: f32) -> Result<(), Box<dyn Error>> {
    let weights = pooled.weights.ok_or("attention returns weights")?;
    let few: Vec<String> = weights.data.iter().take(6).map(|weight| format!("{weight:.3}")).collect();
    println!("{name}: embeddings {:?}, weights {:?}: {} …", pooled.embeddings.shape, weights.shape, few.join(" "));

    if pooled.embeddings.shape != shape {
        return Err(format!("{name}: expected embeddings {shape:?}").into());
    }
    let sum: f32 = weights.data.iter().sum();
    if (sum - weight_sum).abs() > 1e-5 {
        return Err(format!("{name}: expected weights that add up to {weight_sum}, got {sum}").into());
    }
    Ok(())
}

fn noise(len: usize, scale: f32) -> Vec<f32> {
    (0..len).map(|index| scale * (index as f32 * 1.7).sin()).collect()
}
