//! The same bits in whatever order the images come, and from whatever pieces a bag was pooled.
//!
//! `cargo run --example exact`

use mivc::{AttentionParams, Bags, Device, Features, Order, Pooler, Pooling};

const IMAGES: usize = 500;
const DIM: usize = 128;

fn main() -> mivc::Result<()> {
    let params = AttentionParams::load("examples/data/attention_gated.safetensors")?;
    let pooler = Pooler::new(Pooling::Attention(params), Device::Cpu)?.with_order(Order::Exact);
    let bag = Bags::from_lengths(&[IMAGES as i64])?;

    let images: Vec<f32> = (0..IMAGES * DIM).map(|i| (i as f32 * 0.37).sin()).collect();
    let shuffled: Vec<f32> = (0..IMAGES).flat_map(|i| image(&images, i * 77 % IMAGES)).copied().collect();
    let one = pooler.pool(&Features::new(&images, DIM)?, &bag)?.embeddings;
    let other = pooler.pool(&Features::new(&shuffled, DIM)?, &bag)?.embeddings;
    assert_eq!(one, other);

    // Two states, merged: of the last images, and of the first.
    let mut states = Vec::new();
    for piece in [&images[300 * DIM..], &images[..300 * DIM]] {
        let features = Features::new(piece, DIM)?;
        let mut state = pooler.empty_state(&features, 1)?;
        pooler.pool_onto(&mut state, &features, &Bags::from_lengths(&[features.images() as i64])?)?;
        states.push(state);
    }
    let (merged, rest) = states.split_at_mut(1);
    merged[0].merge(&rest[0])?;
    assert_eq!(merged[0].pooled(), one.data);

    println!(
        "{IMAGES} images in two orders and in two pieces: the same bits. First of {DIM} features: {}",
        one.data[0]
    );
    Ok(())
}

fn image(images: &[f32], i: usize) -> &[f32] {
    &images[i * DIM..(i + 1) * DIM]
}
