//! Loads, stores, atomics, fences and conversions of addresses.

use super::{Row, row};
use crate::decode::Operands;
use crate::exec::{Atomic, AtomicKind, Load, Operation, Order, Scope, Store};
use crate::memory::{LOCAL, PARAM, SHARED, Space, mapped};

pub(super) const ROWS: &[Row] = &[
    row("ld.*", load),
    row("ldu.*", load),
    row("st.*", store),
    row("atom.*", |o| atomic(o, true)),
    row("red.*", |o| atomic(o, false)),
    row("fence{.sc,.acq_rel}.cta", |_| Ok(Operation::Fence(Scope::Block))),
    row("fence{.sc,.acq_rel}{.gpu,.sys,.cluster}", |_| Ok(Operation::Fence(Scope::Device))),
    row("membar.cta", |_| Ok(Operation::Fence(Scope::Block))),
    row("membar{.gl,.sys,.gpu}", |_| Ok(Operation::Fence(Scope::Device))),
    // Buffers have the same address in both spaces.
    row("cvta{,.to}{.global,.const}.u64", |o| o.unary(|address: u64| address)),
    row("cvta.param.u64", |o| o.unary(|address: u64| PARAM.wrapping_add(address))),
    row("cvta.to.param.u64", |o| o.unary(|address: u64| address.wrapping_sub(PARAM))),
    row("cvta.shared{,::cta,::cluster}.u64", |o| o.unary(|address: u64| SHARED.wrapping_add(address))),
    row("cvta.to.shared{,::cta,::cluster}.u64", |o| o.unary(|address: u64| address.wrapping_sub(SHARED))),
    row("cvta.local.u64", |o| o.unary(|address: u64| LOCAL.wrapping_add(address))),
    row("cvta.to.local.u64", |o| o.unary(|address: u64| address.wrapping_sub(LOCAL))),
    row("isspacep.shared{,::cta}", |o| o.unary(|address: u64| (SHARED..SHARED + mapped(0, 0)).contains(&address))),
    row("isspacep.shared::cluster", |o| o.unary(|address: u64| (SHARED..LOCAL).contains(&address))),
    row("isspacep.local", |o| o.unary(|address: u64| (LOCAL..crate::memory::GLOBAL).contains(&address))),
    row("isspacep.global", |o| o.unary(|address: u64| address >= crate::memory::GLOBAL)),
    row("prefetch{.global,}{.L1,.L2}", |_| Ok(Operation::Nothing)),
    row("prefetchu.L1", |_| Ok(Operation::Nothing)),
    row("discard{.global,}.L2", |_| Ok(Operation::Nothing)),
];

/// What the modifiers of a load or store say.
struct Modifiers {
    space: Space,
    order: Option<Order>,
    scope: Scope,
    elements: usize,
    /// Bytes of an element.
    size: usize,
    signed: bool,
    /// What is left: the operation of an atomic.
    rest: Vec<String>,
}

impl Modifiers {
    fn of(o: &Operands<'_>) -> Result<Self, String> {
        let mut read = Modifiers {
            space: Space::Generic,
            order: None,
            scope: Scope::Device,
            elements: 1,
            size: 0,
            signed: false,
            rest: Vec::new(),
        };
        for modifier in o.modifiers() {
            match modifier {
                "global" | "const" => read.space = Space::Global,
                "shared" | "shared::cta" => read.space = Space::Shared,
                "shared::cluster" => read.space = Space::SharedCluster,
                "local" => read.space = Space::Local,
                "param" | "param::entry" | "param::func" => read.space = Space::Param,
                "weak" => read.order = None,
                "volatile" | "relaxed" => read.order = Some(Order::Relaxed),
                "acquire" => read.order = Some(Order::Acquire),
                "release" => read.order = Some(Order::Release),
                "acq_rel" => read.order = Some(Order::AcquireRelease),
                "cta" => read.scope = Scope::Block,
                "gpu" | "sys" | "cluster" => read.scope = Scope::Device,
                "v2" => read.elements = 2,
                "v4" => read.elements = 4,
                // Caches hold nothing back here.
                "nc" | "ca" | "cg" | "cs" | "lu" | "cv" | "wb" | "wt" | "noftz" => {}
                hint if hint.starts_with("L1::") || hint.starts_with("L2::") => {}
                other => match size_of(other) {
                    Some((size, signed)) => (read.size, read.signed) = (size, signed),
                    None => read.rest.push(other.to_owned()),
                },
            }
        }
        if read.size == 0 { Err("no type that is known".to_owned()) } else { Ok(read) }
    }

