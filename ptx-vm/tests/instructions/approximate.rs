use half::{bf16, f16};

use crate::support::{Value, input, output, run_seeded, sample_pairs, samples};

/// How far a result may be off.
enum Bound {
    Ulps(f64),
    Relative(f64),
    Absolute(f64),
    /// Nothing is promised.
    Any,
}

use Bound::{Absolute, Any, Relative, Ulps};

/// f32's unit in the last place at `x`.
fn ulp(x: f64) -> f64 {
    let x = x.abs().max(f64::from(f32::MIN_POSITIVE));
    f64::exp2(x.log2().floor() - 23.0)
}

trait Float: Value {
    /// The largest finite and the least number above 0.
    const RANGE: [f64; 2];

    fn exact(self) -> f64;
}

impl Float for f32 {
    const RANGE: [f64; 2] = [f32::MAX as f64, 1e-45f32 as f64];

    fn exact(self) -> f64 {
        self.into()
    }
}

impl Float for f16 {
    const RANGE: [f64; 2] = [65504.0, 5.960464477539063e-8];

    fn exact(self) -> f64 {
        self.into()
    }
}

impl Float for bf16 {
    const RANGE: [f64; 2] = [3.3895313892515355e38, 9.183549615799121e-41];

    fn exact(self) -> f64 {
        self.into()
    }
}

/// That the results under several seeds are within bounds, exact where the operand or the result is 0,
/// infinite or NaN, and not all the same.
fn unary<F: Float>(opcode: &str, exact: impl Fn(f64) -> f64, bound: impl Fn(f64) -> Bound) {
    let body = format!("{opcode} {}, {};", output::<F>(0), input::<F>(0));
    let samples = samples::<F>();
    let flushes = opcode.contains(".ftz");
    let seeds = [0, 1, 0x1234_5678_9abc_def0].map(|seed| run_seeded(&body, &samples, seed));
    for (i, &[a]) in samples.iter().enumerate() {
        let mut a = F::of_bits(a).exact();
        if flushes && a.abs() < f64::from(f32::MIN_POSITIVE) {
            a = 0f64.copysign(a);
        }
        let expected = exact(a);
        for results in &seeds {
            let got = F::of_bits(results[i][0]).exact();
            let what = format!("{opcode} of {a:e}: {got:e}, not {expected:e}");
            if a == 0.0 || !a.is_finite() || !expected.is_finite() {
                assert!(got.to_bits() == expected.to_bits() || got.is_nan() && expected.is_nan(), "{what}");
                continue;
            }
            assert!(is_within::<F>(got, expected, bound(a), flushes), "{what}");
        }
    }
    assert_ne!(seeds[0], seeds[1], "{opcode}");
    assert_eq!(seeds[0], run_seeded(&body, &samples, 0), "{opcode}");
}

fn is_within<F: Float>(got: f64, expected: f64, bound: Bound, flushes: bool) -> bool {
    let [greatest, least] = F::RANGE;
    // What is below may be flushed, or is rounded to no better than this.
    let coarse = if flushes { f64::from(f32::MIN_POSITIVE) * 1.000001 } else { least / 2.0 };
    let error = (got - expected).abs();
    match bound {
        Absolute(bound) => error <= bound,
        _ if expected.abs() <= coarse => got.abs() <= coarse,
        _ if got.is_infinite() => expected.abs() > greatest,
        Ulps(ulps) => error <= ulps * ulp(expected),
        Relative(bound) => error <= (bound * expected.abs()).max(least / 2.0),
        Any => true,
    }
}

#[test]
fn roots_and_reciprocals() {
    for ftz in ["", ".ftz"] {
        unary::<f32>(&format!("rcp.approx{ftz}.f32"), |a| 1.0 / a, |_| Ulps(1.0));
        unary::<f32>(&format!("sqrt.approx{ftz}.f32"), f64::sqrt, |_| Relative(f64::exp2(-23.0)));
        unary::<f32>(&format!("rsqrt.approx{ftz}.f32"), |a| 1.0 / a.sqrt(), |_| Relative(f64::exp2(-22.9)));
    }
}

#[test]
fn exponentials_and_logarithms() {
    let logarithm = |a: f64| {
        let bound = f64::exp2(-22.0);
        if a > 0.5 && a < 2.0 { Absolute(bound) } else { Relative(bound) }
    };
    for ftz in ["", ".ftz"] {
        unary::<f32>(&format!("ex2.approx{ftz}.f32"), f64::exp2, |_| Ulps(2.0));
        unary::<f32>(&format!("lg2.approx{ftz}.f32"), f64::log2, logarithm);
    }
    unary::<f16>("ex2.approx.f16", f64::exp2, |_| Relative(f64::exp2(-9.9)));
    unary::<bf16>("ex2.approx.ftz.bf16", f64::exp2, |_| Relative(f64::exp2(-7.0)));
}

