use half::{bf16, f16};

use crate::support::{Value, check, draw, input, output, run, samples, unary};
use proptest::prelude::*;

#[test]
fn moves() {
    unary("mov.pred", |a: bool| a);
    unary("mov.b16", |a: u16| a);
    unary("mov.b32", |a: u32| a);
    unary("mov.f32", |a: u32| a);
    unary("mov.u64", |a: u64| a);
    let samples = draw(any::<[u64; 4]>());
    let parts = |x: u64| [x, x >> 16, x >> 32, x >> 48].map(|part| part & 0xffff);
    check("mov.b32 %ro0, {%h0, %h1};", &samples, |[a, b, ..]| (a as u16 as u32) | (b as u32) << 16);
    check("mov.b64 %do0, {%r0, %r1};", &samples, |[a, b, ..]| (a as u32 as u64) | b << 32);
    check("mov.b64 %do0, {%h0, %h1, %h2, %h3};", &samples, |words| {
        words.iter().rev().fold(0u64, |whole, word| whole << 16 | word & 0xffff)
    });
    for (&[a, ..], got) in samples.iter().zip(run("mov.b32 {%ho0, %ho1}, %r0;", &samples)) {
        assert_eq!(got, [parts(a)[0], parts(a)[1]]);
    }
    for (&[a, ..], got) in samples.iter().zip(run("mov.b64 {%ro0, %ro1}, %d0;", &samples)) {
        assert_eq!(got, [a & 0xffff_ffff, a >> 32]);
    }
    for (&[a, ..], got) in samples.iter().zip(run("mov.b64 {%h8, %ho0, %h7, %ho1}, %d0;", &samples)) {
        assert_eq!(got, [parts(a)[1], parts(a)[3]]);
    }
    check("mov.b32 {_, %ho0}, %r0;", &samples, |[a, ..]| (a >> 16) as u16);
    // A vector of the registers that are written.
    check("mov.b32 {%h1, %h0}, %r0;\nmov.b32 %ro0, {%h0, %h1};", &samples, |[a, ..]| (a as u32).rotate_left(16));
}

macro_rules! each_integer {
    ($macro:ident $($arguments:tt)*) => {
        $macro!(u8, "u8" $($arguments)*);
        $macro!(i8, "s8" $($arguments)*);
        $macro!(u16, "u16" $($arguments)*);
        $macro!(i16, "s16" $($arguments)*);
        $macro!(u32, "u32" $($arguments)*);
        $macro!(i32, "s32" $($arguments)*);
        $macro!(u64, "u64" $($arguments)*);
        $macro!(i64, "s64" $($arguments)*);
    };
}

/// `cvt` of an integer register of type `A` to one of type `D`; of bytes only the byte is compared here.
fn integer<A: Value, D: Value>(opcode: &str, expected: impl Fn(A) -> D) {
    let body = format!("{opcode} {}, {};", output::<D>(0), input::<A>(0));
    let samples = samples::<A>();
    for (&[a], [bits, _]) in samples.iter().zip(run(&body, &samples)) {
        let (got, expected) = (D::of_bits(bits), expected(A::of_bits(a)));
        assert!(got.same(expected), "{body} of {a:x}: {got:?}, not {expected:?}");
    }
}

#[test]
fn integer_to_integer() {
    macro_rules! to {
        ($d:ty, $to:literal, $a:ty, $from:literal) => {
            integer(concat!("cvt.", $to, ".", $from), |a: $a| a as $d);
            integer(concat!("cvt.sat.", $to, ".", $from), |a: $a| {
                (a as i128).clamp(<$d>::MIN as i128, <$d>::MAX as i128) as $d
            });
        };
    }
    macro_rules! from {
        ($a:ty, $from:literal) => {
            each_integer!(to, $a, $from);
        };
    }
    each_integer!(from);
}

