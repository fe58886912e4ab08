//! Integer arithmetic: `add` to `dp4a`, and the carry chains.

use super::{Row, row};
use crate::decode::{Operands, lanewise};
use crate::exec::Operation;
use crate::registers::{LANES, Lane, Mask, Reg, each_lane};

pub(super) const ROWS: &[Row] = &[
    row("add.{u16,s16}", |o| o.binary(u16::wrapping_add)),
    row("add.{u32,s32}", |o| o.binary(u32::wrapping_add)),
    row("add.{u64,s64}", |o| o.binary(u64::wrapping_add)),
    row("add.sat.s32", |o| o.binary(i32::saturating_add)),
    row("sub.{u16,s16}", |o| o.binary(u16::wrapping_sub)),
    row("sub.{u32,s32}", |o| o.binary(u32::wrapping_sub)),
    row("sub.{u64,s64}", |o| o.binary(u64::wrapping_sub)),
    row("sub.sat.s32", |o| o.binary(i32::saturating_sub)),
    row("mul.lo.{u16,s16}", |o| o.binary(u16::wrapping_mul)),
    row("mul.lo.{u32,s32}", |o| o.binary(u32::wrapping_mul)),
    row("mul.lo.{u64,s64}", |o| o.binary(u64::wrapping_mul)),
    row("mul.hi.u16", |o| o.binary(u16::high_product)),
    row("mul.hi.s16", |o| o.binary(i16::high_product)),
    row("mul.hi.u32", |o| o.binary(u32::high_product)),
    row("mul.hi.s32", |o| o.binary(i32::high_product)),
    row("mul.hi.u64", |o| o.binary(u64::high_product)),
    row("mul.hi.s64", |o| o.binary(i64::high_product)),
    row("mul.wide.u16", |o| o.binary(|a: u16, b: u16| u32::from(a) * u32::from(b))),
    row("mul.wide.s16", |o| o.binary(|a: i16, b: i16| i32::from(a) * i32::from(b))),
    row("mul.wide.u32", |o| o.binary(|a: u32, b: u32| u64::from(a) * u64::from(b))),
    row("mul.wide.s32", |o| o.binary(|a: i32, b: i32| i64::from(a) * i64::from(b))),
    row("mad.lo.{u16,s16}", |o| o.ternary(|a: u16, b: u16, c: u16| a.wrapping_mul(b).wrapping_add(c))),
    row("mad.lo.{u32,s32}", |o| o.ternary(|a: u32, b: u32, c: u32| a.wrapping_mul(b).wrapping_add(c))),
    row("mad.lo.{u64,s64}", |o| o.ternary(|a: u64, b: u64, c: u64| a.wrapping_mul(b).wrapping_add(c))),
    row("mad.hi.u16", |o| o.ternary(|a: u16, b, c| a.high_product(b).wrapping_add(c))),
    row("mad.hi.s16", |o| o.ternary(|a: i16, b, c| a.high_product(b).wrapping_add(c))),
    row("mad.hi.u32", |o| o.ternary(|a: u32, b, c| a.high_product(b).wrapping_add(c))),
    row("mad.hi.s32", |o| o.ternary(|a: i32, b, c| a.high_product(b).wrapping_add(c))),
    row("mad.hi.u64", |o| o.ternary(|a: u64, b, c| a.high_product(b).wrapping_add(c))),
    row("mad.hi.s64", |o| o.ternary(|a: i64, b, c| a.high_product(b).wrapping_add(c))),
    row("mad.hi.sat.s32", |o| o.ternary(|a: i32, b, c| a.high_product(b).saturating_add(c))),
    row("mad.wide.u16", |o| o.ternary(|a: u16, b: u16, c| (u32::from(a) * u32::from(b)).wrapping_add(c))),
    row("mad.wide.s16", |o| o.ternary(|a: i16, b: i16, c| (i32::from(a) * i32::from(b)).wrapping_add(c))),
    row("mad.wide.u32", |o| o.ternary(|a: u32, b: u32, c| (u64::from(a) * u64::from(b)).wrapping_add(c))),
    row("mad.wide.s32", |o| o.ternary(|a: i32, b: i32, c| (i64::from(a) * i64::from(b)).wrapping_add(c))),
    row("mul24.lo.u32", |o| o.binary(|a, b| unsigned_product_24(a, b) as u32)),
    row("mul24.lo.s32", |o| o.binary(|a, b| signed_product_24(a, b) as i32)),
    row("mul24.hi.u32", |o| o.binary(|a, b| (unsigned_product_24(a, b) >> 16) as u32)),
    row("mul24.hi.s32", |o| o.binary(|a, b| (signed_product_24(a, b) >> 16) as i32)),
    row("mad24.lo.u32", |o| o.ternary(|a, b, c| (unsigned_product_24(a, b) as u32).wrapping_add(c))),
    row("mad24.lo.s32", |o| o.ternary(|a, b, c| (signed_product_24(a, b) as i32).wrapping_add(c))),
    row("mad24.hi.u32", |o| o.ternary(|a, b, c| ((unsigned_product_24(a, b) >> 16) as u32).wrapping_add(c))),
    row("mad24.hi.s32", |o| o.ternary(|a, b, c| ((signed_product_24(a, b) >> 16) as i32).wrapping_add(c))),
    row("mad24.hi.sat.s32", |o| o.ternary(|a, b, c| ((signed_product_24(a, b) >> 16) as i32).saturating_add(c))),
    row("sad.u16", |o| o.ternary(|a: u16, b, c: u16| c.wrapping_add(a.abs_diff(b)))),
    row("sad.s16", |o| o.ternary(|a: i16, b, c: u16| c.wrapping_add(a.abs_diff(b)))),
    row("sad.u32", |o| o.ternary(|a: u32, b, c: u32| c.wrapping_add(a.abs_diff(b)))),
    row("sad.s32", |o| o.ternary(|a: i32, b, c: u32| c.wrapping_add(a.abs_diff(b)))),
    row("sad.u64", |o| o.ternary(|a: u64, b, c: u64| c.wrapping_add(a.abs_diff(b)))),
    row("sad.s64", |o| o.ternary(|a: i64, b, c: u64| c.wrapping_add(a.abs_diff(b)))),
    // Division by zero gives an unspecified value; these are what the hardware gives.
    row("div.u16", |o| o.binary(|a: u16, b| a.checked_div(b).unwrap_or(u16::MAX))),
    row("div.s16", |o| o.binary(|a: i16, b| if b == 0 { -1 } else { a.wrapping_div(b) })),
    row("div.u32", |o| o.binary(|a: u32, b| a.checked_div(b).unwrap_or(u32::MAX))),
    row("div.s32", |o| o.binary(|a: i32, b| if b == 0 { -1 } else { a.wrapping_div(b) })),
    row("div.u64", |o| o.binary(|a: u64, b| a.checked_div(b).unwrap_or(u64::MAX))),
    row("div.s64", |o| o.binary(|a: i64, b| if b == 0 { -1 } else { a.wrapping_div(b) })),
    row("rem.u16", |o| o.binary(|a: u16, b| a.checked_rem(b).unwrap_or(a))),
    row("rem.s16", |o| o.binary(|a: i16, b| if b == 0 { a } else { a.wrapping_rem(b) })),
    row("rem.u32", |o| o.binary(|a: u32, b| a.checked_rem(b).unwrap_or(a))),
    row("rem.s32", |o| o.binary(|a: i32, b| if b == 0 { a } else { a.wrapping_rem(b) })),
    row("rem.u64", |o| o.binary(|a: u64, b| a.checked_rem(b).unwrap_or(a))),
    row("rem.s64", |o| o.binary(|a: i64, b| if b == 0 { a } else { a.wrapping_rem(b) })),
    row("abs.s16", |o| o.unary(i16::wrapping_abs)),
    row("abs.s32", |o| o.unary(i32::wrapping_abs)),
    row("abs.s64", |o| o.unary(i64::wrapping_abs)),
    row("neg.s16", |o| o.unary(i16::wrapping_neg)),
    row("neg.s32", |o| o.unary(i32::wrapping_neg)),
    row("neg.s64", |o| o.unary(i64::wrapping_neg)),
    row("min.u16", |o| o.binary(u16::min)),
    row("min.s16", |o| o.binary(i16::min)),
    row("min.u32", |o| o.binary(u32::min)),
    row("min.s32", |o| o.binary(i32::min)),
    row("min.u64", |o| o.binary(u64::min)),
    row("min.s64", |o| o.binary(i64::min)),
    row("max.u16", |o| o.binary(u16::max)),
    row("max.s16", |o| o.binary(i16::max)),
    row("max.u32", |o| o.binary(u32::max)),
    row("max.s32", |o| o.binary(i32::max)),
    row("max.u64", |o| o.binary(u64::max)),
    row("max.s64", |o| o.binary(i64::max)),
    row("dp4a.{u32,s32}.{u32,s32}", dot_product_4),
    row("dp2a.{lo,hi}.{u32,s32}.{u32,s32}", dot_product_2),
    row("add.cc.{u32,s32}", |o| chain(o, |[a, b]: [u32; 2], _| a.add_with(b, false))),
    row("add.cc.{u64,s64}", |o| chain(o, |[a, b]: [u64; 2], _| a.add_with(b, false))),
    row("addc{.cc,}.{u32,s32}", |o| chain(o, |[a, b]: [u32; 2], carry| a.add_with(b, carry))),
    row("addc{.cc,}.{u64,s64}", |o| chain(o, |[a, b]: [u64; 2], carry| a.add_with(b, carry))),
    row("sub.cc.{u32,s32}", |o| chain(o, |[a, b]: [u32; 2], _| a.subtract_with(b, false))),
    row("sub.cc.{u64,s64}", |o| chain(o, |[a, b]: [u64; 2], _| a.subtract_with(b, false))),
    row("subc{.cc,}.{u32,s32}", |o| chain(o, |[a, b]: [u32; 2], borrow| a.subtract_with(b, borrow))),
    row("subc{.cc,}.{u64,s64}", |o| chain(o, |[a, b]: [u64; 2], borrow| a.subtract_with(b, borrow))),
    row("mad.lo.cc.{u32,s32}", |o| chain(o, |[a, b, c]: [u32; 3], _| a.wrapping_mul(b).add_with(c, false))),
    row("mad.lo.cc.{u64,s64}", |o| chain(o, |[a, b, c]: [u64; 3], _| a.wrapping_mul(b).add_with(c, false))),
    row("mad.hi.cc.u32", |o| chain(o, |[a, b, c]: [u32; 3], _| a.high_product(b).add_with(c, false))),
    row("mad.hi.cc.s32", |o| chain(o, |[a, b, c]: [i32; 3], _| a.high_product(b).add_with(c, false))),
    row("mad.hi.cc.u64", |o| chain(o, |[a, b, c]: [u64; 3], _| a.high_product(b).add_with(c, false))),
    row("mad.hi.cc.s64", |o| chain(o, |[a, b, c]: [i64; 3], _| a.high_product(b).add_with(c, false))),
    row("madc.lo{.cc,}.{u32,s32}", |o| chain(o, |[a, b, c]: [u32; 3], carry| a.wrapping_mul(b).add_with(c, carry))),
    row("madc.lo{.cc,}.{u64,s64}", |o| chain(o, |[a, b, c]: [u64; 3], carry| a.wrapping_mul(b).add_with(c, carry))),
    row("madc.hi{.cc,}.u32", |o| chain(o, |[a, b, c]: [u32; 3], carry| a.high_product(b).add_with(c, carry))),
    row("madc.hi{.cc,}.s32", |o| chain(o, |[a, b, c]: [i32; 3], carry| a.high_product(b).add_with(c, carry))),
    row("madc.hi{.cc,}.u64", |o| chain(o, |[a, b, c]: [u64; 3], carry| a.high_product(b).add_with(c, carry))),
    row("madc.hi{.cc,}.s64", |o| chain(o, |[a, b, c]: [i64; 3], carry| a.high_product(b).add_with(c, carry))),
];

