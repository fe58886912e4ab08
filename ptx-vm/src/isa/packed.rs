//! Arithmetic of the 16-bit formats, one value in a register or two packed in a word.

use half::{bf16, f16};

use super::float::{Modifiers, Selection, larger, smaller};
use super::rounding::{Format, Half, fused_half};
use super::{Row, row};
use crate::decode::Operands;
use crate::exec::Operation;
use crate::registers::{Lane, Packed};

type Decoded = Result<Operation, String>;

pub(super) const ROWS: &[Row] = &[
    row("add{.rn,}{.ftz,}{.sat,}.{f16,f16x2}", |o| binary(o, sum::<f16>)),
    row("sub{.rn,}{.ftz,}{.sat,}.{f16,f16x2}", |o| binary(o, difference::<f16>)),
    row("mul{.rn,}{.ftz,}{.sat,}.{f16,f16x2}", |o| binary(o, product::<f16>)),
    row("fma.rn{.ftz,}{.sat,.relu,}.{f16,f16x2}", |o| ternary(o, fused_half::<f16>)),
    row("add{.rn,}.{bf16,bf16x2}", |o| binary(o, sum::<bf16>)),
    row("sub{.rn,}.{bf16,bf16x2}", |o| binary(o, difference::<bf16>)),
    row("mul{.rn,}.{bf16,bf16x2}", |o| binary(o, product::<bf16>)),
    row("fma.rn{.relu,}.{bf16,bf16x2}", |o| ternary(o, fused_half::<bf16>)),
    row("neg{.ftz,}.{f16,f16x2}", |o| unary(o, f16::negate)),
    row("neg.{bf16,bf16x2}", |o| unary(o, bf16::negate)),
    row("abs{.ftz,}.{f16,f16x2}", |o| unary(o, f16::abs)),
    row("abs.{bf16,bf16x2}", |o| unary(o, bf16::abs)),
    row("min{.ftz,}{.NaN,}{.xorsign.abs,}.{f16,f16x2}", |o| extreme(o, smaller::<f16>)),
    row("max{.ftz,}{.NaN,}{.xorsign.abs,}.{f16,f16x2}", |o| extreme(o, larger::<f16>)),
    row("min{.NaN,}{.xorsign.abs,}.{bf16,bf16x2}", |o| extreme(o, smaller::<bf16>)),
    row("max{.NaN,}{.xorsign.abs,}.{bf16,bf16x2}", |o| extreme(o, larger::<bf16>)),
];

/// Whether the opcode works on two values in a word.
pub(super) fn is_packed(o: &Operands<'_>) -> bool {
    o.modifiers().last().is_some_and(|ty| ty.ends_with("x2"))
}

fn sum<H: Half>(a: H, b: H) -> H {
    fused_half(a, H::ONE, b)
}

fn difference<H: Half>(a: H, b: H) -> H {
    fused_half(a, H::ONE, b.negate())
}

/// -0 is what leaves any sum as it is, zeros too.
fn product<H: Half>(a: H, b: H) -> H {
    fused_half(a, b, H::ZERO.negate())
}

fn unary<H: Half + Lane>(o: &mut Operands<'_>, f: impl Fn(H) -> H + Send + Sync + 'static) -> Decoded
where
    Packed<H>: Lane,
{
    let modifiers = Modifiers::of(o);
    let f = move |a| modifiers.result(f(modifiers.operand(a)));
    if is_packed(o) { o.unary(move |a: Packed<H>| a.map(&f)) } else { o.unary(f) }
}

fn binary<H: Half + Lane>(o: &mut Operands<'_>, f: impl Fn(H, H) -> H + Send + Sync + 'static) -> Decoded
where
    Packed<H>: Lane,
{
    let modifiers = Modifiers::of(o);
    let f = move |a, b| modifiers.result(f(modifiers.operand(a), modifiers.operand(b)));
    if is_packed(o) { o.binary(move |a: Packed<H>, b: Packed<H>| [f(a[0], b[0]), f(a[1], b[1])]) } else { o.binary(f) }
}

fn ternary<H: Half + Lane>(o: &mut Operands<'_>, f: impl Fn(H, H, H) -> H + Send + Sync + 'static) -> Decoded
where
    Packed<H>: Lane,
{
    let modifiers = Modifiers::of(o);
    let f = move |a: H, b: H, c: H| {
        let [a, b, c] = [a, b, c].map(|x| modifiers.operand(x));
        modifiers.result(f(a, b, c))
    };
    if is_packed(o) {
        o.ternary(move |a: Packed<H>, b: Packed<H>, c: Packed<H>| [f(a[0], b[0], c[0]), f(a[1], b[1], c[1])])
    } else {
        o.ternary(f)
    }
}

fn extreme<H: Half + Lane>(o: &mut Operands<'_>, pick: impl Fn(H, H) -> H + Copy + Send + Sync + 'static) -> Decoded
where
    Packed<H>: Lane,
{
    let selection = Selection::of(o);
    binary(o, move |a, b| selection.apply(a, b, pick))
}
