//! The product of a tile of instances with itself: for each column of the parameters and each feature, the sum over the
//! instances.

use super::super::aligned::Aligned;
use super::super::simd::Simd;
use super::super::tile::Tile;

/// Vectors of features in a panel.
const VECTORS: usize = 3;

/// Columns of the register tile: as many as leave registers for the features and one broadcast. A divisor of the columns
/// of each vector.
const fn strip<S: Simd>() -> usize {
    if S::STRIP == 14 { 8 } else { 4 }
}

/// Where an instance is in two tiles.
#[derive(Debug, Clone, Copy)]
pub(super) struct Row {
    features: usize,
    columns: usize,
}

impl Row {
    pub(super) fn new(features: &Tile<f32>, columns: &Tile<f32>, row: usize) -> Self {
        Row { features: features.start(row, 0), columns: columns.start(row, 0) }
    }
}

/// Σ_n c[n] ⊗ h[n] of columns c and features h, `[panels of features][strips of columns][columns][features]`.
pub(super) struct OuterSums {
    sums: Aligned<f32>,
    dim: usize,
    columns: usize,
}

impl OuterSums {
    pub(super) fn new<S: Simd>(dim: usize, columns: usize) -> Self {
        let sums = Aligned::zeroed(dim.div_ceil(VECTORS * S::LANES) * VECTORS * S::LANES * columns);
        OuterSums { sums, dim, columns }
    }

    pub(super) fn merge(&mut self, other: &OuterSums) {
        self.sums.iter_mut().zip(other.sums.iter()).for_each(|(sum, other)| *sum += other);
    }

    /// Adds the products of the given rows, for columns `first` to `last`, multiples of the lanes. Nothing else is read.
    #[inline(never)]
    pub(super) fn add<S: Simd>(
        &mut self,
        simd: S,
        rows: &[Row],
        features: &Tile<f32>,
        columns: &Tile<f32>,
        [first, last]: [usize; 2],
    ) {
        let (strip, panel_len) = (strip::<S>(), VECTORS * S::LANES * self.columns);
        assert!(rows.iter().all(|row| columns.has(row.columns, last) && features.has(row.features, self.dim)));
        simd.vectorize(
            #[inline(always)]
            || {
                for (panel, sums) in self.sums.chunks_exact_mut(panel_len).enumerate() {
                    let mut from = [features.as_ptr(); VECTORS];
                    for (vector, from) in from.iter_mut().enumerate() {
                        // Beyond the last feature the first are taken, for sums that nobody reads.
                        let feature = (panel * VECTORS + vector) * S::LANES;
                        *from = from.wrapping_add(features.offset(if feature < self.dim { feature } else { 0 }));
                    }
                    for column in (first..last).step_by(strip) {
                        let sums = &mut sums[column * VECTORS * S::LANES..][..strip * VECTORS * S::LANES];
                        let scalars = columns.as_ptr().wrapping_add(columns.offset(column));
                        // SAFETY: as asserted, both tiles hold the rows; a vector of features begins at a multiple of
                        // its length, and so does a strip, and blocks are a multiple of both, so that neither leaves
                        // the block that it begins in.
                        unsafe {
                            match strip {
                                8 => register_tile::<S, 8>(simd, rows, scalars, from, sums),
                                4 => register_tile::<S, 4>(simd, rows, scalars, from, sums),
                                strip => unreachable!("no register tile of {strip} columns"),
                            }
                        }
                    }
                }
            },
        );
    }

    /// The sums of a column, `[D]`, in pieces with the feature that each begins at.
    pub(super) fn column<S: Simd>(&self, column: usize) -> impl Iterator<Item = (usize, &[f32])> {
        let width = VECTORS * S::LANES;
        let panels = self.sums.chunks_exact(width * self.columns).enumerate();
        panels.map(move |(panel, sums)| {
            let first = panel * width;
            (first, &sums[column * width..][..width.min(self.dim - first)])
        })
    }
}

