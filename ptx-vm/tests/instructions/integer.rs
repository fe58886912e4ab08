use crate::support::{binary, check, draw, ternary, unary};
use proptest::prelude::*;

/// What every type of integers has, by arithmetic of 128 bits.
macro_rules! arithmetic {
    ($($test:ident: $ty:ty, $unsigned:ty, $wide:ty, $name:literal;)*) => {$(
        #[test]
        fn $test() {
            let op = |opcode: &str| format!("{opcode}.{}", $name);
            let product = |a: $ty, b: $ty| a as $wide * b as $wide;
            let high = |a: $ty, b: $ty| (product(a, b) >> <$ty>::BITS) as $ty;
            binary(&op("add"), |a: $ty, b: $ty| (a as i128 + b as i128) as $ty);
            binary(&op("sub"), |a: $ty, b: $ty| (a as i128 - b as i128) as $ty);
            binary(&op("mul.lo"), |a: $ty, b: $ty| product(a, b) as $ty);
            binary(&op("mul.hi"), high);
            binary(&op("min"), |a: $ty, b: $ty| if a < b { a } else { b });
            binary(&op("max"), |a: $ty, b: $ty| if a > b { a } else { b });
            binary(&op("div"), |a: $ty, b: $ty| if b == 0 { !0 } else { (a as i128 / b as i128) as $ty });
            binary(&op("rem"), |a: $ty, b: $ty| if b == 0 { a } else { (a as i128 % b as i128) as $ty });
            ternary(&op("mad.lo"), |a: $ty, b: $ty, c: $ty| product(a, b).wrapping_add(c as $wide) as $ty);
            ternary(&op("mad.hi"), |a: $ty, b: $ty, c: $ty| (high(a, b) as i128 + c as i128) as $ty);
            ternary(&op("sad"), |a: $ty, b: $ty, c: $unsigned| {
                (c as i128 + (a as i128 - b as i128).abs()) as $unsigned
            });
        }
    )*};
}

arithmetic! {
    unsigned_16: u16, u16, u128, "u16";
    signed_16: i16, u16, i128, "s16";
    unsigned_32: u32, u32, u128, "u32";
    signed_32: i32, u32, i128, "s32";
    unsigned_64: u64, u64, u128, "u64";
    signed_64: i64, u64, i128, "s64";
}

#[test]
fn wide_products() {
    binary("mul.wide.u16", |a: u16, b: u16| (a as u64 * b as u64) as u32);
    binary("mul.wide.s16", |a: i16, b: i16| (a as i64 * b as i64) as i32);
    binary("mul.wide.u32", |a: u32, b: u32| (a as u128 * b as u128) as u64);
    binary("mul.wide.s32", |a: i32, b: i32| (a as i128 * b as i128) as i64);
    ternary("mad.wide.u16", |a: u16, b: u16, c: u32| (a as u64 * b as u64 + c as u64) as u32);
    ternary("mad.wide.s16", |a: i16, b: i16, c: i32| (a as i64 * b as i64 + c as i64) as i32);
    ternary("mad.wide.u32", |a: u32, b: u32, c: u64| (a as u128 * b as u128 + c as u128) as u64);
    ternary("mad.wide.s32", |a: i32, b: i32, c: i64| (a as i128 * b as i128 + c as i128) as i64);
}

#[test]
fn saturation() {
    let clamp = |x: i64| x.clamp(i32::MIN as i64, i32::MAX as i64) as i32;
    binary("add.sat.s32", |a: i32, b: i32| clamp(a as i64 + b as i64));
    binary("sub.sat.s32", |a: i32, b: i32| clamp(a as i64 - b as i64));
    ternary("mad.hi.sat.s32", |a: i32, b: i32, c: i32| clamp(((a as i64 * b as i64) >> 32) + c as i64));
}

