//! Races: accesses of which at least one writes, not both strong, and neither ordered before the other.
//!
//! "Ordered" is the causality order of the PTX memory model, kept in vector clocks, one for each thread
//! ([`clock`], [`knowledge`]). `bar.sync`, `bar.arrive` and `bar.warp.sync` order, and so do releases and acquires
//! through atomics and fences ([`sync`]); shuffles and votes do not, and neither does being in the same warp.
//! For each word the last accesses are kept ([`shadow`]) and compared with the next one.
//!
//! Copies and matrix products run by themselves; what runs them is an agent like a thread ([`engines`]).
//!
//! What is called a block here is a whole cluster, whose threads are numbered through and whose shared memories lie
//! one behind the other. Blocks of a launch run one after the other; what a block is not known to have been waited
//! for by another may run beside it on a device. Launches are ordered one after the other.

use std::collections::HashMap;

use crate::registers::{LANES, Mask};
use clock::{Clock, meet, meet_in_warp};
use engines::Engines;
pub use engines::{Initialised, Owner, Proxy, Ticket};
use knowledge::Times;
pub use knowledge::{Knowledge, Sense};
use shadow::{Observer, Shadow, Stamp};
use sync::{Member, Synchronisation};

mod clock;
mod engines;
mod knowledge;
#[cfg(test)]
mod naive;
mod shadow;
mod sync;
#[cfg(test)]
mod tests;

/// The race state of a device.
#[derive(Debug, Default)]
pub struct Races {
    /// By the number of the buffer; empty where there is none.
    buffers: Vec<Shadow>,
    shared: Shadow,
    /// Of the threads of the running block.
    clocks: Vec<Clock>,
    /// What arrived at barriers of the running block published, until others wait there.
    arrivals: HashMap<u32, Knowledge>,
    synchronisation: Synchronisation,
    threads_per_block: usize,
    engines: Engines,
    /// Number of the running block, counted over all launches from 1.
    block: u32,
    /// The first block of the launch.
    first_block: u32,
    /// The linear indices of the launch's blocks, in the order in which they run.
    linear: Vec<u64>,
}

/// What an address lies in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Place {
    Global {
        buffer: u32,
    },
    /// Of the running block.
    Shared,
}

/// What a thread does to some bytes.
#[derive(Debug, Clone, Copy)]
pub struct Access {
    /// In its block.
    pub thread: u16,
    pub pc: u32,
    pub kind: Kind,
}

#[derive(Debug, Clone, Copy)]
pub enum Kind {
    Read,
    /// `repeats`: all lanes of this instruction that write to these bytes write the same.
    Write {
        repeats: bool,
    },
    Atomic(Atomic),
}

/// A strong access: an atomic, or a load or store that is volatile, relaxed, acquire or release.
#[derive(Debug, Clone, Copy)]
pub struct Atomic {
    pub action: Action,
    pub order: Order,
    pub scope: Scope,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    Load,
    Store,
    /// A read-modify-write.
    Update,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    Relaxed,
    Acquire,
    Release,
    AcquireRelease,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    Block,
    /// Also stands for the whole system: there is one device.
    Device,
}

/// A race, as far as the access that found it does not know it itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Conflict {
    pub earlier: Party,
    /// Of the word in its place, bytes.
    pub offset: u64,
    /// The order is known, but the asynchronous proxy may not see what was written.
    pub is_unfenced: bool,
}

/// An access that was made before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Party {
    /// Linear in its launch.
    pub block: u64,
    pub thread: u16,
    pub pc: u32,
    pub kind: PartyKind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PartyKind {
    Read,
    Write,
    StrongRead,
    /// A store or an update.
    StrongWrite,
    /// An asynchronous copy under way.
    Copy,
    /// A read by an engine.
    AsyncRead,
    /// A write by an engine.
    AsyncWrite,
}

impl Order {
    fn acquires(self) -> bool {
        matches!(self, Order::Acquire | Order::AcquireRelease)
    }

    fn releases(self) -> bool {
        matches!(self, Order::Release | Order::AcquireRelease)
    }
}

