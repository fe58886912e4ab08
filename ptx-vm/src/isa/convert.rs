//! Moves and conversions: `mov`, `cvt` and `cvt.pack`.

use half::{bf16, f16};

use super::float::Modifiers;
use super::rounding::{self, Format, Half, Rounding};
use super::{Row, row};
use crate::decode::{Operands, lanewise};
use crate::exec::Operation;
use crate::parse::ast::Operand;
use crate::registers::{LANES, Lane, Packed, Reg};

type Decoded = Result<Operation, String>;

pub(super) const ROWS: &[Row] = &[
    row("mov.pred", |o| o.unary(|a: bool| a)),
    row("mov.{b16,u16,s16}", |o| o.unary(|a: u16| a)),
    row("mov.{b32,u32,s32,f32}", mov_32),
    row("mov.{b64,u64,s64,f64}", mov_64),
    row("cvt{.sat,}.{u8,s8,u16,s16,u32,s32,u64,s64}.{u8,s8,u16,s16,u32,s32,u64,s64}", integer_to_integer),
    row("cvt.{rni,rzi,rmi,rpi}{.sat,}.{u8,s8,u16,s16,u32,s32,u64,s64}.f16", float_to_integer::<f16>),
    row("cvt.{rni,rzi,rmi,rpi}{.ftz,}{.sat,}.{u8,s8,u16,s16,u32,s32,u64,s64}.f32", float_to_integer::<f32>),
    row("cvt.{rni,rzi,rmi,rpi}{.sat,}.{u8,s8,u16,s16,u32,s32,u64,s64}.f64", float_to_integer::<f64>),
    row("cvt.{rn,rz,rm,rp}{.sat,}.f16.{u8,s8,u16,s16,u32,s32,u64,s64}", integer_to_float::<f16>),
    row("cvt.{rn,rz,rm,rp}{.sat,}.f32.{u8,s8,u16,s16,u32,s32,u64,s64}", integer_to_float::<f32>),
    row("cvt.{rn,rz,rm,rp}{.sat,}.f64.{u8,s8,u16,s16,u32,s32,u64,s64}", integer_to_float::<f64>),
    row("cvt{.ftz,}{.sat,}.f32.f16", |o| float_to_float(o, f16::to_f32)),
    row("cvt.f32.bf16", |o| float_to_float(o, bf16::to_f32)),
    row("cvt{.sat,}.f64.f16", |o| float_to_float(o, f16::to_f64)),
    row("cvt{.ftz,}{.sat,}.f64.f32", |o| float_to_float(o, |a: f32| f64::from(a))),
    row("cvt.rn{.ftz,}{.sat,}.f32.f64", |o| float_to_float(o, |a: f64| a as f32)),
    row("cvt.{rz,rm,rp}{.ftz,}{.sat,}.f32.f64", directed::<f64, f32>),
    row("cvt.{rn,rz,rm,rp}{.sat,}.f16.f64", directed::<f64, f16>),
    row("cvt.{rm,rp}{.ftz,}{.sat,}.f16.f32", directed::<f32, f16>),
    row("cvt.{rn,rz}{.ftz,}{.sat,.relu,}{.satfinite,}.f16.f32", narrow::<f16>),
    row("cvt.{rn,rz}{.relu,}{.satfinite,}.bf16.f32", narrow::<bf16>),
    row("cvt.{rn,rz}{.relu,}{.satfinite,}.f16x2.f32", narrow_pair::<f16>),
    row("cvt.{rn,rz}{.relu,}{.satfinite,}.bf16x2.f32", narrow_pair::<bf16>),
    row("cvt.rna{.satfinite,}.tf32.f32", to_tf32),
    row("cvt{.rni,.rzi,.rmi,.rpi,}{.sat,}.f16.f16", |o| {
        let rounding = IntegerRounding::of(o);
        // An integer near a number of the format is one of its numbers too.
        float_to_float(o, move |a: f16| f16::from_f32(rounding.apply(a.into()) as f32))
    }),
    row("cvt{.rni,.rzi,.rmi,.rpi,}{.ftz,}{.sat,}.f32.f32", |o| {
        let rounding = IntegerRounding::of(o);
        float_to_float(o, move |a: f32| rounding.apply(a.into()) as f32)
    }),
    row("cvt{.rni,.rzi,.rmi,.rpi,}{.sat,}.f64.f64", |o| {
        let rounding = IntegerRounding::of(o);
        float_to_float(o, move |a: f64| rounding.apply(a))
    }),
    row("cvt.pack.sat.u16.s32", |o| pack::<0, 0xffff>(o, 16)),
    row("cvt.pack.sat.s16.s32", |o| pack::<-0x8000, 0x7fff>(o, 16)),
    row("cvt.pack.sat.u8.s32.b32", |o| pack::<0, 0xff>(o, 8)),
    row("cvt.pack.sat.s8.s32.b32", |o| pack::<-0x80, 0x7f>(o, 8)),
    row("cvt.pack.sat.u4.s32.b32", |o| pack::<0, 15>(o, 4)),
    row("cvt.pack.sat.s4.s32.b32", |o| pack::<-8, 7>(o, 4)),
    row("cvt.pack.sat.u2.s32.b32", |o| pack::<0, 3>(o, 2)),
    row("cvt.pack.sat.s2.s32.b32", |o| pack::<-2, 1>(o, 2)),
];

