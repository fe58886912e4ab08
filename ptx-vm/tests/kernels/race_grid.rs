use ptx_vm::FaultKind::Race;

use crate::Case;
use crate::inputs::{small_f32, small_i32};
use crate::machine::{Machine, Outcome, args, same};

pub const CASES: &[Case] = &[
    Case { kernel: "firsts", run: firsts, bugs: &[(1, &[Race])] },
    Case { kernel: "column_sums", run: column_sums, bugs: &[(2, &[Race]), (3, &[Race]), (4, &[Race]), (5, &[Race])] },
    Case { kernel: "column_sums_acq_rel", run: column_sums, bugs: &[(6, &[Race])] },
    Case { kernel: "running_sum", run: running_sum, bugs: &[(7, &[Race]), (8, &[Race])] },
    Case { kernel: "count_positive", run: count_positive, bugs: &[(9, &[Race]), (10, &[Race])] },
    Case { kernel: "locked_sum", run: locked_sum, bugs: &[(11, &[Race])] },
];

const THREADS: usize = 64;
const BLOCKS: usize = 5;

fn firsts(machine: &mut Machine) -> Outcome {
    let values = small_f32(BLOCKS * THREADS);
    let input = machine.buffer("in", &values)?;
    let out = machine.output::<f32>("out", BLOCKS)?;
    machine.launch(BLOCKS as u32, THREADS as u32, 0, args![input, out])?;
    same("out", &machine.read::<f32>(out)?, &values.iter().step_by(THREADS).copied().collect::<Vec<_>>())
}

fn column_sums(machine: &mut Machine) -> Outcome {
    let rows = 23;
    let values = small_f32(rows * THREADS);
    let input = machine.buffer("in", &values)?;
    let partial = machine.output::<f32>("partial", BLOCKS * THREADS)?;
    let ticket = machine.buffer("ticket", &[0u32])?;
    let out = machine.output::<f32>("out", THREADS)?;
    machine.launch(BLOCKS as u32, THREADS as u32, 0, args![input, rows as i32, partial, ticket, out])?;
    let sum = |column: usize| values.iter().skip(column).step_by(THREADS).sum();
    same("out", &machine.read::<f32>(out)?, &(0..THREADS).map(sum).collect::<Vec<f32>>())
}

fn running_sum(machine: &mut Machine) -> Outcome {
    let values = small_i32(BLOCKS);
    let input = machine.buffer("in", &values)?;
    let out = machine.output::<i32>("out", BLOCKS)?;
    let next = machine.buffer("next", &[0u32])?;
    let ready = machine.buffer("ready", &[0u32; BLOCKS])?;
    machine.launch(BLOCKS as u32, 1, 0, args![input, out, next, ready])?;
    let expected: Vec<i32> = (1..=BLOCKS).map(|end| values[..end].iter().sum()).collect();
    same("out", &machine.read::<i32>(out)?, &expected)
}

fn count_positive(machine: &mut Machine) -> Outcome {
    let values = small_f32(BLOCKS * THREADS);
    let input = machine.buffer("in", &values)?;
    let out = machine.buffer("out", &[0i32])?;
    machine.launch(BLOCKS as u32, THREADS as u32, 0, args![input, out])?;
    same("out", &machine.read::<i32>(out)?, &[values.iter().filter(|&&x| x > 0.0).count() as i32])
}

fn locked_sum(machine: &mut Machine) -> Outcome {
    let values = small_i32(BLOCKS);
    let input = machine.buffer("in", &values)?;
    let (lock, out) = (machine.buffer("lock", &[0i32])?, machine.buffer("out", &[5i32])?);
    machine.launch(BLOCKS as u32, THREADS as u32, 0, args![input, lock, out])?;
    same("out", &machine.read::<i32>(out)?, &[5 + values.iter().sum::<i32>()])
}
