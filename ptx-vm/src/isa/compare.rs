//! Comparisons and selections: `setp`, `set`, `selp` and `slct`.

use half::{bf16, f16};

use super::packed::is_packed;
use super::rounding::Format;
use super::{Row, row};
use crate::decode::{Operands, lanewise};
use crate::exec::Operation;
use crate::registers::{LANES, Lane, Mask, Packed, Reg, Registers, each_lane};

type Decoded = Result<Operation, String>;

/// Patterns of a comparison of each kind of operand, by the opcode and what follows the comparison.
macro_rules! bits {
    ($opcode:literal, $types:literal) => {
        concat!($opcode, ".{eq,ne}{.and,.or,.xor,}", $types)
    };
}

macro_rules! signed {
    ($opcode:literal, $types:literal) => {
        concat!($opcode, ".{eq,ne,lt,le,gt,ge}{.and,.or,.xor,}", $types)
    };
}

macro_rules! unsigned {
    ($opcode:literal, $types:literal) => {
        concat!($opcode, ".{eq,ne,lt,le,gt,ge,lo,ls,hi,hs}{.and,.or,.xor,}", $types)
    };
}

macro_rules! float {
    ($opcode:literal, $types:literal) => {
        concat!($opcode, ".{eq,ne,lt,le,gt,ge,equ,neu,ltu,leu,gtu,geu,num,nan}{.and,.or,.xor,}", $types)
    };
}

pub(super) const ROWS: &[Row] = &[
    row(bits!("setp", ".b16"), |o| setp::<u16>(o, None)),
    row(bits!("setp", ".b32"), |o| setp::<u32>(o, None)),
    row(bits!("setp", ".b64"), |o| setp::<u64>(o, None)),
    row(unsigned!("setp", ".u16"), |o| setp::<u16>(o, None)),
    row(unsigned!("setp", ".u32"), |o| setp::<u32>(o, None)),
    row(unsigned!("setp", ".u64"), |o| setp::<u64>(o, None)),
    row(signed!("setp", ".s16"), |o| setp::<i16>(o, None)),
    row(signed!("setp", ".s32"), |o| setp::<i32>(o, None)),
    row(signed!("setp", ".s64"), |o| setp::<i64>(o, None)),
    row(float!("setp", ".f32"), |o| setp::<f32>(o, None)),
    row(float!("setp", ".ftz.f32"), |o| setp(o, Some(f32::flush))),
    row(float!("setp", ".f64"), |o| setp::<f64>(o, None)),
    row(float!("setp", "{.ftz,}.{f16,f16x2}"), setp_half::<f16>),
    row(float!("setp", ".{bf16,bf16x2}"), setp_half::<bf16>),
    row(bits!("set", ".{u32,s32,f32}.b16"), |o| set::<u16>(o, None)),
    row(bits!("set", ".{u32,s32,f32}.b32"), |o| set::<u32>(o, None)),
    row(bits!("set", ".{u32,s32,f32}.b64"), |o| set::<u64>(o, None)),
    row(unsigned!("set", ".{u32,s32,f32}.u16"), |o| set::<u16>(o, None)),
    row(unsigned!("set", ".{u32,s32,f32}.u32"), |o| set::<u32>(o, None)),
    row(unsigned!("set", ".{u32,s32,f32}.u64"), |o| set::<u64>(o, None)),
    row(signed!("set", ".{u32,s32,f32}.s16"), |o| set::<i16>(o, None)),
    row(signed!("set", ".{u32,s32,f32}.s32"), |o| set::<i32>(o, None)),
    row(signed!("set", ".{u32,s32,f32}.s64"), |o| set::<i64>(o, None)),
    row(float!("set", ".{u32,s32,f32}.f32"), |o| set::<f32>(o, None)),
    row(float!("set", ".ftz.{u32,s32,f32}.f32"), |o| set(o, Some(f32::flush))),
    row(float!("set", ".{u32,s32,f32}.f64"), |o| set::<f64>(o, None)),
    row(float!("set", "{.ftz,}.{f16,u16,s16,u32,s32}.f16"), set_half::<f16>),
    row(float!("set", "{.ftz,}.{f16x2,u32,s32}.f16x2"), set_half::<f16>),
    row(float!("set", ".{bf16,u16,s16,u32,s32}.bf16"), set_half::<bf16>),
    row(float!("set", ".{bf16x2,u32,s32}.bf16x2"), set_half::<bf16>),
    row("selp.{b16,u16,s16}", selp::<u16>),
    row("selp.{b32,u32,s32,f32}", selp::<u32>),
    row("selp.{b64,u64,s64,f64}", selp::<u64>),
    row("slct.{b16,u16,s16}.s32", |o| o.ternary(|a: u16, b, c: i32| if c >= 0 { a } else { b })),
    row("slct.{b32,u32,s32,f32}.s32", |o| o.ternary(|a: u32, b, c: i32| if c >= 0 { a } else { b })),
    row("slct.{b64,u64,s64,f64}.s32", |o| o.ternary(|a: u64, b, c: i32| if c >= 0 { a } else { b })),
    row("slct.{b16,u16,s16}.f32", |o| o.ternary(|a: u16, b, c: f32| if c >= 0.0 { a } else { b })),
    row("slct.{b32,u32,s32,f32}.f32", |o| o.ternary(|a: u32, b, c: f32| if c >= 0.0 { a } else { b })),
    row("slct.{b64,u64,s64,f64}.f32", |o| o.ternary(|a: u64, b, c: f32| if c >= 0.0 { a } else { b })),
    row("slct.ftz.{b16,u16,s16}.f32", |o| o.ternary(|a: u16, b, c: f32| if c.flush() >= 0.0 { a } else { b })),
    row("slct.ftz.{b32,u32,s32,f32}.f32", |o| o.ternary(|a: u32, b, c: f32| if c.flush() >= 0.0 { a } else { b })),
    row("slct.ftz.{b64,u64,s64,f64}.f32", |o| o.ternary(|a: u64, b, c: f32| if c.flush() >= 0.0 { a } else { b })),
];

