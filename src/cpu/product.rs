//! The matrix product of a tile of instances and packed columns.
//!
//! A general-purpose product chooses its blocking by the number of rows, and with it the order of its
//! sums. Here every element is one chain of multiply-adds over `D`, whatever stands beside it, so that
//! an instance's scores do not depend on the call it came in. The columns are packed once.

use std::ops::Range;

use super::aligned::Aligned;
use super::simd::{Multiply, Simd};
use super::tile::{TILE_ROWS, Tile};
use crate::element::Element;

/// Vectors of columns in a panel: what one register tile is wide.
pub(super) const PANEL_VECTORS: usize = 2;

/// Blocks of a row that are multiplied in one go: their columns of a panel (24 KiB of f32 at 16 lanes)
/// stay in the first-level cache while all strips of a tile pass by.
const DEPTH_BLOCKS: usize = 12;

/// Room for the products of a tile and a panel, `[row][vector][lane]`.
pub(super) fn products<S: Simd>() -> Aligned<f32> {
    Aligned::zeroed(TILE_ROWS * PANEL_VECTORS * S::LANES)
}

/// Columns packed for [`Multiply`] `M`: for each panel and each `WIDTH` elements of a row, those
/// elements of the panel's columns, vector after vector.
#[derive(Clone)]
pub(super) struct Panels<X> {
    data: Aligned<X>,
    /// Elements of a panel.
    panel_len: usize,
    /// Those of them for one block of a row.
    block_len: usize,
}

impl<X: Element> Panels<X> {
    /// Packs `panels` panels of columns of length `dim`; `column(vector, lane)` is None where there is
    /// none, and vectors are counted through all panels.
    pub(super) fn pack<'a, M>(dim: usize, panels: usize, column: impl Fn(usize, usize) -> Option<&'a [f32]>) -> Self
    where
        M: Multiply<Staged = X>,
    {
        let lanes = M::Simd::LANES;
        let padded = dim.next_multiple_of(Tile::<X>::BLOCK);
        let panel_len = padded * PANEL_VECTORS * lanes;
        let mut data = Aligned::zeroed(panels * panel_len);
        for vector in 0..panels * PANEL_VECTORS {
            let (panel, half) = (vector / PANEL_VECTORS, vector % PANEL_VECTORS);
            for lane in 0..lanes {
                for (i, &value) in column(vector, lane).unwrap_or_default().iter().enumerate() {
                    let (step, within) = (i / M::WIDTH, i % M::WIDTH);
                    let position = (step * PANEL_VECTORS + half) * lanes + lane;
                    data[panel * panel_len + position * M::WIDTH + within] = X::from_f32(value);
                }
            }
        }
        Panels { data, panel_len, block_len: Tile::<X>::BLOCK * PANEL_VECTORS * lanes }
    }

    /// Multiplies the first `rows` rows of the tile with panel `panel`; `products` is `[row][vector][lane]`,
    /// of which whole strips are written.
    #[inline(never)]
    pub(super) fn multiply<M>(&self, m: M, tile: &Tile<X>, rows: usize, panel: usize, products: &mut [f32])
    where
        M: Multiply<Staged = X>,
    {
        m.vectorize(
            #[inline(always)]
            || self.multiply_strips(m, tile, rows, panel, products),
        );
    }

    #[inline(always)]
    fn multiply_strips<M>(&self, m: M, tile: &Tile<X>, rows: usize, panel: usize, products: &mut [f32])
    where
        M: Multiply<Staged = X>,
    {
        let strip_products = M::Simd::STRIP * PANEL_VECTORS * M::Simd::LANES;
        for start in (0..tile.blocks()).step_by(DEPTH_BLOCKS) {
            let depth = start..tile.blocks().min(start + DEPTH_BLOCKS);
            let columns = self.columns(panel, depth.clone());
            for (strip, products) in
                products.chunks_exact_mut(strip_products).take(rows.div_ceil(M::Simd::STRIP)).enumerate()
            {
                let rows = tile.strip(strip, depth.clone());
                assert_eq!(rows.len(), depth.len() * M::Simd::STRIP * Tile::<X>::BLOCK);
                assert_eq!(columns.len(), depth.len() * PANEL_VECTORS * M::Simd::LANES * Tile::<X>::BLOCK);
                // SAFETY: the slices have the lengths that `register_tile` asks for, as just asserted.
                unsafe {
                    match M::Simd::STRIP {
                        6 => register_tile::<M, 6>(m, depth.clone(), rows.as_ptr(), columns.as_ptr(), products),
                        14 => register_tile::<M, 14>(m, depth.clone(), rows.as_ptr(), columns.as_ptr(), products),
                        rows => unreachable!("no register tile of {rows} rows"),
                    }
                }
            }
        }
    }

    /// The columns of a panel at the given blocks of a row.
    fn columns(&self, panel: usize, depth: Range<usize>) -> &[X] {
        let panel = &self.data[panel * self.panel_len..(panel + 1) * self.panel_len];
        &panel[depth.start * self.block_len..depth.end * self.block_len]
    }
}