/// The integer types of conversions.
trait Integer: Lane {
    const BITS: u32;

    fn widen(self) -> i128;
    /// The lowest bits.
    fn wrap(x: i128) -> Self;
    fn clamp(x: i128) -> Self;
    /// Truncates and clamps.
    fn from_f64(x: f64) -> Self;
    fn to_f32(self) -> f32;
    fn to_f64(self) -> f64;
}

macro_rules! integer {
    ($($ty:ty),*) => {$(
        impl Integer for $ty {
            const BITS: u32 = <$ty>::BITS;

            #[inline(always)]
            fn widen(self) -> i128 {
                self as i128
            }

            #[inline(always)]
            fn wrap(x: i128) -> Self {
                x as $ty
            }

            fn clamp(x: i128) -> Self {
                x.clamp(<$ty>::MIN as i128, <$ty>::MAX as i128) as $ty
            }

            fn from_f64(x: f64) -> Self {
                x as $ty
            }

            #[inline(always)]
            fn to_f32(self) -> f32 {
                self as f32
            }

            #[inline(always)]
            fn to_f64(self) -> f64 {
                self as f64
            }
        }
    )*};
}

integer!(u8, i8, u16, i16, u32, i32, u64, i64);

/// Evaluates an expression with `$T` the integer type of a name.
macro_rules! with_integer {
    ($name:expr, $T:ident => $expression:expr) => {
        match $name {
            "u8" => with_integer!(@ $T, u8, $expression),
            "s8" => with_integer!(@ $T, i8, $expression),
            "u16" => with_integer!(@ $T, u16, $expression),
            "s16" => with_integer!(@ $T, i16, $expression),
            "u32" => with_integer!(@ $T, u32, $expression),
            "s32" => with_integer!(@ $T, i32, $expression),
            "u64" => with_integer!(@ $T, u64, $expression),
            "s64" => with_integer!(@ $T, i64, $expression),
            other => Err(format!("type {other}")),
        }
    };
    (@ $T:ident, $ty:ty, $expression:expr) => {{
        type $T = $ty;
        $expression
    }};
}

/// A move between registers of 32 bits, or from or to two of 16.
fn mov_32(o: &mut Operands<'_>) -> Decoded {
    match (o.operand(0)?, o.operand(1)?) {
        (Operand::Vector(_), _) => unpack::<u32, u16>(o),
        (_, Operand::Vector(_)) => assemble::<u16, u32>(o),
        _ => o.unary(|a: u32| a),
    }
}

/// A move between registers of 64 bits, or from or to two of 32 or four of 16.
fn mov_64(o: &mut Operands<'_>) -> Decoded {
    match (o.operand(0)?, o.operand(1)?) {
        (Operand::Vector(parts), _) if parts.len() == 4 => unpack::<u64, u16>(o),
        (Operand::Vector(_), _) => unpack::<u64, u32>(o),
        (_, Operand::Vector(parts)) if parts.len() == 4 => assemble::<u16, u64>(o),
        (_, Operand::Vector(_)) => assemble::<u32, u64>(o),
        _ => o.unary(|a: u64| a),
    }
}

/// The registers of operand `i`, parts of a `Whole` from the lowest.
fn parts<Whole: Integer, Part: Integer>(o: &mut Operands<'_>, i: usize) -> Result<Vec<Reg<Part>>, String> {
    let parts = o.regs::<Part>(i)?;
    let is_whole = parts.len() as u32 * Part::BITS == Whole::BITS;
    if is_whole { Ok(parts) } else { Err(format!("{} bits in {} parts", Whole::BITS, parts.len())) }
}

