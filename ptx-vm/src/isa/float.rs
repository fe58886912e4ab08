//! Arithmetic of f32 and f64. What is approximate is in [`super::approximate`].

use super::rounding::{self, Format, Rounding};
use super::{Row, row};
use crate::decode::Operands;
use crate::exec::Operation;
use crate::registers::Lane;

type Decoded = Result<Operation, String>;

pub(super) const ROWS: &[Row] = &[
    row("add{.rn,}{.ftz,}{.sat,}.f32", |o| binary(o, |a: f32, b| a + b)),
    row("sub{.rn,}{.ftz,}{.sat,}.f32", |o| binary(o, |a: f32, b| a - b)),
    row("mul{.rn,}{.ftz,}{.sat,}.f32", |o| binary(o, |a: f32, b| a * b)),
    row("div.rn{.ftz,}.f32", |o| binary(o, |a: f32, b| a / b)),
    row("{fma,mad}.rn{.ftz,}{.sat,}.f32", |o| ternary(o, rounding::fused_f32)),
    row("rcp.rn{.ftz,}.f32", |o| unary(o, |a: f32| 1.0 / a)),
    row("sqrt.rn{.ftz,}.f32", |o| unary(o, f32::sqrt)),
    row("add.{rz,rm,rp}{.ftz,}{.sat,}.f32", |o| directed_binary(o, rounding::add::<f32>)),
    row("sub.{rz,rm,rp}{.ftz,}{.sat,}.f32", |o| directed_binary(o, rounding::subtract::<f32>)),
    row("mul.{rz,rm,rp}{.ftz,}{.sat,}.f32", |o| directed_binary(o, rounding::multiply::<f32>)),
    row("div.{rz,rm,rp}{.ftz,}.f32", |o| directed_binary(o, rounding::divide::<f32>)),
    row("{fma,mad}.{rz,rm,rp}{.ftz,}{.sat,}.f32", |o| directed_ternary(o, rounding::multiply_add::<f32>)),
    row("rcp.{rz,rm,rp}{.ftz,}.f32", |o| directed_unary(o, |a, rounding| rounding::divide(1.0f32, a, rounding))),
    row("sqrt.{rz,rm,rp}{.ftz,}.f32", |o| directed_unary(o, rounding::square_root::<f32>)),
    row("add{.rn,}.f64", |o| o.binary(|a: f64, b: f64| a + b)),
    row("sub{.rn,}.f64", |o| o.binary(|a: f64, b: f64| a - b)),
    row("mul{.rn,}.f64", |o| o.binary(|a: f64, b: f64| a * b)),
    row("div.rn.f64", |o| o.binary(|a: f64, b: f64| a / b)),
    row("{fma,mad}.rn.f64", |o| o.ternary(f64::mul_add)),
    row("rcp.rn.f64", |o| o.unary(f64::recip)),
    row("sqrt.rn.f64", |o| o.unary(f64::sqrt)),
    row("add.{rz,rm,rp}.f64", |o| directed_binary(o, rounding::add::<f64>)),
    row("sub.{rz,rm,rp}.f64", |o| directed_binary(o, rounding::subtract::<f64>)),
    row("mul.{rz,rm,rp}.f64", |o| directed_binary(o, rounding::multiply::<f64>)),
    row("div.{rz,rm,rp}.f64", |o| directed_binary(o, rounding::divide::<f64>)),
    row("{fma,mad}.{rz,rm,rp}.f64", |o| directed_ternary(o, rounding::multiply_add::<f64>)),
    row("rcp.{rz,rm,rp}.f64", |o| directed_unary(o, |a, rounding| rounding::divide(1.0f64, a, rounding))),
    row("sqrt.{rz,rm,rp}.f64", |o| directed_unary(o, rounding::square_root::<f64>)),
    row("min{.ftz,}{.NaN,}{.xorsign.abs,}.f32", |o| extreme(o, smaller::<f32>)),
    row("max{.ftz,}{.NaN,}{.xorsign.abs,}.f32", |o| extreme(o, larger::<f32>)),
    row("min.f64", |o| o.binary(smaller::<f64>)),
    row("max.f64", |o| o.binary(larger::<f64>)),
    // The sign of NaN is unspecified.
    row("neg.f32", |o| o.unary(|a: f32| -a)),
    row("neg.ftz.f32", |o| o.unary(|a: f32| -a.flush())),
    row("neg.f64", |o| o.unary(|a: f64| -a)),
    row("abs.f32", |o| o.unary(f32::abs)),
    row("abs.ftz.f32", |o| o.unary(|a: f32| a.flush().abs())),
    row("abs.f64", |o| o.unary(f64::abs)),
    row("copysign.f32", |o| o.binary(|sign: f32, magnitude: f32| magnitude.copysign(sign))),
    row("copysign.f64", |o| o.binary(|sign: f64, magnitude: f64| magnitude.copysign(sign))),
    row("testp.finite.f32", |o| o.unary(f32::is_finite)),
    row("testp.finite.f64", |o| o.unary(f64::is_finite)),
    row("testp.infinite.f32", |o| o.unary(f32::is_infinite)),
    row("testp.infinite.f64", |o| o.unary(f64::is_infinite)),
    row("testp.number.f32", |o| o.unary(|a: f32| !a.is_nan())),
    row("testp.number.f64", |o| o.unary(|a: f64| !a.is_nan())),
    row("testp.notanumber.f32", |o| o.unary(f32::is_nan)),
    row("testp.notanumber.f64", |o| o.unary(f64::is_nan)),
    // Zero counts as normal.
    row("testp.normal.f32", |o| o.unary(|a: f32| a.is_finite() && !a.is_subnormal())),
    row("testp.normal.f64", |o| o.unary(|a: f64| a.is_finite() && !a.is_subnormal())),
    row("testp.subnormal.f32", |o| o.unary(f32::is_subnormal)),
    row("testp.subnormal.f64", |o| o.unary(f64::is_subnormal)),
];

