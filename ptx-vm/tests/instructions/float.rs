use crate::support::{Value, binary, run, sample_pairs, sample_triples, samples, ternary, unary};

/// NaN as arithmetic gives it. By bits, for the optimiser takes one NaN for another.
fn canonical(x: f32) -> f32 {
    f32::from_bits(if x.to_bits() << 1 > 0xff << 24 { 0x7fff_ffff } else { x.to_bits() })
}

fn flush(x: f32) -> f32 {
    if x.is_subnormal() { 0f32.copysign(x) } else { x }
}

fn saturate(x: f32) -> f32 {
    if x > 0.0 { x.min(1.0) } else { 0.0 }
}

#[test]
fn nearest_f32() {
    binary("add.f32", |a: f32, b: f32| canonical(a + b));
    binary("add.rn.f32", |a: f32, b: f32| canonical(a + b));
    binary("sub.f32", |a: f32, b: f32| canonical(a - b));
    binary("mul.f32", |a: f32, b: f32| canonical(a * b));
    binary("div.rn.f32", |a: f32, b: f32| canonical(a / b));
    ternary("fma.rn.f32", |a: f32, b: f32, c: f32| canonical(a.mul_add(b, c)));
    unary("rcp.rn.f32", |a: f32| canonical(1.0 / a));
    unary("sqrt.rn.f32", |a: f32| canonical(a.sqrt()));
}

#[test]
fn nearest_f64() {
    binary("add.f64", |a: f64, b: f64| a + b);
    binary("sub.rn.f64", |a: f64, b: f64| a - b);
    binary("mul.f64", |a: f64, b: f64| a * b);
    binary("div.rn.f64", |a: f64, b: f64| a / b);
    ternary("fma.rn.f64", |a: f64, b: f64, c: f64| a.mul_add(b, c));
    unary("rcp.rn.f64", |a: f64| 1.0 / a);
    unary("sqrt.rn.f64", |a: f64| a.sqrt());
}

#[test]
fn flushed_and_saturated() {
    let ftz = |f: fn(f32, f32) -> f32| move |a: f32, b: f32| flush(canonical(f(flush(a), flush(b))));
    binary("add.ftz.f32", ftz(|a, b| a + b));
    binary("sub.ftz.f32", ftz(|a, b| a - b));
    binary("mul.ftz.f32", ftz(|a, b| a * b));
    binary("div.rn.ftz.f32", ftz(|a, b| a / b));
    binary("add.sat.f32", |a: f32, b: f32| saturate(a + b));
    binary("mul.ftz.sat.f32", |a: f32, b: f32| saturate(flush(flush(a) * flush(b))));
    ternary("fma.rn.sat.f32", |a: f32, b: f32, c: f32| saturate(a.mul_add(b, c)));
    ternary("fma.rn.ftz.f32", |a: f32, b: f32, c: f32| flush(canonical(flush(a).mul_add(flush(b), flush(c)))));
}

/// That the directed modes give the neighbours of the exact result. `rest` is 0 where `nearest` is exact.
macro_rules! directed {
    ($ty:ty, $opcode:literal, $operands:literal, $samples:expr, $rest:expr) => {
        let modes = ["rn", "rz", "rm", "rp"].map(|mode| {
            let opcode = format!(concat!($opcode, ".{}.", stringify!($ty)), mode);
            let register = <$ty>::REGISTER;
            let operands: Vec<String> = (0..$operands).map(|i| format!("%{register}{i}")).collect();
            run(&format!("{opcode} %{register}o0, {};", operands.join(", ")), &$samples)
        });
        for (i, sample) in $samples.iter().enumerate() {
            let [nearest, zero, down, up] = modes.each_ref().map(|results| <$ty>::of_bits(results[i][0]));
            let sample = sample.map(<$ty>::of_bits);
            let what = format!("{} of {sample:?}: {nearest:e} {zero:e} {down:e} {up:e}", $opcode);
            if nearest.is_nan() {
                assert!([zero, down, up].iter().all(|x| x.is_nan()), "{what}");
                continue;
            }
            assert!(nearest.same(down) || nearest.same(up) || nearest == 0.0 && down == up, "{what}");
            assert!(zero.same(if nearest > 0.0 || up > 0.0 { down } else { up }) || down == up, "{what}");
            assert!(down == up || down.next_up() == up, "{what}");
            let rest: $ty = $rest(sample, nearest);
            assert!(rest.is_nan() || (rest == 0.0) == (down == up), "{what}: rest {rest:e}");
            assert!(!nearest.is_infinite() || down == up || down.is_finite() != up.is_finite(), "{what}");
        }
    };
}

