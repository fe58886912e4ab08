//! Loads, stores and what every access to memory is checked for.

use super::cluster::{At, Cluster, Outcome};
use super::location::Location;
use super::{Address, Load, Order, Scope, Store};
use crate::check::{Access, Action, Atomic, Kind, Proxy, Ticket};
use crate::error::FaultKind;
use crate::memory::{self, Buffer, LOCAL, Misuse, PARAM, SHARED, Space, Value, WINDOW, Words};
use crate::registers::{LANES, Mask, Registers, Slot, each_lane, lanes};
use crate::statistics::Traffic;

impl<'a> Cluster<'a> {
    pub(super) fn load(&mut self, registers: &mut Registers, at: At, mask: Mask, load: &Load) -> Outcome {
        match (load.size, load.to.len()) {
            _ if is_parameter(registers, mask, &load.address) => self.load_parameter(registers, at, mask, load),
            (1, 1) => self.load_elements::<1, 1>(registers, at, mask, load),
            (1, 2) => self.load_elements::<1, 2>(registers, at, mask, load),
            (1, 4) => self.load_elements::<1, 4>(registers, at, mask, load),
            (2, 1) => self.load_elements::<2, 1>(registers, at, mask, load),
            (2, 2) => self.load_elements::<2, 2>(registers, at, mask, load),
            (2, 4) => self.load_elements::<2, 4>(registers, at, mask, load),
            (4, 1) => self.load_elements::<4, 1>(registers, at, mask, load),
            (4, 2) => self.load_elements::<4, 2>(registers, at, mask, load),
            (4, 4) => self.load_elements::<4, 4>(registers, at, mask, load),
            (8, 1) => self.load_elements::<8, 1>(registers, at, mask, load),
            (8, 2) => self.load_elements::<8, 2>(registers, at, mask, load),
            (size, count) => unreachable!("{count} elements of {size} bytes"),
        }
    }

    /// `COUNT` elements of `SIZE` bytes: known when this is compiled, because most of the time goes here.
    #[inline(never)]
    fn load_elements<const SIZE: usize, const COUNT: usize>(
        &mut self,
        registers: &mut Registers,
        at: At,
        mask: Mask,
        load: &Load,
    ) -> Outcome {
        let kind = strong(load.order, load.scope, Action::Load).unwrap_or(Kind::Read);
        let addresses = addresses(registers, &load.address);
        self.count(&addresses, mask, SIZE * COUNT, Traffic::Load);
        let nearby = self.nearby(load, addresses[mask.trailing_zeros() as usize]);
        for lane in lanes(mask) {
            let value = match nearby.and_then(|nearby| nearby.load(addresses[lane], SIZE * COUNT)) {
                Some(value) => value,
                None => self.load_checked(at, lane, load, addresses[lane], kind)?,
            };
            for (i, &to) in load.to.iter().enumerate() {
                put(registers, to, lane, element(value, i, SIZE), SIZE, load.signed);
            }
        }
        Ok(())
    }

    #[inline(always)]
    fn load_checked(&mut self, at: At, lane: usize, load: &Load, address: u64, kind: Kind) -> Outcome<Value> {
        let size = load.size * load.to.len();
        let location = self.locate(at, lane, load.address.space, address, size)?;
        let mut value = self.read(at, lane, location, size, kind)?;
        if load.order.is_some() && size == 8 {
            // In one step, beside atomics of blocks on other host threads.
            set_element(&mut value, 0, 8, self.update(at, lane, location, 8, |old| old));
        }
        Ok(value)
    }

