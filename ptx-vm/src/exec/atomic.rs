//! `atom` and `red`.

use half::{bf16, f16};

use super::Atomic;
use super::access::{addresses, get, put};
use super::cluster::{At, Cluster, Outcome};
use crate::check::{self, Action, Kind};
use crate::registers::{Mask, Registers, lanes};

/// What an atomic makes of the old value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AtomicKind {
    Add,
    AddF32,
    AddF64,
    AddF16,
    AddBf16,
    AddF16x2,
    AddBf16x2,
    And,
    Or,
    Xor,
    Exchange,
    CompareAndSwap,
    Min,
    Max,
    MinSigned,
    MaxSigned,
    /// Up to the operand, then 0.
    Increment,
    /// Down from the operand.
    Decrement,
}

impl AtomicKind {
    /// The new value of `size` bytes.
    fn apply(self, old: u64, operand: u64, swap: u64, size: usize) -> u64 {
        let signed = |x: u64| if size == 4 { x as i32 as i64 } else { x as i64 };
        let f32 = |x: u64| f32::from_bits(x as u32);
        match self {
            AtomicKind::Add => old.wrapping_add(operand),
            AtomicKind::AddF32 => (f32(old) + f32(operand)).to_bits() as u64,
            AtomicKind::AddF64 => (f64::from_bits(old) + f64::from_bits(operand)).to_bits(),
            AtomicKind::AddF16 => add_f16(old as u16, operand as u16) as u64,
            AtomicKind::AddBf16 => add_bf16(old as u16, operand as u16) as u64,
            AtomicKind::AddF16x2 => halves(old, operand, add_f16),
            AtomicKind::AddBf16x2 => halves(old, operand, add_bf16),
            AtomicKind::And => old & operand,
            AtomicKind::Or => old | operand,
            AtomicKind::Xor => old ^ operand,
            AtomicKind::Exchange => operand,
            AtomicKind::CompareAndSwap if old == operand => swap,
            AtomicKind::CompareAndSwap => old,
            AtomicKind::Min => old.min(operand),
            AtomicKind::Max => old.max(operand),
            AtomicKind::MinSigned => signed(old).min(signed(operand)) as u64,
            AtomicKind::MaxSigned => signed(old).max(signed(operand)) as u64,
            AtomicKind::Increment if old >= operand => 0,
            AtomicKind::Increment => old + 1,
            AtomicKind::Decrement if old == 0 || old > operand => operand,
            AtomicKind::Decrement => old - 1,
        }
    }
}

fn add_f16(a: u16, b: u16) -> u16 {
    f16::from_f32(f16::from_bits(a).to_f32() + f16::from_bits(b).to_f32()).to_bits()
}

fn add_bf16(a: u16, b: u16) -> u16 {
    bf16::from_f32(bf16::from_bits(a).to_f32() + bf16::from_bits(b).to_f32()).to_bits()
}

fn halves(a: u64, b: u64, add: fn(u16, u16) -> u16) -> u64 {
    add(a as u16, b as u16) as u64 | (add((a >> 16) as u16, (b >> 16) as u16) as u64) << 16
}

impl Cluster<'_> {
    pub(super) fn atomic(&mut self, registers: &mut Registers, at: At, mask: Mask, atomic: &Atomic) -> Outcome {
        let Atomic { kind, size, order, scope, .. } = *atomic;
        let strong = Kind::Atomic(check::Atomic { action: Action::Update, order, scope });
        let bits = |x: u64| if size == 8 { x } else { x & ((1 << (8 * size)) - 1) };
        let addresses = addresses(registers, &atomic.address);
        for lane in lanes(mask) {
            let location = self.locate(at, lane, atomic.address.space, addresses[lane], size)?;
            let operand = bits(get(registers, atomic.operand, lane));
            let swap = atomic.swap.map_or(0, |swap| bits(get(registers, swap, lane)));
            self.read(at, lane, location, size, strong)?;
            let old = self.update(at, lane, location, size, |old| kind.apply(old, operand, swap, size));
            if let Some(to) = atomic.to {
                put(registers, to, lane, old, size, false);
            }
        }
        self.statistics.atomics += mask.count_ones() as u64;
        Ok(())
    }
}