/// What an instruction does to its operands and its result beside the arithmetic.
#[derive(Debug, Clone, Copy)]
pub(super) struct Modifiers {
    flush: bool,
    saturate: bool,
    relu: bool,
}

impl Modifiers {
    pub fn of(o: &Operands<'_>) -> Self {
        Modifiers { flush: o.has("ftz"), saturate: o.has("sat"), relu: o.has("relu") }
    }

    pub fn is_empty(self) -> bool {
        !(self.flush || self.saturate || self.relu)
    }

    /// For a value of the format `F` in a conversion, where `.ftz` concerns f32 alone.
    pub fn flushing_only_f32<F: Format>(self) -> Self {
        Modifiers { flush: self.flush && F::MANTISSA_BITS == f32::MANTISSA_BITS, ..self }
    }

    pub fn operand<F: Format>(self, x: F) -> F {
        if self.flush { x.flush() } else { x }
    }

    pub fn result<F: Format>(self, x: F) -> F {
        let x = if self.flush { x.flush() } else { x };
        if self.saturate {
            x.saturate()
        } else if self.relu {
            x.relu().canonical()
        } else {
            x.canonical()
        }
    }
}

pub(super) fn unary<F: Format + Lane>(o: &mut Operands<'_>, f: impl Fn(F) -> F + Send + Sync + 'static) -> Decoded {
    let modifiers = Modifiers::of(o);
    if modifiers.is_empty() {
        return o.unary(move |a| f(a).canonical());
    }
    o.unary(move |a| modifiers.result(f(modifiers.operand(a))))
}

fn binary<F: Format + Lane>(o: &mut Operands<'_>, f: impl Fn(F, F) -> F + Send + Sync + 'static) -> Decoded {
    let modifiers = Modifiers::of(o);
    if modifiers.is_empty() {
        return o.binary(move |a, b| f(a, b).canonical());
    }
    o.binary(move |a, b| modifiers.result(f(modifiers.operand(a), modifiers.operand(b))))
}

fn ternary<F: Format + Lane>(o: &mut Operands<'_>, f: impl Fn(F, F, F) -> F + Send + Sync + 'static) -> Decoded {
    let modifiers = Modifiers::of(o);
    if modifiers.is_empty() {
        return o.ternary(move |a, b, c| f(a, b, c).canonical());
    }
    o.ternary(move |a, b, c| {
        let [a, b, c] = [a, b, c].map(|x| modifiers.operand(x));
        modifiers.result(f(a, b, c))
    })
}

fn directed_unary<F: Format + Lane>(o: &mut Operands<'_>, f: fn(F, Rounding) -> F) -> Decoded {
    let rounding = Rounding::of(o);
    unary(o, move |a| f(a, rounding))
}

fn directed_binary<F: Format + Lane>(o: &mut Operands<'_>, f: fn(F, F, Rounding) -> F) -> Decoded {
    let rounding = Rounding::of(o);
    binary(o, move |a, b| f(a, b, rounding))
}

fn directed_ternary<F: Format + Lane>(o: &mut Operands<'_>, f: fn(F, F, F, Rounding) -> F) -> Decoded {
    let rounding = Rounding::of(o);
    ternary(o, move |a, b, c| f(a, b, c, rounding))
}

fn extreme<F: Format + Lane>(o: &mut Operands<'_>, pick: impl Fn(F, F) -> F + Copy + Send + Sync + 'static) -> Decoded {
    let selection = Selection::of(o);
    binary(o, move |a, b| selection.apply(a, b, pick))
}

/// How `min` and `max` treat NaN and the signs of their operands.
#[derive(Debug, Clone, Copy)]
pub(super) struct Selection {
    keeps_nan: bool,
    /// Compares absolute values and gives the result the product of the signs.
    by_magnitude: bool,
}

impl Selection {
    pub fn of(o: &Operands<'_>) -> Self {
        Selection { keeps_nan: o.has("NaN"), by_magnitude: o.has("xorsign") }
    }

    #[inline(always)]
    pub fn apply<F: Format>(self, a: F, b: F, pick: impl Fn(F, F) -> F) -> F {
        if self.keeps_nan && (a.is_nan() || b.is_nan()) {
            F::NAN
        } else if self.by_magnitude {
            let magnitude = pick(a.abs(), b.abs());
            if a.is_negative() == b.is_negative() { magnitude } else { magnitude.negate() }
        } else {
            pick(a, b)
        }
    }
}

/// The larger; the other where one is NaN; +0 is larger than -0.
#[inline(always)]
pub(super) fn larger<F: Format>(a: F, b: F) -> F {
    if a > b || b.is_nan() || a == b && b.is_negative() { a } else { b }
}

/// The smaller; the other where one is NaN; -0 is smaller than +0.
#[inline(always)]
pub(super) fn smaller<F: Format>(a: F, b: F) -> F {
    if a < b || b.is_nan() || a == b && a.is_negative() { a } else { b }
}