    /// The buffer of a lane's address, where plain loads need no check but for bounds: the other lanes' addresses
    /// are likely to be in it too.
    fn nearby(&self, load: &Load, address: u64) -> Option<Nearby<'a>> {
        let is_plain = self.races.is_none() && load.order.is_none();
        let in_space = matches!(load.address.space, Space::Global | Space::Generic) && address >= memory::GLOBAL;
        let buffer = self.grid.global.buffer(address).filter(|_| is_plain && in_space)?;
        Some(Nearby { buffer, start: address & !((1 << memory::BUFFER_BITS) - 1) })
    }

    #[inline(never)]
    pub(super) fn store(&mut self, registers: &Registers, at: At, mask: Mask, store: &Store) -> Outcome {
        let total = store.size * store.from.len();
        let kind = strong(store.order, store.scope, Action::Store);
        let addresses = addresses(registers, &store.address);
        self.count(&addresses, mask, total, Traffic::Store);
        for lane in lanes(mask) {
            let location = self.locate(at, lane, store.address.space, addresses[lane], total)?;
            let mut value = [0; 4];
            for (i, &from) in store.from.iter().enumerate() {
                set_element(&mut value, i, store.size, get(registers, from, lane));
            }
            // What another lane wrote a moment ago, if it was to the same place, is there to compare with.
            let repeats = self.races.is_some() && self.peek(at, lane, location, total) == value;
            self.write(at, lane, location, total, value, kind.unwrap_or(Kind::Write { repeats }))?;
        }
        Ok(())
    }

    fn load_parameter(&mut self, registers: &mut Registers, at: At, mask: Mask, load: &Load) -> Outcome {
        let (total, parameters) = (load.size * load.to.len(), self.grid.parameters);
        let addresses = addresses(registers, &load.address);
        for lane in lanes(mask) {
            let offset = addresses[lane].wrapping_sub(PARAM);
            if offset.checked_add(total as u64).is_none_or(|end| end > 4 * parameters.len() as u64) {
                let detail =
                    format!("{total} bytes at offset {offset} of {} bytes of parameters", 4 * parameters.len());
                return Err(self.fault(FaultKind::OutOfBounds, at, lane, detail));
            }
            if !offset.is_multiple_of(total as u64) {
                let detail = format!("{total} bytes at offset {offset} of the parameters");
                return Err(self.fault(FaultKind::Misaligned, at, lane, detail));
            }
            let value = memory::load(parameters, offset as usize, total);
            for (i, &to) in load.to.iter().enumerate() {
                put(registers, to, lane, element(value, i, load.size), load.size, load.signed);
            }
        }
        Ok(())
    }

    #[inline(always)]
    pub(super) fn read(&mut self, at: At, lane: usize, location: Location, size: usize, kind: Kind) -> Outcome<Value> {
        if self.races.is_some() {
            self.check(at, lane, location, size, kind)?;
            if !self.is_written(at, lane, location, size) {
                let address = self.address_of(at, location);
                return Err(self.misuse(Misuse::Uninitialised, at, lane, address, size));
            }
        }
        Ok(self.peek(at, lane, location, size))
    }

    #[inline(always)]
    pub(super) fn write(
        &mut self,
        at: At,
        lane: usize,
        location: Location,
        size: usize,
        value: Value,
        kind: Kind,
    ) -> Outcome {
        if self.races.is_some() {
            self.check(at, lane, location, size, kind)?;
        }
        self.poke(at, lane, location, size, value);
        Ok(())
    }

    /// Reads without checks.
    #[inline(always)]
    pub(super) fn peek(&self, at: At, lane: usize, location: Location, size: usize) -> Value {
        match location {
            Location::Global { buffer, offset } => match &self.grid.global.buffers[buffer] {
                Some(buffer) => buffer.load(offset, size),
                None => [0; 4],
            },
            Location::Shared { rank, offset } => self.blocks[rank].shared.load(offset, size),
            Location::Local { offset } => self.local[at.thread(lane) as usize].load(offset, size),
        }
    }

    /// Writes without checks, but remembers that it was written.
    #[inline(always)]
    pub(super) fn poke(&mut self, at: At, lane: usize, location: Location, size: usize, value: Value) {
        let checked = self.races.is_some();
        match location {
            Location::Global { buffer, offset } => {
                if let Some(buffer) = &self.grid.global.buffers[buffer] {
                    buffer.store(offset, size, value);
                    buffer.mark_written(offset, size);
                }
            }
            Location::Shared { rank, offset } => {
                let shared = &mut self.blocks[rank].shared;
                shared.store(offset, size, value);
                if checked {
                    shared.mark_written(offset, size);
                }
            }
            Location::Local { offset } => {
                let local = &mut self.local[at.thread(lane) as usize];
                local.store(offset, size, value);
                if checked {
                    local.mark_written(offset, size);
                }
            }
        }
    }

    /// Replaces up to 8 bytes in one step and gives the old ones.
    pub(super) fn update(
        &mut self,
        at: At,
        lane: usize,
        location: Location,
        size: usize,
        new: impl Fn(u64) -> u64,
    ) -> u64 {
        if let Location::Global { buffer, offset } = location
            && let Some(buffer) = &self.grid.global.buffers[buffer]
        {
            buffer.mark_written(offset, size);
            return buffer.update(offset, size, new);
        }
        let old = element(self.peek(at, lane, location, size), 0, size);
        let mut value = [0; 4];
        set_element(&mut value, 0, size, new(old));
        self.poke(at, lane, location, size, value);
        old
    }

    fn is_written(&self, at: At, lane: usize, location: Location, size: usize) -> bool {
        match location {
            Location::Global { buffer, offset } => {
                self.grid.global.buffers[buffer].as_ref().is_none_or(|buffer| buffer.is_written(offset, size))
            }
            Location::Shared { rank, offset } => self.blocks[rank].shared.is_written(offset, size),
            Location::Local { offset } => self.local[at.thread(lane) as usize].is_written(offset, size),
        }
    }

    /// Checks an access for races; local memory has none.
    fn check(&mut self, at: At, lane: usize, location: Location, size: usize, kind: Kind) -> Outcome {
        let Some((place, offset)) = self.place(location) else { return Ok(()) };
        let own = self.rank(at.warp);
        let Some(races) = &mut self.races else { return Ok(()) };
        if let Location::Shared { rank, .. } = location
            && rank != own
        {
            races.goes_to(rank, at.thread(lane), at.pc);
        }
        let access = Access { thread: at.thread(lane), pc: at.pc, kind };
        let conflict = races.access(place, offset, size as u64, access);
        conflict.map_err(|conflict| self.race(at, lane, location, size, &conflict))
    }

    /// The destination of an asynchronous copy is nobody's until it lands.
    pub(super) fn mark_copy(&mut self, at: At, lane: usize, location: Location, size: usize) -> Outcome {
        let place = self.place(location);
        let (Some((place, offset)), Some(races)) = (place, &mut self.races) else { return Ok(()) };
        let conflict = races.copy_issued(place, offset, size as u64, at.thread(lane), at.pc);
        conflict.map_err(|conflict| self.race(at, lane, location, size, &conflict))
    }

    /// A copy has landed that a barrier is waited at for, and not the thread.
    pub(super) fn finish_copy_of(&mut self, at: At, location: Location, size: usize, ticket: Option<Ticket>) {
        let place = self.place(location);
        if let Some(((races, ticket), (place, offset))) = self.races.as_mut().zip(ticket).zip(place) {
            races.engine_wrote(place, offset, size as u64, ticket, at.pc, Proxy::Generic);
        }
    }

    pub(super) fn finish_copy(&mut self, at: At, lane: usize, location: Location, size: usize) {
        let place = self.place(location);
        if let (Some((place, offset)), Some(races)) = (place, &mut self.races) {
            races.copy_landed(place, offset, size as u64, at.thread(lane), at.pc);
        }
    }

    /// The rows of `ldmatrix`, 16 bytes each.
    pub(super) fn count_rows(&mut self, rows: &[u64]) {
        if self.grid.count {
            self.statistics.record(rows, 16, Traffic::Load);
        }
    }

    /// Adds an access of a warp to the statistics.
    #[inline(always)]
    pub(super) fn count(&mut self, addresses: &[u64; LANES], mask: Mask, size: usize, traffic: Traffic) {
        if self.grid.count {
            let addresses: Vec<u64> = lanes(mask).map(|lane| addresses[lane]).collect();
            self.statistics.record(&addresses, size, traffic);
        }
    }
}

