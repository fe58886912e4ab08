//! Approximate functions. A result is off by an error within the bound that the PTX ISA (9.0, sections 9.7.3
//! and 9.7.4) documents, drawn from a hash of the launch's seed, the function and the operands: a kernel
//! that needs more than the documentation promises is found by trying several seeds.
//!
//! Where the ISA lists a result (operands 0, infinity, NaN), it is that.

use half::{bf16, f16};

use super::packed::is_packed;
use super::rounding::{self, Format, Rounding};
use super::{Row, row};
use crate::decode::{Operands, lanewise};
use crate::exec::Operation;
use crate::registers::{LANES, Lane, Packed, each_lane};

type Decoded = Result<Operation, String>;

pub(super) const ROWS: &[Row] = &[
    row("rcp.approx{.ftz,}.f32", |o| unary::<f32>(o, RECIPROCAL)),
    row("sqrt.approx{.ftz,}.f32", |o| unary::<f32>(o, SQUARE_ROOT)),
    row("rsqrt.approx{.ftz,}.f32", |o| unary::<f32>(o, RECIPROCAL_SQUARE_ROOT)),
    row("sin.approx{.ftz,}.f32", |o| unary::<f32>(o, SINE)),
    row("cos.approx{.ftz,}.f32", |o| unary::<f32>(o, COSINE)),
    row("lg2.approx{.ftz,}.f32", |o| unary::<f32>(o, LOGARITHM)),
    row("ex2.approx{.ftz,}.f32", |o| unary::<f32>(o, EXPONENTIAL)),
    row("tanh.approx.f32", |o| unary::<f32>(o, HYPERBOLIC_TANGENT)),
    row("ex2.approx.{f16,f16x2}", |o| unary_half::<f16>(o, EXPONENTIAL_F16)),
    row("ex2.approx.ftz.{bf16,bf16x2}", |o| unary_half::<bf16>(o, EXPONENTIAL_BF16)),
    row("tanh.approx.{f16,f16x2}", |o| unary_half::<f16>(o, HYPERBOLIC_TANGENT_F16)),
    row("tanh.approx.{bf16,bf16x2}", |o| unary_half::<bf16>(o, HYPERBOLIC_TANGENT_BF16)),
    row("div.approx{.ftz,}.f32", |o| divide(o, approximate_quotient)),
    row("div.full{.ftz,}.f32", |o| divide(o, |a, b| Quotient::Near(a / b))),
    row("rcp.approx.ftz.f64", |o| upper_word(o, |a| 1.0 / a, 1)),
    row("rsqrt.approx.ftz.f64", |o| upper_word(o, |a| 1.0 / a.sqrt(), 2)),
    row("rsqrt.approx.f64", |o| o.approximate(reciprocal_square_root_f64)),
];

/// A function of one operand and how far its approximation may be off.
#[derive(Clone, Copy)]
struct Function {
    /// Makes its errors independent of those of other functions.
    salt: u64,
    exact: fn(f64) -> f64,
    bound: fn(f64) -> Bound,
}

/// The largest error at an operand.
#[derive(Clone, Copy)]
enum Bound {
    /// Units in the last place of the result.
    Ulps(f64),
    Relative(f64),
    Absolute(f64),
}

/// At most 1 ulp over the full range.
const RECIPROCAL: Function = Function { salt: 1, exact: f64::recip, bound: |_| Bound::Ulps(1.0) };

/// Relative 2^-23 over the positive finite range.
const SQUARE_ROOT: Function =
    Function { salt: 2, exact: f64::sqrt, bound: |_| Bound::Relative(1.0 / (1 << 23) as f64) };

/// Relative 2^-22.9 over the positive finite range.
const RECIPROCAL_SQUARE_ROOT: Function =
    Function { salt: 3, exact: |a| 1.0 / a.sqrt(), bound: |_| Bound::Relative((-22.9f64).exp2()) };

const SINE: Function = Function { salt: 4, exact: f64::sin, bound: trigonometric_bound };

const COSINE: Function = Function { salt: 5, exact: f64::cos, bound: trigonometric_bound };

/// Absolute 2^-22 in (0.5, 2), relative 2^-22 elsewhere.
const LOGARITHM: Function = Function {
    salt: 6,
    exact: f64::log2,
    bound: |a| {
        let bound = (-22f64).exp2();
        if a > 0.5 && a < 2.0 { Bound::Absolute(bound) } else { Bound::Relative(bound) }
    },
};

