use half::{bf16, f16};

use crate::support::{Value, binary, ternary, unary};

/// A 16-bit format, rounded to by comparing with its numbers as f64.
trait Half: Value {
    const NAN: Self;
    /// Bits of infinity.
    const INFINITE: u64;

    fn exact(self) -> f64;

    /// The number nearest to `high + low`, where `low` is far smaller.
    fn nearest(high: f64, low: f64) -> Self {
        if high.is_nan() {
            return Self::NAN;
        }
        let sign = u64::from(high.is_sign_negative()) << 15;
        let (magnitude, low) = if sign == 0 { (high, low) } else { (-high, -low) };
        let value = |bits: u64| Self::of_bits(bits).exact();
        // The greatest number that is not above.
        let is_above = |bits: u64| value(bits) > magnitude || value(bits) == magnitude && low < 0.0;
        let (mut below, mut above) = (0, Self::INFINITE);
        while above - below > 1 {
            let middle = (below + above) / 2;
            if is_above(middle) { above = middle } else { below = middle }
        }
        if magnitude.is_infinite() {
            return Self::of_bits(sign | Self::INFINITE);
        }
        // Infinity stands where the next number would.
        let step = if above == Self::INFINITE { value(below) - value(below - 1) } else { value(above) - value(below) };
        let over_half = magnitude - value(below) - step / 2.0;
        let up = over_half > 0.0 || over_half == 0.0 && (low > 0.0 || low == 0.0 && below & 1 == 1);
        Self::of_bits(sign | if up { above } else { below })
    }
}

impl Half for f16 {
    const NAN: Self = f16::from_bits(0x7fff);
    const INFINITE: u64 = 0x7c00;

    fn exact(self) -> f64 {
        self.into()
    }
}

impl Half for bf16 {
    const NAN: Self = bf16::from_bits(0x7fff);
    const INFINITE: u64 = 0x7f80;

    fn exact(self) -> f64 {
        self.into()
    }
}

/// The product is exact in f64, and so are the two parts of the sum.
fn fused<H: Half>(a: H, b: H, c: H) -> H {
    let (product, c) = (a.exact() * b.exact(), c.exact());
    let sum = product + c;
    let c_rounded = sum - product;
    let rest = (product - (sum - c_rounded)) + (c - c_rounded);
    H::nearest(sum, if rest.is_nan() { 0.0 } else { rest })
}

fn flush<H: Half>(x: H, least: f64) -> H {
    if x.exact().abs() < least { H::of_bits(x.bits() & 0x8000) } else { x }
}

const LEAST_F16: f64 = 6.103515625e-5;

fn saturate(x: f16) -> f16 {
    if x.to_f64() > 0.0 { f16::from_f64(x.to_f64().min(1.0)) } else { f16::ZERO }
}

fn relu<H: Half>(x: H) -> H {
    if x.exact() <= 0.0 { H::of_bits(0) } else { x }
}

fn pairwise<H: Half>(f: impl Fn(H, H) -> H) -> impl Fn([H; 2], [H; 2]) -> [H; 2] {
    move |a, b| [f(a[0], b[0]), f(a[1], b[1])]
}

fn arithmetic<H: Half>(name: &str) {
    let op = |opcode: &str| format!("{opcode}.{name}");
    let packed = |opcode: &str| format!("{opcode}.{name}x2");
    let one = H::nearest(1.0, 0.0);
    let add = move |a: H, b: H| fused(a, one, b);
    let sub = move |a: H, b: H| fused(a, one, H::of_bits(b.bits() ^ 0x8000));
    let mul = |a: H, b: H| H::nearest(a.exact() * b.exact(), 0.0);
    binary(&op("add"), add);
    binary(&packed("add"), pairwise(add));
    binary(&op("sub"), sub);
    binary(&packed("sub"), pairwise(sub));
    binary(&op("mul"), mul);
    binary(&packed("mul.rn"), pairwise(mul));
    ternary(&op("fma.rn"), fused::<H>);
    ternary(&packed("fma.rn"), |a: [H; 2], b: [H; 2], c: [H; 2]| [fused(a[0], b[0], c[0]), fused(a[1], b[1], c[1])]);
    ternary(&op("fma.rn.relu"), |a: H, b: H, c: H| relu(fused(a, b, c)));
}

#[test]
fn arithmetic_f16() {
    arithmetic::<f16>("f16");
}

#[test]
fn arithmetic_bf16() {
    arithmetic::<bf16>("bf16");
}

#[test]
fn modifiers_of_f16() {
    let ftz = |x: f16| flush(x, LEAST_F16);
    ternary("fma.rn.ftz.f16", |a: f16, b: f16, c: f16| ftz(fused(ftz(a), ftz(b), ftz(c))));
    ternary("fma.rn.sat.f16", |a: f16, b: f16, c: f16| saturate(fused(a, b, c)));
    binary("mul.ftz.sat.f16x2", |a: [f16; 2], b: [f16; 2]| {
        [0, 1].map(|i| saturate(ftz(fused(ftz(a[i]), ftz(b[i]), f16::NEG_ZERO))))
    });
}

fn signs_and_extremes<H: Half>(name: &str) {
    let flip = |x: H| if x.exact().is_nan() { H::NAN } else { H::of_bits(x.bits() ^ 0x8000) };
    let clear = |x: H| if x.exact().is_nan() { H::NAN } else { H::of_bits(x.bits() & 0x7fff) };
    unary(&format!("neg.{name}"), flip);
    unary(&format!("neg.{name}x2"), |x: [H; 2]| x.map(flip));
    unary(&format!("abs.{name}"), clear);
    unary(&format!("abs.{name}x2"), |x: [H; 2]| x.map(clear));
    for (opcode, largest) in [("min", false), ("max", true)] {
        let pick = move |a: H, b: H| match (a.exact().is_nan(), b.exact().is_nan()) {
            (true, true) => H::NAN,
            (true, false) => b,
            (false, true) => a,
            _ if a.exact().total_cmp(&b.exact()).is_gt() == largest => a,
            _ => b,
        };
        let or_nan = move |a: H, b: H| if a.exact().is_nan() || b.exact().is_nan() { H::NAN } else { pick(a, b) };
        binary(&format!("{opcode}.{name}"), pick);
        binary(&format!("{opcode}.{name}x2"), pairwise(pick));
        binary(&format!("{opcode}.NaN.{name}"), or_nan);
        binary(&format!("{opcode}.NaN.{name}x2"), pairwise(or_nan));
        binary(&format!("{opcode}.xorsign.abs.{name}"), |a: H, b: H| {
            let magnitude = pick(clear(a), clear(b));
            if magnitude.exact().is_nan() {
                H::NAN
            } else {
                H::of_bits(magnitude.bits() | (a.bits() ^ b.bits()) & 0x8000)
            }
        });
    }
}

#[test]
fn signs_and_extremes_f16() {
    signs_and_extremes::<f16>("f16");
}

#[test]
fn signs_and_extremes_bf16() {
    signs_and_extremes::<bf16>("bf16");
}
