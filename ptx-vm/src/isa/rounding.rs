//! The floating-point formats, and arithmetic in them that is rounded once, in any direction.
//!
//! [`Exact`] holds a result before rounding. It is how `.rz`, `.rm` and `.rp` are computed; the nearest modes
//! of f32 and f64 are the host's, and [`fused_f32`] and [`fused_half`] are faster ways to the same results.

use half::{bf16, f16};

use crate::decode::Operands;

/// The direction of a rounding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rounding {
    /// To nearest, ties to even.
    Nearest,
    Zero,
    Down,
    Up,
}

impl Rounding {
    /// The one an opcode names; nearest where it names none.
    pub fn of(o: &Operands<'_>) -> Self {
        match o.modifiers().find(|m| matches!(*m, "rz" | "rm" | "rp")) {
            Some("rz") => Rounding::Zero,
            Some("rm") => Rounding::Down,
            Some("rp") => Rounding::Up,
            _ => Rounding::Nearest,
        }
    }
}

/// An IEEE 754 binary format.
pub trait Format: Copy + PartialOrd + Send + Sync + 'static {
    /// Bits of the mantissa that are stored.
    const MANTISSA_BITS: u32;
    const EXPONENT_BITS: u32;
    /// The NaN that arithmetic gives.
    const NAN: Self;
    const ZERO: Self;
    const ONE: Self;
    const MAX: Self;

    fn bits(self) -> u64;
    fn of_bits(bits: u64) -> Self;
    fn to_f64(self) -> f64;
    fn is_nan(self) -> bool;
    fn is_negative(self) -> bool;
    fn is_subnormal(self) -> bool;
    /// Every NaN as [`Format::NAN`].
    fn canonical(self) -> Self;

    /// Exponent of the least subnormal number.
    const LEAST_EXPONENT: i32 = 2 - (1 << (Self::EXPONENT_BITS - 1)) - Self::MANTISSA_BITS as i32;
    const INFINITY_BITS: u64 = ((1 << Self::EXPONENT_BITS) - 1) << Self::MANTISSA_BITS;
    const SIGN_BIT: u64 = 1 << (Self::MANTISSA_BITS + Self::EXPONENT_BITS);

    fn abs(self) -> Self {
        Self::of_bits(self.bits() & !Self::SIGN_BIT)
    }

    fn negate(self) -> Self {
        Self::of_bits(self.bits() ^ Self::SIGN_BIT)
    }

    /// Zero of the same sign for a subnormal number.
    fn flush(self) -> Self {
        if self.is_subnormal() { Self::of_bits(self.bits() & Self::SIGN_BIT) } else { self }
    }

    /// Not above 1 and not below +0; +0 for NaN.
    fn saturate(self) -> Self {
        if self >= Self::ONE {
            Self::ONE
        } else if self > Self::ZERO {
            self
        } else {
            Self::ZERO
        }
    }

    /// +0 for what is not above it; NaN stays.
    fn relu(self) -> Self {
        if self <= Self::ZERO { Self::ZERO } else { self }
    }
}

macro_rules! format {
    ($($ty:ty: $bits:ty, $mantissa:literal, $exponent:literal, $nan:literal, $from_bits:expr, $one:expr;)*) => {$(
        impl Format for $ty {
            const MANTISSA_BITS: u32 = $mantissa;
            const EXPONENT_BITS: u32 = $exponent;
            const NAN: Self = $from_bits($nan);
            const ZERO: Self = $from_bits(0);
            const ONE: Self = $one;
            const MAX: Self = <$ty>::MAX;

            #[inline(always)]
            fn bits(self) -> u64 {
                self.to_bits() as u64
            }

            #[inline(always)]
            fn of_bits(bits: u64) -> Self {
                $from_bits(bits as $bits)
            }

            #[inline(always)]
            fn to_f64(self) -> f64 {
                f64::from(self)
            }

            #[inline(always)]
            fn is_nan(self) -> bool {
                <$ty>::is_nan(self)
            }

            #[inline(always)]
            fn is_negative(self) -> bool {
                <$ty>::is_sign_negative(self)
            }

            #[inline(always)]
            fn is_subnormal(self) -> bool {
                let magnitude = self.to_bits() & <$bits>::MAX >> 1;
                magnitude != 0 && magnitude >> $mantissa == 0
            }

            /// Compares integers: to the optimiser a NaN is as good as any other, and it drops some
            /// replacements of one by another that it recognises (of square roots, in LLVM 22).
            #[inline(always)]
            fn canonical(self) -> Self {
                let magnitude = self.to_bits() & <$bits>::MAX >> 1;
                if magnitude > Self::INFINITY_BITS as $bits { <Self as Format>::NAN } else { self }
            }
        }
    )*};
}

