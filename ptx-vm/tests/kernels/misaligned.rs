use ptx_vm::FaultKind::Misaligned;

use crate::Case;
use crate::inputs::{random_u32, small_f32};
use crate::machine::{Machine, Outcome, args, same};

pub const CASES: &[Case] = &[
    Case { kernel: "sum_quads", run: sum_quads, bugs: &[(1, &[Misaligned])] },
    Case { kernel: "differences_of_pairs", run: differences_of_pairs, bugs: &[(2, &[Misaligned])] },
    Case { kernel: "split_words", run: split_words, bugs: &[(3, &[Misaligned])] },
];

fn sum_quads(machine: &mut Machine) -> Outcome {
    let values = small_f32(260);
    let input = machine.buffer("in", &values)?;
    let out = machine.output::<f32>("out", 64)?;
    machine.launch(1, 64, 0, args![input, out])?;
    let expected: Vec<f32> = values[..256].chunks(4).map(|quad| quad.iter().sum()).collect();
    same("out", &machine.read::<f32>(out)?, &expected)
}

fn differences_of_pairs(machine: &mut Machine) -> Outcome {
    let values = small_f32(128);
    let input = machine.buffer("in", &values)?;
    let out = machine.output::<f32>("out", 64)?;
    machine.launch(1, 64, 0, args![input, out])?;
    let expected: Vec<f32> = values.chunks(2).rev().map(|pair| pair[0] - pair[1]).collect();
    same("out", &machine.read::<f32>(out)?, &expected)
}

fn split_words(machine: &mut Machine) -> Outcome {
    let words = random_u32(64);
    let input = machine.buffer("words", &words)?;
    let bytes = machine.output::<u8>("bytes", 260)?;
    machine.launch(1, 64, 0, args![input, bytes])?;
    let expected: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
    same("bytes", &machine.read::<u8>(bytes)?[..256], &expected)
}