/// The lanes in which a comparison of two registers holds.
type Comparison = Box<dyn Fn(&Registers) -> Mask + Send + Sync>;

/// Reads the values of a register that are compared.
trait Source<T>: Fn(&Registers) -> [T; LANES] + Copy + Send + Sync + 'static {}

impl<T, S: Fn(&Registers) -> [T; LANES] + Copy + Send + Sync + 'static> Source<T> for S {}

/// The comparison that the opcode names, of the values `a` and `b`. With NaN those that end with `u` hold and
/// the others do not; without, they are the same.
fn comparison<T: Lane + PartialOrd>(
    o: &Operands<'_>,
    a: impl Source<T>,
    b: impl Source<T>,
) -> Result<Comparison, String> {
    fn lanes_where<T: Lane>(
        a: impl Source<T>,
        b: impl Source<T>,
        holds: impl Fn(T, T) -> bool + Send + Sync + 'static,
    ) -> Comparison {
        Box::new(move |registers| {
            let (a, b) = (a(registers), b(registers));
            (0..LANES).fold(0, |mask, lane| mask | Mask::from(holds(a[lane], b[lane])) << lane)
        })
    }
    let unordered = |a: T, b: T| a.partial_cmp(&b).is_none();
    Ok(match o.modifiers().next() {
        Some("eq") => lanes_where(a, b, |a: T, b: T| a == b),
        Some("ne") => lanes_where(a, b, move |a: T, b: T| a != b && !unordered(a, b)),
        Some("lt" | "lo") => lanes_where(a, b, |a: T, b: T| a < b),
        Some("le" | "ls") => lanes_where(a, b, |a: T, b: T| a <= b),
        Some("gt" | "hi") => lanes_where(a, b, |a: T, b: T| a > b),
        Some("ge" | "hs") => lanes_where(a, b, |a: T, b: T| a >= b),
        Some("equ") => lanes_where(a, b, move |a: T, b: T| a == b || unordered(a, b)),
        Some("neu") => lanes_where(a, b, |a: T, b: T| a != b),
        Some("ltu") => lanes_where(a, b, move |a: T, b: T| a < b || unordered(a, b)),
        Some("leu") => lanes_where(a, b, move |a: T, b: T| a <= b || unordered(a, b)),
        Some("gtu") => lanes_where(a, b, move |a: T, b: T| a > b || unordered(a, b)),
        Some("geu") => lanes_where(a, b, move |a: T, b: T| a >= b || unordered(a, b)),
        Some("num") => lanes_where(a, b, move |a: T, b: T| !unordered(a, b)),
        Some("nan") => lanes_where(a, b, unordered),
        other => return Err(format!("comparison {other:?}")),
    })
}

/// The comparison of operands 1 and 2, each prepared by `prepare` first.
fn compare<T: Lane + PartialOrd>(o: &mut Operands<'_>, prepare: Option<fn(T) -> T>) -> Result<Comparison, String> {
    let source = |register: Reg<T>| {
        move |registers: &Registers| {
            let values = register.read(registers);
            prepare.map_or(values, |prepare| values.map(prepare))
        }
    };
    let (a, b) = (source(o.reg(1)?), source(o.reg(2)?));
    comparison(o, a, b)
}