#[test]
fn directed_f32() {
    let wide = |x: f32| f64::from(x);
    // A difference of numbers that are not the same is never 0; infinities and NaN tell nothing.
    let sign = |x: f64| if x.is_finite() { x.signum() as f32 * f32::from(x != 0.0) } else { f32::NAN };
    let pairs = sample_pairs::<f32, f32>();
    // A sum in f64 as two parts.
    let sum = |a: f64, b: f64, r: f32| {
        let sum = a + b;
        let b_rounded = sum - a;
        sign((sum - wide(r)) + ((a - (sum - b_rounded)) + (b - b_rounded)))
    };
    directed!(f32, "add", 2, pairs, |[a, b]: [f32; 2], r: f32| sum(wide(a), wide(b), r));
    directed!(f32, "sub", 2, pairs, |[a, b]: [f32; 2], r: f32| sum(wide(a), -wide(b), r));
    directed!(f32, "mul", 2, pairs, |[a, b]: [f32; 2], r: f32| sign(wide(a) * wide(b) - wide(r)));
    directed!(f32, "div", 2, pairs, |[a, b]: [f32; 2], r: f32| sign(wide(a) - wide(b) * wide(r)));
    let triples = sample_triples::<f32, f32, f32>();
    directed!(f32, "fma", 3, triples, |[a, b, c]: [f32; 3], r: f32| sum(wide(a) * wide(b), wide(c), r));
    let ones = samples::<f32>();
    directed!(f32, "rcp", 1, ones, |[a]: [f32; 1], r: f32| sign(1.0 - wide(a) * wide(r)));
    directed!(f32, "sqrt", 1, ones, |[a]: [f32; 1], r: f32| sign(wide(a) - wide(r) * wide(r)));
}

#[test]
fn directed_f64() {
    // What is left of a sum or product, unless it is too small or too large to tell.
    let known = |rest: f64, of: f64| if of.abs() > 1e-250 && of.abs() < 1e300 { rest } else { f64::NAN };
    let sum = |a: f64, b: f64, r: f64| {
        let b_rounded = r - a;
        known((a - (r - b_rounded)) + (b - b_rounded), r)
    };
    let pairs = sample_pairs::<f64, f64>();
    directed!(f64, "add", 2, pairs, |[a, b]: [f64; 2], r: f64| sum(a, b, r));
    directed!(f64, "sub", 2, pairs, |[a, b]: [f64; 2], r: f64| sum(a, -b, r));
    directed!(f64, "mul", 2, pairs, |[a, b]: [f64; 2], r: f64| known(a.mul_add(b, -r), r));
    directed!(f64, "div", 2, pairs, |[a, b]: [f64; 2], r: f64| known(known((-r).mul_add(b, a), r), a));
    let triples = sample_triples::<f64, f64, f64>();
    directed!(f64, "fma", 3, triples, |[a, b, c]: [f64; 3], r: f64| {
        if c == 0.0 { known(a.mul_add(b, -r), r) } else { f64::NAN }
    });
    let ones = samples::<f64>();
    directed!(f64, "rcp", 1, ones, |[a]: [f64; 1], r: f64| known((-r).mul_add(a, 1.0), r));
    directed!(f64, "sqrt", 1, ones, |[a]: [f64; 1], r: f64| known((-r).mul_add(r, a), a));
}