#[test]
fn registers_wider_than_types() {
    let words = samples::<u64>();
    check("cvt.s32.s8 %ro0, %r0;", &words, |[a]| a as i8 as i32);
    check("cvt.u32.u16 %ro0, %r0;", &words, |[a]| a as u16 as u32);
    check("cvt.s64.s8 %do0, %d0;", &words, |[a]| a as i8 as i64);
    check("cvt.s64.s32 %do0, %d0;", &words, |[a]| a as i32 as i64);
    check("cvt.u16.u64 %ho0, %d0;", &words, |[a]| a as u16);
    check("cvt.s8.s32 %ro0, %r0;", &words, |[a]| a as i8 as i32);
    check("cvt.u8.u32 %ro0, %r0;", &words, |[a]| a as u8 as u32);
}

#[test]
fn float_to_integer() {
    type Round = fn(f64) -> f64;
    let modes: [(&str, Round); 4] =
        [("rni", f64::round_ties_even), ("rzi", f64::trunc), ("rmi", f64::floor), ("rpi", f64::ceil)];
    for (mode, round) in modes {
        macro_rules! to {
            ($d:ty, $to:literal) => {
                let of_nan = |wide: bool| if wide || <$d>::BITS == 64 { 1 << (<$d>::BITS - 1) } else { 0 };
                let convert = |a: f64| round(a) as $d;
                integer(
                    &format!("cvt.{mode}.{}.f16", $to),
                    |a: f16| {
                        if a.is_nan() { of_nan(false) } else { convert(a.into()) }
                    },
                );
                integer(
                    &format!("cvt.{mode}.{}.f32", $to),
                    |a: f32| {
                        if a.is_nan() { of_nan(false) } else { convert(a.into()) }
                    },
                );
                integer(
                    &format!("cvt.{mode}.{}.f64", $to),
                    |a: f64| {
                        if a.is_nan() { of_nan(true) } else { convert(a) }
                    },
                );
                integer(&format!("cvt.{mode}.ftz.{}.f32", $to), |a: f32| {
                    if a.is_nan() { of_nan(false) } else { convert(if a.is_subnormal() { 0.0 } else { a.into() }) }
                });
            };
        }
        each_integer!(to);
    }
}

/// What a rounding towards `mode` makes of a nearest number that is `difference` above the exact one.
fn directed(mode: &str, nearest: f32, difference: i128) -> f32 {
    match mode {
        "rz" if difference > 0 && nearest > 0.0 => nearest.next_down(),
        "rz" if difference < 0 && nearest < 0.0 => nearest.next_up(),
        "rm" if difference > 0 => nearest.next_down(),
        "rp" if difference < 0 => nearest.next_up(),
        _ => nearest,
    }
}

#[test]
fn integer_to_float() {
    macro_rules! from {
        ($a:ty, $from:literal) => {
            integer(concat!("cvt.rn.f32.", $from), |a: $a| a as f32);
            integer(concat!("cvt.rn.f64.", $from), |a: $a| a as f64);
            integer(concat!("cvt.rn.sat.f32.", $from), |a: $a| if a > 0 { 1f32 } else { 0.0 });
            for mode in ["rz", "rm", "rp"] {
                integer(&format!("cvt.{mode}.f32.{}", $from), |a: $a| {
                    directed(mode, a as f32, a as f32 as i128 - a as i128)
                });
            }
            // 11 bits are kept.
            integer(concat!("cvt.rn.f16.", $from), |a: $a| {
                let a = a as i128;
                let step = (a.unsigned_abs().max(1).ilog2() + 1).saturating_sub(11);
                let unit = 1i128 << step;
                let (below, rest) = (a.div_euclid(unit), a.rem_euclid(unit));
                let up = 2 * rest > unit || 2 * rest == unit && below % 2 != 0;
                f16::from_f32((below + i128::from(up)) as f32 * unit as f32)
            });
        };
    }
    each_integer!(from);
}

/// NaN of arithmetic in f32.
fn canonical(x: f32) -> f32 {
    if x.is_nan() { f32::from_bits(0x7fff_ffff) } else { x }
}

fn flush(x: f32) -> f32 {
    if x.is_subnormal() { 0f32.copysign(x) } else { x }
}