format! {
    f16: u16, 10, 5, 0x7fff, f16::from_bits, f16::ONE;
    bf16: u16, 7, 8, 0x7fff, bf16::from_bits, bf16::ONE;
    f32: u32, 23, 8, 0x7fff_ffff, f32::from_bits, 1.0;
    f64: u64, 52, 11, 0x7ff8_0000_0000_0000, f64::from_bits, 1.0;
}

/// A finite number before it is rounded: `±mantissa * 2^exponent`.
#[derive(Debug, Clone, Copy)]
struct Exact {
    negative: bool,
    mantissa: u128,
    exponent: i32,
    /// Whether something below the last bit of `mantissa` was cut off; the mantissa then has at least two
    /// bits more than any format keeps.
    rest: bool,
}

impl Exact {
    /// None for NaN and infinity.
    fn of<F: Format>(x: F) -> Option<Self> {
        let magnitude = x.bits() & !F::SIGN_BIT;
        if magnitude >= F::INFINITY_BITS {
            return None;
        }
        let (field, stored) = (magnitude >> F::MANTISSA_BITS, magnitude & ((1 << F::MANTISSA_BITS) - 1));
        let mantissa = if field == 0 { stored } else { stored | 1 << F::MANTISSA_BITS };
        let exponent = F::LEAST_EXPONENT + field.max(1) as i32 - 1;
        Some(Exact { negative: x.is_negative(), mantissa: mantissa.into(), exponent, rest: false })
    }

    /// The same number with `zeros` zero bits above its highest one; zero stays as it is.
    fn with_leading_zeros(self, zeros: u32) -> Self {
        if self.mantissa == 0 {
            return self;
        }
        let shift = self.mantissa.leading_zeros() - zeros;
        Exact { mantissa: self.mantissa << shift, exponent: self.exponent - shift as i32, ..self }
    }

    fn times(self, other: Self) -> Self {
        Exact {
            negative: self.negative != other.negative,
            mantissa: self.mantissa * other.mantissa,
            exponent: self.exponent + other.exponent,
            rest: false,
        }
    }

    /// The sum of numbers of at most 106 bits. `rounding` gives the sign of a zero that two numbers cancel to.
    fn plus(self, other: Self, rounding: Rounding) -> Self {
        let cancelled = Exact { negative: rounding == Rounding::Down, mantissa: 0, exponent: 0, rest: false };
        match (self.mantissa, other.mantissa) {
            (0, 0) if self.negative != other.negative => return cancelled,
            (0, _) => return other,
            (_, 0) => return self,
            _ => {}
        }
        // Two free bits: one for the carry of a sum, one so that `smaller + 1` stays in range.
        let (a, b) = (self.with_leading_zeros(2), other.with_leading_zeros(2));
        let a_is_larger = (a.exponent, a.mantissa) >= (b.exponent, b.mantissa);
        let (larger, smaller) = if a_is_larger { (a, b) } else { (b, a) };
        let distance = (larger.exponent - smaller.exponent) as u32;
        let aligned = smaller.mantissa.checked_shr(distance).unwrap_or(0);
        let rest = smaller.mantissa.trailing_zeros() < distance;
        let mantissa = if larger.negative == smaller.negative {
            larger.mantissa + aligned
        } else {
            // What was cut off the smaller is taken from the larger too: borrow one and leave the remainder.
            larger.mantissa - aligned - u128::from(rest)
        };
        if mantissa == 0 { cancelled } else { Exact { mantissa, rest, ..larger } }
    }

