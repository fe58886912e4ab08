//! What runs beside the threads: copies and matrix products that a thread starts and others wait for.
//!
//! Each is the work of an engine, an agent of its own in the vector clocks: what it does at some time is unordered
//! with everything until somebody has waited for that time. An engine belongs to what is waited at: an mbarrier, a
//! thread's groups of copies, a warpgroup's groups of products. So whoever has waited for later work has waited for
//! earlier work of the same engine, and for no other. Where there are more owners than engines some share one,
//! and a missing wait for one of these may be taken for done.

use std::collections::HashMap;

use super::shadow::{self, Stamp};
use super::{Conflict, Knowledge, Place, Races, Sense, words};

/// Whose work an engine does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Owner {
    /// By the place of the mbarrier in the cluster's shared memory.
    Barrier(u64),
    /// Reads of the bulk copies of a thread's groups.
    GroupReads(u16),
    /// Their writes.
    GroupWrites(u16),
    /// Matrix products of a warpgroup, by its first warp.
    Multiply(usize),
}

/// The way that an engine goes to memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Proxy {
    /// That of loads and stores.
    Generic,
    Async,
}

/// A piece of work of an engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ticket {
    engine: u16,
    time: u32,
}

/// The engines of the running block; their numbers follow those of its threads.
#[derive(Debug, Default)]
pub struct Engines {
    first: usize,
    count: usize,
    by_owner: HashMap<Owner, u16>,
    /// Of each that is in use, the time of its last work and the thread that started it.
    last: Vec<(u32, u16)>,
    /// Accesses of threads to shared memory of other blocks of the cluster, the last one to each.
    remote: HashMap<(usize, u16), Remote>,
}

#[derive(Debug, Clone, Copy)]
struct Remote {
    time: u32,
    pc: u32,
}

impl Engines {
    pub fn new(first: usize, count: usize) -> Self {
        Engines { first, count, ..Engines::default() }
    }

    pub fn begin_block(&mut self) {
        self.by_owner.clear();
        self.last.clear();
        self.remote.clear();
    }

    /// One more than the highest number of a thread or an engine.
    pub fn end(&self) -> usize {
        self.first + self.count
    }

    /// The thread that started what an engine did last, of a thread itself. Who it was in blocks that have ended is
    /// not kept: their first thread stands for all.
    pub fn issuer(&self, thread: u16, is_running: bool) -> u16 {
        match (thread as usize).checked_sub(self.first) {
            None => thread,
            Some(engine) => self.last.get(engine).filter(|_| is_running).map_or(0, |&(_, issuer)| issuer),
        }
    }

    fn start(&mut self, owner: Owner, issuer: u16, number: Option<u32>) -> Ticket {
        let next = self.by_owner.len().min(self.count.saturating_sub(1));
        let index = *self.by_owner.entry(owner).or_insert(next as u16) as usize;
        if self.last.len() <= index {
            self.last.resize(index + 1, (0, 0));
        }
        let (time, by) = &mut self.last[index];
        let now = number.unwrap_or(*time + 1);
        *time = now.max(*time);
        *by = issuer;
        Ticket { engine: (self.first + index) as u16, time: now }
    }
}

impl Races {
    /// A thread starts work of an engine.
    pub fn start(&mut self, owner: Owner, issuer: u16) -> Ticket {
        self.engines.start(owner, issuer, None)
    }

    /// A thread takes part in a piece of work of that number, which others start too.
    pub fn take_part(&mut self, owner: Owner, issuer: u16, number: u32) -> Ticket {
        self.engines.start(owner, issuer, Some(number))
    }

    /// An engine reads, from now until somebody has waited for the ticket; `thread` has started it.
    pub fn engine_reads(
        &mut self,
        place: Place,
        offset: u64,
        size: u64,
        ticket: Ticket,
        (thread, pc): (u16, u32),
    ) -> Result<(), Conflict> {
        self.engine_accesses(place, offset, size, ticket, (thread, pc), shadow::ASYNC)
    }

    /// An engine is about to write: nobody may touch these bytes until it has.
    pub fn engine_will_write(
        &mut self,
        place: Place,
        offset: u64,
        size: u64,
        ticket: Ticket,
        (thread, pc): (u16, u32),
    ) -> Result<(), Conflict> {
        let bits = shadow::ASYNC | shadow::WRITE | shadow::COPY;
        self.engine_accesses(place, offset, size, ticket, (thread, pc), bits)
    }

    fn engine_accesses(
        &mut self,
        place: Place,
        offset: u64,
        size: u64,
        ticket: Ticket,
        (thread, pc): (u16, u32),
        bits: u16,
    ) -> Result<(), Conflict> {
        let sense = if place == Place::Shared { Sense::AsyncShared } else { Sense::AsyncGlobal };
        let (shadow, observer, synchronisation) = self.parts(place, thread);
        let stamp = Stamp { time: ticket.time, thread: ticket.engine, ..observer.stamp(thread, pc, bits) };
        for (word, bytes) in words(offset, size) {
            let new = Stamp { bits: bits | bytes, ..stamp };
            let unfenced = shadow.unfenced(word, new, sense, &observer);
            match shadow.access(word, new, &observer) {
                Ok(_) if unfenced.is_some() => {
                    let conflict = unfenced.map(|old| self.conflict(word, old));
                    return conflict.map_or(Ok(()), |conflict| Err(Conflict { is_unfenced: true, ..conflict }));
                }
                Ok(false) => {}
                Ok(true) => synchronisation.end((place, word as u64)),
                Err(old) => return Err(self.conflict(word, old)),
            }
        }
        Ok(())
    }