/// Adds the products of `R` columns and a panel of features to `sums`, `[R][VECTORS][LANES]`, all in registers.
///
/// # Safety
/// At `columns` with the offset of each row `R` elements are readable, and at each of `features` with it a vector.
#[inline(always)]
unsafe fn register_tile<S: Simd, const R: usize>(
    simd: S,
    rows: &[Row],
    columns: *const f32,
    features: [*const f32; VECTORS],
    sums: &mut [f32],
) {
    let mut totals = [[simd.splat(0.0); VECTORS]; R];
    for (total, sums) in totals.as_flattened_mut().iter_mut().zip(sums.chunks_exact(S::LANES)) {
        *total = simd.load_slice(sums);
    }
    for row in rows {
        let mut x = [simd.splat(0.0); VECTORS];
        for (x, features) in x.iter_mut().zip(features) {
            // SAFETY: the caller vouches for it.
            *x = unsafe { simd.load_f32(features.add(row.features)) };
        }
        for (r, totals) in totals.iter_mut().enumerate() {
            // SAFETY: the caller vouches for it.
            let scalar = simd.splat(unsafe { *columns.add(row.columns + r) });
            for (total, &x) in totals.iter_mut().zip(&x) {
                *total = simd.mul_add(scalar, x, *total);
            }
        }
    }
    for (total, sums) in totals.as_flattened().iter().zip(sums.chunks_exact_mut(S::LANES)) {
        simd.store_slice(sums, *total);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::{Cpu, Isa, with_simd};

    /// Small integers, which f32 sums exactly.
    fn integer(i: usize) -> f32 {
        (i * 7 % 13) as f32 - 6.0
    }

    fn sums_are_exact<S: Simd>(simd: S, dim: usize, rows: usize) {
        let columns = 3 * 2 * S::LANES;
        let (mut features, mut scalars) = (Tile::<f32>::new(dim, S::STRIP), Tile::<f32>::new(columns, S::STRIP));
        let feature = |row, d| integer(row * 5 + d);
        let scalar = |row, c| integer(row * 3 + 2 * c);
        for row in 0..rows {
            // Rows that are not named are NaN.
            let of = |x: f32| if row % 3 == 1 { f32::NAN } else { x };
            features.stage(simd, row, &(0..dim).map(|d| of(feature(row, d))).collect::<Vec<_>>());
            scalars.stage(simd, row, &(0..columns).map(|c| of(scalar(row, c))).collect::<Vec<_>>());
        }
        let named: Vec<usize> = (0..rows).filter(|row| row % 3 != 1).collect();
        let at: Vec<Row> = named.iter().map(|&row| Row::new(&features, &scalars, row)).collect();
        let mut sums = OuterSums::new::<S>(dim, columns);
        let range = [2 * S::LANES, 6 * S::LANES];
        sums.add(simd, &at, &features, &scalars, range);
        sums.add(simd, &at[..1], &features, &scalars, range);
        for column in 0..columns {
            let sums: Vec<f32> = sums.column::<S>(column).flat_map(|(_, sums)| sums).copied().collect();
            let expected = |d| {
                let product = |row| scalar(row, column) * feature(row, d);
                named.iter().map(|&row| product(row)).sum::<f32>() + product(named[0])
            };
            let expected = |d| if (range[0]..range[1]).contains(&column) { expected(d) } else { 0.0 };
            assert_eq!(sums, (0..dim).map(expected).collect::<Vec<_>>(), "{dim} features, column {column}");
        }
    }

    #[test]
    fn every_column_and_feature_is_summed_over_the_rows_that_are_named() {
        for cpu in [Isa::Portable, Isa::Avx2, Isa::Avx512].into_iter().filter_map(Cpu::with_isa) {
            for (dim, rows) in [(1, 1), (16, 6), (33, 15), (100, 126)] {
                with_simd!(cpu, |simd| sums_are_exact(simd, dim, rows));
            }
        }
    }
}
