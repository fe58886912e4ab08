//! Bits: logic, shifts, fields, counts and permutations.

use super::{Row, row};
use crate::decode::{Operands, lanewise};
use crate::exec::Operation;
use crate::registers::{LANES, Lane, Mask, Reg, each_lane};

pub(super) const ROWS: &[Row] = &[
    row("and.pred", |o| predicates(o, |a, b| a & b)),
    row("and.b16", |o| o.binary(|a: u16, b: u16| a & b)),
    row("and.b32", |o| o.binary(|a: u32, b: u32| a & b)),
    row("and.b64", |o| o.binary(|a: u64, b: u64| a & b)),
    row("or.pred", |o| predicates(o, |a, b| a | b)),
    row("or.b16", |o| o.binary(|a: u16, b: u16| a | b)),
    row("or.b32", |o| o.binary(|a: u32, b: u32| a | b)),
    row("or.b64", |o| o.binary(|a: u64, b: u64| a | b)),
    row("xor.pred", |o| predicates(o, |a, b| a ^ b)),
    row("xor.b16", |o| o.binary(|a: u16, b: u16| a ^ b)),
    row("xor.b32", |o| o.binary(|a: u32, b: u32| a ^ b)),
    row("xor.b64", |o| o.binary(|a: u64, b: u64| a ^ b)),
    row("not.pred", |o| o.unary(|a: bool| !a)),
    row("not.b16", |o| o.unary(|a: u16| !a)),
    row("not.b32", |o| o.unary(|a: u32| !a)),
    row("not.b64", |o| o.unary(|a: u64| !a)),
    row("cnot.b16", |o| o.unary(|a: u16| u16::from(a == 0))),
    row("cnot.b32", |o| o.unary(|a: u32| u32::from(a == 0))),
    row("cnot.b64", |o| o.unary(|a: u64| u64::from(a == 0))),
    // Amounts beyond the width shift everything out.
    row("shl.b16", |o| o.binary(|a: u16, n: u32| a.checked_shl(n).unwrap_or(0))),
    row("shl.b32", |o| o.binary(|a: u32, n: u32| a.checked_shl(n).unwrap_or(0))),
    row("shl.b64", |o| o.binary(|a: u64, n: u32| a.checked_shl(n).unwrap_or(0))),
    row("shr.{b16,u16}", |o| o.binary(|a: u16, n: u32| a.checked_shr(n).unwrap_or(0))),
    row("shr.{b32,u32}", |o| o.binary(|a: u32, n: u32| a.checked_shr(n).unwrap_or(0))),
    row("shr.{b64,u64}", |o| o.binary(|a: u64, n: u32| a.checked_shr(n).unwrap_or(0))),
    row("shr.s16", |o| o.binary(|a: i16, n: u32| a >> n.min(15))),
    row("shr.s32", |o| o.binary(|a: i32, n: u32| a >> n.min(31))),
    row("shr.s64", |o| o.binary(|a: i64, n: u32| a >> n.min(63))),
    row("shf.l.wrap.b32", |o| o.ternary(|a, b, n: u32| funnel_left(a, b, n & 31))),
    row("shf.l.clamp.b32", |o| o.ternary(|a, b, n: u32| funnel_left(a, b, n.min(32)))),
    row("shf.r.wrap.b32", |o| o.ternary(|a, b, n: u32| funnel_right(a, b, n & 31))),
    row("shf.r.clamp.b32", |o| o.ternary(|a, b, n: u32| funnel_right(a, b, n.min(32)))),
    row("lop3.b32", lop3),
    row("prmt.b32", |o| o.ternary(|a, b, control| permute(a, b, selectors(control)))),
    row("prmt.b32.f4e", |o| o.ternary(|a, b, n: u32| permute(a, b, each_byte(|i| (n & 3) + i)))),
    row("prmt.b32.b4e", |o| o.ternary(|a, b, n: u32| permute(a, b, each_byte(|i| (n & 3).wrapping_sub(i) & 7)))),
    row("prmt.b32.rc8", |o| o.ternary(|a, b, n: u32| permute(a, b, each_byte(|_| n & 3)))),
    row("prmt.b32.ecl", |o| o.ternary(|a, b, n: u32| permute(a, b, each_byte(|i| i.max(n & 3))))),
    row("prmt.b32.ecr", |o| o.ternary(|a, b, n: u32| permute(a, b, each_byte(|i| i.min(n & 3))))),
    row("prmt.b32.rc16", |o| o.ternary(|a, b, n: u32| permute(a, b, each_byte(|i| i & 1 | (n & 1) << 1)))),
    row("bfe.u32", |o| o.ternary(|a: u32, position, length| extract(a.into(), position, length, 31, false) as u32)),
    row("bfe.s32", |o| o.ternary(|a: u32, position, length| extract(a.into(), position, length, 31, true) as u32)),
    row("bfe.u64", |o| o.ternary(|a: u64, position, length| extract(a, position, length, 63, false))),
    row("bfe.s64", |o| o.ternary(|a: u64, position, length| extract(a, position, length, 63, true))),
    row("bfi.b32", |o| insert_field(o, |field: u32, a: u32, n, m| insert(field.into(), a.into(), n, m, 31) as u32)),
    row("bfi.b64", |o| insert_field(o, |field: u64, a: u64, n, m| insert(field, a, n, m, 63))),
    row("bfind.u32", |o| o.unary(|a: u32| highest_bit(a.into()))),
    row("bfind.s32", |o| o.unary(|a: i32| highest_bit(significant(a.into())))),
    row("bfind.u64", |o| o.unary(highest_bit)),
    row("bfind.s64", |o| o.unary(|a: i64| highest_bit(significant(a)))),
    row("bfind.shiftamt.u32", |o| o.unary(|a: u32| shift_amount(a.into(), 31))),
    row("bfind.shiftamt.s32", |o| o.unary(|a: i32| shift_amount(significant(a.into()), 31))),
    row("bfind.shiftamt.u64", |o| o.unary(|a: u64| shift_amount(a, 63))),
    row("bfind.shiftamt.s64", |o| o.unary(|a: i64| shift_amount(significant(a), 63))),
    row("popc.b32", |o| o.unary(u32::count_ones)),
    row("popc.b64", |o| o.unary(u64::count_ones)),
    row("clz.b32", |o| o.unary(u32::leading_zeros)),
    row("clz.b64", |o| o.unary(u64::leading_zeros)),
    row("brev.b32", |o| o.unary(u32::reverse_bits)),
    row("brev.b64", |o| o.unary(u64::reverse_bits)),
    row("fns.b32", |o| o.ternary(find_nth_set)),
    row("szext.clamp.u32", |o| o.binary(|a: u32, n: u32| if n > 31 { a } else { a & ones(n) as u32 })),
    row("szext.wrap.u32", |o| o.binary(|a: u32, n: u32| a & ones(n & 31) as u32)),
    row("szext.clamp.s32", |o| o.binary(|a: u32, n: u32| if n > 31 { a } else { sign_extend(a, n) })),
    row("szext.wrap.s32", |o| o.binary(|a: u32, n: u32| sign_extend(a, n & 31))),
    row("bmsk.clamp.b32", |o| o.binary(|start: u32, length: u32| field(start.min(32), length.min(32), 31) as u32)),
    row("bmsk.wrap.b32", |o| o.binary(|start: u32, length: u32| field(start & 31, length & 31, 31) as u32)),
];

