use ptx_vm::FaultKind::OutOfBounds;

use crate::Case;
use crate::inputs::{random_below, small_f32};
use crate::machine::{Machine, Outcome, args, same};

pub const CASES: &[Case] = &[
    Case { kernel: "differences", run: differences, bugs: &[(1, &[OutOfBounds])] },
    Case { kernel: "copy", run: copy, bugs: &[(2, &[OutOfBounds])] },
    Case { kernel: "neighbours", run: neighbours, bugs: &[(3, &[OutOfBounds])] },
    Case { kernel: "reverse", run: reverse, bugs: &[(4, &[OutOfBounds])] },
    Case { kernel: "most_frequent", run: most_frequent, bugs: &[(5, &[OutOfBounds])] },
    Case { kernel: "swap_pairs", run: swap_pairs, bugs: &[(6, &[OutOfBounds])] },
];

fn differences(machine: &mut Machine) -> Outcome {
    let values = small_f32(100);
    let input = machine.buffer("in", &values)?;
    let out = machine.output::<f32>("out", 100)?;
    machine.launch(2, 64, 0, args![input, out, 100])?;
    let mut expected: Vec<f32> = values.windows(2).map(|pair| pair[1] - pair[0]).collect();
    expected.push(0.0);
    same("out", &machine.read::<f32>(out)?, &expected)
}

fn copy(machine: &mut Machine) -> Outcome {
    let values = small_f32(100);
    let input = machine.buffer("in", &values)?;
    let out = machine.output::<f32>("out", 100)?;
    machine.launch(2, 64, 0, args![input, out, 100])?;
    same("out", &machine.read::<f32>(out)?, &values)
}

fn neighbours(machine: &mut Machine) -> Outcome {
    let values = small_f32(64);
    let input = machine.buffer("in", &values)?;
    let out = machine.output::<f32>("out", 64)?;
    machine.launch(1, 64, 0, args![input, out])?;
    let expected: Vec<f32> = (0..64).map(|t| values[t] + 2.0 * values[63 - t]).collect();
    same("out", &machine.read::<f32>(out)?, &expected)
}

fn reverse(machine: &mut Machine) -> Outcome {
    let mut values = small_f32(64);
    let input = machine.buffer("in", &values)?;
    let out = machine.output::<f32>("out", 64)?;
    machine.launch(1, 64, 256, args![input, out])?;
    values.reverse();
    same("out", &machine.read::<f32>(out)?, &values)
}

fn most_frequent(machine: &mut Machine) -> Outcome {
    let numbers = random_below(8, 64 * 20);
    let input = machine.buffer("in", &numbers)?;
    let out = machine.output::<i32>("out", 64)?;
    machine.launch(1, 64, 0, args![input, out, 20])?;
    let count = |row: &[i32], number| row.iter().filter(|&&x| x == number).count() as i32;
    let most = |row: &[i32]| (0..8).map(|number| count(row, number)).max().unwrap();
    same("out", &machine.read::<i32>(out)?, &numbers.chunks(20).map(most).collect::<Vec<_>>())
}

fn swap_pairs(machine: &mut Machine) -> Outcome {
    let values = small_f32(2 * 50 + 1);
    let input = machine.buffer("in", &values)?;
    let out = machine.output::<f32>("out", 2 * 50)?;
    machine.launch(1, 64, 0, args![input, out, 50])?;
    let expected: Vec<f32> = values[..100].chunks(2).flat_map(|pair| [pair[1], pair[0]]).collect();
    same("out", &machine.read::<f32>(out)?, &expected)
}
