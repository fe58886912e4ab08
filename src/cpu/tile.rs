//! A tile of instances, laid out for the product.

use std::ops::Range;

use super::aligned::Aligned;
use super::simd::Simd;
use crate::element::Element;

/// Rows of a tile, and the most that a bag adds to one: longer bags are split into chunks of this
/// many rows, counted from their own first row.
///
/// A multiple of the rows of each register tile (14 and 6), so that a full tile pads nothing.
pub(super) const TILE_ROWS: usize = 126;

/// Bytes of one row that lie together: a cache line.
pub(super) const BLOCK_BYTES: usize = 64;

/// Staged instances: strips of `strip` rows (the rows of a register tile), within a strip blocks of
/// one cache line per row. So the product walks a strip with one pointer, whatever `D` is, and the
/// weighted sum finds the same columns of neighbouring rows side by side. Columns beyond `D` are 0.
pub(super) struct Tile<X> {
    data: Aligned<X>,
    strip: usize,
    /// Blocks per row.
    blocks: usize,
}

impl<X: Element> Tile<X> {
    /// Elements of a block.
    pub(super) const BLOCK: usize = BLOCK_BYTES / size_of::<X>();

    pub(super) fn new(dim: usize, strip: usize) -> Self {
        let blocks = dim.div_ceil(Self::BLOCK);
        Tile { data: Aligned::zeroed(TILE_ROWS * blocks * Self::BLOCK), strip, blocks }
    }

    pub(super) fn blocks(&self) -> usize {
        self.blocks
    }

    /// The first element of a block of a row.
    #[inline(always)]
    pub(super) fn start(&self, row: usize, block: usize) -> usize {
        let (strip, row) = (row / self.strip, row % self.strip);
        ((strip * self.blocks + block) * self.strip + row) * Self::BLOCK
    }

    /// Block `block` of row `row`.
    #[inline(always)]
    pub(super) fn block_mut(&mut self, row: usize, block: usize) -> &mut [X] {
        let start = self.start(row, block);
        &mut self.data[start..start + Self::BLOCK]
    }

    /// The given blocks of the rows of strip `strip`.
    pub(super) fn strip(&self, strip: usize, blocks: Range<usize>) -> &[X] {
        let len = self.strip * Self::BLOCK;
        let start = strip * self.blocks * len;
        &self.data[start + blocks.start * len..start + blocks.end * len]
    }

    /// Copies or converts an instance into row `row`. Columns beyond it stay the zeros they are.
    #[inline(always)]
    pub(super) fn stage<S: Simd, E: Element>(&mut self, simd: S, row: usize, instance: &[E]) {
        for (block, from) in instance.chunks(Self::BLOCK).enumerate() {
            let to = &mut self.block_mut(row, block)[..from.len()];
            if E::DTYPE == X::DTYPE {
                // SAFETY: Element is sealed, and equal DTYPEs are the same type; `to` is as long.
                unsafe { from.as_ptr().cast::<X>().copy_to_nonoverlapping(to.as_mut_ptr(), to.len()) };
                continue;
            }
            for (from, to) in from.chunks(S::LANES).zip(to.chunks_mut(S::LANES)) {
                simd.store_slice(to, simd.load_slice(from));
            }
        }
    }

    /// Makes row `row` a row of zeros.
    #[inline(always)]
    pub(super) fn clear(&mut self, row: usize) {
        for block in 0..self.blocks {
            self.block_mut(row, block).fill(X::default());
        }
    }

    /// How far element `column` of a row is from its first.
    #[inline(always)]
    pub(super) fn offset(&self, column: usize) -> usize {
        column / Self::BLOCK * self.strip * Self::BLOCK + column % Self::BLOCK
    }

    /// Some elements of row `row` from `column` on, all in one block.
    #[inline(always)]
    pub(super) fn lanes_mut(&mut self, row: usize, column: usize, count: usize) -> &mut [X] {
        let start = self.start(row, 0) + self.offset(column);
        &mut self.data[start..start + count]
    }

    /// Whether the first `dim` elements of a row, and the rest of their last block, lie in the tile where its first is
    /// at `start`.
    pub(super) fn has(&self, start: usize, dim: usize) -> bool {
        start + self.offset(dim.next_multiple_of(Self::BLOCK) - 1) < self.data.len()
    }

    pub(super) fn as_ptr(&self) -> *const X {
        self.data.as_ptr()
    }

    /// Row `row` from its first element on: block `i` starts `i · strip · BLOCK` elements further.
    #[inline(always)]
    pub(super) fn row(&self, row: usize) -> &[X] {
        &self.data[self.start(row, 0)..]
    }
}
