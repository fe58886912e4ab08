//! From features to one embedding per bag.
//!
//! Run from the root of the repository with `cargo run --release --example quickstart`.

use std::error::Error;

use mivc::{AttentionParams, Bags, Device, Features, Pooler, Pooling};

fn main() -> Result<(), Box<dyn Error>> {
    // 1. Features: one embedding of 128 numbers for each of 50 images, from an encoder of your own.
    let dim = 128;
    let data: Vec<f32> = (0..50 * dim).map(|index| (index as f32 * 0.37).sin()).collect();
    let features = Features::new(&data, dim)?;

    // 2. Bags: the first 12 images belong together, then 7, then 31.
    let bags = Bags::from_lengths(&[12, 7, 31])?;

    // 3. Learned parameters: gated because the file has a U.
    let params = AttentionParams::load("examples/data/attention_gated.safetensors")?;

    // 4. The front door.
    let pooler = Pooler::new(Pooling::Attention(params), Device::Cpu)?;
    let out = pooler.pool(&features, &bags)?;

    // 5. One embedding per bag and head, [B, K, D], and one weight per image and head, [N, K].
    println!("embeddings {:?}", out.embeddings.shape);
    let weights = out.weights.ok_or("attention returns weights")?;
    for (bag, range) in bags.ranges().enumerate() {
        let sum: f32 = weights.data[range.clone()].iter().sum();
        println!("bag {bag}: {} images, weights add up to {sum:.6}", range.len());
        if (sum - 1.0).abs() > 1e-5 {
            return Err(format!("the weights of bag {bag} add up to {sum}").into());
        }
    }
    Ok(())
}