    /// The quotient by a number that is not zero, both of at most 53 bits.
    fn over(self, divisor: Self) -> Self {
        let dividend = self.with_leading_zeros(0);
        Exact {
            negative: self.negative != divisor.negative,
            mantissa: dividend.mantissa / divisor.mantissa,
            exponent: dividend.exponent - divisor.exponent,
            rest: !dividend.mantissa.is_multiple_of(divisor.mantissa),
        }
    }

    /// The square root of a number of at most 53 bits; the sign is kept.
    fn square_root(self) -> Self {
        let zeros = (self.exponent - self.mantissa.leading_zeros() as i32) & 1;
        let radicand = self.with_leading_zeros(zeros as u32);
        let root = radicand.mantissa.isqrt();
        Exact { mantissa: root, exponent: radicand.exponent / 2, rest: root * root != radicand.mantissa, ..self }
    }

    fn round<F: Format>(self, rounding: Rounding) -> F {
        let sign = if self.negative { F::SIGN_BIT } else { 0 };
        if self.mantissa == 0 {
            return F::of_bits(sign);
        }
        let width = (u128::BITS - self.mantissa.leading_zeros()) as i32;
        let cut = (width - F::MANTISSA_BITS as i32 - 1).max(F::LEAST_EXPONENT - self.exponent);
        let kept = self.cut(cut, rounding);
        // The highest bit of a normal mantissa counts as one step of the exponent; so does a carry out of it.
        let steps = (self.exponent + cut - F::LEAST_EXPONENT) as u64;
        let magnitude = (steps << F::MANTISSA_BITS) + kept;
        if magnitude < F::INFINITY_BITS {
            return F::of_bits(sign | magnitude);
        }
        let away = rounding == Rounding::Nearest
            || rounding == Rounding::Down && self.negative
            || rounding == Rounding::Up && !self.negative;
        F::of_bits(sign | (F::INFINITY_BITS - u64::from(!away)))
    }

    /// The mantissa without its lowest `cut` bits, rounded.
    fn cut(self, cut: i32, rounding: Rounding) -> u64 {
        if cut <= 0 {
            return (self.mantissa << -cut) as u64;
        }
        let kept = self.mantissa.checked_shr(cut as u32).unwrap_or(0) as u64;
        let lost = self.mantissa.checked_shl(128 - cut.min(128) as u32).unwrap_or(0);
        let inexact = self.rest || self.mantissa.trailing_zeros() < cut as u32;
        let above_half = match lost.cmp(&(1 << 127)) {
            _ if cut > 128 => false,
            std::cmp::Ordering::Less => false,
            std::cmp::Ordering::Equal => self.rest || kept & 1 == 1,
            std::cmp::Ordering::Greater => true,
        };
        let up = match rounding {
            Rounding::Nearest => above_half,
            Rounding::Zero => false,
            Rounding::Down => inexact && self.negative,
            Rounding::Up => inexact && !self.negative,
        };
        kept + u64::from(up)
    }
}

/// NaN, infinity or zero in any format: what an operation gives where an operand is not finite.
fn special<F: Format>(x: f64) -> F {
    let sign = if x.is_sign_negative() { F::SIGN_BIT } else { 0 };
    if x.is_nan() {
        F::NAN
    } else if x.is_infinite() {
        F::of_bits(sign | F::INFINITY_BITS)
    } else {
        F::of_bits(sign)
    }
}

pub fn multiply_add<F: Format>(a: F, b: F, c: F, rounding: Rounding) -> F {
    match (Exact::of(a), Exact::of(b), Exact::of(c)) {
        (Some(a), Some(b), Some(c)) => a.times(b).plus(c, rounding).round(rounding),
        _ => special(a.to_f64().mul_add(b.to_f64(), c.to_f64())),
    }
}

pub fn add<F: Format>(a: F, b: F, rounding: Rounding) -> F {
    multiply_add(a, F::ONE, b, rounding)
}

