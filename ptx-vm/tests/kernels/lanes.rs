use ptx_vm::FaultKind::MissingLane;

use crate::Case;
use crate::inputs::small_i32;
use crate::machine::{Machine, Outcome, args, same};

pub const CASES: &[Case] = &[
    Case { kernel: "half_a_warp", run: half_a_warp, bugs: &[(1, &[MissingLane])] },
    Case { kernel: "caller_not_in_mask", run: caller_not_in_mask, bugs: &[(2, &[MissingLane])] },
    Case { kernel: "source_not_there", run: source_not_there, bugs: &[(3, &[MissingLane])] },
    Case { kernel: "diverged_votes", run: diverged_votes, bugs: &[(4, &[MissingLane])] },
    Case { kernel: "exited_lanes", run: exited_lanes, bugs: &[(5, &[MissingLane])] },
];

/// The first `compared` outputs, which `expected` makes of the inputs and the number of the thread.
fn run(machine: &mut Machine, compared: usize, expected: impl Fn(&[i32], usize) -> i32) -> Outcome {
    let values = small_i32(32);
    let input = machine.buffer("in", &values)?;
    let out = machine.output::<i32>("out", 32)?;
    machine.launch(1, 32, 0, args![input, out])?;
    let expected: Vec<i32> = (0..compared).map(|t| expected(&values, t)).collect();
    same("out", &machine.read::<i32>(out)?[..compared], &expected)
}

fn positive(values: &[i32]) -> i32 {
    values.iter().filter(|&&value| value > 0).count() as i32
}

fn half_a_warp(machine: &mut Machine) -> Outcome {
    run(machine, 8, |values, t| values[t] + values[t + 8])
}

fn caller_not_in_mask(machine: &mut Machine) -> Outcome {
    run(machine, 32, |values, t| values[t] + values[t ^ 1])
}

fn source_not_there(machine: &mut Machine) -> Outcome {
    run(machine, 32, |values, t| if t < 16 { values[15 - t] } else { values[t] })
}

fn diverged_votes(machine: &mut Machine) -> Outcome {
    run(machine, 32, |values, t| positive(if t < 16 { &values[..16] } else { &values[16..] }))
}

fn exited_lanes(machine: &mut Machine) -> Outcome {
    run(machine, 32, |values, t| if t < 24 { positive(&values[..24]) } else { values[t] })
}