impl Atomic {
    fn reads(self) -> bool {
        self.action != Action::Store
    }

    fn writes(self) -> bool {
        self.action != Action::Load
    }
}

impl Races {
    /// A buffer of so many bytes; its number may have been another's, which is gone.
    pub fn allocate(&mut self, buffer: u32, bytes: usize) {
        let index = buffer as usize;
        if self.buffers.len() <= index {
            self.buffers.resize_with(index + 1, Shadow::default);
        }
        self.buffers[index] = Shadow::new(bytes);
    }

    pub fn free(&mut self, buffer: u32) {
        self.allocate(buffer, 0);
    }

    /// Everything before is over.
    pub fn begin_launch(&mut self, threads_per_block: usize, engines: usize) {
        self.threads_per_block = threads_per_block;
        self.engines = Engines::new(threads_per_block.next_multiple_of(LANES), engines);
        self.first_block = self.block + 1;
        self.linear.clear();
        self.synchronisation.begin_launch();
    }

    /// The block before has ended; `linear` is the index of the next one in the grid.
    pub fn begin_block(&mut self, linear: u64, shared_bytes: usize) {
        self.block += 1;
        self.linear.push(linear);
        if self.shared.bytes() < shared_bytes {
            self.shared = Shadow::new(shared_bytes);
        }
        self.engines.begin_block();
        let unknown: Times = vec![0; self.engines.end()].into();
        self.clocks.clear();
        self.clocks.extend((0..self.threads_per_block).map(|thread| Clock::new(thread as u16, &unknown)));
        self.arrivals.clear();
        self.synchronisation.begin_block(self.threads_per_block);
    }

    /// An access of `size` bytes; for an atomic also what it synchronises with.
    #[inline]
    pub fn access(&mut self, place: Place, offset: u64, size: u64, access: Access) -> Result<(), Conflict> {
        match access.kind {
            Kind::Read => self.check(place, offset, size, access, 0),
            Kind::Write { repeats } => {
                let bits = shadow::WRITE | if repeats { shadow::REPEATS } else { 0 };
                self.check(place, offset, size, access, bits)
            }
            Kind::Atomic(atomic) => self.atomic(place, offset, size, access, atomic),
        }
    }

    /// A thread begins an asynchronous copy to these bytes; nobody may touch them until it has landed.
    pub fn copy_issued(&mut self, place: Place, offset: u64, size: u64, thread: u16, pc: u32) -> Result<(), Conflict> {
        let access = Access { thread, pc, kind: Kind::Write { repeats: false } };
        self.check(place, offset, size, access, shadow::WRITE | shadow::COPY)
    }

    /// The thread has waited for its copy: it counts as a write that the thread makes now.
    pub fn copy_landed(&mut self, place: Place, offset: u64, size: u64, thread: u16, pc: u32) {
        let (shadow, observer, _) = self.parts(place, thread);
        let stamp = observer.stamp(thread, pc, shadow::WRITE);
        for (word, bytes) in words(offset, size) {
            shadow.landed(word, Stamp { bits: shadow::WRITE | bytes, ..stamp });
        }
    }

    /// `bar.arrive`: what the thread did is published to those who wait at this barrier.
    pub fn arrive(&mut self, barrier: u32, thread: u16) {
        let known = self.clocks[thread as usize].publish(self.block, thread);
        self.arrivals.entry(barrier).or_default().join(&known);
    }

    /// `bar.sync`, once all have come: `threads` are those who wait, not those who only arrived.
    pub fn sync_block(&mut self, barrier: u32, threads: impl Iterator<Item = u16> + Clone) {
        let arrived = self.arrivals.remove(&barrier).unwrap_or_default();
        meet(&mut self.clocks, threads, self.block, &arrived);
    }

    /// `bar.warp.sync` by these lanes.
    pub fn sync_warp(&mut self, warp: usize, members: Mask) {
        let end = self.clocks.len().min((warp + 1) * LANES);
        meet_in_warp(&mut self.clocks[warp * LANES..end], members);
    }

