//! The work list that `kernels/prepare.cu` makes of the offsets: which chunks of which bags there are.

use super::abi::{self, MivcCounters, MivcItem, MivcPrepare, MivcWorkList};
use super::scratch::{Layout, Part};
use super::{Launch, MAX_GRID_X, Parameters, Step};
use crate::error::{Error, Result};

/// The most that a plan will be used with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Capacity {
    /// N.
    pub instances: usize,
    /// B.
    pub bags: usize,
}

/// Offsets on the device, `[B + 1]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Offsets {
    /// i32, as `cu_seqlens` are.
    I32(u64),
    /// i64.
    I64(u64),
}

/// A work list of a certain capacity in scratch memory.
#[derive(Debug, Clone, Copy)]
pub(super) struct WorkList {
    capacity: Capacity,
    chunk_rows: usize,
    /// Whether all work is listed, neighbouring bags that fit a chunk together as one item.
    packs_bags: bool,
    items: usize,
    nodes: usize,
    ranges: Part,
    item_list: Part,
    first_nodes: Part,
    tickets: Part,
    counters: Part,
}

impl WorkList {
    /// Lays out a list for chunks that at most `tiles` teams share.
    pub(super) fn plan(capacity: Capacity, tiles: usize, layout: &mut Layout) -> Result<Self> {
        Self::place(capacity, CHUNK_ROWS, false, tiles, layout)
    }

    /// The same for chunks of so many rows.
    pub(super) fn plan_chunks(
        capacity: Capacity,
        chunk_rows: usize,
        tiles: usize,
        layout: &mut Layout,
    ) -> Result<Self> {
        Self::place(capacity, chunk_rows, false, tiles, layout)
    }

    /// Lays out a list for chunks of so many rows, a team for each, and for bags that share one where they can.
    pub(super) fn plan_packed(capacity: Capacity, chunk_rows: usize, layout: &mut Layout) -> Result<Self> {
        Self::place(capacity, chunk_rows, true, 1, layout)
    }

    fn place(
        capacity: Capacity,
        chunk_rows: usize,
        packs_bags: bool,
        tiles: usize,
        layout: &mut Layout,
    ) -> Result<Self> {
        let most_work = capacity.bags.saturating_add(most_items(capacity.instances, chunk_rows));
        if most_work > MAX_GRID_X {
            let expected = format!("bags + instances / {chunk_rows} of at most {MAX_GRID_X}");
            return Err(Error::argument("capacity", expected, most_work));
        }
        let items = if packs_bags { most_work } else { most_items(capacity.instances, chunk_rows) };
        let nodes = most_nodes(capacity.instances, chunk_rows);
        let mut place = || {
            Some(WorkList {
                capacity,
                chunk_rows,
                packs_bags,
                items,
                nodes,
                ranges: layout.part(capacity.bags + 1, size_of::<i64>())?,
                item_list: layout.part(items, size_of::<MivcItem>())?,
                first_nodes: layout.part(capacity.bags, size_of::<i64>())?,
                tickets: layout.part(nodes.checked_mul(tiles)?, size_of::<u32>())?,
                counters: layout.part(1, size_of::<MivcCounters>())?,
            })
        };
        place().ok_or_else(|| too_large(capacity))
    }

    /// Nodes of the merge trees, for which an operation needs room for partial results.
    pub(super) fn nodes(&self) -> usize {
        self.nodes
    }

    /// Teams at most, or items of a list that packs bags.
    pub(super) fn most_items(&self, call: Capacity) -> usize {
        call.bags + most_items(call.instances, self.chunk_rows)
    }

    /// Teams that cover every chunk of [`CHUNK_ROWS`], whatever the offsets turn out to be.
    pub(super) fn teams(call: Capacity) -> u32 {
        (call.bags + most_items(call.instances, CHUNK_ROWS)) as u32
    }

    /// Whether any bag can have several chunks.
    pub(super) fn has_long_bags(&self, call: Capacity) -> bool {
        call.instances > self.chunk_rows
    }

    /// What kernels get to know of the list.
    pub(super) fn parameters(&self, bags: usize, tiles: usize, scratch: u64) -> MivcWorkList {
        MivcWorkList {
            ranges: self.ranges.at(scratch),
            items: self.item_list.at(scratch),
            first_nodes: self.first_nodes.at(scratch),
            tickets: self.tickets.at(scratch),
            counters: self.counters.at(scratch),
            bags: bags as i64,
            item_capacity: self.items as i64,
            node_capacity: self.nodes as i64,
            tiles: tiles as i64,
            chunk_rows: self.chunk_rows as i64,
        }
    }

