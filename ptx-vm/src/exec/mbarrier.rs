//! `mbarrier`: barriers in shared memory that count arrivals and bytes of copies.
//!
//! The copies that a barrier counts land as late as the program allows, when somebody waits and could not go on
//! otherwise; some, as the seed has it, land at once.

use std::collections::VecDeque;

use super::Address;
use super::access::addresses;
use super::bulk::Landing;
use super::cluster::{At, Cluster, Outcome};
use super::warp::{State, Warp};
use crate::check::{Access, Initialised, Kind, Knowledge, Owner, Ticket};
use crate::error::FaultKind;
use crate::memory::{self, Misuse, SHARED, Space, WINDOW};
use crate::registers::{LANES, Mask, Reg, lanes};

/// An instruction at a barrier that does not wait.
#[derive(Debug)]
pub struct Mbarrier {
    pub address: Address,
    pub action: MbarrierAction,
}

#[derive(Debug)]
pub enum MbarrierAction {
    Init {
        count: Reg<u32>,
    },
    Invalidate,
    Arrive {
        /// The phase that it arrives in, for who waits by state.
        to: Option<Reg<u64>>,
        count: Option<Reg<u32>>,
        /// Bytes to expect before it arrives.
        bytes: Option<Reg<u32>>,
        releases: bool,
    },
    ExpectBytes(Reg<u32>),
    CompleteBytes(Reg<u32>),
    /// `cp.async.mbarrier.arrive`: once the thread's copies have landed. `counted`: the barrier already expects it.
    ArriveAfterCopies {
        counted: bool,
    },
}

/// `mbarrier.test_wait` and `.try_wait`.
#[derive(Debug)]
pub struct MbarrierWait {
    pub to: Reg<bool>,
    pub address: Address,
    pub phase: Phase,
    /// Whether it may wait before it says no: here for as long as it takes.
    pub blocks: bool,
    pub acquires: bool,
}

#[derive(Debug, Clone, Copy)]
pub enum Phase {
    State(Reg<u64>),
    Parity(Reg<u32>),
}

/// Bytes that a phase can expect at most.
const MAX_BYTES: i64 = (1 << 20) - 1;
/// Arrivals that a phase can expect at most.
const MAX_COUNT: u32 = (1 << 20) - 1;

/// An initialised barrier.
#[derive(Debug)]
pub struct MbarrierState {
    /// Arrivals of a phase.
    expected: u32,
    /// Those that are missing in this one.
    pending: u32,
    /// Expected and not yet copied.
    bytes: i64,
    /// Phases that are complete.
    phase: u64,
    /// Under way, in the order in which they were started.
    landing: VecDeque<Landing>,
    /// What arrivals of this phase published, and all of those before.
    arriving: Knowledge,
    known: Knowledge,
    init: Initialised,
}

impl MbarrierState {
    fn new(count: u32, init: Initialised) -> Self {
        MbarrierState {
            expected: count,
            pending: count,
            bytes: 0,
            phase: 0,
            landing: VecDeque::new(),
            arriving: Knowledge::default(),
            known: Knowledge::default(),
            init,
        }
    }

    /// What this phase misses; None where nobody has come yet.
    pub fn missing(&self) -> Option<String> {
        let MbarrierState { pending, expected, bytes, phase, .. } = self;
        let is_idle = pending == expected && *bytes == 0;
        let parity = phase & 1;
        (!is_idle).then(|| format!("misses {pending} arrivals and {bytes} bytes in phase {phase}, of parity {parity}"))
    }

    /// Goes on to the next phase where nothing is missing in this one.
    fn advance(&mut self) {
        if self.pending == 0 && self.bytes == 0 {
            self.phase += 1;
            self.pending = self.expected;
            self.known.join(&std::mem::take(&mut self.arriving));
        }
    }
}

/// A barrier by the rank of its block and the offset in its shared memory.
pub type Key = (usize, usize);