    /// `fence.acq_rel`, `fence.sc` or `membar`.
    pub fn fence(&mut self, thread: u16, scope: Scope) {
        let (synchronisation, member) = self.member(thread);
        synchronisation.fence(member, scope);
    }

    /// An acquire learns before its own access is checked, and a release publishes that access too.
    fn atomic(
        &mut self,
        place: Place,
        offset: u64,
        size: u64,
        access: Access,
        mut atomic: Atomic,
    ) -> Result<(), Conflict> {
        if place == Place::Shared {
            // The next block's shared memory is another.
            atomic.scope = Scope::Block;
        }
        let variable = (place, offset / 4);
        if atomic.reads() {
            let (synchronisation, member) = self.member(access.thread);
            synchronisation.read(member, variable, atomic);
        }
        let flag = |is_set, flag| if is_set { flag } else { 0 };
        let bits = shadow::STRONG
            | flag(atomic.writes(), shadow::WRITE)
            | flag(atomic.action == Action::Update, shadow::UPDATE)
            | flag(atomic.scope == Scope::Block, shadow::IN_BLOCK);
        self.check(place, offset, size, access, bits)?;
        if atomic.writes() {
            let (synchronisation, member) = self.member(access.thread);
            synchronisation.write(member, variable, atomic);
        }
        Ok(())
    }

    #[inline(always)]
    fn check(&mut self, place: Place, offset: u64, size: u64, access: Access, bits: u16) -> Result<(), Conflict> {
        let (shadow, observer, synchronisation) = self.parts(place, access.thread);
        let stamp = observer.stamp(access.thread, access.pc, bits);
        for (word, bytes) in words(offset, size) {
            match shadow.access(word, Stamp { bits: bits | bytes, ..stamp }, &observer) {
                Ok(false) => {}
                Ok(true) => synchronisation.end((place, word as u64)),
                Err(old) => return Err(self.conflict(word, old)),
            }
        }
        Ok(())
    }

    /// What an access of a thread to a place needs.
    #[inline(always)]
    fn parts(&mut self, place: Place, thread: u16) -> (&mut Shadow, Observer<'_>, &mut Synchronisation) {
        let (shadow, since) = match place {
            Place::Global { buffer } => (&mut self.buffers[buffer as usize], self.first_block),
            Place::Shared => (&mut self.shared, self.block),
        };
        let observer = Observer { clock: &self.clocks[thread as usize], block: self.block, since };
        (shadow, observer, &mut self.synchronisation)
    }

    fn member(&mut self, thread: u16) -> (&mut Synchronisation, Member<'_>) {
        let clock = &mut self.clocks[thread as usize];
        (&mut self.synchronisation, Member { block: self.block, thread, clock })
    }

    #[cold]
    fn conflict(&self, word: usize, old: Stamp) -> Conflict {
        let kind = match (old.has(shadow::COPY), old.has(shadow::STRONG), old.has(shadow::WRITE)) {
            (false, _, false) if old.has(shadow::ASYNC) => PartyKind::AsyncRead,
            (false, _, true) if old.has(shadow::ASYNC) => PartyKind::AsyncWrite,
            (true, _, _) => PartyKind::Copy,
            (_, false, false) => PartyKind::Read,
            (_, false, true) => PartyKind::Write,
            (_, true, false) => PartyKind::StrongRead,
            (_, true, true) => PartyKind::StrongWrite,
        };
        let block = self.linear[(old.block - self.first_block) as usize];
        let thread = self.engines.issuer(old.thread, old.block == self.block);
        Conflict { earlier: Party { block, thread, pc: old.pc, kind }, offset: word as u64 * 4, is_unfenced: false }
    }
}

/// The words that some bytes lie in, and which bytes of each, one bit for each byte.
#[inline(always)]
fn words(offset: u64, size: u64) -> impl Iterator<Item = (usize, u16)> {
    let end = offset + size;
    (offset / 4..end.div_ceil(4)).map(move |word| {
        let from = offset.saturating_sub(word * 4);
        let past = (word * 4 + 4).saturating_sub(end);
        (word as usize, 0b1111 << from & 0b1111 >> past)
    })
}