    fn expect_nothing_else(&self) -> Result<(), String> {
        match self.rest.first() {
            None => Ok(()),
            Some(modifier) => Err(format!("the modifier .{modifier} is not known")),
        }
    }
}

/// Bytes of a type and whether it is signed.
fn size_of(ty: &str) -> Option<(usize, bool)> {
    Some(match ty {
        "b8" | "u8" => (1, false),
        "s8" => (1, true),
        "b16" | "u16" | "f16" | "bf16" => (2, false),
        "s16" => (2, true),
        "b32" | "u32" | "f32" | "f16x2" | "bf16x2" => (4, false),
        "s32" => (4, true),
        "b64" | "u64" | "s64" | "f64" => (8, false),
        _ => return None,
    })
}

fn load(o: &mut Operands<'_>) -> Result<Operation, String> {
    let modifiers = Modifiers::of(o)?;
    modifiers.expect_nothing_else()?;
    let Modifiers { space, order, scope, size, signed, elements, .. } = modifiers;
    let (to, address) = (o.slots(0, size)?, o.address(1, space)?);
    expect_elements(to.len(), elements)?;
    Ok(Operation::Load(Box::new(Load { address, to, size, signed, order, scope })))
}

fn store(o: &mut Operands<'_>) -> Result<Operation, String> {
    let modifiers = Modifiers::of(o)?;
    modifiers.expect_nothing_else()?;
    let Modifiers { space, order, scope, size, elements, .. } = modifiers;
    let (address, from) = (o.address(0, space)?, o.slots(1, size)?);
    expect_elements(from.len(), elements)?;
    if address.space == Space::Param {
        return Err("the parameters of a kernel cannot be written".to_owned());
    }
    Ok(Operation::Store(Box::new(Store { address, from, size, order, scope })))
}

fn expect_elements(got: usize, expected: usize) -> Result<(), String> {
    if got == expected { Ok(()) } else { Err(format!("expected {expected} registers, got {got}")) }
}

fn atomic(o: &mut Operands<'_>, returns: bool) -> Result<Operation, String> {
    let modifiers = Modifiers::of(o)?;
    let ty = o.modifiers().last().unwrap_or_default().to_owned();
    let [operation] = &modifiers.rest[..] else {
        return Err(format!("expected one operation, got {:?}", modifiers.rest));
    };
    let kind = match (operation.as_str(), ty.as_str()) {
        ("add", "f32") => AtomicKind::AddF32,
        ("add", "f64") => AtomicKind::AddF64,
        ("add", "f16") => AtomicKind::AddF16,
        ("add", "bf16") => AtomicKind::AddBf16,
        ("add", "f16x2") => AtomicKind::AddF16x2,
        ("add", "bf16x2") => AtomicKind::AddBf16x2,
        ("add", "u32" | "s32" | "u64") => AtomicKind::Add,
        ("and", "b32" | "b64") => AtomicKind::And,
        ("or", "b32" | "b64") => AtomicKind::Or,
        ("xor", "b32" | "b64") => AtomicKind::Xor,
        ("exch", "b32" | "b64") => AtomicKind::Exchange,
        ("cas", "b16" | "b32" | "b64") => AtomicKind::CompareAndSwap,
        ("min", "u32" | "u64") => AtomicKind::Min,
        ("max", "u32" | "u64") => AtomicKind::Max,
        ("min", "s32" | "s64") => AtomicKind::MinSigned,
        ("max", "s32" | "s64") => AtomicKind::MaxSigned,
        ("inc", "u32") => AtomicKind::Increment,
        ("dec", "u32") => AtomicKind::Decrement,
        _ => return Err(format!("the atomic {operation}.{ty} is not known")),
    };
    let Modifiers { space, order, scope, size, .. } = modifiers;
    let order = order.unwrap_or(Order::Relaxed);
    // `red` has no result in front.
    let first = usize::from(returns);
    let to = if returns { Some(o.slot(0, size)?) } else { None };
    let address = o.address(first, space)?;
    let operand = o.slot(first + 1, size)?;
    let swap = if kind == AtomicKind::CompareAndSwap { Some(o.slot(first + 2, size)?) } else { None };
    Ok(Operation::Atomic(Box::new(Atomic { address, kind, size, to, operand, swap, order, scope })))
}