/// The comparison of half `half` of packed operands, or of the only value of others.
fn compare_half<H: Format + Lane>(o: &mut Operands<'_>, half: usize) -> Result<Comparison, String>
where
    Packed<H>: Lane,
{
    let flush = o.has("ftz");
    if !is_packed(o) {
        return compare(o, flush.then_some(H::flush as fn(H) -> H));
    }
    let source = |register: Reg<Packed<H>>| {
        move |registers: &Registers| {
            let values = register.read(registers).map(|pair| pair[half]);
            if flush { values.map(H::flush) } else { values }
        }
    };
    let (a, b) = (source(o.reg(1)?), source(o.reg(2)?));
    comparison(o, a, b)
}

/// The predicate that a comparison is combined with, if there is one.
fn combination(o: &mut Operands<'_>) -> Result<impl Fn(&Registers, Mask) -> Mask + Send + Sync + use<>, String> {
    let combine: Option<fn(Mask, Mask) -> Mask> = match o.modifiers().nth(1) {
        Some("and") => Some(|a, b| a & b),
        Some("or") => Some(|a, b| a | b),
        Some("xor") => Some(|a, b| a ^ b),
        _ => None,
    };
    o.expect_operands(if combine.is_some() { 4 } else { 3 })?;
    let with = match combine {
        Some(combine) => Some((combine, o.predicate(3)?)),
        None => None,
    };
    Ok(move |registers: &Registers, mask: Mask| match with {
        Some((combine, (predicate, false))) => combine(mask, predicate.mask(registers)),
        Some((combine, (predicate, true))) => combine(mask, !predicate.mask(registers)),
        None => mask,
    })
}

/// Writes the comparison, combined, to the first predicate, and its opposite, combined, to the second.
fn setp<T: Lane + PartialOrd>(o: &mut Operands<'_>, prepare: Option<fn(T) -> T>) -> Decoded {
    let (first, second) = o.pair::<bool, bool>(0)?;
    let (compare, combine) = (compare(o, prepare)?, combination(o)?);
    lanewise(move |registers, mask| {
        let holds = compare(registers);
        let (holds, opposite) = (combine(registers, holds), combine(registers, !holds));
        first.set(registers, holds, mask);
        if let Some(second) = second {
            second.set(registers, opposite, mask);
        }
    })
}

/// Packed operands are compared half by half, the lower for the first predicate.
fn setp_half<H: Format + Lane>(o: &mut Operands<'_>) -> Decoded
where
    Packed<H>: Lane,
{
    if !is_packed(o) {
        return setp(o, o.has("ftz").then_some(H::flush as fn(H) -> H));
    }
    let (first, second) = o.pair::<bool, bool>(0)?;
    let (low, high, combine) = (compare_half::<H>(o, 0)?, compare_half::<H>(o, 1)?, combination(o)?);
    lanewise(move |registers, mask| {
        let (low, high) = (combine(registers, low(registers)), combine(registers, high(registers)));
        first.set(registers, low, mask);
        if let Some(second) = second {
            second.set(registers, high, mask);
        }
    })
}

/// What `set` writes for a comparison that holds, in a word: 1.0, or all ones for an integer.
fn truth(ty: &str) -> u32 {
    match ty {
        "f32" => 1f32.to_bits(),
        "f16" => f16::ONE.to_bits().into(),
        "bf16" => bf16::ONE.to_bits().into(),
        "f16x2" => u32::from(f16::ONE.to_bits()) * 0x1_0001,
        "bf16x2" => u32::from(bf16::ONE.to_bits()) * 0x1_0001,
        _ => u32::MAX,
    }
}

fn set<T: Lane + PartialOrd>(o: &mut Operands<'_>, prepare: Option<fn(T) -> T>) -> Decoded {
    let holds = compare(o, prepare)?;
    let never: Comparison = Box::new(|_| 0);
    write_truth(o, [holds, never], [u32::MAX, 0])
}

fn set_half<H: Format + Lane>(o: &mut Operands<'_>) -> Decoded
where
    Packed<H>: Lane,
{
    if !is_packed(o) {
        return set(o, o.has("ftz").then_some(H::flush as fn(H) -> H));
    }
    let halves = [compare_half::<H>(o, 0)?, compare_half::<H>(o, 1)?];
    write_truth(o, halves, [0xffff, 0xffff_0000])
}

/// Writes in the bits of each part of a word whether its comparison holds.
fn write_truth(o: &mut Operands<'_>, comparisons: [Comparison; 2], parts: [u32; 2]) -> Decoded {
    let d = o.reg::<u32>(0)?;
    let combine = combination(o)?;
    let types: Vec<&str> = o.modifiers().collect();
    let truth = types.len().checked_sub(2).map_or(u32::MAX, |i| truth(types[i]));
    lanewise(move |registers, mask| {
        let [first, second] = comparisons.each_ref().map(|compare| combine(registers, compare(registers)));
        let values = each_lane(|lane| {
            let part = |holds: Mask, bits: u32| if holds >> lane & 1 != 0 { truth & bits } else { 0 };
            part(first, parts[0]) | part(second, parts[1])
        });
        d.write(registers, values, mask);
    })
}

fn selp<T: Lane>(o: &mut Operands<'_>) -> Decoded {
    o.ternary(|a: T, b: T, c: bool| if c { a } else { b })
}
