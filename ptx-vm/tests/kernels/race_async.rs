use ptx_vm::FaultKind::{Race, UnfinishedCopy, Uninitialised};

use crate::Case;
use crate::inputs::small_f32;
use crate::machine::{Machine, Outcome, args, same};

pub const CASES: &[Case] = &[
    Case {
        kernel: "reverse_tiles",
        run: reverse_tiles,
        bugs: &[
            (1, &[UnfinishedCopy]),
            (2, &[UnfinishedCopy]),
            // The other warp has started its copy, has waited for it, or neither.
            (3, &[UnfinishedCopy, Race, Uninitialised]),
            (4, &[UnfinishedCopy, Race]),
        ],
    },
    Case { kernel: "copy", run: copy, bugs: &[(5, &[UnfinishedCopy])] },
    Case { kernel: "zero_tail", run: zero_tail, bugs: &[(6, &[UnfinishedCopy])] },
    Case { kernel: "fold", run: fold, bugs: &[(7, &[UnfinishedCopy])] },
];

/// Reverses the 64 elements, of 4 numbers each.
fn reversed(tile: &[f32]) -> impl Iterator<Item = f32> {
    tile.chunks(4).rev().flatten().copied()
}

fn reverse_tiles(machine: &mut Machine) -> Outcome {
    let tiles = 7;
    let values = small_f32(tiles * 256);
    let input = machine.buffer("in", &values)?;
    let out = machine.output::<f32>("out", tiles * 256)?;
    machine.launch(1, 64, 0, args![input, out, tiles as i32])?;
    same("out", &machine.read::<f32>(out)?, &values.chunks(256).flat_map(reversed).collect::<Vec<_>>())
}

fn copy(machine: &mut Machine) -> Outcome {
    let values = small_f32(256);
    let input = machine.buffer("in", &values)?;
    let out = machine.output::<f32>("out", 256)?;
    machine.launch(1, 64, 0, args![input, out])?;
    same("out", &machine.read::<f32>(out)?, &values)
}

fn zero_tail(machine: &mut Machine) -> Outcome {
    let mut values = small_f32(256);
    let input = machine.buffer("in", &values)?;
    let out = machine.output::<f32>("out", 256)?;
    machine.launch(1, 64, 0, args![input, out, 50])?;
    values[4 * 50..].fill(0.0);
    same("out", &machine.read::<f32>(out)?, &reversed(&values).collect::<Vec<_>>())
}

fn fold(machine: &mut Machine) -> Outcome {
    let values = small_f32(64);
    let input = machine.buffer("in", &values)?;
    let out = machine.output::<f32>("out", 64)?;
    machine.launch(1, 64, 0, args![input, out])?;
    let expected: Vec<f32> = (0..64).map(|t| values[t] + values[63 - t]).collect();
    same("out", &machine.read::<f32>(out)?, &expected)
}
