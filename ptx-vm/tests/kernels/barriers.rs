use crate::Case;
use crate::inputs::small_i32;
use crate::machine::{Machine, Outcome, args, same};

pub const CASES: &[Case] = &[
    Case { kernel: "produce_and_consume", run: produce_and_consume, bugs: &[] },
    Case { kernel: "count_all_any", run: count_all_any, bugs: &[] },
    Case { kernel: "pairs_of_warps", run: pairs_of_warps, bugs: &[] },
    Case { kernel: "transpose", run: transpose, bugs: &[] },
    Case { kernel: "partial_warp", run: partial_warp, bugs: &[] },
];

fn produce_and_consume(machine: &mut Machine) -> Outcome {
    for tiles in [0, 1, 2, 7] {
        let values = small_i32(tiles * 32);
        let input = machine.buffer("in", &values)?;
        let out = machine.output::<i32>("out", tiles * 32)?;
        machine.launch(1, 64, 0, args![input, out, tiles as i32])?;
        let expected: Vec<i32> = values.chunks(32).flat_map(|tile| tile.iter().rev().map(|x| 2 * x)).collect();
        same("out", &machine.read::<i32>(out)?, &expected)?;
    }
    Ok(())
}

fn count_all_any(machine: &mut Machine) -> Outcome {
    for values in [small_i32(96), vec![1; 96], vec![-1; 96]] {
        let positive = values.iter().filter(|&&x| x > 0).count() as i32;
        let input = machine.buffer("in", &values)?;
        let out = machine.output::<i32>("out", 3 * 96)?;
        machine.launch(1, 96, 0, args![input, out])?;
        let out = machine.read::<i32>(out)?;
        same("count", &out[..96], &[positive; 96])?;
        let is_set: Vec<bool> = out[96..].iter().map(|&x| x != 0).collect();
        same("all", &is_set[..96], &[positive == 96; 96])?;
        same("any", &is_set[96..], &[positive > 0; 96])?;
    }
    Ok(())
}

fn pairs_of_warps(machine: &mut Machine) -> Outcome {
    let values = small_i32(128);
    let input = machine.buffer("in", &values)?;
    let out = machine.output::<i32>("out", 128)?;
    machine.launch(1, 128, 0, args![input, out])?;
    let expected: Vec<i32> = (0..128).map(|t| values[t ^ 1] + values[t ^ 32]).collect();
    same("out", &machine.read::<i32>(out)?, &expected)
}

fn transpose(machine: &mut Machine) -> Outcome {
    let values = small_i32(96);
    let input = machine.buffer("in", &values)?;
    let out = machine.output::<i32>("out", 96)?;
    machine.launch(1, [4, 8, 3], 0, args![input, out])?;
    let place = |i: usize| (i / 24, i / 3 % 8, i % 3);
    let expected: Vec<i32> = (0..96).map(place).map(|(x, y, z)| values[x + 4 * (y + 8 * z)]).collect();
    same("out", &machine.read::<i32>(out)?, &expected)
}

fn partial_warp(machine: &mut Machine) -> Outcome {
    for n in [1, 31, 50, 128] {
        let mut values = small_i32(n);
        let input = machine.buffer("in", &values)?;
        let out = machine.output::<i32>("out", n)?;
        machine.launch(1, n as u32, 0, args![input, out])?;
        values.reverse();
        same("out", &machine.read::<i32>(out)?, &values)?;
    }
    Ok(())
}
