//! Where addresses lead, and what is wrong with them.

use super::cluster::{At, Cluster, Outcome};
use crate::check::{Conflict, PartyKind, Place, Races};
use crate::error::{Fault, FaultKind};
use crate::memory::{self, LOCAL, Misuse, SHARED, Space, WINDOW};

/// A checked place in some memory.
#[derive(Debug, Clone, Copy)]
pub(super) enum Location {
    Global {
        buffer: usize,
        offset: usize,
    },
    /// Of the block of that rank in the cluster.
    Shared {
        rank: usize,
        offset: usize,
    },
    Local {
        offset: usize,
    },
}

impl Cluster<'_> {
    /// Where an address leads; a fault where it leads nowhere, or not to where the instruction may go.
    #[inline(always)]
    pub(super) fn locate(&self, at: At, lane: usize, space: Space, address: u64, size: usize) -> Outcome<Location> {
        let window = |base: u64| address.checked_sub(base).filter(|&offset| offset < WINDOW);
        let found = if address >= memory::GLOBAL && matches!(space, Space::Global | Space::Generic) {
            self.grid.global.find(address, size).map(|(_, buffer, offset)| Location::Global { buffer, offset })
        } else if let (Some(offset), Space::Shared | Space::SharedCluster | Space::Generic) = (window(SHARED), space) {
            self.locate_shared(at, lane, space, size, offset)?.map(|(rank, offset)| Location::Shared { rank, offset })
        } else if let (Some(offset), Space::Local | Space::Generic) = (window(LOCAL), space) {
            match self.local.get(at.thread(lane) as usize) {
                Some(local) => local.check(offset, size).map(|offset| Location::Local { offset }),
                None => Err(Misuse::OutOfBounds),
            }
        } else {
            Err(Misuse::OutOfBounds)
        };
        found.map_err(|misuse| self.misuse(misuse, at, lane, address, size))
    }

    /// Where an offset in the shared window leads: into which block's memory, and where.
    fn locate_shared(
        &self,
        at: At,
        lane: usize,
        space: Space,
        size: usize,
        offset: u64,
    ) -> Outcome<Result<(usize, usize), Misuse>> {
        let own = self.rank(at.warp);
        let (rank, offset) = match memory::unmapped(offset) {
            (None, offset) => (own, offset),
            (Some(rank), offset) if space != Space::Shared && rank < self.blocks.len() => (rank, offset),
            _ => return Ok(Err(Misuse::OutOfBounds)),
        };
        if rank != own {
            self.expect_present(at, lane, rank)?;
        }
        Ok(self.blocks[rank].shared.check(offset, size).map(|offset| (rank, offset)))
    }

    /// Another block of the cluster must have begun and must not have exited.
    pub(super) fn expect_present(&self, at: At, lane: usize, rank: usize) -> Outcome {
        let threads = self.threads_of(rank);
        let has_met = self.met[at.warp] >> lane & 1 != 0;
        let has_heard = |races: &&mut Races| races.has_begun(at.thread(lane), threads.clone());
        let is_known = has_met || self.races.as_ref().is_none_or(has_heard);
        let what = match (is_known, self.blocks[rank].live) {
            (true, 1..) => return Ok(()),
            (false, _) => "is not known to have begun: no cluster barrier is before this",
            (true, 0) => "has exited",
        };
        let detail = format!("the block of rank {rank} in the cluster, whose shared memory this is, {what}");
        Err(self.fault(FaultKind::AbsentBlock, at, lane, detail))
    }

    /// The generic address of a location, as the thread's block sees it.
    pub(super) fn address_of(&self, at: At, location: Location) -> u64 {
        match location {
            Location::Global { buffer, offset } => {
                memory::GLOBAL + ((buffer as u64) << memory::BUFFER_BITS) + offset as u64
            }
            Location::Shared { rank, offset } if rank == self.rank(at.warp) => SHARED + offset as u64,
            Location::Shared { rank, offset } => SHARED + memory::mapped(rank, offset as u64),
            Location::Local { offset } => LOCAL + offset as u64,
        }
    }

    /// A location as races know it: the blocks of a cluster have their shared memory one behind the other.
    pub(super) fn place(&self, location: Location) -> Option<(Place, u64)> {
        match location {
            Location::Global { buffer, offset } => Some((Place::Global { buffer: buffer as u32 }, offset as u64)),
            Location::Shared { rank, offset } => {
                Some((Place::Shared, (rank * self.blocks[rank].shared.len() + offset) as u64))
            }
            Location::Local { .. } => None,
        }
    }

    pub(super) fn shared_location(&self, (rank, offset): (usize, usize)) -> Location {
        Location::Shared { rank, offset }
    }

    #[cold]
    pub(super) fn misuse(&self, misuse: Misuse, at: At, lane: usize, address: u64, size: usize) -> Box<Fault> {
        let (kind, what) = match misuse {
            Misuse::OutOfBounds => (FaultKind::OutOfBounds, ""),
            Misuse::Misaligned => (FaultKind::Misaligned, ", which is not a multiple of the size"),
            Misuse::Uninitialised => (FaultKind::Uninitialised, ", which nobody has written"),
            Misuse::Barrier => (FaultKind::Undefined, ", where an mbarrier is"),
        };
        let detail = format!("{size} bytes at {}{what}", self.describe(address, size));
        let mut fault = self.fault(kind, at, lane, detail);
        fault.address = Some(address);
        fault
    }

    pub(super) fn race(&self, at: At, lane: usize, location: Location, size: usize, conflict: &Conflict) -> Box<Fault> {
        let earlier = &conflict.earlier;
        let kind = match earlier.kind {
            _ if conflict.is_unfenced => FaultKind::MissingFence,
            PartyKind::Copy => FaultKind::UnfinishedCopy,
            _ => FaultKind::Race,
        };
        let address = self.address_of(at, location);
        let what = if conflict.is_unfenced { ", which the asynchronous proxy may not see" } else { "" };
        let detail = format!("{}; the other was a {:?}{what}", self.describe(address, size), earlier.kind);
        let mut fault = self.fault(kind, at, lane, detail);
        fault.earlier = Some(self.site(earlier.pc, earlier.block, earlier.thread));
        fault.address = Some(address);
        fault
    }

    pub(super) fn describe(&self, address: u64, size: usize) -> String {
        let [shared, local] = &self.grid.layouts;
        match address {
            memory::GLOBAL.. => self.grid.global.describe(address, size),
            LOCAL.. if address - LOCAL < WINDOW => local.describe(address - LOCAL, size),
            SHARED.. if address - SHARED < WINDOW => shared.describe(memory::unmapped(address - SHARED).1, size),
            _ => format!("address {address:#x}, which is in no memory"),
        }
    }
}
