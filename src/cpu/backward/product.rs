//! The product of the gradients of columns and the features of a tile's instances: for each column of the parameters and
//! each feature, the sum over the instances.

use super::super::aligned::Aligned;
use super::super::simd::Simd;
use super::super::tile::{TILE_ROWS, Tile};

/// Columns and vectors of features of the register tile: as many as leave registers for the features and two broadcasts.
const fn register_tile<S: Simd>() -> (usize, usize) {
    if S::STRIP == 14 { (8, 3) } else { (6, 2) }
}

/// Gradients of the columns, row by row: what is beside each other in a row is multiplied at once.
pub(super) struct Columns {
    /// An odd number of cache lines from a row to the next, so that a column is not in the same set for all rows.
    rows: Aligned<f32>,
    stride: usize,
}

/// Columns that a register tile may read beyond the last.
const OVERHANG: usize = 7;

impl Columns {
    pub(super) fn new(columns: usize) -> Self {
        let stride = (columns + OVERHANG).next_multiple_of(32) + 16;
        Columns { rows: Aligned::zeroed(TILE_ROWS * stride), stride }
    }

    /// Some elements of a row from `column` on.
    #[inline(always)]
    pub(super) fn lanes_mut(&mut self, row: usize, column: usize, count: usize) -> &mut [f32] {
        let start = row * self.stride + column;
        &mut self.rows[start..start + count]
    }
}

/// Σ_n c[n] ⊗ h[n] of columns c, in groups, and features h.
pub(super) struct OuterSums {
    /// `[panels of features][groups][strips of columns][columns][vectors][LANES]`.
    sums: Aligned<f32>,
    dim: usize,
    groups: usize,
    /// Columns of a group, and those that they are padded to, whole strips.
    columns: usize,
    padded: usize,
}

impl OuterSums {
    pub(super) fn new<S: Simd>(dim: usize, groups: usize, columns: usize) -> Self {
        let (strip, vectors) = register_tile::<S>();
        let padded = columns.next_multiple_of(strip);
        let features = dim.next_multiple_of(vectors * S::LANES);
        OuterSums { sums: Aligned::zeroed(features * groups * padded), dim, groups, columns, padded }
    }

    pub(super) fn merge(&mut self, other: &OuterSums) {
        self.sums.iter_mut().zip(other.sums.iter()).for_each(|(sum, other)| *sum += other);
    }

    /// Adds the products of the given rows for the columns of a group. Nothing else is read.
    #[inline(never)]
    pub(super) fn add<S: Simd>(
        &mut self,
        simd: S,
        rows: &[usize],
        features: &Tile<f32>,
        columns: &Columns,
        group: usize,
    ) {
        let at = |&row: &usize| Row { features: features.start(row, 0), columns: row * columns.stride };
        let rows: Vec<Row> = rows.iter().map(at).collect();
        let end = (group + 1) * self.columns + OVERHANG;
        let are_held = |row: &Row| features.has(row.features, self.dim) && row.columns + end <= columns.rows.len();
        assert!(group < self.groups && rows.iter().all(are_held));
        simd.vectorize(
            #[inline(always)]
            // SAFETY: as just asserted.
            || unsafe {
                match register_tile::<S>() {
                    (8, 3) => self.add_strips::<S, 8, 3>(simd, &rows, features, columns, group),
                    (6, 2) => self.add_strips::<S, 6, 2>(simd, &rows, features, columns, group),
                    (columns, vectors) => unreachable!("no register tile of {columns} columns and {vectors} vectors"),
                }
            },
        );
    }