#[test]
fn sums_that_cancel() {
    // The sign of a sum that is exactly 0 depends on the mode.
    let inputs = [[1f32.to_bits().into(), (-1f32).to_bits().into()]];
    for (mode, zero) in [("rn", 0.0f32), ("rz", 0.0), ("rp", 0.0), ("rm", -0.0)] {
        let got = run(&format!("add.{mode}.f32 %ro0, %r0, %r1;"), &inputs)[0][0];
        assert_eq!(got, u64::from(zero.to_bits()), "{mode}");
    }
}

/// The larger or smaller by the ISA: the other of a number and NaN, +0 above -0.
fn extreme(a: f32, b: f32, largest: bool) -> f32 {
    let above = |a: f32, b: f32| a.total_cmp(&b).is_gt();
    match (a.is_nan(), b.is_nan()) {
        (true, _) => canonical(b),
        (_, true) => a,
        _ if above(a, b) == largest => a,
        _ => b,
    }
}

#[test]
fn extremes() {
    for (opcode, largest) in [("min", false), ("max", true)] {
        let op = |modifiers: &str| format!("{opcode}{modifiers}.f32");
        let or_nan = |a: f32, b: f32, x: f32| if a.is_nan() || b.is_nan() { canonical(f32::NAN) } else { x };
        binary(&op(""), |a: f32, b: f32| extreme(a, b, largest));
        binary(&op(".ftz"), |a: f32, b: f32| extreme(flush(a), flush(b), largest));
        binary(&op(".NaN"), |a: f32, b: f32| or_nan(a, b, extreme(a, b, largest)));
        binary(&op(".xorsign.abs"), |a: f32, b: f32| {
            let sign = if a.is_sign_negative() == b.is_sign_negative() { 1f32 } else { -1.0 };
            canonical(extreme(a.abs(), b.abs(), largest).copysign(sign))
        });
        binary(&format!("{opcode}.f64"), |a: f64, b: f64| match (a.is_nan(), b.is_nan()) {
            (true, _) => b,
            (_, true) => a,
            _ if a.total_cmp(&b).is_gt() == largest => a,
            _ => b,
        });
    }
}

#[test]
fn signs() {
    let sign = 1u32 << 31;
    unary("neg.f32", |a: f32| f32::from_bits(a.to_bits() ^ sign));
    unary("abs.f32", |a: f32| f32::from_bits(a.to_bits() & !sign));
    unary("neg.ftz.f32", |a: f32| f32::from_bits(flush(a).to_bits() ^ sign));
    unary("abs.ftz.f32", |a: f32| f32::from_bits(flush(a).to_bits() & !sign));
    unary("neg.f64", |a: f64| f64::from_bits(a.to_bits() ^ 1 << 63));
    unary("abs.f64", |a: f64| f64::from_bits(a.to_bits() & !(1 << 63)));
    binary("copysign.f32", |a: u32, b: u32| a & sign | b & !sign);
    binary("copysign.f64", |a: u64, b: u64| a & 1 << 63 | b & !(1 << 63));
}

#[test]
fn properties() {
    use std::num::FpCategory::{Infinite, Nan, Subnormal};
    unary("testp.finite.f32", |a: f32| !matches!(a.classify(), Infinite | Nan));
    unary("testp.infinite.f32", |a: f32| a.classify() == Infinite);
    unary("testp.number.f32", |a: f32| a.classify() != Nan);
    unary("testp.notanumber.f32", |a: f32| a.classify() == Nan);
    unary("testp.normal.f32", |a: f32| !matches!(a.classify(), Infinite | Nan | Subnormal));
    unary("testp.subnormal.f32", |a: f32| a.classify() == Subnormal);
    unary("testp.finite.f64", |a: f64| !matches!(a.classify(), Infinite | Nan));
    unary("testp.infinite.f64", |a: f64| a.classify() == Infinite);
    unary("testp.number.f64", |a: f64| a.classify() != Nan);
    unary("testp.notanumber.f64", |a: f64| a.classify() == Nan);
    unary("testp.normal.f64", |a: f64| !matches!(a.classify(), Infinite | Nan | Subnormal));
    unary("testp.subnormal.f64", |a: f64| a.classify() == Subnormal);
}
