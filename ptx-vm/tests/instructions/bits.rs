use crate::support::{binary, check, draw, sample_triples, ternary, unary};
use proptest::prelude::*;

#[test]
fn logic() {
    macro_rules! logic {
        ($($ty:ty, $name:literal;)*) => {$(
            binary(concat!("and.", $name), |a: $ty, b: $ty| a & b);
            binary(concat!("or.", $name), |a: $ty, b: $ty| a | b);
            binary(concat!("xor.", $name), |a: $ty, b: $ty| a ^ b);
            unary(concat!("not.", $name), |a: $ty| !a);
        )*};
    }
    logic! { bool, "pred"; u16, "b16"; u32, "b32"; u64, "b64"; }
    unary("cnot.b16", |a: u16| if a == 0 { 1u16 } else { 0 });
    unary("cnot.b32", |a: u32| if a == 0 { 1u32 } else { 0 });
    unary("cnot.b64", |a: u64| if a == 0 { 1u64 } else { 0 });
}

#[test]
fn shifts() {
    macro_rules! shifts {
        ($($ty:ty, $signed:ty, $bits:literal;)*) => {$(
            // In 128 bits, which no amount up to 127 shifts beyond what is kept.
            let left = |a: $ty, n: u32| if n > 127 { 0 } else { (a as u128).wrapping_shl(n) as $ty };
            let right = |a: $ty, n: u32| if n > 127 { 0 } else { (a as u128 >> n) as $ty };
            let arithmetic = |a: $signed, n: u32| (a as i128 >> n.min(127)) as $signed;
            binary(concat!("shl.b", $bits), left);
            binary(concat!("shr.b", $bits), right);
            binary(concat!("shr.u", $bits), right);
            binary(concat!("shr.s", $bits), arithmetic);
        )*};
    }
    shifts! { u16, i16, 16; u32, i32, 32; u64, i64, 64; }
}

#[test]
fn funnel_shifts() {
    let left = |a: u32, b: u32, n: u32| ((u128::from(b) << 32 | u128::from(a)) << n >> 32) as u32;
    let right = |a: u32, b: u32, n: u32| ((u128::from(b) << 32 | u128::from(a)) >> n) as u32;
    ternary("shf.l.wrap.b32", |a: u32, b: u32, n: u32| left(a, b, n % 32));
    ternary("shf.r.wrap.b32", |a: u32, b: u32, n: u32| right(a, b, n % 32));
    ternary("shf.l.clamp.b32", |a: u32, b: u32, n: u32| left(a, b, n.min(32)));
    ternary("shf.r.clamp.b32", |a: u32, b: u32, n: u32| right(a, b, n.min(32)));
}

#[test]
fn any_function_of_three() {
    let samples = draw(any::<[u64; 3]>());
    for table in 0..256u32 {
        let body = format!("lop3.b32 %ro0, %r0, %r1, %r2, {table};");
        check(&body, &samples[..64], |words| {
            let bit = |word: u64, i: u32| word as u32 >> i & 1;
            (0..32).fold(0u32, |result, i| {
                let [a, b, c] = words.map(|word| bit(word, i));
                result | (table >> (4 * a + 2 * b + c) & 1) << i
            })
        });
    }
}

#[test]
fn permutations() {
    let bytes = |a: u32, b: u32| (u64::from(b) << 32 | u64::from(a)).to_le_bytes();
    ternary("prmt.b32", |a: u32, b: u32, c: u32| {
        u32::from_le_bytes([0, 4, 8, 12].map(|shift| {
            let selector = (c >> shift & 15) as usize;
            let byte = bytes(a, b)[selector % 8];
            if selector < 8 {
                byte
            } else if byte >= 0x80 {
                0xff
            } else {
                0
            }
        }))
    });
    // The tables of the ISA, from the highest byte of the result to the lowest.
    let modes: [(&str, [[usize; 4]; 4]); 6] = [
        ("f4e", [[3, 2, 1, 0], [4, 3, 2, 1], [5, 4, 3, 2], [6, 5, 4, 3]]),
        ("b4e", [[5, 6, 7, 0], [6, 7, 0, 1], [7, 0, 1, 2], [0, 1, 2, 3]]),
        ("rc8", [[0, 0, 0, 0], [1, 1, 1, 1], [2, 2, 2, 2], [3, 3, 3, 3]]),
        ("ecl", [[3, 2, 1, 0], [3, 2, 1, 1], [3, 2, 2, 2], [3, 3, 3, 3]]),
        ("ecr", [[0, 0, 0, 0], [1, 1, 1, 0], [2, 2, 1, 0], [3, 2, 1, 0]]),
        ("rc16", [[1, 0, 1, 0], [3, 2, 3, 2], [1, 0, 1, 0], [3, 2, 3, 2]]),
    ];
    for (mode, table) in modes {
        ternary(&format!("prmt.b32.{mode}"), |a: u32, b: u32, c: u32| {
            u32::from_be_bytes(table[c as usize % 4].map(|i| bytes(a, b)[i]))
        });
    }
}

