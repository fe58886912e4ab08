//! Matrices spread over a warp.

use super::{Row, row};
use crate::decode::Operands;
use crate::exec::{Accumulator, Collective, Factor, MatrixA, Multiply, MultiplyAsync, Operation};
use crate::memory::Space;
use crate::parse::ast::Operand;
use crate::registers::Reg;

pub(super) const ROWS: &[Row] = &[
    row("ldmatrix.sync.aligned.m8n8.x1{.trans,}.shared{,::cta}.b16", |o| load_matrix(o, 1)),
    row("ldmatrix.sync.aligned.m8n8.x2{.trans,}.shared{,::cta}.b16", |o| load_matrix(o, 2)),
    row("ldmatrix.sync.aligned.m8n8.x4{.trans,}.shared{,::cta}.b16", |o| load_matrix(o, 4)),
    row("stmatrix.sync.aligned.m8n8.x1{.trans,}.shared{,::cta}.b16", |o| store_matrix(o, 1)),
    row("stmatrix.sync.aligned.m8n8.x2{.trans,}.shared{,::cta}.b16", |o| store_matrix(o, 2)),
    row("stmatrix.sync.aligned.m8n8.x4{.trans,}.shared{,::cta}.b16", |o| store_matrix(o, 4)),
    row("mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32", |o| multiply(o, Factor::F16, Accumulator::F32, 8)),
    row("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32", |o| multiply(o, Factor::F16, Accumulator::F32, 16)),
    row("mma.sync.aligned.m16n8k8.row.col.f16.f16.f16.f16", |o| multiply(o, Factor::F16, Accumulator::F16, 8)),
    row("mma.sync.aligned.m16n8k16.row.col.f16.f16.f16.f16", |o| multiply(o, Factor::F16, Accumulator::F16, 16)),
    row("mma.sync.aligned.m16n8k8.row.col.f32.bf16.bf16.f32", |o| multiply(o, Factor::Bf16, Accumulator::F32, 8)),
    row("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32", |o| multiply(o, Factor::Bf16, Accumulator::F32, 16)),
    row("mma.sync.aligned.m16n8k4.row.col.f32.tf32.tf32.f32", |o| multiply(o, Factor::Tf32, Accumulator::F32, 4)),
    row("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32", |o| multiply(o, Factor::Tf32, Accumulator::F32, 8)),
    row("wgmma.fence.sync.aligned", |_| aligned(Collective::FenceMultiply)),
    row("wgmma.commit_group.sync.aligned", |_| aligned(Collective::CommitMultiply)),
    row("wgmma.wait_group.sync.aligned", |o| {
        let groups = u32::try_from(o.immediate(0)?).map_err(|_| "too many groups")?;
        aligned(Collective::WaitForMultiply(groups))
    }),
    row("wgmma.mma_async.sync.aligned.*", multiply_async),
];

/// An operation of the whole warp.
fn aligned(action: Collective) -> Result<Operation, String> {
    Ok(Operation::Collective { members: None, action: Box::new(action) })
}

fn load_matrix(o: &mut Operands<'_>, matrices: usize) -> Result<Operation, String> {
    let (to, address) = (fragment(o, 0, matrices)?, o.address(1, Space::Shared)?);
    aligned(Collective::LoadMatrix { to, transposed: o.has("trans"), address })
}

fn store_matrix(o: &mut Operands<'_>, matrices: usize) -> Result<Operation, String> {
    let (address, from) = (o.address(0, Space::Shared)?, fragment(o, 1, matrices)?);
    aligned(Collective::StoreMatrix { from, transposed: o.has("trans"), address })
}

fn multiply(o: &mut Operands<'_>, factor: Factor, accumulator: Accumulator, k: usize) -> Result<Operation, String> {
    let (of_a, of_b, of_c) = Multiply::registers(factor, accumulator, k);
    let (d, a, b, c) = (fragment(o, 0, of_c)?, fragment(o, 1, of_a)?, fragment(o, 2, of_b)?, fragment(o, 3, of_c)?);
    aligned(Collective::Multiply(Multiply { factor, accumulator, k, d, a, b, c }))
}

/// What a lane holds of a matrix: so many registers.
fn fragment(o: &mut Operands<'_>, i: usize, registers: usize) -> Result<Vec<Reg<u32>>, String> {
    let fragment = o.regs(i)?;
    if fragment.len() == registers {
        Ok(fragment)
    } else {
        Err(format!("operand {}: expected {registers} registers, got {}", i + 1, fragment.len()))
    }
}

/// `wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16 d, a, b, scale-d, scale-a, scale-b, trans-a, trans-b`: the
/// last two for types of 16 bits, that of A only where it is in shared memory.
fn multiply_async(o: &mut Operands<'_>) -> Result<Operation, String> {
    let modifiers: Vec<String> = o.modifiers().skip(3).map(str::to_owned).collect();
    let modifiers: Vec<&str> = modifiers.iter().map(String::as_str).collect();
    let (factor, shape) = match modifiers[..] {
        [shape, "f32", "f16", "f16"] => (Factor::F16, shape),
        [shape, "f32", "bf16", "bf16"] => (Factor::Bf16, shape),
        [shape, "f32", "tf32", "tf32"] => (Factor::Tf32, shape),
        _ => return Err("types other than f16, bf16 and tf32 with sums in f32".to_owned()),
    };
    let depth = format!("k{}", factor.depth());
    let n = shape.strip_prefix("m64n").and_then(|shape| shape.strip_suffix(&depth)?.parse().ok());
    let n: usize = n.filter(|n| (8..=256).contains(n) && n % 8 == 0).ok_or_else(|| format!("the shape .{shape}"))?;
    let in_registers = matches!(o.operand(1)?, Operand::Vector(_));
    let has_transposes = factor != Factor::Tf32;
    o.expect_operands(6 + if has_transposes { 2 - usize::from(in_registers) } else { 0 })?;
    let transposed = |o: &Operands<'_>, i: usize| match o.immediate(i)? {
        0 => Ok(false),
        1 => Ok(true),
        other => Err(format!("operand {}: expected 0 or 1, got {other}", i + 1)),
    };
    let negates = |i: usize| match o.immediate(i)? as i64 {
        1 => Ok(false),
        -1 => Ok(true),
        other => Err(format!("operand {}: expected 1 or -1, got {other}", i + 1)),
    };
    let negates = negates(4)? != negates(5)?;
    let transposed_b = has_transposes && transposed(o, o.len() - 1)?;
    let a = if in_registers {
        MatrixA::Registers(fragment(o, 1, 4)?)
    } else {
        MatrixA::Shared { descriptor: o.reg(1)?, transposed: has_transposes && transposed(o, 6)? }
    };
    let (d, b, adds) = (fragment(o, 0, n / 2)?, o.reg(2)?, o.predicate(3)?);
    aligned(Collective::MultiplyAsync(Box::new(MultiplyAsync { factor, n, d, a, b, adds, negates, transposed_b })))
}