/// 2 ulp over the full range.
const EXPONENTIAL: Function = Function { salt: 7, exact: f64::exp2, bound: |_| Bound::Ulps(2.0) };

/// Relative 2^-11; subnormal operands are passed through.
const HYPERBOLIC_TANGENT: Function = Function {
    salt: 8,
    exact: f64::tanh,
    bound: |a| Bound::Relative(if a.abs() < f64::from(f32::MIN_POSITIVE) { 0.0 } else { (-11f64).exp2() }),
};

/// Relative 2^-9.9.
const EXPONENTIAL_F16: Function = Function { salt: 9, exact: f64::exp2, bound: |_| Bound::Relative((-9.9f64).exp2()) };

/// Relative 2^-7.
const EXPONENTIAL_BF16: Function = Function { salt: 10, exact: f64::exp2, bound: |_| Bound::Relative((-7f64).exp2()) };

/// Absolute 2^-10.987.
const HYPERBOLIC_TANGENT_F16: Function =
    Function { salt: 11, exact: f64::tanh, bound: |_| Bound::Absolute((-10.987f64).exp2()) };

/// Absolute 2^-8.
const HYPERBOLIC_TANGENT_BF16: Function =
    Function { salt: 12, exact: f64::tanh, bound: |_| Bound::Absolute((-8f64).exp2()) };

const QUOTIENT_SALT: u64 = 13;
const UPPER_WORD_SALT: u64 = 14;
const RECIPROCAL_SQUARE_ROOT_F64_SALT: u64 = 16;

/// Absolute 2^-20.5 in [-2π, 2π] and 2^-14.7 in [-100π, 100π]. Beyond that nothing is promised; here the
/// error grows with the operand, as that of a range reduction does.
fn trigonometric_bound(a: f64) -> Bound {
    const PI: f64 = std::f64::consts::PI;
    Bound::Absolute(match a.abs() {
        near if near <= 2.0 * PI => (-20.5f64).exp2(),
        far => (-14.7f64).exp2() * (far / (100.0 * PI)).clamp(1.0, 1e5),
    })
}

/// Uniform in [-1, 1), by seed, function and operands.
fn draw(seed: u64, salt: u64, operands: u64) -> f64 {
    let hash = mix(mix(seed ^ salt << 56) ^ operands);
    (hash >> 11) as f64 / (1u64 << 52) as f64 - 1.0
}