/// The ISA's loop over the bits of a field.
fn extract(a: u64, position: u32, length: u32, msb: u32, signed: bool) -> u64 {
    let (position, length) = (position & 0xff, length & 0xff);
    let bit = |i: u32| a >> i & 1;
    let sign = if !signed || length == 0 { 0 } else { bit((position + length - 1).min(msb)) };
    let at = |i: u32| if i < length && position + i <= msb { bit(position + i) } else { sign };
    (0..=msb).fold(0, |field, i| field | at(i) << i)
}

fn insert(a: u64, b: u64, position: u32, length: u32, msb: u32) -> u64 {
    let (position, length) = (position & 0xff, length & 0xff);
    (0..length).filter(|i| position + i <= msb).fold(b, |f, i| {
        let to = position + i;
        f & !(1 << to) | (a >> i & 1) << to
    })
}

#[test]
fn fields() {
    ternary("bfe.u32", |a: u32, b, c| extract(a.into(), b, c, 31, false) as u32);
    ternary("bfe.s32", |a: u32, b, c| extract(a.into(), b, c, 31, true) as u32);
    ternary("bfe.u64", |a: u64, b, c| extract(a, b, c, 63, false));
    ternary("bfe.s64", |a: u64, b, c| extract(a, b, c, 63, true));
    let samples: Vec<[u64; 4]> = sample_triples::<u64, u32, u32>()
        .into_iter()
        .map(|[a, position, length]| [a, a.rotate_left(17) ^ 0x5555, position, length])
        .collect();
    check("bfi.b32 %ro0, %r0, %r1, %r2, %r3;", &samples, |[a, b, c, d]| {
        insert(a, b & 0xffff_ffff, c as u32, d as u32, 31) as u32
    });
    check("bfi.b64 %do0, %d0, %d1, %r2, %r3;", &samples, |[a, b, c, d]| insert(a, b, c as u32, d as u32, 63));
}

#[test]
fn extension_and_masks() {
    let extend = |a: u32, n: u32, signed: bool| match n {
        0 => 0,
        32.. => a,
        n if signed && a >> (n - 1) & 1 == 1 => a | u32::MAX << n,
        n => a & !(u32::MAX << n),
    };
    binary("szext.clamp.u32", |a: u32, n: u32| extend(a, n, false));
    binary("szext.clamp.s32", |a: u32, n: u32| extend(a, n, true));
    binary("szext.wrap.u32", |a: u32, n: u32| extend(a, n % 32, false));
    binary("szext.wrap.s32", |a: u32, n: u32| extend(a, n % 32, true));
    let mask =
        |a: u32, b: u32| (0..32u64).filter(|&i| i >= a.into() && i < u64::from(a) + u64::from(b)).map(|i| 1 << i).sum();
    binary("bmsk.clamp.b32", |a: u32, b: u32| -> u32 { mask(a, b) });
    binary("bmsk.wrap.b32", |a: u32, b: u32| -> u32 { mask(a % 32, b % 32) });
}

#[test]
fn counts() {
    unary("popc.b32", |a: u32| (0..32).filter(|i| a >> i & 1 == 1).count() as u32);
    unary("popc.b64", |a: u64| (0..64).filter(|i| a >> i & 1 == 1).count() as u32);
    unary("clz.b32", |a: u32| (0..32).rev().take_while(|i| a >> i & 1 == 0).count() as u32);
    unary("clz.b64", |a: u64| (0..64).rev().take_while(|i| a >> i & 1 == 0).count() as u32);
    unary("brev.b32", |a: u32| (0..32).fold(0u32, |r, i| r | (a >> i & 1) << (31 - i)));
    unary("brev.b64", |a: u64| (0..64).fold(0u64, |r, i| r | (a >> i & 1) << (63 - i)));
}

#[test]
fn highest_bits() {
    let find = |a: u64, msb: u32, signed: bool, amount: bool| {
        let a = if signed && a >> msb & 1 == 1 { !a } else { a };
        match (0..=msb).rev().find(|i| a >> i & 1 == 1) {
            Some(i) if amount => msb - i,
            Some(i) => i,
            None => u32::MAX,
        }
    };
    for (infix, amount) in [("", false), (".shiftamt", true)] {
        unary(&format!("bfind{infix}.u32"), |a: u32| find(a.into(), 31, false, amount));
        unary(&format!("bfind{infix}.s32"), |a: u32| find(a.into(), 31, true, amount));
        unary(&format!("bfind{infix}.u64"), |a: u64| find(a, 63, false, amount));
        unary(&format!("bfind{infix}.s64"), |a: u64| find(a, 63, true, amount));
    }
}

#[test]
fn nth_set_bit() {
    let samples = draw((any::<u64>(), 0u64..32, -40i64..40).prop_map(|(a, b, c)| [a, b, c as u64]));
    check("fns.b32 %ro0, %r0, %r1, %r2;", &samples, |[mask, base, offset]| {
        let (offset, mut position) = (offset as i32, base as i64);
        let is_set = |position: i64| mask as u32 >> position & 1 == 1;
        if offset == 0 {
            return if is_set(position) { base as u32 } else { u32::MAX };
        }
        let mut count = offset.abs() - 1;
        while (0..32).contains(&position) {
            if is_set(position) {
                if count == 0 {
                    return position as u32;
                }
                count -= 1;
            }
            position += i64::from(offset.signum());
        }
        u32::MAX
    });
}
