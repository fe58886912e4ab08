use half::{bf16, f16};

use crate::support::{Value, check, input, run, sample_pairs, sample_triples, ternary};

/// Whether a comparison holds of two numbers in this order, or of a pair with NaN.
fn holds(comparison: &str, order: Option<std::cmp::Ordering>) -> bool {
    let Some(order) = order else { return comparison == "nan" || comparison.ends_with('u') };
    match comparison.strip_suffix('u').unwrap_or(comparison) {
        "eq" => order.is_eq(),
        "ne" => order.is_ne(),
        "lt" | "lo" => order.is_lt(),
        "le" | "ls" => order.is_le(),
        "gt" | "hi" => order.is_gt(),
        "ge" | "hs" => order.is_ge(),
        "num" => true,
        _ => false,
    }
}

const BITS: &[&str] = &["eq", "ne"];
const SIGNED: &[&str] = &["eq", "ne", "lt", "le", "gt", "ge"];
const UNSIGNED: &[&str] = &["eq", "ne", "lt", "le", "gt", "ge", "lo", "ls", "hi", "hs"];
const FLOAT: &[&str] = &["eq", "ne", "lt", "le", "gt", "ge", "equ", "neu", "ltu", "leu", "gtu", "geu", "num", "nan"];

/// `setp` alone, with two destinations, and combined with a predicate; and `set`.
fn comparisons<T: Value + PartialOrd>(names: &[&str], ty: &str, truths: &[(&str, u32)]) {
    let samples = sample_pairs::<T, T>();
    let (a, b) = (input::<T>(0), input::<T>(1));
    for comparison in names {
        let holds = |[a, b]: [u64; 2]| holds(comparison, T::of_bits(a).partial_cmp(&T::of_bits(b)));
        let body = format!("setp.{comparison}.{ty} %po0|%po1, {a}, {b};");
        for (&sample, got) in samples.iter().zip(run(&body, &samples)) {
            let expected = holds(sample);
            assert_eq!(got, [expected.into(), (!expected).into()], "{body} of {sample:x?}");
        }
        for (name, truth) in truths {
            let register = if *truth == 0xffff_ffff || *name == "f32" { "r" } else { "h" };
            let body = format!("set.{comparison}.{name}.{ty} %{register}o0, {a}, {b};");
            check(&body, &samples, |sample| if holds(sample) { *truth } else { 0 });
        }
    }
}

const WORDS: &[(&str, u32)] = &[("u32", u32::MAX), ("s32", u32::MAX), ("f32", 0x3f80_0000)];

#[test]
fn integers() {
    comparisons::<u16>(BITS, "b16", WORDS);
    comparisons::<u32>(BITS, "b32", WORDS);
    comparisons::<u64>(BITS, "b64", WORDS);
    comparisons::<u16>(UNSIGNED, "u16", WORDS);
    comparisons::<u32>(UNSIGNED, "u32", WORDS);
    comparisons::<u64>(UNSIGNED, "u64", WORDS);
    comparisons::<i16>(SIGNED, "s16", WORDS);
    comparisons::<i32>(SIGNED, "s32", WORDS);
    comparisons::<i64>(SIGNED, "s64", WORDS);
}

#[test]
fn floats() {
    comparisons::<f32>(FLOAT, "f32", WORDS);
    comparisons::<f64>(FLOAT, "f64", WORDS);
    comparisons::<f16>(FLOAT, "f16", &[("f16", 0x3c00), ("u32", u32::MAX), ("u16", 0xffff)]);
    comparisons::<bf16>(FLOAT, "bf16", &[("bf16", 0x3f80), ("s32", u32::MAX), ("s16", 0xffff)]);
}