/// Adds the product of `R` rows and a panel to `products`, all sums in registers; starts them where
/// `depth` is the start of the row.
///
/// # Safety
/// `a` points to `depth` blocks of `R` rows of [`Tile::BLOCK`] elements, `b` to as many elements of
/// [`PANEL_VECTORS`]`· LANES` columns.
#[inline(always)]
unsafe fn register_tile<M: Multiply, const R: usize>(
    m: M,
    depth: Range<usize>,
    mut a: *const M::Staged,
    mut b: *const M::Staged,
    products: &mut [f32],
) {
    let simd = m.simd();
    let lanes = M::Simd::LANES;
    let vector = lanes * M::WIDTH;
    let mut sums = [[simd.splat(0.0); PANEL_VECTORS]; R];
    if depth.start > 0 {
        for (i, sum) in sums.as_flattened_mut().iter_mut().enumerate() {
            *sum = simd.load_slice(&products[i * lanes..(i + 1) * lanes]);
        }
    }
    for _ in depth {
        for step in 0..Tile::<M::Staged>::BLOCK / M::WIDTH {
            // SAFETY: within the blocks that the caller vouches for.
            unsafe {
                let columns = [m.columns(b), m.columns(b.add(vector))];
                for (r, sums) in sums.iter_mut().enumerate() {
                    let scalar = m.scalar(a.add(r * Tile::<M::Staged>::BLOCK + step * M::WIDTH));
                    sums[0] = m.multiply_add(scalar, columns[0], sums[0]);
                    sums[1] = m.multiply_add(scalar, columns[1], sums[1]);
                }
                b = b.add(PANEL_VECTORS * vector);
            }
        }
        // SAFETY: at most one past the end of what the caller vouches for.
        a = unsafe { a.add(R * Tile::<M::Staged>::BLOCK) };
    }
    for (i, sum) in sums.as_flattened().iter().enumerate() {
        simd.store_slice(&mut products[i * lanes..(i + 1) * lanes], *sum);
    }
}

#[cfg(test)]
mod tests {
    use half::bf16;

    use super::*;
    use crate::cpu::simd::{Fma, Portable};

    /// `vdpbf16ps` as its manual describes it, lane by lane: so that the packing of pairs is tested on
    /// machines without the instruction.
    #[derive(Clone, Copy)]
    struct EmulatedBf16Dot;

    impl Multiply for EmulatedBf16Dot {
        type Simd = Portable;
        type Staged = bf16;
        type Scalar = [bf16; 2];
        type Columns = [[bf16; 2]; 4];
        const WIDTH: usize = 2;

        fn simd(self) -> Portable {
            Portable
        }

        fn vectorize<R>(self, f: impl FnOnce() -> R) -> R {
            f()
        }

        unsafe fn scalar(self, from: *const bf16) -> [bf16; 2] {
            // SAFETY: the caller vouches for two elements.
            unsafe { from.cast::<[bf16; 2]>().read() }
        }

        unsafe fn columns(self, from: *const bf16) -> [[bf16; 2]; 4] {
            // SAFETY: the caller vouches for eight elements.
            unsafe { from.cast::<[[bf16; 2]; 4]>().read() }
        }

        fn multiply_add(self, scalar: [bf16; 2], columns: [[bf16; 2]; 4], acc: [f32; 4]) -> [f32; 4] {
            std::array::from_fn(|i| {
                let product = |j: usize| scalar[j].to_f32() * columns[i][j].to_f32();
                acc[i] + product(1) + product(0)
            })
        }
    }

    /// Small integers, which every format holds exactly.
    fn integer(i: usize) -> f32 {
        (i * 7 % 13) as f32 - 6.0
    }

    fn products_are_exact<M: Multiply>(m: M, dim: usize, rows: usize) {
        let columns: Vec<Vec<f32>> = (0..11).map(|c| (0..dim).map(|i| integer(i + 3 * c)).collect()).collect();
        let panels = columns.len().div_ceil(PANEL_VECTORS * M::Simd::LANES);
        let column = |vector: usize, lane: usize| columns.get(vector * M::Simd::LANES + lane).map(Vec::as_slice);
        let packed = Panels::pack::<M>(dim, panels, column);
        let instance = |row: usize| (0..dim).map(|i| integer(i * 5 + row)).collect::<Vec<_>>();
        let mut tile = Tile::<M::Staged>::new(dim, M::Simd::STRIP);
        for row in 0..rows {
            tile.stage(m.simd(), row, &instance(row));
        }
        let mut products = products::<M::Simd>();
        for panel in 0..panels {
            packed.multiply(m, &tile, rows, panel, &mut products);
            let width = PANEL_VECTORS * M::Simd::LANES;
            for (row, products) in products.chunks(width).take(rows).enumerate() {
                for (i, &product) in products.iter().enumerate() {
                    let column = columns.get(panel * width + i);
                    let expected = column.map_or(0.0, |c| c.iter().zip(instance(row)).map(|(a, b)| a * b).sum());
                    assert_eq!(product, expected, "dim {dim}, row {row} of {rows}, panel {panel}, column {i}");
                }
            }
        }
    }

    #[test]
    fn every_row_and_column_is_multiplied_once() {
        for (dim, rows) in [(1, 1), (2, 7), (31, 6), (33, 13), (200, 126), (500, 5)] {
            products_are_exact(Fma(Portable), dim, rows);
            products_are_exact(EmulatedBf16Dot, dim, rows);
            #[cfg(target_arch = "x86_64")]
            {
                use crate::cpu::simd::{Avx2, Avx512, Bf16Dot};
                Avx2::detect().into_iter().for_each(|simd| products_are_exact(Fma(simd), dim, rows));
                Avx512::detect().into_iter().for_each(|simd| products_are_exact(Fma(simd), dim, rows));
                Bf16Dot::detect().into_iter().for_each(|dot| products_are_exact(dot, dim, rows));
            }
        }
    }
}