    /// What makes the list.
    pub(super) fn steps(&self, list: MivcWorkList, call: Capacity, offsets: Offsets) -> [Step; 2] {
        let (offsets, offsets_bytes) = match offsets {
            Offsets::I32(address) => (address, 4),
            Offsets::I64(address) => (address, 8),
        };
        let threads = abi::MIVC_PREPARE_THREADS as usize;
        let [least, most] = [abi::MIVC_PREPARE_LEAST_BAGS_PER_THREAD, abi::MIVC_PREPARE_MOST_BAGS_PER_THREAD];
        let bags_per_thread = call.bags.div_ceil(threads).clamp(least as usize, most as usize);
        let blocks = call.bags.div_ceil(threads * bags_per_thread);
        let parameters = MivcPrepare {
            list,
            offsets,
            instances: call.instances as i64,
            bags_per_thread: bags_per_thread as i64,
            offsets_bytes,
            packs_bags: u32::from(self.packs_bags),
        };
        [
            Step::Clear { address: list.counters, bytes: size_of::<MivcCounters>() },
            Step::Launch(Launch {
                image: "prepare",
                kernel: "mivc_prepare",
                grid: [blocks as u32, 1, 1],
                block: [threads as u32, 1, 1],
                shared_bytes: 0,
                tensor_maps: None,
                parameters: Parameters::Prepare(parameters),
            }),
        ]
    }

    /// A call must not be larger than the plan.
    pub(super) fn expect(&self, call: Capacity) -> Result<()> {
        for (argument, most, got) in
            [("instances", self.capacity.instances, call.instances), ("bags", self.capacity.bags, call.bags)]
        {
            if got > most {
                return Err(Error::argument(argument, format!("at most the {most} that were planned for"), got));
            }
        }
        Ok(())
    }
}

pub(super) fn too_large(capacity: Capacity) -> Error {
    let Capacity { instances, bags } = capacity;
    Error::argument("capacity", "scratch memory that fits the address space", format!("{instances} × {bags}"))
}

/// Rows of a chunk where an operation has no other.
const CHUNK_ROWS: usize = abi::MIVC_CHUNK_ROWS as usize;

/// Chunks other than the first of each bag: a bag of n rows has ⌈n/C⌉ − 1 ≤ n/C of them.
fn most_items(instances: usize, chunk_rows: usize) -> usize {
    instances / chunk_rows
}

/// Nodes of all merge trees. A bag of c > 1 chunks of C rows has more than (c − 1)·C rows; its tree has c leaves and
/// at most c/2 nodes above them. Most nodes for their rows have bags of two chunks, 3 for C + 1 rows.
fn most_nodes(instances: usize, chunk_rows: usize) -> usize {
    (3 * instances as u128 / (chunk_rows as u128 + 1)) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As `work_list.cuh` counts them.
    fn nodes_of(rows: usize, chunk_rows: usize) -> usize {
        let chunks = rows.div_ceil(chunk_rows).max(1);
        let (mut nodes, mut level) = (chunks, chunks);
        while level > 1 {
            level = level.div_ceil(abi::MIVC_MERGE_RADIX as usize);
            nodes += level;
        }
        if chunks > 1 { nodes } else { 0 }
    }

    #[test]
    fn there_is_room_for_the_tree_of_any_bag() {
        for chunk_rows in [32, 64, 128, CHUNK_ROWS, abi::MIVC_EXACT_CHUNK_ROWS as usize] {
            for rows in (0..40 * chunk_rows).chain((40..40_000).map(|i| i * 97)) {
                assert!(nodes_of(rows, chunk_rows) <= most_nodes(rows, chunk_rows), "{rows} rows");
                assert!(rows.div_ceil(chunk_rows).max(1) - 1 <= most_items(rows, chunk_rows), "{rows} rows");
            }
        }
    }

    #[test]
    fn a_grid_has_an_end() {
        let capacity = Capacity { instances: 0, bags: 1 << 31 };
        assert!(WorkList::plan(capacity, 1, &mut Layout::default()).is_err());
        let capacity = Capacity { instances: usize::MAX, bags: 0 };
        assert!(WorkList::plan(capacity, 1, &mut Layout::default()).is_err());
    }
}
