//! `cp.async.bulk` to shared memory: copies that an engine makes, of a range of bytes or of a box of a tensor.

use super::Address;
use super::access::addresses;
use super::cluster::{At, Cluster, Outcome};
use super::copies::PendingCopy;
use super::location::Location;
use super::warp::Warp;
use crate::check::{Conflict, Place, Proxy, Races, Ticket};
use crate::error::FaultKind;
use crate::memory::{self, Misuse, Space};
use crate::registers::{Mask, Reg, Slot, lanes};
use crate::statistics::Traffic;
use crate::tensor_map::{Swizzle, TensorMap};

/// From global memory to shared memory, counted at an mbarrier.
#[derive(Debug)]
pub struct BulkLoad {
    pub to: Address,
    pub from: Source,
    pub barrier: Address,
    /// The blocks of the cluster that get a copy, one bit each.
    pub multicast: Option<Reg<u32>>,
}

#[derive(Debug)]
pub enum Source {
    Range {
        from: Address,
        bytes: Reg<u32>,
    },
    /// The box at some coordinates, innermost first.
    Tensor {
        map: Slot,
        coordinates: Vec<Reg<i32>>,
    },
}

/// What lands at an mbarrier.
#[derive(Debug)]
pub enum Landing {
    Bulk(BulkCopy),
    /// The thread's own copies, of `cp.async`.
    Copies {
        copies: Vec<PendingCopy>,
        at: At,
        lane: usize,
        ticket: Option<Ticket>,
    },
}

/// A copy to the shared memory of one block.
#[derive(Debug, Clone)]
pub struct BulkCopy {
    pieces: Vec<Piece>,
    swizzle: Swizzle,
    rank: usize,
    offset: usize,
    pub bytes: usize,
    at: At,
    lane: usize,
    ticket: Option<Ticket>,
}

/// Bytes that lie side by side in global memory; between pieces the destination becomes 0.
#[derive(Debug, Clone, Copy)]
struct Piece {
    from: u64,
    bytes: usize,
    /// In the destination, before it is swizzled.
    to: usize,
}

impl Landing {
    /// Where it was started, and whose work it is.
    pub fn started(&self) -> (At, usize, Option<Ticket>) {
        match self {
            Landing::Bulk(copy) => (copy.at, copy.lane, copy.ticket),
            Landing::Copies { at, lane, ticket, .. } => (*at, *lane, *ticket),
        }
    }
}

/// Alignment and unit of all of them.
pub const UNIT: usize = 16;
/// Alignment of a box in shared memory.
const BOX_ALIGN: usize = 128;
/// Alignment of a tensor map.
const MAP_ALIGN: u64 = 64;
const MAP_BYTES: usize = 128;