#[test]
fn trigonometry() {
    let bound = |a: f64| match a.abs() / std::f64::consts::PI {
        turns if turns <= 2.0 => Absolute(f64::exp2(-20.5)),
        turns if turns <= 100.0 => Absolute(f64::exp2(-14.7)),
        _ => Any,
    };
    for ftz in ["", ".ftz"] {
        unary::<f32>(&format!("sin.approx{ftz}.f32"), f64::sin, bound);
        unary::<f32>(&format!("cos.approx{ftz}.f32"), f64::cos, bound);
    }
}

#[test]
fn hyperbolic_tangents() {
    unary::<f32>("tanh.approx.f32", f64::tanh, |_| Relative(f64::exp2(-11.0)));
    unary::<f16>("tanh.approx.f16", f64::tanh, |_| Absolute(f64::exp2(-10.987)));
    unary::<bf16>("tanh.approx.bf16", f64::tanh, |_| Absolute(f64::exp2(-8.0)));
}

#[test]
fn packed_is_twice_scalar() {
    for (opcode, ty) in
        [("ex2.approx", "f16"), ("tanh.approx", "f16"), ("ex2.approx.ftz", "bf16"), ("tanh.approx", "bf16")]
    {
        let words = samples::<u32>();
        let halves = |shift: u32| -> Vec<[u64; 1]> { words.iter().map(|[word]| [word >> shift & 0xffff]).collect() };
        let scalar = |inputs: &[[u64; 1]]| run_seeded(&format!("{opcode}.{ty} %ho0, %h0;"), inputs, 7);
        let packed = run_seeded(&format!("{opcode}.{ty}x2 %ro0, %r0;"), &words, 7);
        for (([packed, _], [low, _]), [high, _]) in packed.into_iter().zip(scalar(&halves(0))).zip(scalar(&halves(16)))
        {
            assert_eq!(packed, low | high << 16, "{opcode}.{ty}x2");
        }
    }
}

#[test]
fn quotients() {
    let samples = sample_pairs::<f32, f32>();
    for (opcode, is_full) in [("div.approx.f32", false), ("div.full.f32", true)] {
        for seed in [0, 1, 2] {
            let body = format!("{opcode} %ro0, %r0, %r1;");
            for (&[a, b], [got, _]) in samples.iter().zip(run_seeded(&body, &samples, seed)) {
                let [a, b, got] = [a, b, got].map(|bits| f64::from(f32::of_bits(bits)));
                let what = format!("{opcode} {a:e} / {b:e} = {got:e}");
                let far = b.abs() > f64::exp2(126.0) && b.abs() < f64::exp2(128.0);
                if !is_full && far && !a.is_nan() {
                    assert!(if a.is_infinite() { got.is_nan() } else { got == 0.0 }, "{what}");
                } else if a == 0.0 || b == 0.0 || !a.is_finite() || !b.is_finite() {
                    let expected = if !is_full && b.abs() < f64::exp2(-128.0) { a / 0f64.copysign(b) } else { a / b };
                    assert!(got.to_bits() == expected.to_bits() || got.is_nan() && expected.is_nan(), "{what}");
                } else if is_full || b.abs() >= f64::exp2(-126.0) {
                    assert!(is_within::<f32>(got, a / b, Ulps(2.0), false), "{what}");
                }
            }
        }
    }
}

#[test]
fn functions_of_f64() {
    let samples = samples::<f64>();
    let upper = |a: f64| f64::from_bits(a.to_bits() >> 32 << 32);
    let flush = |a: f64| if a.is_subnormal() { 0f64.copysign(a) } else { a };
    type Function = fn(f64) -> f64;
    let functions: [(&str, Function); 2] =
        [("rcp.approx.ftz.f64", |a| 1.0 / a), ("rsqrt.approx.ftz.f64", |a| 1.0 / a.sqrt())];
    for (opcode, exact) in functions {
        for (&[a], [bits, _]) in samples.iter().zip(run_seeded(&format!("{opcode} %do0, %d0;"), &samples, 3)) {
            let (a, got) = (flush(upper(f64::of_bits(a))), f64::of_bits(bits));
            let expected = flush(exact(a));
            let what = format!("{opcode} of {a:e}: {got:e}, not {expected:e}");
            assert_eq!(bits & 0xffff_ffff, 0, "{what}");
            if expected.is_nan() {
                assert_eq!(bits, 0x7fff_ffff_0000_0000, "{what}");
            } else {
                let is_near = (got - expected).abs() <= f64::exp2(-20.0) * expected.abs();
                assert!(is_near || got.to_bits() == expected.to_bits(), "{what}");
            }
        }
    }
    let body = "rsqrt.approx.f64 %do0, %d0;";
    for (&[a], [bits, _]) in samples.iter().zip(run_seeded(body, &samples, 3)) {
        let (expected, got) = (1.0 / f64::of_bits(a).sqrt(), f64::of_bits(bits));
        let is_near = (got - expected).abs() <= f64::exp2(-51.0) * expected.abs();
        assert!(is_near || got.same(expected), "{body} of {a:x}: {got:e}, not {expected:e}");
    }
}
