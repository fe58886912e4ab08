//! Where things lie: one address space that holds global, shared and local memory, as generic pointers
//! see it.
//!
//! Global buffer `i` begins at `GLOBAL + (i << 36)`: one shift finds it, and an overrun of any length below
//! 64 GiB has an exact distance. Shared and local addresses are offsets in their own window.

mod arena;
mod global;

pub use arena::{Arena, Layout, Placed, lay_out};
pub use global::{Buffer, Global};

/// Generic addresses from here on are global buffers.
pub const GLOBAL: u64 = 0x1000_0000_0000;
/// log2 of the bytes between the beginnings of two buffers.
pub const BUFFER_BITS: u32 = 36;
/// Generic address of offset 0 of the parameters.
pub const PARAM: u64 = 0x0080_0000_0000;
/// Generic address of offset 0 of a block's shared memory.
pub const SHARED: u64 = 0x0100_0000_0000;
/// Generic address of offset 0 of a thread's local memory.
pub const LOCAL: u64 = 0x0200_0000_0000;
/// Bytes of the windows of parameters, shared and local memory.
pub const WINDOW: u64 = 1 << 32;

/// log2 of the bytes of shared memory that belong to one block of a cluster: below, each block sees its own.
const RANK_BITS: u32 = 24;

/// The address in the shared window of an offset in the shared memory of a block of the cluster.
pub fn mapped(rank: usize, offset: u64) -> u64 {
    (rank as u64 + 1) << RANK_BITS | offset
}

/// The reverse of [`mapped`]: no rank for the block's own memory.
pub fn unmapped(offset: u64) -> (Option<usize>, u64) {
    let rank = (offset >> RANK_BITS) as usize;
    (rank.checked_sub(1), offset & ((1 << RANK_BITS) - 1))
}

/// Bytes of shared memory that a block can have, as on the devices that have most.
pub const MAX_SHARED: u64 = 227 << 10;
/// Bytes of local memory that a thread can have.
pub const MAX_LOCAL: u64 = 512 << 10;

/// Up to 16 bytes as little-endian words: what one lane loads or stores at once.
pub type Value = [u32; 4];

/// Address spaces of loads and stores.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Space {
    Global,
    /// Of the own block.
    Shared,
    /// Of any block of the cluster.
    SharedCluster,
    Local,
    /// Parameters of the kernel, read only.
    Param,
    Generic,
}

/// What an access does wrong at an address, apart from races.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Misuse {
    OutOfBounds,
    Misaligned,
    Uninitialised,
    /// A plain access to an mbarrier object.
    Barrier,
}

/// Words of some memory, by their number.
pub trait Words {
    fn word(&self, i: usize) -> u32;
    fn set_word(&mut self, i: usize, value: u32);

    /// Replaces the bits of `mask`.
    fn set_bits(&mut self, i: usize, value: u32, mask: u32) {
        self.set_word(i, self.word(i) & !mask | value & mask);
    }
}

/// `size` bytes at a byte offset that is a multiple of their alignment.
#[inline(always)]
pub fn load(words: &(impl Words + ?Sized), offset: usize, size: usize) -> Value {
    let first = offset / 4;
    match size {
        4 => [words.word(first), 0, 0, 0],
        8 => [words.word(first), words.word(first + 1), 0, 0],
        16 => std::array::from_fn(|i| words.word(first + i)),
        _ => [words.word(first) >> (offset % 4 * 8) & low_bytes(size), 0, 0, 0],
    }
}

/// The reverse of [`load`].
#[inline(always)]
pub fn store(words: &mut (impl Words + ?Sized), offset: usize, size: usize, value: Value) {
    let first = offset / 4;
    if size >= 4 {
        for (i, &word) in value[..size / 4].iter().enumerate() {
            words.set_word(first + i, word);
        }
    } else {
        let shift = offset % 4 * 8;
        words.set_bits(first, value[0] << shift, low_bytes(size) << shift);
    }
}

/// A word whose lowest `size` bytes, below 4, are ones.
fn low_bytes(size: usize) -> u32 {
    (1 << (8 * size)) - 1
}

impl Words for [u32] {
    #[inline(always)]
    fn word(&self, i: usize) -> u32 {
        self[i]
    }

    #[inline(always)]
    fn set_word(&mut self, i: usize, value: u32) {
        self[i] = value;
    }
}