fn unpack<Whole: Integer, Part: Integer>(o: &mut Operands<'_>) -> Decoded {
    o.expect_operands(2)?;
    let parts = parts::<Whole, Part>(o, 0)?;
    let whole = o.reg::<Whole>(1)?;
    lanewise(move |registers, mask| {
        let values = whole.read(registers);
        for (i, part) in parts.iter().enumerate() {
            part.write(registers, values.map(|value| Part::wrap(value.widen() >> (i as u32 * Part::BITS))), mask);
        }
    })
}

fn assemble<Part: Integer, Whole: Integer>(o: &mut Operands<'_>) -> Decoded {
    o.expect_operands(2)?;
    let whole = o.reg::<Whole>(0)?;
    let parts = parts::<Whole, Part>(o, 1)?;
    lanewise(move |registers, mask| {
        let mut values = [0i128; LANES];
        for (i, part) in parts.iter().enumerate() {
            let part = part.read(registers);
            for lane in 0..LANES {
                values[lane] |= part[lane].widen() << (i as u32 * Part::BITS);
            }
        }
        whole.write(registers, values.map(Whole::wrap), mask);
    })
}

/// The destination type and the source type of a conversion.
fn types(o: &Operands<'_>) -> (String, String) {
    let mut types = o.modifiers().map(str::to_owned).collect::<Vec<String>>().into_iter().rev();
    let source = types.next().unwrap_or_default();
    (types.next().unwrap_or_default(), source)
}

/// `d = f(a)`, where the register of `a` may be wider than its type.
fn from_integer<S: Integer, D: Lane>(o: &mut Operands<'_>, f: impl Fn(S) -> D + Send + Sync + 'static) -> Decoded {
    if o.reg::<S>(1).is_ok() {
        return o.unary(f);
    }
    o.unary(move |a: u64| f(S::wrap(a.into())))
}

fn integer_to_integer(o: &mut Operands<'_>) -> Decoded {
    let (to, from) = types(o);
    with_integer!(from.as_str(), S => with_integer!(to.as_str(), D => resize::<S, D>(o)))
}

fn resize<S: Integer, D: Integer>(o: &mut Operands<'_>) -> Decoded {
    if o.has("sat") { from_integer(o, |a: S| D::clamp(a.widen())) } else { from_integer(o, |a: S| D::wrap(a.widen())) }
}

/// Rounding to an integer.
#[derive(Debug, Clone, Copy)]
enum IntegerRounding {
    None,
    Nearest,
    Zero,
    Down,
    Up,
}

impl IntegerRounding {
    fn of(o: &Operands<'_>) -> Self {
        match o.modifiers().next() {
            Some("rni") => IntegerRounding::Nearest,
            Some("rzi") => IntegerRounding::Zero,
            Some("rmi") => IntegerRounding::Down,
            Some("rpi") => IntegerRounding::Up,
            _ => IntegerRounding::None,
        }
    }

    fn apply(self, x: f64) -> f64 {
        match self {
            IntegerRounding::None => x,
            IntegerRounding::Nearest => x.round_ties_even(),
            IntegerRounding::Zero => x.trunc(),
            IntegerRounding::Down => x.floor(),
            IntegerRounding::Up => x.ceil(),
        }
    }
}

fn float_to_integer<S: Format + Lane>(o: &mut Operands<'_>) -> Decoded {
    let (to, _) = types(o);
    with_integer!(to.as_str(), D => round_to_integer::<S, D>(o))
}

/// Results out of range are the nearest in range. NaN gives 0, or only the highest bit where either side has
/// 64 bits.
fn round_to_integer<S: Format + Lane, D: Integer>(o: &mut Operands<'_>) -> Decoded {
    let (rounding, flushes) = (IntegerRounding::of(o), o.has("ftz"));
    let is_wide = S::MANTISSA_BITS == f64::MANTISSA_BITS || D::BITS == 64;
    let of_nan = D::wrap(if is_wide { 1 << (D::BITS - 1) } else { 0 });
    o.unary(move |a: S| {
        let a = if flushes { a.flush() } else { a };
        if a.is_nan() { of_nan } else { D::from_f64(rounding.apply(a.to_f64())) }
    })
}

/// Formats that integers are converted to.
trait FromInteger: Format + Lane {
    fn nearest<S: Integer>(a: S) -> Self;
}

impl FromInteger for f16 {
    fn nearest<S: Integer>(a: S) -> Self {
        rounding::from_integer(a.widen(), Rounding::Nearest)
    }
}

