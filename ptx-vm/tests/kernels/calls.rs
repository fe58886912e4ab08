use crate::Case;
use crate::inputs::{random_below, small_f32};
use crate::machine::{Machine, Outcome, args, close, same};

pub const CASES: &[Case] = &[
    Case { kernel: "centre_rows", run: centre_rows, bugs: &[] },
    Case { kernel: "divisors", run: divisors, bugs: &[] },
];

fn centre_rows(machine: &mut Machine) -> Outcome {
    let mut offsets = vec![0];
    for len in random_below(9, 100) {
        offsets.push(offsets[offsets.len() - 1] + len + 1);
    }
    let len = offsets[100] as usize;
    let x = small_f32(len);
    let (x_in, offsets_in) = (machine.buffer("x", &x)?, machine.buffer("offsets", &offsets)?);
    let (out, variances) = (machine.output::<f32>("out", len)?, machine.output::<f32>("variances", 100)?);
    machine.launch(2, 64, 0, args![x_in, offsets_in, out, variances, 100])?;

    let rows: Vec<&[f32]> = offsets.windows(2).map(|range| &x[range[0] as usize..range[1] as usize]).collect();
    let mean = |row: &[f32]| row.iter().sum::<f32>() / row.len() as f32;
    let variance = |row: &[f32]| row.iter().map(|x| (x - mean(row)).powi(2)).sum::<f32>() / row.len() as f32;
    let centred: Vec<f32> = rows.iter().flat_map(|row| row.iter().map(|x| x - mean(row))).collect();
    same("out", &machine.read::<f32>(out)?, &centred)?;
    let expected: Vec<f32> = rows.iter().map(|row| variance(row)).collect();
    close("variances", &machine.read::<f32>(variances)?, &expected, 1e-3)
}

fn divisors(machine: &mut Machine) -> Outcome {
    let numbers: Vec<u32> = random_below(5000, 200).into_iter().map(|x| x as u32 + 1).collect();
    let input = machine.buffer("in", &numbers)?;
    let out = machine.output::<u32>("out", 100)?;
    machine.launch(4, 32, 0, args![input, out, 100])?;

    fn gcd(a: u32, b: u32) -> u32 {
        if b == 0 { a } else { gcd(b, a % b) }
    }
    let expected = |(i, pair): (usize, &[u32])| match gcd(pair[0], pair[1]) {
        divisor if i % 2 == 0 => divisor,
        divisor => pair[0] / divisor * pair[1],
    };
    let expected: Vec<u32> = numbers.chunks(2).enumerate().map(expected).collect();
    same("out", &machine.read::<u32>(out)?, &expected)
}
