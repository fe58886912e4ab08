//! What a launch did, counted: for tests of coalescing and of bank conflicts, not for speed.

use std::ops::AddAssign;

use crate::memory::{GLOBAL, LOCAL};

/// Bytes of a sector, the unit in which global memory is read and written.
pub const SECTOR: u64 = 32;
/// Bytes that all banks of shared memory together give at once.
const BANKS_BYTES: usize = 128;
/// Bytes of a bank.
const BANK: u64 = 4;

/// Counts of one launch. Those of memory are 0 unless [`Launch::count`](crate::Launch::count) is set.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Statistics {
    pub warp_instructions: u64,
    /// Of lanes whose guard was true.
    pub lane_instructions: u64,
    pub global_loads: Requests,
    pub global_stores: Requests,
    pub shared_loads: Requests,
    pub shared_stores: Requests,
    /// Bytes of local memory, loaded and stored.
    pub local_bytes: u64,
    /// Bytes copied by `cp.async` and `cp.async.bulk`; those of a multicast once.
    pub copied_bytes: u64,
    /// Lanes that did an atomic.
    pub atomics: u64,
}

/// Accesses of whole warps to one space.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Requests {
    /// Instructions of warps.
    pub requests: u64,
    /// Bytes that lanes asked for.
    pub bytes: u64,
    /// Global memory: sectors that these bytes lie in, per request. 4 per 128 bytes where lanes lie side by side.
    pub sectors: u64,
    /// Shared memory: passes beyond those that the bytes need.
    pub bank_conflicts: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Traffic {
    Load,
    Store,
}

impl Statistics {
    /// One access of `size` bytes per lane, at generic addresses.
    pub(crate) fn record(&mut self, addresses: &[u64], size: usize, traffic: Traffic) {
        let Some(&first) = addresses.first() else { return };
        let bytes = (addresses.len() * size) as u64;
        let requests = match (first, traffic) {
            (GLOBAL.., Traffic::Load) => &mut self.global_loads,
            (GLOBAL.., Traffic::Store) => &mut self.global_stores,
            (LOCAL.., _) => return self.local_bytes += bytes,
            (_, Traffic::Load) => &mut self.shared_loads,
            (_, Traffic::Store) => &mut self.shared_stores,
        };
        requests.requests += 1;
        requests.bytes += bytes;
        if first >= GLOBAL {
            requests.sectors += sectors(addresses, size);
        } else {
            requests.bank_conflicts += bank_conflicts(addresses, size);
        }
    }
}

impl Statistics {
    /// One bulk copy of ranges of global memory.
    pub(crate) fn record_bulk(&mut self, ranges: &[(u64, usize)], traffic: Traffic) {
        let requests = if traffic == Traffic::Load { &mut self.global_loads } else { &mut self.global_stores };
        requests.requests += 1;
        requests.bytes += ranges.iter().map(|&(_, bytes)| bytes as u64).sum::<u64>();
        requests.sectors += ranges.iter().map(|&(from, bytes)| sectors(&[from], bytes)).sum::<u64>();
    }
}

fn sectors(addresses: &[u64], size: usize) -> u64 {
    let mut touched: Vec<u64> = addresses.iter().flat_map(|&a| a / SECTOR..=(a + size as u64 - 1) / SECTOR).collect();
    touched.sort_unstable();
    touched.dedup();
    touched.len() as u64
}

/// Lanes go together as long as their bytes would fill the banks once; each group takes as many passes as
/// there are different words in its fullest bank.
fn bank_conflicts(addresses: &[u64], size: usize) -> u64 {
    let together = (BANKS_BYTES / size).min(32);
    addresses.chunks(together).map(|group| passes(group, size).saturating_sub(1)).sum()
}

fn passes(addresses: &[u64], size: usize) -> u64 {
    let mut words: Vec<u64> = addresses.iter().flat_map(|&a| a / BANK..=(a + size as u64 - 1) / BANK).collect();
    words.sort_unstable();
    words.dedup();
    let mut in_bank = [0_u64; 32];
    for word in words {
        in_bank[word as usize % 32] += 1;
    }
    in_bank.into_iter().max().unwrap_or(0)
}

impl AddAssign for Requests {
    fn add_assign(&mut self, other: Requests) {
        self.requests += other.requests;
        self.bytes += other.bytes;
        self.sectors += other.sectors;
        self.bank_conflicts += other.bank_conflicts;
    }
}

impl AddAssign for Statistics {
    fn add_assign(&mut self, other: Statistics) {
        self.warp_instructions += other.warp_instructions;
        self.lane_instructions += other.lane_instructions;
        self.global_loads += other.global_loads;
        self.global_stores += other.global_stores;
        self.shared_loads += other.shared_loads;
        self.shared_stores += other.shared_stores;
        self.local_bytes += other.local_bytes;
        self.copied_bytes += other.copied_bytes;
        self.atomics += other.atomics;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lanes(address: impl Fn(u64) -> u64) -> Vec<u64> {
        (0..32).map(address).collect()
    }

    #[test]
    fn sectors_of_a_warp() {
        assert_eq!(sectors(&lanes(|lane| GLOBAL + 4 * lane), 4), 4);
        assert_eq!(sectors(&lanes(|lane| GLOBAL + 16 + 4 * lane), 4), 5);
        assert_eq!(sectors(&lanes(|lane| GLOBAL + 16 * lane), 16), 16);
        assert_eq!(sectors(&lanes(|lane| GLOBAL + 1024 * lane), 4), 32);
        assert_eq!(sectors(&lanes(|_| GLOBAL), 4), 1);
    }

    #[test]
    fn conflicts_of_a_warp() {
        assert_eq!(bank_conflicts(&lanes(|lane| 4 * lane), 4), 0);
        assert_eq!(bank_conflicts(&lanes(|_| 64), 4), 0);
        assert_eq!(bank_conflicts(&lanes(|lane| 8 * lane), 4), 1);
        assert_eq!(bank_conflicts(&lanes(|lane| 128 * lane), 4), 31);
        assert_eq!(bank_conflicts(&lanes(|lane| 8 * lane), 8), 0);
        assert_eq!(bank_conflicts(&lanes(|lane| 16 * lane), 16), 0);
        // Rows of 80 bytes, as padded tiles for ldmatrix have them.
        assert_eq!(bank_conflicts(&lanes(|lane| 80 * lane), 16), 0);
        assert_eq!(bank_conflicts(&lanes(|lane| 64 * lane), 16), 4 * 3);
    }
}