/// Arithmetic that needs more bits than the operands have.
trait Integer: Lane {
    /// The upper half of the product.
    fn high_product(self, other: Self) -> Self;
    /// The sum and the carry out of its highest bit.
    fn add_with(self, other: Self, carry: bool) -> (Self, bool);
    /// The difference and whether it borrowed.
    fn subtract_with(self, other: Self, borrow: bool) -> (Self, bool);
}

macro_rules! integer {
    ($($ty:ident, $wide:ident, $unsigned:ident;)*) => {$(
        impl Integer for $ty {
            fn high_product(self, other: Self) -> Self {
                (self as $wide * other as $wide >> $ty::BITS) as $ty
            }

            fn add_with(self, other: Self, carry: bool) -> (Self, bool) {
                let (sum, first) = (self as $unsigned).overflowing_add(other as $unsigned);
                let (sum, second) = sum.overflowing_add(carry.into());
                (sum as $ty, first || second)
            }

            fn subtract_with(self, other: Self, borrow: bool) -> (Self, bool) {
                let (difference, first) = (self as $unsigned).overflowing_sub(other as $unsigned);
                let (difference, second) = difference.overflowing_sub(borrow.into());
                (difference as $ty, first || second)
            }
        }
    )*};
}

integer! {
    u16, u32, u16;
    i16, i32, u16;
    u32, u64, u32;
    i32, i64, u32;
    u64, u128, u64;
    i64, i128, u64;
}

