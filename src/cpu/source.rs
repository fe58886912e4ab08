//! Where the rows of a weighted sum are read from: a staged tile, or memory.

use super::simd::{Simd, prefetch};
use super::tile::Tile;
use crate::element::Element;
use crate::rows::Rows;

/// Where the rows of a sum are read from, a vector at a time.
pub(super) trait Source<S: Simd>: Copy {
    /// A row, found once for all its vectors.
    type Row: Copy;

    fn row(self, row: usize) -> Self::Row;

    /// The columns from `column` on, a multiple of `LANES`; those beyond the row are 0.
    fn load(self, simd: S, row: Self::Row, column: usize) -> S::Vector;

    /// As [`load`](Self::load), of a whole vector within the row: a loop over such loads keeps its vectors in registers.
    fn load_whole(self, simd: S, row: Self::Row, column: usize) -> S::Vector;

    /// As [`load_whole`](Self::load_whole), of rows that come one after the other from memory, which is asked for those
    /// that follow.
    #[inline(always)]
    fn stream(self, simd: S, row: Self::Row, column: usize) -> S::Vector {
        self.load_whole(simd, row, column)
    }
}

/// How many rows ahead to ask the memory for: the four that come next. Processors foresee a stream, but not
/// across the ends of short rows: this reads a tenth to a third more per second (`cargo bench --bench max_mean`).
pub(super) const ROWS_AHEAD: usize = 4;

/// `dim` columns from `start` on of the rows from `first` on.
#[derive(Clone, Copy)]
pub(super) struct Columns<'a, E> {
    pub(super) rows: Rows<'a, E>,
    pub(super) first: usize,
    pub(super) start: usize,
    pub(super) dim: usize,
}

impl<'a, S: Simd, E: Element> Source<S> for Columns<'a, E> {
    type Row = &'a [E];

    #[inline(always)]
    fn row(self, row: usize) -> &'a [E] {
        &self.rows.row(self.first + row)[self.start..self.start + self.dim]
    }

    #[inline(always)]
    fn load(self, simd: S, row: &'a [E], column: usize) -> S::Vector {
        simd.load_slice(&row[column..])
    }

    #[inline(always)]
    fn load_whole(self, simd: S, row: &'a [E], column: usize) -> S::Vector {
        simd.load_slice(&row[column..column + S::LANES])
    }

    #[inline(always)]
    fn stream(self, simd: S, row: &'a [E], column: usize) -> S::Vector {
        let whole = &row[column..column + S::LANES];
        prefetch(whole.as_ptr().wrapping_add(ROWS_AHEAD * row.len()));
        simd.load_slice(whole)
    }
}

/// Rows of a tile from one on.
#[derive(Clone, Copy)]
pub(super) struct TileRows<'a, X> {
    pub(super) tile: &'a Tile<X>,
    pub(super) first: usize,
}

impl<'a, S: Simd, X: Element> Source<S> for TileRows<'a, X> {
    /// What follows the row's first element.
    type Row = &'a [X];

    #[inline(always)]
    fn row(self, row: usize) -> &'a [X] {
        self.tile.row(self.first + row)
    }

    #[inline(always)]
    fn load(self, simd: S, row: &'a [X], column: usize) -> S::Vector {
        let block = column / Tile::<X>::BLOCK * S::STRIP * Tile::<X>::BLOCK;
        simd.load_slice(&row[block + column % Tile::<X>::BLOCK..])
    }

    #[inline(always)]
    fn load_whole(self, simd: S, row: &'a [X], column: usize) -> S::Vector {
        let block = column / Tile::<X>::BLOCK * S::STRIP * Tile::<X>::BLOCK;
        let start = block + column % Tile::<X>::BLOCK;
        simd.load_slice(&row[start..start + S::LANES])
    }
}
