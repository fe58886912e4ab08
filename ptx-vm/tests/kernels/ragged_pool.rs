use ptx_vm::FaultKind::{DivergentBarrier, OutOfBounds, Race, Uninitialised};

use crate::Case;
use crate::inputs::{random_below, small_f32};
use crate::machine::{Machine, Outcome, args, close, same};

pub const CASES: &[Case] = &[Case {
    kernel: "ragged_pool",
    run: ragged_pool,
    bugs: &[
        (1, &[OutOfBounds]),
        // The score that is not waited for has been written, or not yet.
        (2, &[Race, Uninitialised]),
        (3, &[OutOfBounds]),
        (4, &[Race]),
        (5, &[Race]),
        (6, &[Race]),
        (7, &[DivergentBarrier]),
    ],
}];

fn ragged_pool(machine: &mut Machine) -> Outcome {
    let (bags, d) = (6, 256);
    let mut offsets = vec![0];
    for len in random_below(63, bags) {
        offsets.push(offsets[offsets.len() - 1] + len + 2);
    }
    let rows = offsets[bags] as usize;
    let x: Vec<f32> = small_f32(rows * d).into_iter().map(|x| x / 50.0).collect();
    let w: Vec<f32> = small_f32(d).into_iter().map(|w| w / 100.0).collect();

    let (x_in, w_in) = (machine.buffer("x", &x)?, machine.buffer("w", &w)?);
    let offsets_in = machine.buffer("offsets", &offsets)?;
    let out = machine.output::<f32>("out", bags * d)?;
    let rows_seen = machine.buffer("rows_seen", &[0u32])?;
    machine.launch(bags as u32, 256, 0, args![x_in, w_in, offsets_in, out, rows_seen, d as i32])?;

    let rows: Vec<&[f32]> = x.chunks(d).collect();
    let pooled = |range: &[i32]| pool(&rows[range[0] as usize..range[1] as usize], &w);
    close("out", &machine.read::<f32>(out)?, &offsets.windows(2).flat_map(pooled).collect::<Vec<_>>(), 1e-5)?;
    same("rows_seen", &machine.read::<u32>(rows_seen)?, &[rows.len() as u32])
}

/// Softmax pooling of one bag, in f64.
fn pool(rows: &[&[f32]], w: &[f32]) -> Vec<f32> {
    let dot = |row: &&[f32]| row.iter().zip(w).map(|(&x, &w)| x as f64 * w as f64).sum::<f64>();
    let scores: Vec<f64> = rows.iter().map(dot).collect();
    let greatest = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let weights: Vec<f64> = scores.iter().map(|score| (score - greatest).exp()).collect();
    let sum: f64 = weights.iter().sum();
    let column = |i: usize| rows.iter().zip(&weights).map(|(row, weight)| row[i] as f64 * weight / sum).sum::<f64>();
    (0..w.len()).map(|i| column(i) as f32).collect()
}