/// The product of the lower 24 bits.
fn unsigned_product_24(a: u32, b: u32) -> u64 {
    u64::from(a & 0xff_ffff) * u64::from(b & 0xff_ffff)
}

/// The product of the lower 24 bits, of which the highest is the sign.
fn signed_product_24(a: i32, b: i32) -> i64 {
    i64::from(a << 8 >> 8) * i64::from(b << 8 >> 8)
}

/// `d = f(sources, carry)`, where `f` also gives the carry that `.cc` keeps. A borrow is a carry.
fn chain<T: Lane, const N: usize>(
    o: &mut Operands<'_>,
    f: impl Fn([T; N], bool) -> (T, bool) + Send + Sync + 'static,
) -> Result<Operation, String> {
    o.expect_operands(N + 1)?;
    let keeps_carry = o.has("cc");
    let d = o.reg::<T>(0)?;
    let sources = (1..=N).map(|i| o.reg::<T>(i)).collect::<Result<Vec<Reg<T>>, String>>()?;
    lanewise(move |registers, mask| {
        let operands: [[T; LANES]; N] = std::array::from_fn(|i| sources[i].read(registers));
        let mut carries: Mask = 0;
        let values = each_lane(|lane| {
            let (value, carry) = f(operands.map(|operand| operand[lane]), registers.carry >> lane & 1 != 0);
            carries |= Mask::from(carry) << lane;
            value
        });
        d.write(registers, values, mask);
        if keeps_carry {
            registers.carry = registers.carry & !mask | carries & mask;
        }
    })
}