    /// The engine has written. Only who waits for the ticket knows. `proxy` says whether it did so by the asynchronous
    /// proxy, unlike `cp.async`.
    pub fn engine_wrote(&mut self, place: Place, offset: u64, size: u64, ticket: Ticket, pc: u32, proxy: Proxy) {
        let block = self.block;
        let shadow = match place {
            Place::Global { buffer } => &mut self.buffers[buffer as usize],
            Place::Shared => &mut self.shared,
        };
        for (word, bytes) in words(offset, size) {
            let bits = bytes | if proxy == Proxy::Async { shadow::WRITE | shadow::ASYNC } else { shadow::WRITE };
            shadow.landed(word, Stamp { block, time: ticket.time, pc, thread: ticket.engine, bits });
        }
    }

    /// A thread has waited for a piece of work.
    pub fn learn_ticket(&mut self, thread: u16, ticket: Ticket) {
        self.clocks[thread as usize].learn_engine(ticket.engine, ticket.time);
    }

    /// What those know who have waited for a piece of work.
    pub fn of_ticket(&self, ticket: Ticket) -> Knowledge {
        let mut times = vec![0; self.engines.end()];
        times[ticket.engine as usize] = ticket.time;
        Knowledge::of(self.block, times.into())
    }

    /// All that a thread knows: it releases that.
    pub fn publish(&mut self, thread: u16) -> Knowledge {
        self.clocks[thread as usize].publish(self.block, thread)
    }

    /// A thread acquires what others have published.
    pub fn learn(&mut self, thread: u16, known: &Knowledge) {
        self.clocks[thread as usize].learn(self.block, known);
    }

    /// `fence.proxy.async` or `fence.mbarrier_init`.
    pub fn fence_proxy(&mut self, thread: u16, sense: Sense) {
        self.clocks[thread as usize].fence(self.block, thread, sense);
    }

    /// A thread uses an mbarrier, as strongly as an atomic does; what it synchronises is kept with the barrier.
    pub fn use_barrier(&mut self, offset: u64, thread: u16, pc: u32) -> Result<(), Conflict> {
        let kind = super::Kind::Read;
        let bits = shadow::STRONG | shadow::WRITE | shadow::UPDATE;
        self.check(Place::Shared, offset, 8, super::Access { thread, pc, kind }, bits)
    }

    /// Whether the engines see that an mbarrier was initialised; if not, who initialised it.
    pub fn barrier_is_fenced(&mut self, offset: u64, thread: u16, init: Initialised) -> Result<(), Conflict> {
        let Initialised { by, time, pc } = init;
        let (_, observer, _) = self.parts(Place::Shared, thread);
        let stamp = Stamp { time, ..observer.stamp(by, pc, shadow::WRITE) };
        if observer.knows_in(Sense::AsyncShared, stamp) || observer.knows_in(Sense::Initialised, stamp) {
            return Ok(());
        }
        Err(Conflict { is_unfenced: true, ..self.conflict(offset as usize / 4, stamp) })
    }

    /// What [`barrier_is_fenced`](Self::barrier_is_fenced) has to know of an initialisation that is made now.
    pub fn initialises(&self, thread: u16, pc: u32) -> Initialised {
        Initialised { by: thread, time: self.clocks[thread as usize].of_thread(thread), pc }
    }

    /// Whether a thread knows that any of these of its block has begun.
    pub fn has_begun(&self, thread: u16, mut others: std::ops::Range<u16>) -> bool {
        let clock = &self.clocks[thread as usize];
        others.any(|other| clock.of_thread(other) > 0)
    }

    /// A thread uses the shared memory of the cluster's block of that rank, which is not its own.
    pub fn goes_to(&mut self, rank: usize, thread: u16, pc: u32) {
        let time = self.clocks[thread as usize].of_thread(thread);
        self.engines.remote.insert((rank, thread), Remote { time, pc });
    }

    /// The last of the threads of the block of that rank has exited: somebody who may still use its memory.
    pub fn still_uses(&self, rank: usize, threads: std::ops::Range<u16>) -> Option<Conflict> {
        let is_known = |thread: u16, time: u32| {
            threads.clone().any(|of_block| self.clocks[of_block as usize].of_thread(thread) >= time)
        };
        let mut uses: Vec<_> = self.engines.remote.iter().filter(|((to, _), _)| *to == rank).collect();
        uses.sort_by_key(|((_, thread), _)| *thread);
        let (&(_, thread), remote) = uses.into_iter().find(|((_, thread), remote)| !is_known(*thread, remote.time))?;
        let bits = shadow::WRITE;
        Some(self.conflict(0, Stamp { block: self.block, time: remote.time, pc: remote.pc, thread, bits }))
    }
}

/// Who made an mbarrier.
#[derive(Debug, Clone, Copy, Default)]
pub struct Initialised {
    by: u16,
    time: u32,
    pc: u32,
}
