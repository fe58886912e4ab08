//! One bag in pieces: where it does not fit the memory, or several machines share it.
//!
//! Run from the root of the repository with `cargo run --release --example pieces`.

use std::error::Error;

use mivc::{AttentionParams, Bags, Device, Features, PoolState, Pooler, Pooling};

const DIM: usize = 128;
const IMAGES: usize = 1000;
/// Images that are in memory at a time.
const PIECE: usize = 150;

fn main() -> Result<(), Box<dyn Error>> {
    let params = AttentionParams::load("examples/data/attention_gated.safetensors")?;
    let pooler = Pooler::new(Pooling::Attention(params), Device::Cpu)?;

    // 1. Two machines, each with a part of the bag. A state holds what has been seen: it starts empty, and takes in
    //    piece after piece.
    let (mut state, mut scores) = seen(&pooler, 0, 600)?;
    let (other, other_scores) = seen(&pooler, 600, IMAGES)?;

    // 2. The second sends its state as a file, and the first merges it. The embedding is there at any time.
    let file = other.to_safetensors()?;
    state.merge(&PoolState::from_safetensors(&file)?)?;
    println!("{} bytes of state from the second machine", file.len());

    // 3. Scores become weights once everything has been seen.
    scores.extend(other_scores);
    let bags = Bags::from_lengths(&[IMAGES as i64])?;
    let mut weights = vec![0.0; scores.len()];
    state.weights(&scores, &bags, &mut weights)?;

    // 4. All at once, it comes to the same.
    let images = images(0, IMAGES);
    let whole = pooler.pool(&Features::new(&images, DIM)?, &bags)?;
    let whole_weights = whole.weights.ok_or("attention returns weights")?.data;
    let apart = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    let (embedding, weight) = (apart(state.pooled(), &whole.embeddings.data), apart(&weights, &whole_weights));
    println!("in pieces and at once: embeddings {embedding:.0e} apart, weights {weight:.0e}");
    if embedding > 1e-6 || weight > 1e-6 {
        return Err("expected the same within rounding".into());
    }
    Ok(())
}

/// The state of the images from `first` to before `end`, and their scores.
fn seen(pooler: &Pooler, first: usize, end: usize) -> mivc::Result<(PoolState, Vec<f32>)> {
    let mut state = pooler.empty_state(&Features::<f32>::new(&[], DIM)?, 1)?;
    let mut scores = Vec::new();
    for start in (first..end).step_by(PIECE) {
        let images = images(start, end.min(start + PIECE));
        let features = Features::new(&images, DIM)?;
        let bags = Bags::from_lengths(&[features.images() as i64])?;
        scores.extend(pooler.pool_onto(&mut state, &features, &bags)?.data);
    }
    Ok((state, scores))
}

/// Images as an encoder, or a file, would give them.
fn images(first: usize, end: usize) -> Vec<f32> {
    (first * DIM..end * DIM).map(|index| (index as f32 * 0.37).sin()).collect()
}
