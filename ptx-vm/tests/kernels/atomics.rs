use half::f16;

use crate::Case;
use crate::inputs::{random_below, random_u32, random_u64, small_i32};
use crate::machine::{Machine, Outcome, args, holds, same};

pub const CASES: &[Case] = &[
    Case { kernel: "on_u32", run: on_u32, bugs: &[] },
    Case { kernel: "on_i32", run: on_i32, bugs: &[] },
    Case { kernel: "on_u64", run: on_u64, bugs: &[] },
    Case { kernel: "on_floats", run: on_floats, bugs: &[] },
    Case { kernel: "scopes", run: scopes, bugs: &[] },
    Case { kernel: "histogram", run: histogram, bugs: &[] },
];

const BLOCKS: u32 = 2;
const THREADS: u32 = 64;
const ALL: usize = (BLOCKS * THREADS) as usize;

fn on_u32(machine: &mut Machine) -> Outcome {
    let values = random_u32(ALL);
    let start = [7, 7, u32::MAX, 0, u32::MAX, 0, 0, 0, 0, 0, 7, 0];
    let input = machine.buffer("in", &values)?;
    let cells = machine.buffer("cells", &start)?;
    let before = machine.output::<u32>("before", ALL)?;
    machine.launch(BLOCKS, THREADS, 0, args![input, cells, before])?;

    let sum = values.iter().fold(0u32, |sum, &x| sum.wrapping_add(x));
    let after = machine.read::<u32>(cells)?;
    same(
        "cells 0 to 8",
        &after[..9],
        &[
            7u32.wrapping_add(sum),
            7u32.wrapping_sub(sum),
            *values.iter().min().unwrap(),
            *values.iter().max().unwrap(),
            values.iter().fold(u32::MAX, |bits, x| bits & x),
            values.iter().fold(0, |bits, x| bits | x),
            values.iter().fold(0, |bits, x| bits ^ x),
            ALL as u32 % 10,
            (10 - ALL as u32 % 10) % 10,
        ],
    )?;
    holds("cell 9 is one of in", values.contains(&after[9]))?;
    same("cells 10 and 11", &after[10..], &[7u32.wrapping_add(sum), ALL as u32])?;
    let mut tickets = machine.read::<u32>(before)?;
    tickets.sort();
    same("tickets", &tickets, &(0..ALL as u32).collect::<Vec<_>>())
}

fn on_i32(machine: &mut Machine) -> Outcome {
    let values = small_i32(ALL);
    let input = machine.buffer("in", &values)?;
    let cells = machine.buffer("cells", &[3, 0, -1000])?;
    let old = machine.output::<i32>("old", ALL)?;
    machine.launch(BLOCKS, THREADS, 0, args![input, cells, old])?;

    let (least, greatest) = (*values.iter().min().unwrap(), *values.iter().max().unwrap());
    same("cells", &machine.read::<i32>(cells)?, &[3 + values.iter().sum::<i32>(), least, greatest])?;
    let old = machine.read::<i32>(old)?;
    holds("old maxima are -1000 or of in", old.iter().all(|x| *x == -1000 || values.contains(x)))
}

fn on_u64(machine: &mut Machine) -> Outcome {
    let values = random_u64(ALL);
    let start = [7, u64::MAX, 0, u64::MAX, 0, 0, 0, 7, i64::MAX as u64];
    let input = machine.buffer("in", &values)?;
    let cells = machine.buffer("cells", &start)?;
    machine.launch(BLOCKS, THREADS, 0, args![input, cells])?;

    let sum = values.iter().fold(7u64, |sum, &x| sum.wrapping_add(x));
    let after = machine.read::<u64>(cells)?;
    same(
        "cells 0 to 5",
        &after[..6],
        &[
            sum,
            *values.iter().min().unwrap(),
            *values.iter().max().unwrap(),
            values.iter().fold(u64::MAX, |bits, x| bits & x),
            values.iter().fold(0, |bits, x| bits | x),
            values.iter().fold(0, |bits, x| bits ^ x),
        ],
    )?;
    holds("cell 6 is one of in", values.contains(&after[6]))?;
    let least = values.iter().map(|&x| x as i64).min().unwrap();
    same("cells 7 and 8", &after[7..], &[sum, least as u64])
}

fn on_floats(machine: &mut Machine) -> Outcome {
    let values: Vec<f32> = random_below(2, ALL).into_iter().map(|x| x as f32).collect();
    let sum: f32 = values.iter().sum();
    let input = machine.buffer("in", &values)?;
    let f = machine.buffer("f", &[0.5f32])?;
    let d = machine.buffer("d", &[0.25f64])?;
    let h = machine.buffer("h", &[0u16])?;
    let h2 = machine.buffer("h2", &[0u16; 2])?;
    let exchanged = machine.buffer("exchanged", &[-1.0f32])?;
    machine.launch(BLOCKS, THREADS, 0, args![input, f, d, h, h2, exchanged])?;

    same("f", &machine.read::<f32>(f)?, &[0.5 + sum])?;
    same("d", &machine.read::<f64>(d)?, &[0.25 + sum as f64])?;
    let [sum, count] = [sum, ALL as f32].map(|x| f16::from_f32(x).to_bits());
    same("h", &machine.read::<u16>(h)?, &[sum])?;
    same("h2", &machine.read::<u16>(h2)?, &[sum, count])?;
    holds("exchanged is one of in", values.contains(&machine.read::<f32>(exchanged)?[0]))
}

fn scopes(machine: &mut Machine) -> Outcome {
    let cells = machine.buffer("cells", &[0u32; 3])?;
    let mut start = [0u16; ALL];
    start[5] = 77;
    let halves = machine.buffer("halves", &start)?;
    machine.launch(BLOCKS, THREADS, 0, args![cells, halves])?;

    same("cells", &machine.read::<u32>(cells)?, &[128, 128, 256])?;
    let mut expected: Vec<u16> = (0..ALL as u16).collect();
    expected[5] = 77;
    same("halves", &machine.read::<u16>(halves)?, &expected)
}

fn histogram(machine: &mut Machine) -> Outcome {
    let values = random_below(16, ALL);
    let input = machine.buffer("in", &values)?;
    let counts = machine.buffer("counts", &[0i32; 16])?;
    machine.launch(BLOCKS, THREADS, 0, args![input, counts])?;

    let mut expected = [0; 16];
    values.iter().for_each(|&value| expected[value as usize] += 1);
    same("counts", &machine.read::<i32>(counts)?, &expected)
}