impl FromInteger for f32 {
    fn nearest<S: Integer>(a: S) -> Self {
        a.to_f32()
    }
}

impl FromInteger for f64 {
    fn nearest<S: Integer>(a: S) -> Self {
        a.to_f64()
    }
}

fn integer_to_float<D: FromInteger>(o: &mut Operands<'_>) -> Decoded {
    let (_, from) = types(o);
    with_integer!(from.as_str(), S => round_integer::<S, D>(o))
}

fn round_integer<S: Integer, D: FromInteger>(o: &mut Operands<'_>) -> Decoded {
    let (rounding, modifiers) = (Rounding::of(o), Modifiers::of(o));
    if rounding == Rounding::Nearest && modifiers.is_empty() {
        return from_integer(o, D::nearest::<S>);
    }
    from_integer(o, move |a: S| modifiers.result(rounding::from_integer::<D>(a.widen(), rounding)))
}

fn float_to_float<S: Format + Lane, D: Format + Lane>(
    o: &mut Operands<'_>,
    f: impl Fn(S) -> D + Send + Sync + 'static,
) -> Decoded {
    let modifiers = Modifiers::of(o);
    if modifiers.is_empty() {
        return o.unary(move |a: S| f(a).canonical());
    }
    let (before, after) = (modifiers.flushing_only_f32::<S>(), modifiers.flushing_only_f32::<D>());
    o.unary(move |a: S| after.result(f(before.operand(a))))
}

fn directed<S: Format + Lane, D: Format + Lane>(o: &mut Operands<'_>) -> Decoded {
    let rounding = Rounding::of(o);
    float_to_float(o, move |a: S| rounding::convert::<S, D>(a, rounding))
}

/// How a conversion from f32 to a 16-bit format rounds, and whether it avoids infinity.
#[derive(Debug, Clone, Copy)]
struct Narrowing {
    rounding: Rounding,
    finite: bool,
}

impl Narrowing {
    fn of(o: &Operands<'_>) -> Self {
        Narrowing { rounding: Rounding::of(o), finite: o.has("satfinite") }
    }

    fn apply<H: Half>(self, a: f32) -> H {
        let rounded = match self.rounding {
            Rounding::Nearest => H::from_f32(a),
            other => rounding::convert(a, other),
        };
        if self.finite && rounded.abs().bits() == H::INFINITY_BITS {
            if a < 0.0 { H::MAX.negate() } else { H::MAX }
        } else {
            rounded
        }
    }
}

fn narrow<H: Half + Lane>(o: &mut Operands<'_>) -> Decoded {
    let narrowing = Narrowing::of(o);
    float_to_float(o, move |a: f32| narrowing.apply::<H>(a))
}

/// The first operand goes to the upper half.
fn narrow_pair<H: Half + Lane>(o: &mut Operands<'_>) -> Decoded
where
    Packed<H>: Lane,
{
    let (narrowing, modifiers) = (Narrowing::of(o), Modifiers::of(o));
    o.binary(move |a: f32, b: f32| [b, a].map(|x| modifiers.result(narrowing.apply::<H>(x))))
}

/// To nearest, ties away from zero, of 10 bits of mantissa; the lower 13 are zero.
fn to_tf32(o: &mut Operands<'_>) -> Decoded {
    const LOWER: u32 = (1 << 13) - 1;
    const MAX: u32 = 0x7f7f_e000;
    let finite = o.has("satfinite");
    o.unary(move |a: f32| {
        if a.is_nan() {
            return f32::NAN.canonical();
        }
        // A carry goes on into the exponent, as it should. Infinity has nothing to round.
        let rounded = f32::from_bits((a.to_bits() + LOWER.div_ceil(2)) & !LOWER);
        if finite && rounded.is_infinite() { f32::from_bits(MAX).copysign(a) } else { rounded }
    })
}

/// Both operands clamped to a type of `bits` bits, the first above the second, and below what a third
/// operand adds.
fn pack<const MIN: i32, const MAX: i32>(o: &mut Operands<'_>, bits: u32) -> Decoded {
    let field = move |x: i32| x.clamp(MIN, MAX) as u32 & u32::MAX >> (32 - bits);
    let pair = move |a: i32, b: i32| field(a) << bits | field(b);
    if bits == 16 {
        return o.binary(pair);
    }
    o.ternary(move |a: i32, b: i32, c: u32| c << (2 * bits) | pair(a, b))
}
