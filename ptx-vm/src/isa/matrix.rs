//! Matrices spread over a warp.

use super::{Row, row};
use crate::decode::Operands;
use crate::exec::{Accumulator, Collective, Factor, Multiply, Operation};
use crate::memory::Space;
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
