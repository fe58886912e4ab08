use ptx_vm::Parameters;

use crate::Case;
use crate::inputs::{random_below, small_f32, small_i32};
use crate::machine::{Argument, Machine, Outcome, args, same};

pub const CASES: &[Case] = &[
    Case { kernel: "evaluate", run: evaluate, bugs: &[] },
    Case { kernel: "pick_constant", run: pick_constant, bugs: &[] },
    Case { kernel: "use_variables", run: use_variables, bugs: &[] },
    Case { kernel: "sort_rows", run: sort_rows, bugs: &[] },
    Case { kernel: "scale_by_layer", run: scale_by_layer, bugs: &[] },
    Case { kernel: "generic_sums", run: generic_sums, bugs: &[] },
];

const POLYNOMIAL: [f32; 4] = [1.0, -2.0, 0.5, 0.25];

fn evaluate(machine: &mut Machine) -> Outcome {
    let x = small_f32(100);
    let input = machine.buffer("x", &x)?;
    let out = machine.output::<f32>("out", 100)?;
    machine.launch(2, 64, 0, args![input, out, 100])?;
    let value = |&x: &f32| POLYNOMIAL.iter().rev().fold(0.0, |value: f32, coefficient| value.mul_add(x, *coefficient));
    same("out", &machine.read::<f32>(out)?, &x.iter().map(value).collect::<Vec<_>>())
}

fn pick_constant(machine: &mut Machine) -> Outcome {
    let which = random_below(4, 64);
    let input = machine.buffer("which", &which)?;
    let out = machine.output::<f32>("out", 64)?;
    machine.launch(1, 64, 0, args![input, out])?;
    same("out", &machine.read::<f32>(out)?, &which.iter().map(|&i| POLYNOMIAL[i as usize]).collect::<Vec<_>>())
}

fn use_variables(machine: &mut Machine) -> Outcome {
    let table = [3, 1, 4, 1, 5, 9, 2, 6];
    for launch in 0..3 {
        let out = machine.output::<i32>("out", 65)?;
        machine.launch(1, 64, 0, args![out])?;
        let mut expected: Vec<i32> = (0..64).map(|t| table[t % 8] << launch).collect();
        expected.push(5 + 64 * launch);
        same("out", &machine.read::<i32>(out)?, &expected)?;
    }
    Ok(())
}

fn sort_rows(machine: &mut Machine) -> Outcome {
    let mut values = small_i32(64 * 8);
    let input = machine.buffer("in", &values)?;
    let out = machine.output::<i32>("out", 64 * 8)?;
    machine.launch(1, 64, 0, args![input, out])?;
    values.chunks_mut(8).for_each(|row| row.sort());
    same("out", &machine.read::<i32>(out)?, &values)
}

fn scale_by_layer(machine: &mut Machine) -> Outcome {
    let values = small_f32(100);
    let scale = [1.0, 0.5, 3.0, -2.0, 0.1];
    let input = machine.buffer("in", &values)?;
    let out = machine.output::<f32>("out", 100)?;

    // `Layers`: a byte and a half word are given as the words that begin with them.
    let layers = input.append_to(Parameters::new()).i32(-1);
    let layers = scale.iter().fold(layers, |layers, &scale| layers.f32(scale));
    let layers = out.append_to(layers.u64(0.125f64.to_bits())).u32(4).u32(0);
    machine.launch(2, 64, 0, args![layers, 100])?;

    let value = |(i, &x): (usize, &f32)| (f64::from(-scale[i % 4] * x) + 0.125) as f32;
    same("out", &machine.read::<f32>(out)?, &values.iter().enumerate().map(value).collect::<Vec<_>>())
}

fn generic_sums(machine: &mut Machine) -> Outcome {
    let values = small_i32(67);
    let input = machine.buffer("in", &values)?;
    let out = machine.output::<i32>("out", 64)?;
    machine.launch(1, 64, 0, args![input, out])?;
    let sum = |t: usize| values[t..t + 4].iter().sum::<i32>() * (t % 3 + 1) as i32;
    same("out", &machine.read::<i32>(out)?, &(0..64).map(sum).collect::<Vec<_>>())
}
