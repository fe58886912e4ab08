use half::{bf16, f16};

use crate::Case;
use crate::inputs::random_u64;
use crate::machine::{Machine, Outcome, args, same};

pub const CASES: &[Case] = &[
    Case { kernel: "arithmetic_f16", run: arithmetic::<f16>, bugs: &[] },
    Case { kernel: "arithmetic_bf16", run: arithmetic::<bf16>, bugs: &[] },
    Case { kernel: "conversions", run: conversions, bugs: &[] },
    Case { kernel: "scalars_f16", run: scalars_f16, bugs: &[] },
];

/// A 16-bit format.
trait Half: Copy {
    fn of(value: f64) -> Self;
    fn wide(self) -> f64;
    fn bits(self) -> u16;
}

impl Half for f16 {
    fn of(value: f64) -> Self {
        f16::from_f64(value)
    }

    fn wide(self) -> f64 {
        self.to_f64()
    }

    fn bits(self) -> u16 {
        self.to_bits()
    }
}

impl Half for bf16 {
    fn of(value: f64) -> Self {
        bf16::from_f64(value)
    }

    fn wide(self) -> f64 {
        self.to_f64()
    }

    fn bits(self) -> u16 {
        self.to_bits()
    }
}

/// Of magnitudes from 2⁻⁸ to 2⁸: products of two, and sums of that with a third, are exact in f64.
fn numbers<H: Half>(len: usize) -> Vec<H> {
    let number = |bits: u64| {
        let magnitude = (1.0 + (bits % 4096) as f64 / 4096.0) * 2f64.powi((bits >> 32) as i32 & 15) / 256.0;
        H::of(if bits >> 63 == 0 { magnitude } else { -magnitude })
    };
    random_u64(len).into_iter().map(number).collect()
}

fn bits<H: Half>(values: &[H]) -> Vec<u16> {
    values.iter().map(|x| x.bits()).collect()
}

fn arithmetic<H: Half>(machine: &mut Machine) -> Outcome {
    // Pairs, 100 of them.
    let numbers = numbers::<H>(600);
    let (a, rest) = numbers.split_at(200);
    let (b, c) = rest.split_at(200);
    let (a_in, b_in) = (machine.buffer("a", &bits(a))?, machine.buffer("b", &bits(b))?);
    let c_in = machine.buffer("c", &bits(c))?;
    let out = machine.output::<u16>("out", 10 * 200)?;
    machine.launch(2, 64, 0, args![a_in, b_in, c_in, out, 100])?;

    type Ternary = fn(f64, f64, f64) -> f64;
    let operations: [(&str, Ternary); 10] = [
        ("a + b", |a, b, _| a + b),
        ("a - b", |a, b, _| a - b),
        ("a * b", |a, b, _| a * b),
        ("a * b + c", |a, b, c| a * b + c),
        ("-a", |a, _, _| -a),
        ("|a|", |a, _, _| a.abs()),
        ("min", |a, b, _| a.min(b)),
        ("max", |a, b, _| a.max(b)),
        ("relu", |a, b, c| (a * b + c).max(0.0)),
        ("a > b", |a, b, _| (a > b) as i32 as f64),
    ];
    let out = machine.read::<u16>(out)?;
    for (row, (name, operation)) in out.chunks(200).zip(operations) {
        let value = |i: usize| H::of(operation(a[i].wide(), b[i].wide(), c[i].wide())).bits();
        same(name, row, &(0..200).map(value).collect::<Vec<_>>())?;
    }
    Ok(())
}

fn conversions(machine: &mut Machine) -> Outcome {
    let number = |bits: u64| ((bits >> 20) as u32 as f32 / 4e9 - 0.5) * ((bits % 24) as f32 - 12.0).exp2();
    let x: Vec<f32> = random_u64(100).into_iter().map(number).collect();
    let input = machine.buffer("x", &x)?;
    let (as_f16, as_bf16) = (machine.output::<u16>("f16", 300)?, machine.output::<u16>("bf16", 200)?);
    let (sums, whole) = (machine.output::<f32>("sums", 100)?, machine.output::<i32>("whole", 100)?);
    machine.launch(4, 32, 0, args![input, as_f16, as_bf16, sums, whole, 100])?;

    let nearest: Vec<f16> = x.iter().map(|&x| f16::from_f32(x)).collect();
    // The magnitudes of f16 have the order of their bits.
    let step = |from: f16, by: i16| f16::from_bits(from.to_bits().wrapping_add_signed(by));
    let towards_zero = |(&x, &near): (&f32, &f16)| if near.to_f32().abs() > x.abs() { step(near, -1) } else { near };
    let upwards = |(&x, &near): (&f32, &f16)| match near.to_f32() {
        below if below >= x => near,
        _ if near.is_sign_negative() => step(near, -1),
        _ => step(near, 1),
    };
    let f16s = machine.read::<u16>(as_f16)?;
    same("f16, nearest", &f16s[..100], &bits(&nearest))?;
    same("f16, towards 0", &f16s[100..200], &bits(&x.iter().zip(&nearest).map(towards_zero).collect::<Vec<_>>()))?;
    same("f16, upwards", &f16s[200..], &bits(&x.iter().zip(&nearest).map(upwards).collect::<Vec<_>>()))?;

    let bf16s = machine.read::<u16>(as_bf16)?;
    let nearest_bf16: Vec<bf16> = x.iter().map(|&x| bf16::from_f32(x)).collect();
    same("bf16, nearest", &bf16s[..100], &bits(&nearest_bf16))?;
    same("bf16, towards 0", &bf16s[100..], &x.iter().map(|x| (x.to_bits() >> 16) as u16).collect::<Vec<_>>())?;

    let sum = |(h, b): (&f16, &bf16)| h.to_f32() + b.to_f32();
    same("sums", &machine.read::<f32>(sums)?, &nearest.iter().zip(&nearest_bf16).map(sum).collect::<Vec<_>>())?;
    let rounded: Vec<i32> = nearest.iter().map(|h| h.to_f32().round_ties_even() as i32).collect();
    same("whole", &machine.read::<i32>(whole)?, &rounded)
}

fn scalars_f16(machine: &mut Machine) -> Outcome {
    let numbers = numbers::<f16>(200);
    let (a, b) = numbers.split_at(100);
    let (a_in, b_in) = (machine.buffer("a", &bits(a))?, machine.buffer("b", &bits(b))?);
    let out = machine.output::<u16>("out", 200)?;
    machine.launch(4, 32, 0, args![a_in, b_in, out, 100])?;

    let pair = |(a, b): (&f16, &f16)| {
        let (a, b) = (a.to_f64(), b.to_f64());
        [a + b, a * a - b].map(|x| f16::from_f64(x).to_bits())
    };
    same("out", &machine.read::<u16>(out)?, &a.iter().zip(b).flat_map(pair).collect::<Vec<_>>())
}