fn saturate(x: f32) -> f32 {
    if x > 0.0 { x.min(1.0) } else { 0.0 }
}

#[test]
fn widening() {
    unary("cvt.f32.f16", |a: f16| canonical(a.into()));
    unary("cvt.ftz.f32.f16", |a: f16| canonical(a.into()));
    unary("cvt.sat.f32.f16", |a: f16| saturate(a.into()));
    unary("cvt.f32.bf16", |a: bf16| canonical(a.into()));
    unary("cvt.f64.f16", |a: f16| f64::from(a));
    unary("cvt.f64.f32", |a: f32| f64::from(a));
    unary("cvt.ftz.f64.f32", |a: f32| f64::from(flush(a)));
}

#[test]
fn f64_to_f32() {
    unary("cvt.rn.f32.f64", |a: f64| canonical(a as f32));
    unary("cvt.rn.ftz.f32.f64", |a: f64| canonical(flush(a as f32)));
    let step = |mode: &'static str| {
        move |a: f64| {
            let nearest = a as f32;
            let above = f64::from(nearest).partial_cmp(&a).map_or(0, |order| order as i128);
            canonical(directed(mode, nearest, above))
        }
    };
    for mode in ["rz", "rm", "rp"] {
        unary(&format!("cvt.{mode}.f32.f64"), step(mode));
    }
}

/// The number of a 16-bit format nearest to an f32, by comparing with the two around it.
fn narrow<H: Value + Copy>(a: f32, infinite: u16, exact: impl Fn(u16) -> f64) -> [H; 2] {
    if a.is_nan() {
        return [H::of_bits(0x7fff); 2];
    }
    let (magnitude, sign) = (f64::from(a.abs()), if a.is_sign_negative() { 0x8000 } else { 0 });
    // Of those from 0 to infinity the greatest that is not above.
    let below = (0..=infinite).collect::<Vec<u16>>().partition_point(|&bits| exact(bits) <= magnitude) as u16 - 1;
    let with_sign = |bits: u16| H::of_bits((bits | sign).into());
    if below == infinite {
        return [with_sign(infinite); 2];
    }
    let step = if below + 1 == infinite { exact(below) - exact(below - 1) } else { exact(below + 1) - exact(below) };
    let over_half = magnitude - exact(below) - step / 2.0;
    let up = over_half > 0.0 || over_half == 0.0 && below & 1 == 1;
    [with_sign(below + u16::from(up)), with_sign(below)]
}

fn narrowing<H: Value>(name: &str, infinite: u16, exact: impl Fn(u16) -> f64 + Copy) {
    let convert = |a: f32| narrow::<H>(a, infinite, exact);
    let finite = |x: H| {
        let bits = x.bits();
        if bits & 0x7fff == infinite.into() { H::of_bits(bits - 1) } else { x }
    };
    let relu = |x: H| if x.bits() & 0x8000 != 0 { H::of_bits(0) } else { x };
    unary(&format!("cvt.rn.{name}.f32"), |a: f32| convert(a)[0]);
    unary(&format!("cvt.rz.{name}.f32"), |a: f32| convert(a)[1]);
    unary(&format!("cvt.rn.relu.{name}.f32"), |a: f32| relu(convert(a)[0]));
    unary(&format!("cvt.rn.satfinite.{name}.f32"), |a: f32| finite(convert(a)[0]));
    unary(&format!("cvt.rn.relu.satfinite.{name}.f32"), |a: f32| relu(finite(convert(a)[0])));
    // Pairs: the first operand above the second.
    let samples: Vec<[u64; 2]> = samples::<f32>().into_iter().map(|[a]| [a, a.rotate_left(7) & 0xffff_ffff]).collect();
    for (mode, i) in [("rn", 0), ("rz", 1)] {
        check(&format!("cvt.{mode}.{name}x2.f32 %ro0, %r0, %r1;"), &samples, |[a, b]| {
            [convert(f32::of_bits(b))[i], convert(f32::of_bits(a))[i]]
        });
    }
}

#[test]
fn narrowing_to_f16() {
    narrowing::<f16>("f16", 0x7c00, |bits| f16::from_bits(bits).into());
}