/// Whether a load goes to the parameters, whose window a generic address may be in.
fn is_parameter(registers: &Registers, mask: Mask, address: &Address) -> bool {
    let in_window = || {
        let first = get(registers, address.base, mask.trailing_zeros() as usize);
        (PARAM..PARAM + WINDOW).contains(&first.wrapping_add_signed(address.offset))
    };
    address.space == Space::Param || address.space == Space::Generic && in_window()
}

/// A buffer and its address.
#[derive(Clone, Copy)]
struct Nearby<'a> {
    buffer: &'a Buffer,
    start: u64,
}

impl Nearby<'_> {
    /// None where the address is not within the buffer and a multiple of the size.
    #[inline(always)]
    fn load(self, address: u64, size: usize) -> Option<Value> {
        let offset = address.wrapping_sub(self.start) as usize;
        let within = offset <= self.buffer.len().wrapping_sub(size) && self.buffer.len() >= size;
        (within && offset.is_multiple_of(size)).then(|| self.buffer.load(offset, size))
    }
}

/// How an access with a memory order is checked.
pub(super) fn strong(order: Option<Order>, scope: Scope, action: Action) -> Option<Kind> {
    order.map(|order| Kind::Atomic(Atomic { action, order, scope }))
}

/// The addresses of all lanes, as generic pointers have them.
#[inline(always)]
pub(super) fn addresses(registers: &Registers, address: &Address) -> [u64; LANES] {
    let window = match address.space {
        Space::Shared | Space::SharedCluster => SHARED,
        Space::Local => LOCAL,
        Space::Param => PARAM,
        Space::Global | Space::Generic => 0,
    };
    let offset = window.wrapping_add_signed(address.offset);
    match address.base {
        Slot::Word(i) => {
            let base = &registers.words[i as usize];
            each_lane(|lane| offset.wrapping_add(base[lane] as u64))
        }
        Slot::Double(i) => {
            let base = &registers.doubles[i as usize];
            each_lane(|lane| offset.wrapping_add(base[lane]))
        }
        Slot::Predicate(_) => [offset; LANES],
    }
}

