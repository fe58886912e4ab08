use ptx_vm::FaultKind::Uninitialised;

use crate::Case;
use crate::inputs::{random_below, small_f32};
use crate::machine::{Machine, Outcome, args, same};

pub const CASES: &[Case] = &[
    Case { kernel: "pad", run: pad, bugs: &[(1, &[Uninitialised])] },
    Case { kernel: "multiple", run: multiple, bugs: &[(2, &[Uninitialised])] },
    Case { kernel: "through_scratch", run: through_scratch, bugs: &[(3, &[Uninitialised])] },
    Case { kernel: "assemble", run: assemble, bugs: &[(4, &[Uninitialised])] },
];

fn pad(machine: &mut Machine) -> Outcome {
    let values = small_f32(50);
    let input = machine.buffer("in", &values)?;
    let out = machine.output::<f32>("out", 64)?;
    machine.launch(1, 64, 0, args![input, out, 50])?;
    let value = |t: usize| values.get(63 - t).copied().unwrap_or(0.0);
    same("out", &machine.read::<f32>(out)?, &(0..64).map(value).collect::<Vec<_>>())
}

fn multiple(machine: &mut Machine) -> Outcome {
    let (values, which) = (small_f32(64), random_below(8, 64));
    let (input, which_in) = (machine.buffer("in", &values)?, machine.buffer("which", &which)?);
    let out = machine.output::<f32>("out", 64)?;
    machine.launch(1, 64, 0, args![input, which_in, out])?;
    let expected: Vec<f32> = values.iter().zip(&which).map(|(x, &i)| (i + 1) as f32 * x).collect();
    same("out", &machine.read::<f32>(out)?, &expected)
}

fn through_scratch(machine: &mut Machine) -> Outcome {
    let values = small_f32(64);
    let input = machine.buffer("in", &values)?;
    let scratch = machine.output::<f32>("scratch", 64)?;
    let out = machine.output::<f32>("out", 64)?;
    machine.launch(1, 64, 0, args![input, scratch, out])?;
    same("out", &machine.read::<f32>(out)?, &values.iter().rev().map(|x| 2.0 * x).collect::<Vec<_>>())
}

fn assemble(machine: &mut Machine) -> Outcome {
    let words: Vec<u32> = random_below(1 << 24, 64).into_iter().map(|x| x as u32).collect();
    let input = machine.buffer("in", &words)?;
    let out = machine.output::<u32>("out", 64)?;
    machine.launch(1, 64, 0, args![input, out])?;
    same("out", &machine.read::<u32>(out)?, &words)
}