/// The output function of SplitMix64.
fn mix(x: u64) -> u64 {
    let x = x.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let x = (x ^ x >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let x = (x ^ x >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ x >> 31
}

/// The distance of neighbouring numbers of the format near `x`.
fn ulp<F: Format>(x: f64) -> f64 {
    let exponent = (x.to_bits() >> 52 & 0x7ff) as i32 - 1023;
    f64::from(exponent - F::MANTISSA_BITS as i32).max(f64::from(F::LEAST_EXPONENT)).exp2()
}

/// A number of the format that is at most as far from `exact` as `bound` says; `draw` picks which. The
/// nearest where there is no other, and where the result underflows.
fn near<F: Format>(exact: f64, bound: Bound, draw: f64) -> F {
    let nearest: F = rounding::convert(exact, Rounding::Nearest);
    if nearest.is_nan() || nearest == F::ZERO {
        return nearest;
    }
    let error = match bound {
        Bound::Ulps(ulps) => ulps * ulp::<F>(exact),
        Bound::Relative(relative) => relative * exact.abs(),
        Bound::Absolute(absolute) => absolute,
    };
    let moved: F = rounding::convert(exact + draw * error, Rounding::Nearest);
    if (moved.to_f64() - exact).abs() <= error { moved } else { nearest }
}

impl Function {
    fn approximate<F: Format>(self, seed: u64, a: F) -> F {
        let x = a.to_f64();
        let exact = (self.exact)(x);
        if x == 0.0 || !x.is_finite() || !exact.is_finite() {
            return rounding::convert(exact, Rounding::Nearest);
        }
        near(exact, (self.bound)(x), draw(seed, self.salt, a.bits()))
    }
}

fn unary<F: Format + Lane>(o: &mut Operands<'_>, function: Function) -> Decoded {
    if o.has("ftz") {
        o.approximate(move |seed, a: F| function.approximate(seed, a.flush()).flush())
    } else {
        o.approximate(move |seed, a: F| function.approximate(seed, a))
    }
}

fn unary_half<H: Format + Lane>(o: &mut Operands<'_>, function: Function) -> Decoded
where
    Packed<H>: Lane,
{
    if !is_packed(o) {
        return unary::<H>(o, function);
    }
    let flushes = o.has("ftz");
    o.approximate(move |seed, a: Packed<H>| {
        a.map(|a| if flushes { function.approximate(seed, a.flush()).flush() } else { function.approximate(seed, a) })
    })
}

/// What a division gives.
enum Quotient {
    /// Within 2 ulp of this.
    Near(f64),
    Exactly(f64),
}

/// `a * (1 / b)`, within 2 ulp for |b| in [2^-126, 2^126]. Beyond, `1 / b` is flushed to zero. Nothing is
/// promised below; what is infinite there is the reciprocal in f32.
fn approximate_quotient(a: f64, b: f64) -> Quotient {
    let magnitude = b.abs();
    if magnitude > 126f64.exp2() && magnitude < 128f64.exp2() {
        Quotient::Exactly(a * 0f64.copysign(b))
    } else if ((1.0 / b) as f32).is_infinite() {
        Quotient::Exactly(a * (f64::INFINITY.copysign(b)))
    } else {
        Quotient::Near(a / b)
    }
}

fn divide(o: &mut Operands<'_>, quotient: fn(f64, f64) -> Quotient) -> Decoded {
    o.expect_operands(3)?;
    let (d, a, b) = (o.reg::<f32>(0)?, o.reg::<f32>(1)?, o.reg::<f32>(2)?);
    let flushes = o.has("ftz");
    let flush = move |x: f32| if flushes { x.flush() } else { x };
    lanewise(move |registers, mask| {
        let seed = registers.seed;
        let (a, b) = (a.read(registers).map(flush), b.read(registers).map(flush));
        let divide = |lane: usize| {
            let operands = u64::from(a[lane].to_bits()) << 32 | u64::from(b[lane].to_bits());
            match quotient(a[lane].into(), b[lane].into()) {
                Quotient::Near(exact) if exact.is_finite() => {
                    near(exact, Bound::Ulps(2.0), draw(seed, QUOTIENT_SALT, operands))
                }
                Quotient::Near(exact) | Quotient::Exactly(exact) => rounding::convert(exact, Rounding::Nearest),
            }
        };
        let values: [f32; LANES] = each_lane(divide);
        d.write(registers, values.map(flush), mask);
    })
}

/// A function of the upper word of an f64, which gives the upper word of the result; the lower is zero. The
/// ISA gives no bound for these: one unit in the last place of the upper word, 2^-20, is taken.
fn upper_word(o: &mut Operands<'_>, exact: fn(f64) -> f64, salt: u64) -> Decoded {
    const UPPER: u64 = !0 << 32;
    const NAN: f64 = f64::from_bits(0x7fff_ffff_0000_0000);
    o.approximate(move |seed, a: f64| {
        let a = f64::from_bits(a.to_bits() & UPPER).flush();
        let exact = exact(a).flush();
        if exact.is_nan() {
            return NAN;
        }
        if a == 0.0 || exact == 0.0 || exact.is_infinite() {
            return exact;
        }
        // Rounds down and goes up by 0 or 1: both are less than a unit off.
        let up = draw(seed, UPPER_WORD_SALT + salt, a.to_bits()) > 0.0;
        let lower = exact.to_bits() & UPPER;
        f64::from_bits(if up && exact.to_bits() != lower { lower + !UPPER + 1 } else { lower })
    })
}

/// The ISA gives no bound; CUDA's documentation gives 1 ulp for `rsqrt`, to which the host's two roundings are
/// added.
fn reciprocal_square_root_f64(seed: u64, a: f64) -> f64 {
    let exact = 1.0 / a.sqrt();
    if a == 0.0 || !exact.is_finite() || exact == 0.0 {
        return exact.canonical();
    }
    // Results are never at the ends of the range.
    match draw(seed, RECIPROCAL_SQUARE_ROOT_F64_SALT, a.to_bits()) {
        low if low < -1.0 / 3.0 => exact.next_down(),
        high if high > 1.0 / 3.0 => exact.next_up(),
        _ => exact,
    }
}
