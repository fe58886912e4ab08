//! What the threads of one block share.

use super::barrier::{BARRIERS, NamedBarrier};
use crate::memory::Arena;

pub struct Block {
    pub index: [u32; 3],
    pub shared: Arena,
    pub barriers: [NamedBarrier; BARRIERS],
    /// Threads that have not exited.
    pub live: u32,
}

impl Block {
    pub fn new(shared: Arena) -> Self {
        Block { index: [0; 3], shared, barriers: Default::default(), live: 0 }
    }

    /// Forgets the block before.
    pub fn begin(&mut self, index: [u32; 3], threads: u32) {
        self.index = index;
        self.shared.clear();
        self.barriers = Default::default();
        self.live = threads;
    }
}