impl Cluster<'_> {
    pub(super) fn mbarrier(&mut self, warp: &mut Warp, at: At, mask: Mask, mbarrier: &Mbarrier) -> Outcome {
        let addresses = addresses(&warp.registers, &mbarrier.address);
        for lane in lanes(mask) {
            let key = self.locate_mbarrier(at, lane, mbarrier.address.space, addresses[lane])?;
            if let MbarrierAction::Init { count } = mbarrier.action {
                self.init_mbarrier(at, lane, key, count.lane(&warp.registers, lane))?;
                continue;
            }
            self.use_mbarrier(at, lane, key)?;
            self.goes_to(at, lane, key.0);
            let word = |register: Reg<u32>| register.lane(&warp.registers, lane);
            match &mbarrier.action {
                MbarrierAction::Init { .. } => {}
                MbarrierAction::Invalidate => {
                    self.mbarriers.remove(&key);
                    self.blocks[key.0].shared.mark_barrier(key.1, false);
                }
                MbarrierAction::Arrive { to, count, bytes, releases } => {
                    let (count, bytes) = (count.map_or(1, word), bytes.map(word));
                    if let Some(bytes) = bytes {
                        self.add_bytes(at, lane, key, bytes as i64)?;
                    }
                    let known = self.races.as_mut().filter(|_| *releases).map(|races| races.publish(at.thread(lane)));
                    let phase = self.arrive_at_mbarrier(at, lane, key, count, known)?;
                    if let Some(to) = to {
                        to.write(&mut warp.registers, [phase; LANES], 1 << lane);
                    }
                }
                MbarrierAction::ExpectBytes(bytes) => self.add_bytes(at, lane, key, word(*bytes) as i64)?,
                MbarrierAction::CompleteBytes(bytes) => self.add_bytes(at, lane, key, -(word(*bytes) as i64))?,
                MbarrierAction::ArriveAfterCopies { counted } => {
                    let copies = warp.copies[lane].take();
                    let ticket = self.start_at_mbarrier(at, lane, key);
                    if let Some(barrier) = self.mbarriers.get_mut(&key) {
                        barrier.pending += u32::from(!counted);
                    }
                    self.land_at_mbarrier(key, Landing::Copies { copies, at, lane, ticket })?;
                }
            }
        }
        Ok(())
    }

    pub(super) fn wait_at_mbarrier(
        &mut self,
        warp: &mut Warp,
        at: At,
        i: usize,
        mask: Mask,
        wait: &MbarrierWait,
    ) -> Outcome {
        let addresses = addresses(&warp.registers, &wait.address);
        let mut complete: Mask = 0;
        for lane in lanes(mask) {
            let key = self.locate_mbarrier(at, lane, wait.address.space, addresses[lane])?;
            self.use_mbarrier(at, lane, key)?;
            let is_over = |phase: u64| match wait.phase {
                Phase::State(state) => phase != state.read(&warp.registers)[lane],
                Phase::Parity(parity) => phase & 1 != parity.lane(&warp.registers, lane) as u64 & 1,
            };
            self.land_until(key, is_over)?;
            let Some(barrier) = self.mbarriers.get(&key) else { continue };
            if is_over(barrier.phase) {
                complete |= 1 << lane;
                if let Some(races) = self.races.as_mut().filter(|_| wait.acquires) {
                    races.learn(at.thread(lane), &barrier.known);
                }
            }
        }
        let answered = if wait.blocks { complete } else { mask };
        wait.to.set(&mut warp.registers, complete, answered);
        warp.fragments[i].pc = at.pc + 1;
        if answered == mask {
            warp.merge();
        } else {
            warp.split(i, mask & !answered, at.pc, State::Waiting);
        }
        Ok(())
    }

    fn init_mbarrier(&mut self, at: At, lane: usize, key: Key, count: u32) -> Outcome {
        if self.mbarriers.contains_key(&key) {
            let detail = "initialises an mbarrier that is one already".to_owned();
            return Err(self.fault(FaultKind::Undefined, at, lane, detail));
        }
        if !(1..=MAX_COUNT).contains(&count) {
            let detail = format!("an mbarrier of {count} arrivals; 1 to {MAX_COUNT} are possible");
            return Err(self.fault(FaultKind::Undefined, at, lane, detail));
        }
        let location = self.shared_location(key);
        let (thread, place) = (at.thread(lane), self.place(location));
        let mut init = Initialised::default();
        if let (Some(races), Some((place, offset))) = (&mut self.races, place) {
            let access = Access { thread, pc: at.pc, kind: Kind::Write { repeats: false } };
            init = races.initialises(thread, at.pc);
            let conflict = races.access(place, offset, 8, access);
            conflict.map_err(|conflict| self.race(at, lane, location, 8, &conflict))?;
        }
        self.blocks[key.0].shared.mark_barrier(key.1, true);
        self.mbarriers.insert(key, MbarrierState::new(count, init));
        Ok(())
    }

    /// Where an address of a barrier leads.
    pub(super) fn locate_mbarrier(&self, at: At, lane: usize, space: Space, address: u64) -> Outcome<Key> {
        let found = match address.checked_sub(SHARED).filter(|&offset| offset < WINDOW).map(memory::unmapped) {
            Some((None, offset)) => Some((self.rank(at.warp), offset)),
            Some((Some(rank), offset)) if space != Space::Shared && rank < self.blocks.len() => Some((rank, offset)),
            _ => None,
        };
        let Some((rank, offset)) = found else {
            return Err(self.misuse(Misuse::OutOfBounds, at, lane, address, 8));
        };
        if rank != self.rank(at.warp) {
            self.expect_present(at, lane, rank)?;
        }
        let checked = self.blocks[rank].shared.check_barrier(offset);
        let offset = checked.map_err(|misuse| self.misuse(misuse, at, lane, address, 8))?;
        Ok((rank, offset))
    }

    /// A thread itself uses the shared memory of a block, which must not exit before somebody knows.
    fn goes_to(&mut self, at: At, lane: usize, rank: usize) {
        if rank != self.rank(at.warp)
            && let Some(races) = &mut self.races
        {
            races.goes_to(rank, at.thread(lane), at.pc);
        }
    }

    /// There must be a barrier, and the thread must know of it.
    fn use_mbarrier(&mut self, at: At, lane: usize, key: Key) -> Outcome {
        let location = self.shared_location(key);
        if !self.mbarriers.contains_key(&key) {
            let mut fault = self.misuse(Misuse::Barrier, at, lane, self.address_in(key), 8);
            fault.detail = format!("there is no mbarrier at {}", self.describe(self.address_in(key), 8));
            return Err(fault);
        }
        let place = self.place(location);
        let Some((races, (_, offset))) = self.races.as_mut().zip(place) else { return Ok(()) };
        let conflict = races.use_barrier(offset, at.thread(lane), at.pc);
        conflict.map_err(|conflict| self.race(at, lane, location, 8, &conflict))
    }

    fn arrive_at_mbarrier(
        &mut self,
        at: At,
        lane: usize,
        key: Key,
        count: u32,
        known: Option<Knowledge>,
    ) -> Outcome<u64> {
        let Some(barrier) = self.mbarriers.get_mut(&key) else { return Ok(0) };
        let phase = barrier.phase;
        if count == 0 || count > barrier.pending {
            let missing = barrier.pending;
            let detail = format!("{count} arrivals at an mbarrier that waits for {missing} more in this phase");
            return Err(self.fault(FaultKind::Undefined, at, lane, detail));
        }
        barrier.pending -= count;
        if let Some(known) = known {
            barrier.arriving.join(&known);
        }
        barrier.advance();
        self.changed = true;
        Ok(phase)
    }

    /// Expects bytes, or takes those as copied that are negative.
    fn add_bytes(&mut self, at: At, lane: usize, key: Key, bytes: i64) -> Outcome {
        let Some(barrier) = self.mbarriers.get_mut(&key) else { return Ok(()) };
        barrier.bytes += bytes;
        if barrier.bytes.abs() > MAX_BYTES {
            let detail = format!("{} bytes expected at an mbarrier; {MAX_BYTES} are possible", barrier.bytes);
            return Err(self.fault(FaultKind::Undefined, at, lane, detail));
        }
        barrier.advance();
        self.changed = true;
        Ok(())
    }

    /// The bulk copy that a thread starts must find an initialised barrier.
    pub(super) fn expect_mbarrier(&mut self, at: At, lane: usize, key: Key) -> Outcome {
        self.use_mbarrier(at, lane, key)?;
        let location = self.shared_location(key);
        let Some(init) = self.mbarriers.get(&key).map(|barrier| barrier.init) else { return Ok(()) };
        let place = self.place(location);
        let Some((races, (_, offset))) = self.races.as_mut().zip(place) else { return Ok(()) };
        let fenced = races.barrier_is_fenced(offset, at.thread(lane), init);
        fenced.map_err(|conflict| self.race(at, lane, location, 8, &conflict))
    }

    /// A piece of work that is over when the barrier says so.
    pub(super) fn start_at_mbarrier(&mut self, at: At, lane: usize, key: Key) -> Option<Ticket> {
        let (_, offset) = self.place(self.shared_location(key))?;
        self.races.as_mut().map(|races| races.start(Owner::Barrier(offset), at.thread(lane)))
    }

    /// Puts a copy under way to a barrier.
    pub(super) fn land_at_mbarrier(&mut self, key: Key, landing: Landing) -> Outcome {
        let Some(barrier) = self.mbarriers.get_mut(&key) else { return Ok(()) };
        barrier.landing.push_back(landing);
        self.changed = true;
        let lands_now = self.random.next() >> 62 == 0;
        if lands_now { self.land_until(key, |_| false) } else { Ok(()) }
    }

    /// Lets copies land, one after the other, until a phase is over or none is left.
    fn land_until(&mut self, key: Key, is_over: impl Fn(u64) -> bool) -> Outcome {
        loop {
            let Some(barrier) = self.mbarriers.get_mut(&key).filter(|barrier| !is_over(barrier.phase)) else {
                return Ok(());
            };
            let Some(landing) = barrier.landing.pop_front() else { return Ok(()) };
            let (at, lane, ticket) = landing.started();
            let known = self.races.as_ref().zip(ticket).map(|(races, ticket)| races.of_ticket(ticket));
            if let (Some(barrier), Some(known)) = (self.mbarriers.get_mut(&key), &known) {
                barrier.arriving.join(known);
            }
            match landing {
                Landing::Bulk(copy) => {
                    self.land_bulk(&copy)?;
                    self.add_bytes(at, lane, key, -(copy.bytes as i64))?;
                }
                Landing::Copies { copies, .. } => {
                    self.land_for_engine(at, lane, copies, ticket)?;
                    self.arrive_at_mbarrier(at, lane, key, 1, None)?;
                }
            }
        }
    }

    /// A block is about to exit: nothing may land in its shared memory any more.
    pub(super) fn expect_no_landing(&self, at: At, lane: usize, rank: usize) -> Outcome {
        let mut keys: Vec<_> = self.mbarriers.keys().filter(|key| key.0 == rank).collect();
        keys.sort();
        let Some(copy) = keys.into_iter().find_map(|key| self.mbarriers[key].landing.front()) else { return Ok(()) };
        let detail = "the block exits while a copy to its shared memory is under way".to_owned();
        let mut fault = self.fault(FaultKind::UnfinishedCopy, at, lane, detail);
        let (started, lane, _) = copy.started();
        fault.earlier = Some(self.site(started.pc, self.number, started.thread(lane)));
        Err(fault)
    }

    pub(super) fn address_in(&self, (rank, offset): Key) -> u64 {
        SHARED + memory::mapped(rank, offset as u64)
    }
}
