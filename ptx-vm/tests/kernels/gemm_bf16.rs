use half::bf16;
use ptx_vm::FaultKind::{OutOfBounds, Race, UnfinishedCopy, Uninitialised};

use crate::Case;
use crate::inputs::small_f32;
use crate::machine::{Machine, Outcome, args, same};

pub const CASES: &[Case] = &[Case {
    kernel: "gemm_bf16",
    run: multiply,
    bugs: &[
        (1, &[OutOfBounds]),
        // The other warps have started their copies, have waited for them, or neither.
        (2, &[UnfinishedCopy, Race, Uninitialised]),
        (3, &[UnfinishedCopy, Race]),
        (6, &[UnfinishedCopy]),
    ],
}];

const SHARED_BYTES: u32 = 20480;

/// c = a bᵀ of whole numbers: exact in f32.
fn multiply(machine: &mut Machine) -> Outcome {
    let (m, n, k) = (61, 69, 128);
    let (mut a, mut b) = (small_f32(m * k), small_f32(n * k));
    b.reverse();
    // One row is cheap to get wrong: it does not look like the others.
    a[..k].fill(1.0);
    let bits = |values: &[f32]| values.iter().map(|&x| bf16::from_f32(x).to_bits()).collect::<Vec<_>>();
    let (a_in, b_in) = (machine.buffer("a", &bits(&a))?, machine.buffer("b", &bits(&b))?);
    let c = machine.output::<f32>("c", m * n)?;
    let grid = [n.div_ceil(64) as u32, m.div_ceil(64) as u32, 1];
    machine.launch(grid, 128, SHARED_BYTES, args![a_in, b_in, c, m as i32, n as i32, k as i32])?;

    let dot = |i: usize, j: usize| (0..k).map(|l| a[i * k + l] * b[j * k + l]).sum::<f32>();
    let expected: Vec<f32> = (0..m * n).map(|i| dot(i / n, i % n)).collect();
    same("c", &machine.read::<f32>(c)?, &expected)
}
