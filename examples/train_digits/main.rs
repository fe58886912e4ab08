//! Trains an encoder, a fusion and a classifier to tell which bag of handwritten digits holds a 9, from labels of whole
//! bags, and compares the four fusions.
//!
//! Run from the root of the repository with `cargo run --release --features cli --example train_digits`. The data is
//! described in `examples/data/README.md`.
//!
//! The network is that of `examples/digits.rs`: Linear+ReLU from 64 pixels to 128 features, the fusion, and a Linear to
//! one logit. Each fusion is trained with the same recipe, from the same starts, on the same bags in the same order:
//!
//! * pixels divided by 16, as the features of the PyTorch checkpoints say that they were;
//! * weights and biases start uniform within 1 / √inputs, as PyTorch's Linear does;
//! * binary cross-entropy, one bag to a step, 12 epochs, the bags shuffled for each;
//! * Adam with rate 5e-4, betas 0.9 and 0.999, ε 1e-8 and L2 weight decay 1e-4 on all parameters, biases too;
//! * no dropout, no schedule, no early stopping: the last step counts.
//!
//! It is the recipe of the PyTorch checkpoints, with PyTorch's defaults where nothing more is known of it, and was not
//! tuned to a fusion or to the held-out bags.
//!
//! Forward and backward of the fusions are mivc's operations (`network.rs`); encoder and classifier are plain loops
//! (`linear.rs`), and so is Adam (`adam.rs`).

mod adam;
mod data;
mod files;
mod linear;
mod network;
mod plot;
mod random;
mod report;
#[cfg(test)]
mod tests;
mod training;

use std::error::Error;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use clap::Parser;
use indicatif::{ProgressBar, ProgressStyle};
use rayon::prelude::*;

use crate::data::Data;
use crate::network::Fusion;
use crate::training::{EPOCHS, Run, train};

/// Errors cross threads, as several networks are trained at a time.
type Result<T, E = Box<dyn Error + Send + Sync>> = std::result::Result<T, E>;

/// Trains on bags of handwritten digits and compares the fusions.
#[derive(Parser)]
struct Arguments {
    /// Networks of each fusion, from the seeds 0, 1, …
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..))]
    seeds: u64,
    /// This fusion alone
    #[arg(long, value_name = "NAME")]
    fusion: Option<Fusion>,
    /// Where checkpoints, features of the held-out bags and pictures go
    #[arg(long, value_name = "FOLDER", default_value = "target/train_digits")]
    out: PathBuf,
}

fn main() -> Result<()> {
    let Arguments { seeds, fusion, out } = Arguments::parse();
    let fusions = fusion.map_or(Fusion::ALL.to_vec(), |fusion| vec![fusion]);
    let data = Data::load()?;

    let start = Instant::now();
    let runs = train_all(&fusions, seeds, &data)?;
    let plural = if runs.len() == 1 { "" } else { "s" };
    println!("{} network{plural} trained in {:.1} s", runs.len(), start.elapsed().as_secs_f64());

    println!("\n{}", report::table(&runs));
    print!("{}", report::findings(&runs));
    // The first seed, not the one that came out best.
    for run in runs.iter().filter(|run| run.fusion.is_attention() && run.seed == 0) {
        files::save(&out, run, &data)?;
    }
    Ok(())
}

/// On all threads. A network does not depend on those beside it.
fn train_all(fusions: &[Fusion], seeds: u64, data: &Data) -> Result<Vec<Run>> {
    let jobs: Vec<_> = fusions.iter().flat_map(|&fusion| (0..seeds).map(move |seed| (fusion, seed))).collect();
    let style = ProgressStyle::with_template("training {bar:40} epoch {pos} of {len}, {eta} left")?;
    let bar = ProgressBar::new((jobs.len() * EPOCHS) as u64).with_style(style);
    bar.enable_steady_tick(Duration::from_millis(500));
    let runs = jobs.into_par_iter().map(|(fusion, seed)| train(fusion, seed, EPOCHS, data, &bar)).collect();
    bar.finish_and_clear();
    runs
}
