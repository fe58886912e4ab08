use half::bf16;
use ptx_vm::FaultKind::{
    AbsentBlock, Deadlock, MissingFence, Race, Undefined, UnfinishedCopy, UnfinishedMultiply, Uninitialised,
};
use ptx_vm::{Swizzle, TensorMap};

use crate::Case;
use crate::inputs::small_f32;
use crate::machine::{Buffer, Machine, Map, Outcome, args, same};

pub const CASES: &[Case] = &[Case {
    kernel: "gemm",
    run: multiply,
    bugs: &[
        (1, &[UnfinishedCopy, Race, Uninitialised]),
        (2, &[UnfinishedCopy, Race, Undefined]),
        (3, &[Deadlock]),
        (4, &[Race]),
        (5, &[UnfinishedMultiply]),
        (6, &[Deadlock]),
        (7, &[AbsentBlock]),
        (8, &[UnfinishedCopy, Race, Uninitialised, Deadlock]),
        (9, &[MissingFence]),
        (10, &[Race, UnfinishedCopy]),
        (11, &[AbsentBlock]),
    ],
}];

const SHARED_BYTES: u32 = 99328;

/// c = a bᵀ of whole numbers: exact in f32.
fn multiply(machine: &mut Machine) -> Outcome {
    let (m, n, k) = (200, 136, 312);
    let (mut a, mut b) = (small_f32(m * k), small_f32(n * k));
    b.reverse();
    a[..k].fill(1.0);
    let bits = |values: &[f32]| values.iter().map(|&x| bf16::from_f32(x).to_bits()).collect::<Vec<_>>();
    let (a_in, b_in) = (machine.buffer("a", &bits(&a))?, machine.buffer("b", &bits(&b))?);
    let (map_a, map_b) = (map(machine, a_in, m, k)?, map(machine, b_in, n, k)?);
    let c = machine.output::<f32>("c", m * n)?;
    let grid = [n.div_ceil(128) as u32, 2 * m.div_ceil(256) as u32, 1];
    machine.launch(grid, 384, SHARED_BYTES, args![map_a, map_b, c, m as i32, n as i32, k as i32])?;

    let dot = |i: usize, j: usize| (0..k).map(|l| a[i * k + l] * b[j * k + l]).sum::<f32>();
    let expected: Vec<f32> = (0..m * n).map(|i| dot(i / n, i % n)).collect();
    same("c", &machine.read::<f32>(c)?, &expected)
}

fn map(machine: &Machine, matrix: Buffer, rows: usize, columns: usize) -> Outcome<Map> {
    let map = TensorMap {
        element_bytes: 2,
        address: 0,
        dims: vec![columns as u64, rows as u64],
        strides: vec![2 * columns as u64],
        block: vec![64, 64],
        swizzle: Swizzle::B128,
    };
    machine.tensor_map(matrix, map)
}
