use ptx_vm::FaultKind::InstructionLimit;

use crate::Case;
use crate::inputs::{random_below, small_i32};
use crate::machine::{Machine, Outcome, args, same};

pub const CASES: &[Case] = &[
    Case { kernel: "collatz", run: collatz, bugs: &[(1, &[InstructionLimit])] },
    Case { kernel: "locked_sum", run: locked_sum, bugs: &[(2, &[InstructionLimit])] },
];

fn collatz(machine: &mut Machine) -> Outcome {
    let starts = random_below(1000, 64);
    let mut starts: Vec<u32> = starts.into_iter().map(|x| x as u32).collect();
    starts[40] = 0;
    let input = machine.buffer("in", &starts)?;
    let out = machine.output::<i32>("out", 64)?;
    machine.launch(2, 32, 0, args![input, out])?;

    let next = |&x: &u32| (x > 1).then(|| if x % 2 == 0 { x / 2 } else { 3 * x + 1 });
    let steps = |&start: &u32| std::iter::successors(Some(start), next).count() as i32 - 1;
    same("out", &machine.read::<i32>(out)?, &starts.iter().map(steps).collect::<Vec<_>>())
}

fn locked_sum(machine: &mut Machine) -> Outcome {
    let values = small_i32(10);
    let input = machine.buffer("in", &values)?;
    let (lock, out) = (machine.buffer("lock", &[0i32])?, machine.buffer("out", &[5i32])?);
    machine.launch(10, 1, 0, args![input, lock, out])?;
    same("out", &machine.read::<i32>(out)?, &[5 + values.iter().sum::<i32>()])
}