#[test]
fn products_of_24_bits() {
    let signed = |a: u32, b: u32| {
        let extend = |x: u32| i64::from(x & 0x7f_ffff) - i64::from(x & 0x80_0000);
        extend(a) * extend(b)
    };
    let unsigned = |a: u32, b: u32| u64::from(a % (1 << 24)) * u64::from(b % (1 << 24));
    binary("mul24.lo.u32", |a, b| unsigned(a, b) as u32);
    binary("mul24.hi.u32", |a, b| (unsigned(a, b) >> 16) as u32);
    binary("mul24.lo.s32", |a, b| signed(a, b) as u32);
    binary("mul24.hi.s32", |a, b| (signed(a, b) >> 16) as u32);
    ternary("mad24.lo.u32", |a, b, c: u32| (unsigned(a, b) as u32).wrapping_add(c));
    ternary("mad24.hi.u32", |a, b, c: u32| ((unsigned(a, b) >> 16) as u32).wrapping_add(c));
    ternary("mad24.lo.s32", |a, b, c: u32| (signed(a, b) as u32).wrapping_add(c));
    ternary("mad24.hi.s32", |a, b, c: u32| ((signed(a, b) >> 16) as u32).wrapping_add(c));
    ternary("mad24.hi.sat.s32", |a, b, c: i32| {
        ((signed(a, b) >> 16) + c as i64).clamp(i32::MIN as i64, i32::MAX as i64) as i32
    });
}

#[test]
fn signs() {
    unary("abs.s16", |a: i16| (a as i64).abs() as i16);
    unary("abs.s32", |a: i32| (a as i64).abs() as i32);
    unary("abs.s64", |a: i64| (a as i128).abs() as i64);
    unary("neg.s16", |a: i16| -(a as i64) as i16);
    unary("neg.s32", |a: i32| -(a as i64) as i32);
    unary("neg.s64", |a: i64| -(a as i128) as i64);
}

#[test]
fn dot_products() {
    let byte = |word: u32, i: u32, signed: bool| {
        let byte = i64::from(word >> (8 * i) & 0xff);
        if signed && byte > 127 { byte - 256 } else { byte }
    };
    let half = |word: u32, i: u32, signed: bool| {
        let half = i64::from(word >> (16 * i) & 0xffff);
        if signed && half > 0x7fff { half - 0x1_0000 } else { half }
    };
    for (a_type, a_signed) in [("u32", false), ("s32", true)] {
        for (b_type, b_signed) in [("u32", false), ("s32", true)] {
            ternary(&format!("dp4a.{a_type}.{b_type}"), |a: u32, b: u32, c: u32| {
                let sum: i64 = (0..4).map(|i| byte(a, i, a_signed) * byte(b, i, b_signed)).sum();
                (sum + c as i64) as u32
            });
            for (part, first) in [("lo", 0), ("hi", 2)] {
                ternary(&format!("dp2a.{part}.{a_type}.{b_type}"), |a: u32, b: u32, c: u32| {
                    let sum: i64 = (0..2).map(|i| half(a, i, a_signed) * byte(b, first + i, b_signed)).sum();
                    (sum + c as i64) as u32
                });
            }
        }
    }
}

/// Two doubles, and small ones often, so that carries happen.
fn doubles() -> Vec<[u64; 4]> {
    let double = || prop_oneof![any::<u64>(), 0u64..3, (0u64..3).prop_map(|x| x.wrapping_neg())];
    draw([double(), double(), double(), double()])
}