/// Predicates as masks: all lanes at once.
fn predicates(
    o: &mut Operands<'_>,
    f: impl Fn(Mask, Mask) -> Mask + Send + Sync + 'static,
) -> Result<Operation, String> {
    o.expect_operands(3)?;
    let (d, a, b) = (o.reg::<bool>(0)?, o.reg::<bool>(1)?, o.reg::<bool>(2)?);
    lanewise(move |registers, mask| d.set(registers, f(a.mask(registers), b.mask(registers)), mask))
}

/// The upper word of `high:low` shifted left by up to 32.
fn funnel_left(low: u32, high: u32, n: u32) -> u32 {
    ((double(low, high) << n) >> 32) as u32
}

/// The lower word of `high:low` shifted right by up to 32.
fn funnel_right(low: u32, high: u32, n: u32) -> u32 {
    (double(low, high) >> n) as u32
}

fn double(low: u32, high: u32) -> u64 {
    u64::from(high) << 32 | u64::from(low)
}

/// Any function of three bits: bit `4a + 2b + c` of the table is the result.
fn lop3(o: &mut Operands<'_>) -> Result<Operation, String> {
    o.expect_operands(5)?;
    let table = o.immediate(4)?;
    // A row of the table that gives 1 is a product of the operands, each inverted where its bit is 0.
    let rows: Vec<[u32; 3]> = (0..8u64)
        .filter(|row| table >> row & 1 != 0)
        .map(|row| [row >> 2 & 1, row >> 1 & 1, row & 1].map(|bit| if bit == 0 { u32::MAX } else { 0 }))
        .collect();
    let (d, a, b, c) = (o.reg::<u32>(0)?, o.reg::<u32>(1)?, o.reg::<u32>(2)?, o.reg::<u32>(3)?);
    lanewise(move |registers, mask| {
        let (a, b, c) = (a.read(registers), b.read(registers), c.read(registers));
        let mut values = [0; LANES];
        for [invert_a, invert_b, invert_c] in &rows {
            for (lane, value) in values.iter_mut().enumerate() {
                *value |= (a[lane] ^ invert_a) & (b[lane] ^ invert_b) & (c[lane] ^ invert_c);
            }
        }
        d.write(registers, values, mask);
    })
}

