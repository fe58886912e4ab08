//! The operands of one instruction, as a row of the table asks for them.

use super::{Bank, Decoder, Symbol};
use crate::exec::{Address, Operation};
use crate::memory::Space;
use crate::parse::ast::{Instruction, Operand};
use crate::registers::{Lane, Mask, Reg, Registers, Slot, each_lane};

type Decoded = Result<Operation, String>;

/// What a row of the table gets: the instruction and the registers of its function.
pub struct Operands<'a> {
    pub(super) decoder: &'a mut Decoder,
    pub(super) instruction: &'a Instruction,
}

impl Operands<'_> {
    /// `.`-separated parts of the opcode after the first.
    pub fn modifiers(&self) -> impl Iterator<Item = &str> {
        self.instruction.opcode.split('.').skip(1)
    }

    /// Whether this is the opcode's first part.
    pub fn is(&self, opcode: &str) -> bool {
        self.instruction.opcode.split('.').next() == Some(opcode)
    }

    pub fn has(&self, modifier: &str) -> bool {
        self.modifiers().any(|m| m == modifier)
    }

    /// The number of operands.
    pub fn len(&self) -> usize {
        self.instruction.operands.len()
    }

    /// Operand `i` as it was written.
    pub fn operand(&self, i: usize) -> Result<&Operand, String> {
        self.instruction.operands.get(i).ok_or_else(|| format!("operand {} is missing", i + 1))
    }

    /// Operand `i` as a register or, read only, an immediate or the address of a variable.
    pub fn reg<T: Lane>(&mut self, i: usize) -> Result<Reg<T>, String> {
        let operand = self.operand(i)?.clone();
        self.decoder.reg(&operand)
    }

    /// Operand `i`, which is written: a register or `_`.
    pub fn destination<T: Lane>(&mut self, i: usize) -> Result<Reg<T>, String> {
        match self.operand(i)? {
            Operand::Register(_) | Operand::Sink => self.reg(i),
            other => Err(format!("operand {}: expected a register to write to, got {other:?}", i + 1)),
        }
    }

    /// Operand `i`, a register in which each lane holds a vector's element, or a vector of them.
    pub fn regs<T: Lane>(&mut self, i: usize) -> Result<Vec<Reg<T>>, String> {
        match self.operand(i)?.clone() {
            Operand::Vector(elements) => elements.iter().map(|element| self.decoder.reg(element)).collect(),
            operand => Ok(vec![self.decoder.reg(&operand)?]),
        }
    }

    /// Operand `i`, a register of any width, or a vector of them; numbers are taken as `size` bytes.
    pub fn slots(&mut self, i: usize, size: usize) -> Result<Vec<Slot>, String> {
        let bank = if size == 8 { Bank::Double } else { Bank::Word };
        match self.operand(i)?.clone() {
            Operand::Vector(elements) => elements.iter().map(|element| self.decoder.slot(element, bank)).collect(),
            operand => Ok(vec![self.decoder.slot(&operand, bank)?]),
        }
    }

    /// Operand `i`, a single register of any width.
    pub fn slot(&mut self, i: usize, size: usize) -> Result<Slot, String> {
        match self.slots(i, size)?[..] {
            [slot] => Ok(slot),
            _ => Err(format!("operand {}: expected one register", i + 1)),
        }
    }

    /// Operand `i`, `[base+offset]`. Arguments of calls, which are `.param` in the text, lie in local memory.
    pub fn address(&mut self, i: usize, space: Space) -> Result<Address, String> {
        let Operand::Address(base, offset) = self.operand(i)?.clone() else {
            return Err(format!("operand {}: expected an address", i + 1));
        };
        let is_local = |name: &str| matches!(self.decoder.symbol(name), Ok(Symbol::Local(_)));
        let space = match &*base {
            Operand::Symbol(name) if space == Space::Param && is_local(name) => Space::Local,
            _ => space,
        };
        Ok(Address { space, base: self.decoder.slot(&base, Bank::Double)?, offset })
    }

    /// Operand `i`, `[map, {coordinates}]`.
    pub fn tensor(&mut self, i: usize) -> Result<(Slot, Vec<Reg<i32>>), String> {
        let Operand::Tensor(map, coordinates) = self.operand(i)?.clone() else {
            return Err(format!("operand {}: expected a tensor map and coordinates", i + 1));
        };
        let map = self.decoder.slot(&map, Bank::Double)?;
        Ok((map, coordinates.iter().map(|at| self.decoder.reg(at)).collect::<Result<_, _>>()?))
    }

    /// All modifiers must be among these.
    pub fn expect_modifiers(&self, known: &[&str]) -> Result<(), String> {
        match self.modifiers().find(|modifier| !known.contains(modifier)) {
            None => Ok(()),
            Some(modifier) => Err(format!("the modifier .{modifier} is not known here")),
        }
    }

    /// Operand `i`, a label: the instruction that it stands before.
    pub fn target(&self, i: usize) -> Result<u32, String> {
        match self.operand(i)? {
            Operand::Symbol(name) => self.decoder.label(name),
            other => Err(format!("operand {}: expected a label, got {other:?}", i + 1)),
        }
    }

    /// Operand `i`, a list of branch targets.
    pub fn targets(&self, i: usize) -> Result<Vec<u32>, String> {
        let Operand::Symbol(name) = self.operand(i)? else {
            return Err(format!("operand {}: expected a list of branch targets", i + 1));
        };
        let labels = self.decoder.branch_targets.get(name).ok_or_else(|| format!("there is no list {name}"))?;
        labels.iter().map(|label| self.decoder.label(label)).collect()
    }

    /// Operand `i`, `a|b` or `a`.
    pub fn pair<A: Lane, B: Lane>(&mut self, i: usize) -> Result<(Reg<A>, Option<Reg<B>>), String> {
        match self.operand(i)?.clone() {
            Operand::Pair(a, b) => Ok((self.decoder.reg(&a)?, Some(self.decoder.reg(&b)?))),
            operand => Ok((self.decoder.reg(&operand)?, None)),
        }
    }

    /// Operand `i`, which must be a literal.
    pub fn immediate(&self, i: usize) -> Result<u64, String> {
        match self.operand(i)? {
            Operand::Immediate(bits) => Ok(*bits),
            other => Err(format!("operand {}: expected a number, got {other:?}", i + 1)),
        }
    }

    /// Operand `i` as a predicate and whether it is negated.
    pub fn predicate(&mut self, i: usize) -> Result<(Reg<bool>, bool), String> {
        match self.operand(i)?.clone() {
            Operand::Not(name) => Ok((self.decoder.reg(&Operand::Register(name))?, true)),
            operand => Ok((self.decoder.reg(&operand)?, false)),
        }
    }

    /// `d = f(a)` in every lane.
    pub fn unary<A: Lane, D: Lane>(&mut self, f: impl Fn(A) -> D + Send + Sync + 'static) -> Decoded {
        let (d, a) = (self.destination::<D>(0)?, self.reg::<A>(1)?);
        self.expect_operands(2)?;
        lanewise(move |registers, mask| {
            let a = a.read(registers);
            d.write(registers, each_lane(|lane| f(a[lane])), mask);
        })
    }

    /// `d = f(a, b)` in every lane.
    pub fn binary<A: Lane, B: Lane, D: Lane>(&mut self, f: impl Fn(A, B) -> D + Send + Sync + 'static) -> Decoded {
        let (d, a, b) = (self.destination::<D>(0)?, self.reg::<A>(1)?, self.reg::<B>(2)?);
        self.expect_operands(3)?;
        lanewise(move |registers, mask| {
            let (a, b) = (a.read(registers), b.read(registers));
            d.write(registers, each_lane(|lane| f(a[lane], b[lane])), mask);
        })
    }

    /// `d = f(a, b, c)` in every lane.
    pub fn ternary<A: Lane, B: Lane, C: Lane, D: Lane>(
        &mut self,
        f: impl Fn(A, B, C) -> D + Send + Sync + 'static,
    ) -> Decoded {
        let (d, a, b, c) = (self.destination::<D>(0)?, self.reg::<A>(1)?, self.reg::<B>(2)?, self.reg::<C>(3)?);
        self.expect_operands(4)?;
        lanewise(move |registers, mask| {
            let (a, b, c) = (a.read(registers), b.read(registers), c.read(registers));
            d.write(registers, each_lane(|lane| f(a[lane], b[lane], c[lane])), mask);
        })
    }

    /// `d = f(a)` in every lane, `f` also given the seed of the launch: an approximation whose error
    /// within its documented bound depends on it.
    pub fn approximate<A: Lane, D: Lane>(&mut self, f: impl Fn(u64, A) -> D + Send + Sync + 'static) -> Decoded {
        let (d, a) = (self.destination::<D>(0)?, self.reg::<A>(1)?);
        self.expect_operands(2)?;
        lanewise(move |registers, mask| {
            let (seed, a) = (registers.seed, a.read(registers));
            d.write(registers, each_lane(|lane| f(seed, a[lane])), mask);
        })
    }

    pub fn expect_operands(&self, expected: usize) -> Result<(), String> {
        if self.len() == expected { Ok(()) } else { Err(format!("expected {expected} operands, got {}", self.len())) }
    }
}

/// An operation that touches nothing but registers.
pub fn lanewise(f: impl Fn(&mut Registers, Mask) + Send + Sync + 'static) -> Decoded {
    Ok(Operation::Lanewise(Box::new(f)))
}