#[test]
fn narrowing_to_bf16() {
    narrowing::<bf16>("bf16", 0x7f80, |bits| bf16::from_bits(bits).into());
}

#[test]
fn narrowing_f64_to_f16_rounds_once() {
    // 1 + 2^-11 is a tie; what is added below the 24 bits of f32 decides.
    let tie = 1.0 + f64::exp2(-11.0);
    let inputs = [tie, tie + f64::exp2(-40.0), tie - f64::exp2(-40.0)].map(|a| [a.to_bits()]);
    let got = run("cvt.rn.f16.f64 %ho0, %d0;", &inputs);
    assert_eq!(got, [[0x3c00, 0], [0x3c01, 0], [0x3c00, 0]]);
}

#[test]
fn to_tf32() {
    unary("cvt.rna.tf32.f32", |a: f32| {
        if a.is_nan() {
            return 0x7fff_ffffu32;
        }
        // In halves of a unit, so that a half goes up in magnitude.
        let (sign, magnitude) = (a.to_bits() & 1 << 31, a.to_bits() & !(1 << 31));
        sign | ((magnitude / 4096).div_ceil(2) * 8192)
    });
    let max = [[0x7f7f_ffff], [0xff7f_ffff], [0x7f80_0000]];
    let got = run("cvt.rna.satfinite.tf32.f32 %ro0, %r0;", &max);
    assert_eq!(got, [[0x7f7f_e000, 0], [0xff7f_e000, 0], [0x7f7f_e000, 0]]);
}

#[test]
fn to_integral() {
    type Round = fn(f64) -> f64;
    let modes: [(&str, Round); 4] =
        [("rni", f64::round_ties_even), ("rzi", f64::trunc), ("rmi", f64::floor), ("rpi", f64::ceil)];
    for (mode, round) in modes {
        unary(&format!("cvt.{mode}.f32.f32"), |a: f32| canonical(round(a.into()) as f32));
        unary(&format!("cvt.{mode}.ftz.f32.f32"), |a: f32| canonical(round(flush(a).into()) as f32));
        unary(&format!("cvt.{mode}.f64.f64"), |a: f64| round(a));
        unary(&format!("cvt.{mode}.f16.f16"), |a: f16| {
            if a.is_nan() { f16::from_bits(0x7fff) } else { f16::from_f64(round(a.into())) }
        });
    }
    unary("cvt.sat.f32.f32", |a: f32| saturate(a));
    unary("cvt.ftz.f32.f32", |a: f32| canonical(flush(a)));
}

#[test]
fn packing() {
    let samples =
        draw(prop_oneof![any::<[i32; 3]>(), prop::array::uniform3(-300i32..300), prop::array::uniform3(-9i32..9)]);
    let samples: Vec<[u64; 3]> = samples.into_iter().map(|words| words.map(|word| word as u32 as u64)).collect();
    for (ty, bits, min, max) in
        [("u8", 8, 0, 255), ("s8", 8, -128, 127), ("u4", 4, 0, 15), ("s4", 4, -8, 7), ("u2", 2, 0, 3), ("s2", 2, -2, 1)]
    {
        check(&format!("cvt.pack.sat.{ty}.s32.b32 %ro0, %r0, %r1, %r2;"), &samples, |[a, b, c]| {
            let field = |x: u64| (x as i32).clamp(min, max) as u64 & ((1 << bits) - 1);
            (c << (2 * bits) | field(a) << bits | field(b)) as u32
        });
    }
    check("cvt.pack.sat.s16.s32 %ro0, %r0, %r1;", &samples, |[a, b, _]| {
        let field = |x: u64| (x as i32).clamp(-32768, 32767) as u16 as u32;
        field(a) << 16 | field(b)
    });
    check("cvt.pack.sat.u16.s32 %ro0, %r0, %r1;", &samples, |[a, b, _]| {
        let field = |x: u64| (x as i32).clamp(0, 65535) as u32;
        field(a) << 16 | field(b)
    });
}