/// The four selectors of the default mode of `prmt`.
fn selectors(control: u32) -> [u32; 4] {
    each_byte(|i| control >> (4 * i) & 15)
}

/// A selector for each byte of the result, from the lowest.
fn each_byte(selector: impl Fn(u32) -> u32) -> [u32; 4] {
    [0, 1, 2, 3].map(selector)
}

/// Picks bytes of `b:a`; bit 3 of a selector replicates the sign of the byte instead.
fn permute(a: u32, b: u32, selectors: [u32; 4]) -> u32 {
    let bytes = double(a, b).to_le_bytes();
    u32::from_le_bytes(selectors.map(|selector| {
        let byte = bytes[selector as usize & 7];
        if selector & 8 == 0 { byte } else { (byte as i8 >> 7) as u8 }
    }))
}

/// The lowest `n` bits; all of them from 64 on.
fn ones(n: u32) -> u64 {
    1u64.checked_shl(n).map_or(u64::MAX, |bit| bit - 1)
}

/// `length` ones from bit `position` on, as far as bit `last`.
fn field(position: u32, length: u32, last: u32) -> u64 {
    ones(length).checked_shl(position).unwrap_or(0) & ones(last + 1)
}

/// The field of `length` bits from `position` on, of a number whose highest bit is `last`. Where the field
/// reaches beyond that, or is signed, its highest bit in the number fills the rest.
fn extract(a: u64, position: u32, length: u32, last: u32, signed: bool) -> u64 {
    let (position, length) = (position & 255, length & 255);
    let sign = signed && length > 0 && a >> (position + length - 1).min(last) & 1 != 0;
    let present = length.min((last + 1).saturating_sub(position));
    let value = a.checked_shr(position).unwrap_or(0) & ones(present);
    if sign { value | !ones(present) } else { value }
}

/// `a` with its `length` bits from `position` on replaced by the lowest of `field_value`.
fn insert(field_value: u64, a: u64, position: u32, length: u32, last: u32) -> u64 {
    let (position, length) = (position & 255, length & 255);
    let replaced = field(position, length, last);
    a & !replaced | field_value.checked_shl(position).unwrap_or(0) & replaced
}

/// `d = f(a, b, position, length)` in every lane.
fn insert_field<T: Lane>(
    o: &mut Operands<'_>,
    f: impl Fn(T, T, u32, u32) -> T + Send + Sync + 'static,
) -> Result<Operation, String> {
    o.expect_operands(5)?;
    let (d, a, b): (Reg<T>, Reg<T>, Reg<T>) = (o.reg(0)?, o.reg(1)?, o.reg(2)?);
    let (position, length) = (o.reg::<u32>(3)?, o.reg::<u32>(4)?);
    lanewise(move |registers, mask| {
        let (a, b) = (a.read(registers), b.read(registers));
        let (position, length) = (position.read(registers), length.read(registers));
        d.write(registers, each_lane(|lane| f(a[lane], b[lane], position[lane], length[lane])), mask);
    })
}

/// A number whose highest 1 is the highest bit of `a` that differs from its sign.
fn significant(a: i64) -> u64 {
    (if a < 0 { !a } else { a }) as u64
}

/// The position of the highest 1, all ones if there is none.
fn highest_bit(a: u64) -> u32 {
    63u32.wrapping_sub(a.leading_zeros())
}

/// How far the highest 1 is from bit `last`, all ones if there is none.
fn shift_amount(a: u64, last: u32) -> u32 {
    if a == 0 { u32::MAX } else { last - highest_bit(a) }
}

/// The position of the 1 that is `|offset|`-th from `base` on, upwards or, where `offset` is negative,
/// downwards; all ones if there is none. With offset 0 only `base` itself counts.
fn find_nth_set(mask: u32, base: u32, offset: i32) -> u32 {
    let is_set = |position: &u32| mask >> position & 1 != 0;
    let nth = offset.unsigned_abs().saturating_sub(1) as usize;
    let found = match offset {
        _ if base > 31 => None,
        0 => Some(base).filter(is_set),
        1.. => (base..32).filter(is_set).nth(nth),
        _ => (0..=base).rev().filter(is_set).nth(nth),
    };
    found.unwrap_or(u32::MAX)
}

/// The lowest `n` bits with the highest of them as the sign; 0 for none.
fn sign_extend(a: u32, n: u32) -> u32 {
    if n == 0 { 0 } else { ((a << (32 - n)) as i32 >> (32 - n)) as u32 }
}
