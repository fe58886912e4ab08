use crate::Case;
use crate::inputs::{random_below, random_u32};
use crate::machine::{Machine, Outcome, args, same};

pub const CASES: &[Case] = &[Case { kernel: "interpret", run: interpret, bugs: &[] }];

fn interpret(machine: &mut Machine) -> Outcome {
    let (n, steps) = (100, 20);
    let x = random_u32(n);
    let operations = random_below(12, n * steps);
    let operands: Vec<u32> = random_u32(n * steps).into_iter().map(|bits| 1 + bits % 1000).collect();
    let (x_in, operations_in) = (machine.buffer("x", &x)?, machine.buffer("operations", &operations)?);
    let (operands_in, out) = (machine.buffer("operands", &operands)?, machine.output::<u32>("out", n)?);
    machine.launch(2, 64, 0, args![x_in, operations_in, operands_in, out, steps as i32, n as i32])?;

    let apply = |value: u32, (&operation, &operand): (&i32, &u32)| match operation {
        0 => value.wrapping_add(operand),
        1 => value.wrapping_sub(operand),
        2 => value.wrapping_mul(operand),
        3 => value / operand,
        4 => value % operand,
        5 => value << (operand % 32),
        6 => value.rotate_right(operand % 32),
        7 => value & operand,
        8 => value | !operand,
        9 => value.count_ones() + operand,
        _ => value,
    };
    let programs = operations.chunks(steps).zip(operands.chunks(steps));
    let expected: Vec<u32> = x.iter().zip(programs).map(|(&x, (os, vs))| os.iter().zip(vs).fold(x, apply)).collect();
    same("out", &machine.read::<u32>(out)?, &expected)
}
