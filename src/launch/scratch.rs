//! Where things lie in scratch memory.

/// Scratch memory, and every part of it, begins at a multiple of this, as whole allocations do.
pub const SCRATCH_ALIGN: usize = 256;

/// A part of the scratch memory: bytes from its beginning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Part(usize);

impl Part {
    /// Its address, given that of the scratch memory.
    pub(super) fn at(self, scratch: u64) -> u64 {
        scratch + self.0 as u64
    }
}

/// Places parts one behind the other.
#[derive(Debug, Default)]
pub(super) struct Layout {
    bytes: usize,
}

impl Layout {
    /// Room for `count` elements of `size` bytes; None where that is beyond the address space.
    pub(super) fn part(&mut self, count: usize, size: usize) -> Option<Part> {
        let start = self.bytes.checked_next_multiple_of(SCRATCH_ALIGN)?;
        self.bytes = count.checked_mul(size)?.checked_add(start).filter(|&end| end <= isize::MAX as usize)?;
        Some(Part(start))
    }

    /// Bytes of all parts.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }
}