#[test]
fn sums_with_carries() {
    let whole = |low: u64, high: u64| u128::from(high) << 64 | u128::from(low);
    let samples = doubles();
    let check_both = |body: &str, f: fn(u128, u128) -> u128| {
        for (&[a, b, c, d], got) in samples.iter().zip(crate::support::run(body, &samples)) {
            let expected = f(whole(a, b), whole(c, d));
            assert_eq!(got, [expected as u64, (expected >> 64) as u64], "{body} of {a:x} {b:x} {c:x} {d:x}");
        }
    };
    check_both("add.cc.u64 %do0, %d0, %d2;\naddc.u64 %do1, %d1, %d3;", u128::wrapping_add);
    check_both("sub.cc.s64 %do0, %d0, %d2;\nsubc.s64 %do1, %d1, %d3;", u128::wrapping_sub);
    // The carry out of a middle limb, and that one without `.cc` leaves the flag as it is.
    let words = "mov.b64 {%r0,%r1}, %d0;\nmov.b64 {%r2,%r3}, %d1;\nmov.b64 {%r4,%r5}, %d2;\nmov.b64 {%r6,%r7}, %d3;\n";
    let parts = "mov.b64 %do0, {%r0,%r1};\nmov.b64 %do1, {%r2,%r3};";
    let limbs = |op: &str| {
        format!(
            "{words}{op}.cc.u32 %r0, %r0, %r4;\n{op}c.cc.u32 %r1, %r1, %r5;\n\
             {op}.u32 %r8, %r0, %r1;\n{op}c.cc.u32 %r2, %r2, %r6;\n{op}c.u32 %r3, %r3, %r7;\n{parts}"
        )
    };
    check_both(&limbs("add"), u128::wrapping_add);
    check_both(&limbs("sub"), u128::wrapping_sub);
}

#[test]
fn products_with_carries() {
    // 64 by 64 bits to 128 from words, as the ISA's example has it.
    let body = "mov.b64 {%r0,%r1}, %d0;\nmov.b64 {%r2,%r3}, %d1;\n\
         mul.lo.u32 %r4, %r0, %r2;\nmul.hi.u32 %r5, %r0, %r2;\n\
         mad.lo.cc.u32 %r5, %r1, %r2, %r5;\nmadc.hi.u32 %r6, %r1, %r2, 0;\n\
         mad.lo.cc.u32 %r5, %r0, %r3, %r5;\nmadc.hi.cc.u32 %r6, %r0, %r3, %r6;\naddc.u32 %r7, 0, 0;\n\
         mad.lo.cc.u32 %r6, %r1, %r3, %r6;\nmadc.hi.u32 %r7, %r1, %r3, %r7;\n\
         mov.b64 %do0, {%r4,%r5};\nmov.b64 %do1, {%r6,%r7};";
    let samples = doubles();
    for (&[a, b, ..], got) in samples.iter().zip(crate::support::run(body, &samples)) {
        let expected = u128::from(a) * u128::from(b);
        assert_eq!(got, [expected as u64, (expected >> 64) as u64], "{a:x} * {b:x}");
    }
    let body = "mad.lo.cc.u64 %do0, %d0, %d1, %d2;\nmadc.hi.u64 %do1, %d0, %d1, %d3;";
    for (&[a, b, c, d], got) in samples.iter().zip(crate::support::run(body, &samples)) {
        let addend = u128::from(d) << 64 | u128::from(c);
        let expected = (u128::from(a) * u128::from(b)).wrapping_add(addend);
        assert_eq!(got, [expected as u64, (expected >> 64) as u64], "{a:x} * {b:x} + {addend:x}");
    }
    let high = |a: u64, b: u64| ((i128::from(a as i64) * i128::from(b as i64)) >> 64) as u64;
    check("mad.hi.cc.s64 %d8, %d0, %d1, %d2;\naddc.u64 %do0, %d3, 0;", &samples, |[a, b, c, d]| {
        d.wrapping_add(high(a, b).checked_add(c).is_none().into())
    });
    check("mad.hi.cc.s32 %r8, %r0, %r1, %r2;\naddc.u32 %ro0, %r3, 0;", &samples, |[a, b, c, d]| {
        let high = ((i64::from(a as i32) * i64::from(b as i32)) >> 32) as u32;
        (d as u32).wrapping_add(high.checked_add(c as u32).is_none().into())
    });
}
