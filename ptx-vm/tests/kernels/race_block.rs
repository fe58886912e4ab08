use ptx_vm::FaultKind::Race;

use crate::Case;
use crate::inputs::{random_below, small_f32, small_i32};
use crate::machine::{Machine, Outcome, args, same};

pub const CASES: &[Case] = &[
    Case { kernel: "ring", run: ring, bugs: &[(1, &[Race]), (2, &[Race])] },
    Case { kernel: "swap_in_pairs", run: swap_in_pairs, bugs: &[(3, &[Race])] },
    Case { kernel: "count_positive", run: count_positive, bugs: &[(4, &[Race])] },
    Case { kernel: "every_other", run: every_other, bugs: &[(5, &[Race])] },
    Case { kernel: "add_first", run: add_first, bugs: &[(6, &[Race])] },
    Case { kernel: "any_positive", run: any_positive, bugs: &[] },
    Case { kernel: "copy_bytes", run: copy_bytes, bugs: &[] },
    Case { kernel: "tree_sum", run: tree_sum, bugs: &[(7, &[Race])] },
];

const THREADS: usize = 128;

fn ring(machine: &mut Machine) -> Outcome {
    let mut x = small_f32(THREADS);
    let input = machine.buffer("in", &x)?;
    let out = machine.output::<f32>("out", THREADS)?;
    machine.launch(1, THREADS as u32, 0, args![input, out, 5])?;
    for _ in 0..5 {
        x = (0..THREADS).map(|t| (x[(t + 1) % THREADS] + x[(t + THREADS - 1) % THREADS]) / 2.0).collect();
    }
    same("out", &machine.read::<f32>(out)?, &x)
}

fn swap_in_pairs(machine: &mut Machine) -> Outcome {
    let values = small_f32(THREADS);
    let input = machine.buffer("in", &values)?;
    let out = machine.output::<f32>("out", THREADS)?;
    machine.launch(1, THREADS as u32, 0, args![input, out])?;
    same("out", &machine.read::<f32>(out)?, &(0..THREADS).map(|t| values[t ^ 1]).collect::<Vec<_>>())
}

fn count_positive(machine: &mut Machine) -> Outcome {
    let values = small_f32(THREADS);
    let input = machine.buffer("in", &values)?;
    let out = machine.output::<i32>("out", 1)?;
    machine.launch(1, THREADS as u32, 0, args![input, out])?;
    same("out", &machine.read::<i32>(out)?, &[values.iter().filter(|&&x| x > 0.0).count() as i32])
}

fn every_other(machine: &mut Machine) -> Outcome {
    let values = small_f32(THREADS);
    let input = machine.buffer("in", &values)?;
    let out = machine.output::<f32>("out", THREADS / 2)?;
    machine.launch(1, THREADS as u32, 0, args![input, out])?;
    same("out", &machine.read::<f32>(out)?, &values.iter().step_by(2).copied().collect::<Vec<_>>())
}

fn add_first(machine: &mut Machine) -> Outcome {
    let values = small_f32(THREADS);
    let input = machine.buffer("in", &values)?;
    let scratch = machine.buffer("scratch", &[0f32; THREADS])?;
    let out = machine.output::<f32>("out", THREADS)?;
    machine.launch(1, THREADS as u32, 0, args![input, scratch, out])?;
    same("out", &machine.read::<f32>(out)?, &values.iter().map(|x| x + values[0]).collect::<Vec<_>>())
}

fn any_positive(machine: &mut Machine) -> Outcome {
    let mut values = small_f32(THREADS);
    values[32..64].fill(-1.0);
    let input = machine.buffer("in", &values)?;
    let out = machine.output::<i32>("out", 4)?;
    machine.launch(1, THREADS as u32, 0, args![input, out])?;
    same("out", &machine.read::<i32>(out)?, &[1, 0, 1, 1])
}

fn copy_bytes(machine: &mut Machine) -> Outcome {
    let bytes: Vec<u8> = random_below(256, THREADS + 3).into_iter().map(|x| x as u8).collect();
    let input = machine.buffer("in", &bytes)?;
    let out = machine.output::<u8>("out", THREADS + 3)?;
    machine.launch(1, THREADS as u32, 0, args![input, out])?;
    same("out", &machine.read::<u8>(out)?[3..], &bytes[3..])
}

fn tree_sum(machine: &mut Machine) -> Outcome {
    let values = small_i32(THREADS);
    let input = machine.buffer("in", &values)?;
    let out = machine.output::<i32>("out", 1)?;
    machine.launch(1, THREADS as u32, 0, args![input, out])?;
    same("out", &machine.read::<i32>(out)?, &[values.iter().sum()])
}