impl Cluster<'_> {
    pub(super) fn start_bulk_load(&mut self, warp: &mut Warp, at: At, mask: Mask, load: &BulkLoad) -> Outcome {
        let (to, barrier) = (addresses(&warp.registers, &load.to), addresses(&warp.registers, &load.barrier));
        for lane in lanes(mask) {
            let (pieces, bytes, swizzle, align) = self.pieces(warp, at, lane, &load.from)?;
            let (own, offset) = self.locate_bulk(at, lane, load.to.space, to[lane], bytes, align)?;
            let (of_barrier, barrier_offset) = self.locate_mbarrier(at, lane, load.barrier.space, barrier[lane])?;
            if own != of_barrier {
                let detail = "a copy to one block of the cluster with the mbarrier of another".to_owned();
                return Err(self.undefined(at, lane, detail));
            }
            let ranks = match load.multicast {
                None => vec![own],
                Some(mask) => self.multicast(at, lane, mask.lane(&warp.registers, lane))?,
            };
            let mut is_first = true;
            for rank in ranks {
                if rank != self.rank(at.warp) {
                    self.expect_present(at, lane, rank)?;
                }
                let key = (rank, barrier_offset);
                self.expect_mbarrier(at, lane, key)?;
                let ticket = self.start_at_mbarrier(at, lane, key);
                let copy = BulkCopy { pieces: pieces.clone(), swizzle, rank, offset, bytes, at, lane, ticket };
                self.check_bulk_load(at, lane, &copy, is_first)?;
                self.land_at_mbarrier(key, Landing::Bulk(copy))?;
                is_first = false;
            }
            if self.grid.count {
                self.statistics.copied_bytes += bytes as u64;
                let ranges: Vec<_> = pieces.iter().map(|piece| (piece.from, piece.bytes)).collect();
                self.statistics.record_bulk(&ranges, Traffic::Load);
            }
        }
        Ok(())
    }

    /// The blocks that a mask names.
    fn multicast(&self, at: At, lane: usize, mask: u32) -> Outcome<Vec<usize>> {
        let (mask, size) = (mask & 0xffff, self.blocks.len());
        if mask == 0 || mask >> size != 0 {
            let detail = format!("copies to the blocks {mask:#06x} of a cluster of {size}");
            return Err(self.undefined(at, lane, detail));
        }
        Ok((0..size).filter(|rank| mask >> rank & 1 != 0).collect())
    }

    /// What a thread copies: the pieces, the bytes of the destination, how they are swizzled and aligned.
    fn pieces(
        &self,
        warp: &Warp,
        at: At,
        lane: usize,
        source: &Source,
    ) -> Outcome<(Vec<Piece>, usize, Swizzle, usize)> {
        match source {
            Source::Range { from, bytes } => {
                let from = addresses(&warp.registers, from)[lane];
                let bytes = bytes.lane(&warp.registers, lane) as usize;
                self.expect_units(at, lane, bytes)?;
                self.locate_bulk_global(at, lane, from, bytes, UNIT)?;
                Ok((vec![Piece { from, bytes, to: 0 }], bytes, Swizzle::None, UNIT))
            }
            Source::Tensor { map, coordinates } => {
                let address = super::access::get(&warp.registers, *map, lane);
                let map = self.tensor_map(at, lane, address)?;
                if map.dims.len() != coordinates.len() {
                    let (given, rank) = (coordinates.len(), map.dims.len());
                    let detail = format!("{given} coordinates in a tensor of {rank} dimensions");
                    return Err(self.undefined(at, lane, detail));
                }
                let coordinates: Vec<i64> = coordinates.iter().map(|c| c.read(&warp.registers)[lane] as i64).collect();
                let pieces = map.rows(&coordinates).map(|(from, bytes, to)| Piece { from, bytes, to }).collect();
                Ok((pieces, map.box_bytes(), map.swizzle, BOX_ALIGN))
            }
        }
    }

    /// The tensor map at an address, in the parameters or in global memory.
    fn tensor_map(&self, at: At, lane: usize, address: u64) -> Outcome<TensorMap> {
        if !address.is_multiple_of(MAP_ALIGN) {
            let detail = format!("a tensor map at address {address:#x}, which is no multiple of {MAP_ALIGN}");
            return Err(self.fault(FaultKind::Misaligned, at, lane, detail));
        }
        let mut bytes = [0; MAP_BYTES];
        if address >= memory::GLOBAL {
            let found = self.grid.global.find_range(address, MAP_BYTES, 1);
            let (buffer, _, offset) = found.map_err(|misuse| self.misuse(misuse, at, lane, address, MAP_BYTES))?;
            buffer.copy_to(offset, &mut bytes);
        } else {
            let first = address.checked_sub(memory::PARAM).map(|offset| offset as usize / 4);
            let words = first.and_then(|first| self.grid.parameters.get(first..first.saturating_add(MAP_BYTES / 4)));
            let Some(words) = words else {
                return Err(self.misuse(Misuse::OutOfBounds, at, lane, address, MAP_BYTES));
            };
            for (bytes, word) in bytes.chunks_mut(4).zip(words) {
                bytes.copy_from_slice(&word.to_le_bytes());
            }
        }
        TensorMap::decode(&bytes).ok_or_else(|| self.undefined(at, lane, "no tensor map is there".to_owned()))
    }

    pub(super) fn expect_units(&self, at: At, lane: usize, bytes: usize) -> Outcome {
        if bytes == 0 || !bytes.is_multiple_of(UNIT) {
            let detail = format!("a bulk copy of {bytes} bytes, which is no multiple of {UNIT}");
            return Err(self.fault(FaultKind::Misaligned, at, lane, detail));
        }
        Ok(())
    }

    /// A range of shared memory: the rank of its block, and the offset.
    pub(super) fn locate_bulk(
        &self,
        at: At,
        lane: usize,
        space: Space,
        address: u64,
        bytes: usize,
        align: usize,
    ) -> Outcome<(usize, usize)> {
        let own = self.rank(at.warp);
        let window = address.checked_sub(memory::SHARED).filter(|&offset| offset < memory::WINDOW);
        let (rank, offset) = match window.map(memory::unmapped) {
            Some((None, offset)) => (own, offset),
            Some((Some(rank), offset)) if space != Space::Shared && rank < self.blocks.len() => (rank, offset),
            _ => return Err(self.misuse(Misuse::OutOfBounds, at, lane, address, bytes)),
        };
        if rank != own {
            self.expect_present(at, lane, rank)?;
        }
        let checked = self.blocks[rank].shared.check_range(offset, bytes, align);
        checked.map(|offset| (rank, offset)).map_err(|misuse| self.misuse(misuse, at, lane, address, bytes))
    }

    pub(super) fn locate_bulk_global(
        &self,
        at: At,
        lane: usize,
        address: u64,
        bytes: usize,
        align: usize,
    ) -> Outcome<(usize, usize)> {
        let found = self.grid.global.find_range(address, bytes, align);
        let found = found.map(|(_, buffer, offset)| (buffer, offset));
        found.map_err(|misuse| self.misuse(misuse, at, lane, address, bytes))
    }

    /// Both ends of a load, as it is started; `reads` where this is the copy of a multicast that reads.
    fn check_bulk_load(&mut self, at: At, lane: usize, copy: &BulkCopy, reads: bool) -> Outcome {
        for piece in copy.pieces.iter().filter(|_| reads) {
            let (buffer, offset) = self.locate_bulk_global(at, lane, piece.from, piece.bytes, 1)?;
            let is_written = |buffer: &memory::Buffer| buffer.is_written(offset, piece.bytes);
            if copy.ticket.is_some() && !self.grid.global.buffers[buffer].as_ref().is_none_or(is_written) {
                return Err(self.misuse(Misuse::Uninitialised, at, lane, piece.from, piece.bytes));
            }
            self.engine_reads(at, lane, Location::Global { buffer, offset }, piece.bytes, copy.ticket)?;
        }
        let location = Location::Shared { rank: copy.rank, offset: copy.offset };
        let checked = self.blocks[copy.rank].shared.check_range(copy.offset as u64, copy.bytes, UNIT);
        if let Err(misuse) = checked {
            return Err(self.misuse(misuse, at, lane, self.address_in((copy.rank, copy.offset)), copy.bytes));
        }
        self.engine_will_write(at, lane, location, copy.bytes, copy.ticket)
    }

    pub(super) fn engine_reads(
        &mut self,
        at: At,
        lane: usize,
        location: Location,
        bytes: usize,
        ticket: Option<Ticket>,
    ) -> Outcome {
        self.engine_accesses(at, lane, location, bytes, ticket, Races::engine_reads)
    }

    pub(super) fn engine_will_write(
        &mut self,
        at: At,
        lane: usize,
        location: Location,
        bytes: usize,
        ticket: Option<Ticket>,
    ) -> Outcome {
        self.engine_accesses(at, lane, location, bytes, ticket, Races::engine_will_write)
    }

    /// Tells `races`, where they are looked for, of an access that a thread has started.
    fn engine_accesses(
        &mut self,
        at: At,
        lane: usize,
        location: Location,
        bytes: usize,
        ticket: Option<Ticket>,
        access: impl Fn(&mut Races, Place, u64, u64, Ticket, (u16, u32)) -> Result<(), Conflict>,
    ) -> Outcome {
        let place = self.place(location);
        let Some(((races, ticket), (place, offset))) = self.races.as_mut().zip(ticket).zip(place) else {
            return Ok(());
        };
        let conflict = access(races, place, offset, bytes as u64, ticket, (at.thread(lane), at.pc));
        conflict.map_err(|conflict| self.race(at, lane, location, bytes, &conflict))
    }

    /// A load becomes visible to who waits for it.
    pub(super) fn land_bulk(&mut self, copy: &BulkCopy) -> Outcome {
        let mut bytes = vec![0; copy.bytes];
        for piece in &copy.pieces {
            let (buffer, offset) = self.locate_bulk_global(copy.at, copy.lane, piece.from, piece.bytes, 1)?;
            if let Some(buffer) = &self.grid.global.buffers[buffer] {
                buffer.copy_to(offset, &mut bytes[piece.to..][..piece.bytes]);
            }
        }
        let shared = &mut self.blocks[copy.rank].shared;
        for (i, unit) in bytes.chunks(UNIT).enumerate() {
            let to = copy.swizzle.apply(copy.offset + i * UNIT);
            let word = |i: usize| u32::from_le_bytes([unit[i], unit[i + 1], unit[i + 2], unit[i + 3]]);
            shared.store(to, UNIT, [word(0), word(4), word(8), word(12)]);
        }
        shared.mark_written(copy.offset, copy.bytes);
        let place = self.place(Location::Shared { rank: copy.rank, offset: copy.offset });
        if let Some(((races, ticket), (place, offset))) = self.races.as_mut().zip(copy.ticket).zip(place) {
            races.engine_wrote(place, offset, copy.bytes as u64, ticket, copy.at.pc, Proxy::Async);
        }
        if self.grid.count {
            self.statistics.shared_stores.requests += 1;
            self.statistics.shared_stores.bytes += copy.bytes as u64;
        }
        Ok(())
    }
}
