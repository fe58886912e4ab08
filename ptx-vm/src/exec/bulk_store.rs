//! `cp.async.bulk` to global memory: copies in groups of a thread.

use std::collections::VecDeque;

use super::Address;
use super::access::addresses;
use super::bulk::UNIT;
use super::cluster::{At, Cluster, Outcome};
use super::location::Location;
use super::warp::Warp;
use crate::check::{Owner, Proxy, Ticket};
use crate::error::FaultKind;
use crate::memory::Misuse;
use crate::registers::{Mask, Reg, lanes};
use crate::statistics::Traffic;

/// From shared to global memory, in a group of the thread.
#[derive(Debug)]
pub struct BulkStore {
    pub to: Address,
    pub from: Address,
    pub bytes: Reg<u32>,
}

/// A copy to global memory under way.
#[derive(Debug, Clone)]
struct PendingStore {
    to: u64,
    rank: usize,
    offset: usize,
    bytes: usize,
    at: At,
    /// Of its reads and its writes.
    tickets: Option<[Ticket; 2]>,
    /// What it has read, once somebody has waited for that.
    read: Option<Vec<u8>>,
}

/// The bulk copies of a thread that are not over.
#[derive(Debug, Clone, Default)]
pub struct BulkGroups {
    open: Vec<PendingStore>,
    groups: VecDeque<Vec<PendingStore>>,
}

impl BulkGroups {
    /// Closes a group, even an empty one: waits count groups.
    pub fn commit(&mut self) {
        self.groups.push_back(std::mem::take(&mut self.open));
    }
}

impl Cluster<'_> {
    pub(super) fn start_bulk_store(&mut self, warp: &mut Warp, at: At, mask: Mask, store: &BulkStore) -> Outcome {
        let (to, from) = (addresses(&warp.registers, &store.to), addresses(&warp.registers, &store.from));
        for lane in lanes(mask) {
            let (to, from) = (to[lane], from[lane]);
            let bytes = store.bytes.lane(&warp.registers, lane) as usize;
            self.expect_units(at, lane, bytes)?;
            let (rank, offset) = self.locate_bulk(at, lane, store.from.space, from, bytes, UNIT)?;
            let (buffer, to_offset) = self.locate_bulk_global(at, lane, to, bytes, UNIT)?;
            let thread = at.thread(lane);
            let owners = [Owner::GroupReads(thread), Owner::GroupWrites(thread)];
            let tickets = self.races.as_mut().map(|races| owners.map(|owner| races.start(owner, thread)));
            if tickets.is_some() && !self.blocks[rank].shared.is_written(offset, bytes) {
                return Err(self.misuse(Misuse::Uninitialised, at, lane, from, bytes));
            }
            let [reads, writes] = [0, 1].map(|i| tickets.map(|tickets| tickets[i]));
            self.engine_reads(at, lane, Location::Shared { rank, offset }, bytes, reads)?;
            let location = Location::Global { buffer, offset: to_offset };
            self.engine_will_write(at, lane, location, bytes, writes)?;
            warp.bulk[lane].open.push(PendingStore { to, rank, offset, bytes, at, tickets, read: None });
            if self.grid.count {
                self.statistics.record_bulk(&[(to, bytes)], Traffic::Store);
            }
        }
        Ok(())
    }

    pub(super) fn wait_for_bulk(
        &mut self,
        warp: &mut Warp,
        at: At,
        mask: Mask,
        groups: u32,
        only_read: bool,
    ) -> Outcome {
        for lane in lanes(mask) {
            let waited = warp.bulk[lane].groups.len().saturating_sub(groups as usize);
            for store in warp.bulk[lane].groups.iter_mut().take(waited).flatten() {
                self.read_for_store(at.thread(lane), store);
            }
            if !only_read {
                let stores: Vec<_> = warp.bulk[lane].groups.drain(..waited).flatten().collect();
                self.finish_stores(lane, stores)?;
            }
        }
        Ok(())
    }

    /// A store has read its source, which may be overwritten from now on.
    fn read_for_store(&mut self, thread: u16, store: &mut PendingStore) {
        if store.read.is_some() {
            return;
        }
        let shared = &self.blocks[store.rank].shared;
        let unit = |i: usize| shared.load(store.offset + i, UNIT).map(u32::to_le_bytes).concat();
        store.read = Some((0..store.bytes).step_by(UNIT).flat_map(unit).collect());
        if let Some((races, [reads, _])) = self.races.as_mut().zip(store.tickets) {
            races.learn_ticket(thread, reads);
        }
    }

    fn finish_stores(&mut self, lane: usize, stores: Vec<PendingStore>) -> Outcome {
        for store in stores {
            let PendingStore { to, bytes, at, tickets, read, .. } = store;
            let (buffer, offset) = self.locate_bulk_global(at, lane, to, bytes, UNIT)?;
            if let Some(buffer) = &self.grid.global.buffers[buffer] {
                for (i, unit) in read.unwrap_or_default().chunks(UNIT).enumerate() {
                    let word = |i: usize| u32::from_le_bytes([unit[i], unit[i + 1], unit[i + 2], unit[i + 3]]);
                    buffer.store(offset + i * UNIT, UNIT, [word(0), word(4), word(8), word(12)]);
                }
                buffer.mark_written(offset, bytes);
            }
            let place = self.place(Location::Global { buffer, offset });
            if let Some(((races, [_, writes]), (place, offset))) = self.races.as_mut().zip(tickets).zip(place) {
                races.engine_wrote(place, offset, bytes as u64, writes, at.pc, Proxy::Async);
                races.learn_ticket(at.thread(lane), writes);
            }
        }
        Ok(())
    }

    /// A thread exits: its stores must have been read, and are written now.
    pub(super) fn leave_bulk(&mut self, warp: &mut Warp, at: At, lane: usize) -> Outcome {
        warp.bulk[lane].commit();
        let stores: Vec<_> = warp.bulk[lane].groups.drain(..).flatten().collect();
        if let Some(store) = stores.iter().find(|store| store.read.is_none()) {
            let detail = "the thread exits while a bulk copy still reads shared memory".to_owned();
            let mut fault = self.fault(FaultKind::UnfinishedCopy, at, lane, detail);
            fault.earlier = Some(self.site(store.at.pc, self.number, store.at.thread(lane)));
            return Err(fault);
        }
        self.finish_stores(lane, stores)
    }
}
