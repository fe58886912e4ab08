//! `cp.async`: copies that land as late as the program allows, at the wait that covers them.

use std::collections::VecDeque;

use super::Copy;
use super::access::addresses;
use super::cluster::{At, Cluster, Outcome};
use super::warp::Warp;
use crate::check::{Kind, Ticket};
use crate::error::FaultKind;
use crate::memory::{Misuse, Space, Value};
use crate::registers::{Mask, lanes};
use crate::statistics::Traffic;

/// One copy of one thread, addresses generic.
#[derive(Debug, Clone, Copy)]
pub struct PendingCopy {
    pub to: u64,
    pub from: u64,
    pub bytes: u32,
    /// Bytes that are read; the rest of `bytes` becomes 0.
    pub from_bytes: u32,
    /// The instruction that started it.
    pub pc: u32,
}

/// The copies of one thread that have not landed.
#[derive(Debug, Clone, Default)]
pub struct Copies {
    open: Vec<PendingCopy>,
    groups: VecDeque<Vec<PendingCopy>>,
}

impl Copies {
    pub fn start(&mut self, copy: PendingCopy) {
        self.open.push(copy);
    }

    /// Closes a group, even an empty one: waits count groups.
    pub fn commit(&mut self) {
        self.groups.push_back(std::mem::take(&mut self.open));
    }

    /// Takes the copies that land where at most `groups` groups may stay under way.
    pub fn wait(&mut self, groups: usize) -> Vec<PendingCopy> {
        let landing = self.groups.len().saturating_sub(groups);
        self.groups.drain(..landing).flatten().collect()
    }

    /// Takes what has not landed out of the groups, which stay: waits count them.
    pub fn take(&mut self) -> Vec<PendingCopy> {
        let committed = self.groups.iter_mut().flat_map(std::mem::take);
        committed.chain(std::mem::take(&mut self.open)).collect()
    }

    /// Takes all copies, committed or not.
    pub fn wait_for_all(&mut self) -> Vec<PendingCopy> {
        self.commit();
        self.wait(0)
    }
}

impl Cluster<'_> {
    /// Checks both ends of a copy now, and lets the destination be until it lands.
    pub(super) fn start_copy(&mut self, warp: &mut Warp, at: At, mask: Mask, copy: &Copy) -> Outcome {
        let bytes = copy.bytes;
        let [to, from] = [&copy.to, &copy.from].map(|operand| addresses(&warp.registers, operand));
        for lane in lanes(mask) {
            let (to, from) = (to[lane], from[lane]);
            let from_bytes = copy.from_bytes.map_or(bytes, |n| n.lane(&warp.registers, lane));
            if from_bytes > bytes {
                let detail = format!("copies {from_bytes} of {bytes} bytes");
                return Err(self.fault(FaultKind::Undefined, at, lane, detail));
            }
            let location = self.locate(at, lane, Space::Shared, to, bytes as usize)?;
            // Nothing is read where nothing is copied, but the address must be aligned.
            if from_bytes > 0 {
                self.read_source(at, lane, from, bytes, from_bytes)?;
            }
            self.mark_copy(at, lane, location, bytes as usize)?;
            warp.copies[lane].start(PendingCopy { to, from, bytes, from_bytes, pc: at.pc });
        }
        if self.grid.count {
            self.statistics.copied_bytes += bytes as u64 * mask.count_ones() as u64;
            let is_read = |&lane: &usize| copy.from_bytes.is_none_or(|n| n.lane(&warp.registers, lane) > 0);
            let reading = lanes(mask).filter(is_read).fold(0, |mask, lane| mask | 1 << lane);
            self.count(&from, reading, bytes as usize, Traffic::Load);
            self.count(&to, mask, bytes as usize, Traffic::Store);
        }
        Ok(())
    }

    pub(super) fn wait_for_copies(&mut self, warp: &mut Warp, at: At, mask: Mask, groups: Option<u32>) -> Outcome {
        for lane in lanes(mask) {
            let landing = match groups {
                Some(groups) => warp.copies[lane].wait(groups as usize),
                None => warp.copies[lane].wait_for_all(),
            };
            self.land(at, lane, landing)?;
        }
        Ok(())
    }

    /// The copies of a thread become visible. Faults name the instruction that started the copy.
    pub(super) fn land(&mut self, at: At, lane: usize, copies: Vec<PendingCopy>) -> Outcome {
        for copy in copies {
            let at = At { pc: copy.pc, ..at };
            let value = self.read_source(at, lane, copy.from, copy.bytes, copy.from_bytes)?;
            let location = self.locate(at, lane, Space::Shared, copy.to, copy.bytes as usize)?;
            self.finish_copy(at, lane, location, copy.bytes as usize);
            self.poke(at, lane, location, copy.bytes as usize, value);
        }
        Ok(())
    }

    /// The copies of a thread that an mbarrier waits for.
    pub(super) fn land_for_engine(
        &mut self,
        at: At,
        lane: usize,
        copies: Vec<PendingCopy>,
        ticket: Option<Ticket>,
    ) -> Outcome {
        for copy in copies {
            let at = At { pc: copy.pc, ..at };
            let value = self.read_source(at, lane, copy.from, copy.bytes, copy.from_bytes)?;
            let location = self.locate(at, lane, Space::Shared, copy.to, copy.bytes as usize)?;
            self.finish_copy_of(at, location, copy.bytes as usize, ticket);
            self.poke(at, lane, location, copy.bytes as usize, value);
        }
        Ok(())
    }

    /// The first `from_bytes` of `bytes`, which alone need to be there; the rest is 0.
    fn read_source(&mut self, at: At, lane: usize, from: u64, bytes: u32, from_bytes: u32) -> Outcome<Value> {
        if from_bytes > 0 && !from.is_multiple_of(bytes as u64) {
            return Err(self.misuse(Misuse::Misaligned, at, lane, from, bytes as usize));
        }
        let (mut value, mut done) = ([0; 4], 0);
        while done < from_bytes {
            // The greatest power of two in what is left: 14 are 8, 4 and 2, each at a multiple of itself.
            let size = 1_u32 << (from_bytes - done).ilog2();
            let source = self.locate(at, lane, Space::Global, from + done as u64, size as usize)?;
            let piece = self.read(at, lane, source, size as usize, Kind::Read)?;
            for (i, word) in piece.into_iter().enumerate().take(size.div_ceil(4) as usize) {
                value[(done / 4) as usize + i] |= word << (done % 4 * 8);
            }
            done += size;
        }
        Ok(value)
    }
}