#[test]
fn combined() {
    let samples = sample_triples::<i32, i32, bool>();
    type Combine = fn(bool, bool) -> bool;
    let combinations: [(&str, Combine); 3] = [("and", |a, b| a && b), ("or", |a, b| a || b), ("xor", |a, b| a != b)];
    for (name, combine) in combinations {
        for (operand, negated) in [("%p2", false), ("!%p2", true)] {
            let body = format!("setp.lt.{name}.s32 %po0|%po1, %r0, %r1, {operand};");
            for (&[a, b, c], got) in samples.iter().zip(run(&body, &samples)) {
                let (less, c) = ((a as i32) < b as i32, (c != 0) != negated);
                assert_eq!(got, [combine(less, c).into(), combine(!less, c).into()], "{body} of {a:x} {b:x} {c}");
            }
            let body = format!("set.lt.{name}.u32.s32 %ro0, %r0, %r1, {operand};");
            check(
                &body,
                &samples,
                |[a, b, c]| {
                    if combine((a as i32) < b as i32, (c != 0) != negated) { u32::MAX } else { 0 }
                },
            );
        }
    }
}

#[test]
fn flushed() {
    let flush = |x: u64| Some(f32::of_bits(x)).map(|x| if x.is_subnormal() { 0.0 } else { x });
    let samples = sample_pairs::<f32, f32>();
    for comparison in FLOAT {
        let expected = |[a, b]: [u64; 2]| {
            let (a, b) = (flush(a), flush(b));
            holds(comparison, a.zip(b).and_then(|(a, b)| a.partial_cmp(&b)))
        };
        check(&format!("setp.{comparison}.ftz.f32 %po0, %r0, %r1;"), &samples, expected);
        check(&format!("set.{comparison}.ftz.u32.f32 %ro0, %r0, %r1;"), &samples, |sample| {
            if expected(sample) { u32::MAX } else { 0 }
        });
    }
}

fn packed<T: Value + PartialOrd>(ty: &str, one: u32) {
    let samples = sample_pairs::<[T; 2], [T; 2]>();
    for comparison in FLOAT {
        let halves = |[a, b]: [u64; 2]| {
            let (a, b) = (<[T; 2]>::of_bits(a), <[T; 2]>::of_bits(b));
            [0, 1].map(|i| holds(comparison, a[i].partial_cmp(&b[i])))
        };
        let body = format!("setp.{comparison}.{ty} %po0|%po1, %r0, %r1;");
        for (&sample, got) in samples.iter().zip(run(&body, &samples)) {
            assert_eq!(got, halves(sample).map(u64::from), "{body} of {sample:x?}");
        }
        for (name, truth) in [(ty, one), ("u32", 0xffff)] {
            check(&format!("set.{comparison}.{name}.{ty} %ro0, %r0, %r1;"), &samples, |sample| {
                let [low, high] = halves(sample).map(u32::from);
                (low * truth) | ((high * truth) << 16)
            });
        }
    }
}

#[test]
fn packed_halves() {
    packed::<f16>("f16x2", 0x3c00);
    packed::<bf16>("bf16x2", 0x3f80);
}

#[test]
fn selections() {
    ternary("selp.b16", |a: u16, b: u16, c: bool| if c { a } else { b });
    ternary("selp.s16", |a: u16, b: u16, c: bool| if c { a } else { b });
    for ty in ["b32", "u32", "s32", "f32"] {
        ternary(&format!("selp.{ty}"), |a: u32, b: u32, c: bool| if c { a } else { b });
        ternary(&format!("slct.{ty}.s32"), |a: u32, b: u32, c: i32| if c < 0 { b } else { a });
        ternary(&format!("slct.{ty}.f32"), |a: u32, b: u32, c: f32| if c >= 0.0 { a } else { b });
        ternary(
            &format!("slct.ftz.{ty}.f32"),
            |a: u32, b: u32, c: f32| if c >= 0.0 || c.is_subnormal() { a } else { b },
        );
    }
    ternary("selp.f64", |a: u64, b: u64, c: bool| if c { a } else { b });
    ternary("slct.u64.s32", |a: u64, b: u64, c: i32| if c < 0 { b } else { a });
    ternary("slct.b16.s32", |a: u16, b: u16, c: i32| if c < 0 { b } else { a });
}
