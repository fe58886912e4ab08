use half::bf16;
use ptx_vm::FaultKind::{Deadlock, MissingFence, OutOfBounds, Race, Undefined, UnfinishedMultiply, Uninitialised};

use crate::Case;
use crate::inputs::small_f32;
use crate::machine::{Machine, Outcome, args, same};

pub const CASES: &[Case] = &[Case {
    kernel: "products",
    run: products,
    bugs: &[
        (1, &[MissingFence]),
        (2, &[Race, Uninitialised, MissingFence]),
        (3, &[MissingFence]),
        (4, &[UnfinishedMultiply]),
        (5, &[UnfinishedMultiply]),
        (6, &[Race]),
        (7, &[OutOfBounds, Uninitialised]),
        (8, &[UnfinishedMultiply]),
        (9, &[Race]),
        (10, &[Deadlock]),
        (11, &[Undefined]),
    ],
}];

/// Two sums of 16 products each, of whole numbers.
fn products(machine: &mut Machine) -> Outcome {
    let (a, mut b) = (small_f32(2 * 64 * 16), small_f32(2 * 8 * 16));
    b.reverse();
    let bits = |values: &[f32]| values.iter().map(|&x| bf16::from_f32(x).to_bits()).collect::<Vec<_>>();
    let mut inputs = Vec::new();
    for (name, values) in [("a", &a[..1024]), ("b", &b[..128]), ("a2", &a[1024..]), ("b2", &b[128..])] {
        inputs.push(machine.buffer(name, &bits(values))?);
    }
    let c = machine.output::<f32>("c", 64 * 8)?;
    machine.launch(1, 128, 0, args![inputs[0], inputs[1], inputs[2], inputs[3], c])?;
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f32>();
    let element = |i: usize| {
        let (row, column) = (i / 8 * 16, i % 8 * 16);
        let of = |half: usize| dot(&a[half * 1024 + row..][..16], &b[half * 128 + column..][..16]);
        of(0) + of(1)
    };
    same("c", &machine.read::<f32>(c)?, &(0..64 * 8).map(element).collect::<Vec<_>>())
}