/// The bits of a lane of any register.
#[inline(always)]
pub(super) fn get(registers: &Registers, slot: Slot, lane: usize) -> u64 {
    match slot {
        Slot::Word(i) => registers.words[i as usize][lane] as u64,
        Slot::Double(i) => registers.doubles[i as usize][lane],
        Slot::Predicate(i) => (registers.predicates[i as usize] >> lane & 1) as u64,
    }
}

/// Sets a lane of a register that is at least as wide as the `size` bytes of `bits`.
#[inline(always)]
pub(super) fn put(registers: &mut Registers, slot: Slot, lane: usize, bits: u64, size: usize, signed: bool) {
    let unused = 64 - 8 * size as u32;
    let bits = if signed { ((bits << unused) as i64 >> unused) as u64 } else { bits };
    match slot {
        Slot::Word(i) => registers.words[i as usize][lane] = bits as u32,
        Slot::Double(i) => registers.doubles[i as usize][lane] = bits,
        Slot::Predicate(_) => {}
    }
}

/// Element `i` of elements of `size` bytes.
#[inline(always)]
fn element(value: Value, i: usize, size: usize) -> u64 {
    match size {
        4 => value.word(i) as u64,
        8 => value[2 * i] as u64 | (value[2 * i + 1] as u64) << 32,
        _ => (value[i * size / 4] >> (i * size % 4 * 8)) as u64 & ((1 << (8 * size)) - 1),
    }
}

fn set_element(value: &mut Value, i: usize, size: usize, bits: u64) {
    match size {
        4 => value[i] = bits as u32,
        8 => [value[2 * i], value[2 * i + 1]] = [bits as u32, (bits >> 32) as u32],
        _ => value[i * size / 4] |= (bits as u32 & ((1 << (8 * size)) - 1)) << (i * size % 4 * 8),
    }
}
