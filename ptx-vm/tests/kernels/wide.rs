use crate::Case;
use crate::inputs::{random_u32, random_u64};
use crate::machine::{Machine, Outcome, args, same};

pub const CASES: &[Case] = &[
    Case { kernel: "on_u128", run: on_u128, bugs: &[] },
    Case { kernel: "high_halves", run: high_halves, bugs: &[] },
    Case { kernel: "on_u96", run: on_u96, bugs: &[] },
    Case { kernel: "multiply_add", run: multiply_add, bugs: &[] },
];

const N: usize = 100;

/// Random, but every third time all ones: carries that go all the way.
fn words(len: usize) -> Vec<u64> {
    let word = |(i, bits): (usize, u64)| if i % 3 == 0 { u64::MAX } else { bits };
    random_u64(len).into_iter().enumerate().map(word).collect()
}

fn on_u128(machine: &mut Machine) -> Outcome {
    let numbers: Vec<u128> =
        words(4 * N).chunks(2).map(|halves| (halves[1] as u128) << 64 | halves[0] as u128).collect();
    let (a, b) = numbers.split_at(N);
    let (a_in, b_in) = (machine.buffer("a", a)?, machine.buffer("b", b)?);
    let out = machine.output::<u128>("out", 5 * N)?;
    machine.launch(4, 32, 0, args![a_in, b_in, out, N as i32])?;

    let operations: [fn(u128, u128) -> u128; 5] =
        [u128::wrapping_add, u128::wrapping_sub, u128::wrapping_mul, |a, _| a >> 37, |a, _| a << 70];
    let expected = operations.iter().flat_map(|operation| a.iter().zip(b).map(|(&a, &b)| operation(a, b)));
    same("out", &machine.read::<u128>(out)?, &expected.collect::<Vec<_>>())
}

fn high_halves(machine: &mut Machine) -> Outcome {
    let numbers = words(2 * N);
    let (a, b) = numbers.split_at(N);
    let (a_in, b_in) = (machine.buffer("a", a)?, machine.buffer("b", b)?);
    let out = machine.output::<u64>("out", 6 * N)?;
    machine.launch(4, 32, 0, args![a_in, b_in, out, N as i32])?;

    let signed24 = |x: u64| (x as i32) << 8 >> 8;
    let operations: [&dyn Fn(u64, u64) -> u64; 6] = [
        &|a, b| ((a as u128 * b as u128) >> 64) as u64,
        &|a, b| ((a as i64 as i128 * b as i64 as i128) >> 64) as u64,
        &|a, b| (a as u32 as u64 * b as u32 as u64) >> 32,
        &|a, b| ((a as i32 as i64 * b as i32 as i64) >> 32) as u32 as u64,
        &|a, b| signed24(a).wrapping_mul(signed24(b)) as u32 as u64,
        &|a, b| ((a & 0xff_ffff) * (b & 0xff_ffff)) & 0xffff_ffff,
    ];
    let expected = operations.iter().flat_map(|operation| a.iter().zip(b).map(|(&a, &b)| operation(a, b)));
    same("out", &machine.read::<u64>(out)?, &expected.collect::<Vec<_>>())
}

fn on_u96(machine: &mut Machine) -> Outcome {
    let words: Vec<u32> = words(2 * 3 * N).into_iter().map(|bits| bits as u32).collect();
    let (a, b) = words.split_at(3 * N);
    let (a_in, b_in) = (machine.buffer("a", a)?, machine.buffer("b", b)?);
    let out = machine.output::<u32>("out", 2 * 3 * N)?;
    machine.launch(4, 32, 0, args![a_in, b_in, out, N as i32])?;

    let number = |words: &[u32]| words.iter().rev().fold(0u128, |number, &word| number << 32 | word as u128);
    let split = |number: u128| [0, 32, 64].map(|shift| (number >> shift) as u32);
    let pairs = || a.chunks(3).zip(b.chunks(3)).map(|(a, b)| (number(a), number(b)));
    let sums = pairs().flat_map(|(a, b)| split(a + b));
    let differences = pairs().flat_map(|(a, b)| split(a.wrapping_sub(b)));
    same("out", &machine.read::<u32>(out)?, &sums.chain(differences).collect::<Vec<_>>())
}

fn multiply_add(machine: &mut Machine) -> Outcome {
    let (mut factors, addends) = (random_u32(2 * N), words(N));
    factors[..10].fill(u32::MAX);
    let (a, b) = factors.split_at(N);
    let (a_in, b_in, c_in) = (machine.buffer("a", a)?, machine.buffer("b", b)?, machine.buffer("c", &addends)?);
    let out = machine.output::<u64>("out", N)?;
    machine.launch(4, 32, 0, args![a_in, b_in, c_in, out, N as i32])?;
    let expected = (0..N).map(|i| addends[i].wrapping_add(a[i] as u64 * b[i] as u64));
    same("out", &machine.read::<u64>(out)?, &expected.collect::<Vec<_>>())
}