pub fn subtract<F: Format>(a: F, b: F, rounding: Rounding) -> F {
    add(a, b.negate(), rounding)
}

pub fn multiply<F: Format>(a: F, b: F, rounding: Rounding) -> F {
    match (Exact::of(a), Exact::of(b)) {
        (Some(a), Some(b)) => a.times(b).round(rounding),
        _ => special(a.to_f64() * b.to_f64()),
    }
}

pub fn divide<F: Format>(a: F, b: F, rounding: Rounding) -> F {
    match (Exact::of(a), Exact::of(b)) {
        (Some(a), Some(b)) if b.mantissa != 0 => a.over(b).round(rounding),
        _ => special(a.to_f64() / b.to_f64()),
    }
}

pub fn square_root<F: Format>(a: F, rounding: Rounding) -> F {
    match Exact::of(a) {
        Some(exact) if exact.mantissa == 0 => a,
        Some(exact) if !exact.negative => exact.square_root().round(rounding),
        _ => special(a.to_f64().sqrt()),
    }
}

pub fn convert<A: Format, D: Format>(a: A, rounding: Rounding) -> D {
    Exact::of(a).map_or_else(|| special(a.to_f64()), |exact| exact.round(rounding))
}

/// `a` must be of at most 64 bits and a sign.
pub fn from_integer<D: Format>(a: i128, rounding: Rounding) -> D {
    Exact { negative: a < 0, mantissa: a.unsigned_abs(), exponent: 0, rest: false }.round(rounding)
}

/// `a * b + c` rounded once to f32, nearest.
#[inline(always)]
pub fn fused_f32(a: f32, b: f32, c: f32) -> f32 {
    fused_to_odd(a.into(), b.into(), c.into()) as f32
}

/// A 16-bit format.
pub trait Half: Format {
    fn from_f32(x: f32) -> Self;
}

impl Half for f16 {
    fn from_f32(x: f32) -> Self {
        f16::from_f32(x)
    }
}

impl Half for bf16 {
    fn from_f32(x: f32) -> Self {
        bf16::from_f32(x)
    }
}

/// `a * b + c` rounded once to a 16-bit format, nearest.
#[inline(always)]
pub fn fused_half<H: Half>(a: H, b: H, c: H) -> H {
    H::from_f32(narrow_to_odd(fused_to_odd(a.to_f64(), b.to_f64(), c.to_f64())))
}

/// `a * b + c` rounded to odd, for operands of at most 24 bits in the range of f32: their product is exact in
/// f64. A number rounded to odd is as good as the exact one to a later rounding that keeps at least two bits
/// fewer: an inexact result is never a tie nor representable there (Boldo and Melquiond, "Emulation of FMA and
/// correctly rounded sums: proved algorithms using rounding to odd", 2008).
#[inline(always)]
fn fused_to_odd(a: f64, b: f64, c: f64) -> f64 {
    let product = a * b;
    let sum = product + c;
    let c_rounded = sum - product;
    let rest = (product - (sum - c_rounded)) + (c - c_rounded);
    f64::from_bits(to_odd(sum.to_bits(), sum.is_sign_negative(), rest))
}

/// f64 to f32, rounded to odd.
#[inline(always)]
fn narrow_to_odd(x: f64) -> f32 {
    let nearest = x as f32;
    let rest = x - f64::from(nearest);
    f32::from_bits(to_odd(nearest.to_bits().into(), nearest.is_sign_negative(), rest) as u32)
}

/// The bits of the number nearest to a result, moved to the odd one of the two next to it; `rest` is what the
/// nearest lacks, NaN where it is not finite because an operand was not.
#[inline(always)]
fn to_odd(nearest: u64, negative: bool, rest: f64) -> u64 {
    let inexact = rest.abs() > 0.0;
    let towards_zero = negative != (rest < 0.0);
    match (inexact && nearest & 1 == 0, towards_zero) {
        (false, _) => nearest,
        (true, false) => nearest + 1,
        (true, true) => nearest - 1,
    }
}
