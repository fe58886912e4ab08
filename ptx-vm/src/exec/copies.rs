//! `cp.async`: copies that land as late as the program allows, at the wait that covers them.

use std::collections::VecDeque;

use super::Copy;
use super::access::addresses;
use super::block::{At, Block, Outcome};
use super::warp::Warp;
use crate::check::Kind;
use crate::error::FaultKind;
use crate::memory::Space;
use crate::registers::{Mask, lanes};

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

    /// Takes all copies, committed or not.
    pub fn wait_for_all(&mut self) -> Vec<PendingCopy> {
        self.commit();
        self.wait(0)
    }
}

impl Block<'_> {
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
                let source = self.locate(at, lane, Space::Global, from, bytes as usize)?;
                self.read(at, lane, source, from_bytes as usize, Kind::Read)?;
            }
            self.mark_copy(at, lane, location, bytes as usize)?;
            warp.copies[lane].start(PendingCopy { to, from, bytes, from_bytes, pc: at.pc });
        }
        if self.grid.count {
            self.statistics.copied_bytes += bytes as u64 * mask.count_ones() as u64;
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
            let mut value = [0; 4];
            if copy.from_bytes > 0 {
                let source = self.locate(at, lane, Space::Global, copy.from, copy.bytes as usize)?;
                value = self.read(at, lane, source, copy.from_bytes as usize, Kind::Read)?;
            }
            let location = self.locate(at, lane, Space::Shared, copy.to, copy.bytes as usize)?;
            self.finish_copy(at, lane, location, copy.bytes as usize);
            self.poke(at, lane, location, copy.bytes as usize, value);
        }
        Ok(())
    }
}