/// Bytes of a word, each with the sign that the type of the operand gives it.
fn bytes(word: u32, signed: bool) -> [i32; 4] {
    word.to_le_bytes().map(|byte| if signed { i32::from(byte as i8) } else { i32::from(byte) })
}

/// Halves of a word, likewise.
fn halves(word: u32, signed: bool) -> [i32; 2] {
    [word as u16, (word >> 16) as u16].map(|half| if signed { i32::from(half as i16) } else { i32::from(half) })
}

/// Whether each of the two types at the end of a dot product's opcode is signed.
fn signedness(o: &Operands<'_>) -> [bool; 2] {
    let types: Vec<bool> = o.modifiers().filter(|m| matches!(*m, "u32" | "s32")).map(|m| m == "s32").collect();
    [types.first() == Some(&true), types.last() == Some(&true)]
}

fn dot<const N: usize>(a: [i32; N], b: [i32; N], c: u32) -> u32 {
    a.into_iter().zip(b).fold(c, |sum, (a, b)| sum.wrapping_add(a.wrapping_mul(b) as u32))
}

fn dot_product_4(o: &mut Operands<'_>) -> Result<Operation, String> {
    let [a_signed, b_signed] = signedness(o);
    o.ternary(move |a: u32, b: u32, c: u32| dot(bytes(a, a_signed), bytes(b, b_signed), c))
}

/// The halves of `a` with the lower or upper two bytes of `b`.
fn dot_product_2(o: &mut Operands<'_>) -> Result<Operation, String> {
    let [a_signed, b_signed] = signedness(o);
    let shift = if o.has("hi") { 16 } else { 0 };
    o.ternary(move |a: u32, b: u32, c: u32| {
        let [b0, b1, ..] = bytes(b >> shift, b_signed);
        dot(halves(a, a_signed), [b0, b1], c)
    })
}