    /// # Safety
    /// `features` holds the rows, and `columns` those of the group and [`OVERHANG`] more of each row.
    #[inline(always)]
    unsafe fn add_strips<S: Simd, const R: usize, const V: usize>(
        &mut self,
        simd: S,
        rows: &[Row],
        features: &Tile<f32>,
        columns: &Columns,
        group: usize,
    ) {
        const { assert!(R <= OVERHANG + 1 && Tile::<f32>::BLOCK.is_multiple_of(S::LANES)) };
        let strip_len = R * V * S::LANES;
        let group_len = self.padded / R * strip_len;
        for (panel, sums) in self.sums.chunks_exact_mut(self.groups * group_len).enumerate() {
            let mut from = [features.as_ptr(); V];
            for (vector, from) in from.iter_mut().enumerate() {
                // Beyond the last feature the first are taken, for sums that nobody reads.
                let feature = (panel * V + vector) * S::LANES;
                *from = from.wrapping_add(features.offset(if feature < self.dim { feature } else { 0 }));
            }
            let sums = &mut sums[group * group_len..(group + 1) * group_len];
            for (strip, sums) in sums.chunks_exact_mut(strip_len).enumerate() {
                let first = columns.rows.as_ptr().wrapping_add(group * self.columns + strip * R);
                // SAFETY: the caller vouches that both hold the rows. A vector of features begins at a multiple of its
                // length, which divides that of a block, and so does not leave it; a strip begins at one of the group's
                // columns and ends at most R − 1 behind the last.
                unsafe { add_tile::<S, R, V>(simd, rows, first, from, sums) };
            }
        }
    }

    /// The sums of a column, `[D]`, in pieces with the feature that each begins at.
    pub(super) fn column<S: Simd>(&self, column: usize) -> impl Iterator<Item = (usize, &[f32])> {
        let (_, vectors) = register_tile::<S>();
        let width = vectors * S::LANES;
        let row = column / self.columns * self.padded + column % self.columns;
        let panels = self.sums.chunks_exact(width * self.groups * self.padded).enumerate();
        panels.map(move |(panel, sums)| {
            let first = panel * width;
            (first, &sums[row * width..][..width.min(self.dim - first)])
        })
    }
}

/// Where an instance is among the features and the columns.
#[derive(Debug, Clone, Copy)]
struct Row {
    features: usize,
    columns: usize,
}

/// Adds the products of `R` columns and `V` vectors of features to `sums`, `[R][V][LANES]`, all in registers.
///
/// # Safety
/// At `columns` with the offset of each row `R` elements are readable, and at each of `features` with it a vector.
#[inline(always)]
unsafe fn add_tile<S: Simd, const R: usize, const V: usize>(
    simd: S,
    rows: &[Row],
    columns: *const f32,
    features: [*const f32; V],
    sums: &mut [f32],
) {
    let mut totals = [[simd.splat(0.0); V]; R];
    for (total, sums) in totals.as_flattened_mut().iter_mut().zip(sums.chunks_exact(S::LANES)) {
        *total = simd.load_slice(sums);
    }
    for row in rows {
        let mut x = [simd.splat(0.0); V];
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
        let (groups, group_columns) = (3, 2 * S::LANES);
        let columns = groups * group_columns;
        let (mut features, mut scalars) = (Tile::<f32>::new(dim, S::STRIP), Columns::new(columns));
        let feature = |row, d| integer(row * 5 + d);
        let scalar = |row, c| integer(row * 3 + 2 * c);
        for row in 0..rows {
            // Rows that are not named are NaN.
            let of = |x: f32| if row % 3 == 1 { f32::NAN } else { x };
            features.stage(simd, row, &(0..dim).map(|d| of(feature(row, d))).collect::<Vec<_>>());
            for (c, to) in scalars.lanes_mut(row, 0, columns).iter_mut().enumerate() {
                *to = of(scalar(row, c));
            }
        }
        let named: Vec<usize> = (0..rows).filter(|row| row % 3 != 1).collect();
        let mut sums = OuterSums::new::<S>(dim, groups, group_columns);
        for group in [1, 2] {
            sums.add(simd, &named, &features, &scalars, group);
        }
        sums.add(simd, &named[..1], &features, &scalars, 1);
        for column in 0..columns {
            let sums: Vec<f32> = sums.column::<S>(column).flat_map(|(_, sums)| sums).copied().collect();
            let expected = |d| {
                let product = |row| scalar(row, column) * feature(row, d);
                let again = if column / group_columns == 1 { product(named[0]) } else { 0.0 };
                named.iter().map(|&row| product(row)).sum::<f32>() + again
            };
            let expected = |d| if column / group_columns > 0 { expected(d) } else { 0.0 };
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
