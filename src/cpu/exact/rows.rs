//! Rows of a weighted sum, added to integers.

use std::ops::Range;

use super::super::simd::{LIMB_ZEROS, MAX_LANES, Simd};
use super::super::source::Source;
use crate::exact::bins::{Bin, Bins};
use crate::exact::sum::{ANY_SCORE, COLUMN_GROUP, Sum, column_groups};
use crate::exact::terms::{LIMB, Power, Scale};

/// A row of a sum, and the score its weight is from.
#[derive(Clone, Copy)]
pub(super) struct Weighted {
    /// Of the source.
    pub(super) row: usize,
    pub(super) weight: Weight,
    pub(super) score: f32,
}

#[derive(Clone, Copy)]
pub(super) enum Weight {
    Finite(Power),
    /// Infinite or NaN.
    Special(f32),
}

impl Weighted {
    /// Of a weight that is no exponential; none where it is 0.
    pub(super) fn given(row: usize, weight: f32) -> Option<Weighted> {
        let weight = match weight {
            0.0 => return None,
            1.0 => Weight::Finite(Power::ONE),
            weight if weight.is_finite() => Weight::Finite(Power::of(weight)),
            weight => Weight::Special(weight),
        };
        Some(Weighted { row, weight, score: ANY_SCORE })
    }
}

/// A row as its source finds it, and what it is multiplied with.
#[derive(Clone, Copy)]
struct Scaled<Row> {
    row: Row,
    scale: Scale,
}

/// Exponents from the greatest of some rows down: what is below is in none of the bins that are kept.
const EXPONENTS: usize = 128;

/// Vectors of columns whose sums are in registers at once.
const BLOCK: usize = 8;

/// Room for the rows of a tile.
pub(super) struct RowSums {
    /// The bits of the greatest magnitude of each row in each group of columns, `[rows, groups]`.
    magnitudes: Vec<u32>,
    groups: usize,
    rows: Vec<Weighted>,
}

impl RowSums {
    pub(super) fn new() -> Self {
        RowSums { magnitudes: Vec::new(), groups: 0, rows: Vec::new() }
    }

    /// Finds the greatest magnitudes of those of the first `rows` rows that are read, which [`add`](Self::add) needs.
    pub(super) fn measure<S: Simd>(
        &mut self,
        simd: S,
        rows: usize,
        is_read: impl Fn(usize) -> bool,
        dim: usize,
        source: impl Source<S>,
    ) {
        let groups = column_groups(dim);
        self.groups = groups.len();
        self.magnitudes.clear();
        self.magnitudes.resize(rows * self.groups, 0);
        for (row, magnitudes) in self.magnitudes.chunks_mut(self.groups).enumerate().filter(|(row, _)| is_read(*row)) {
            greatest_magnitudes(simd, source, row, dim, magnitudes);
        }
    }

    /// Adds rows that have been measured, at most [`TILE_ROWS`](super::super::tile::TILE_ROWS) of them, to `sum`.
    pub(super) fn add<S: Simd, F: Source<S>>(
        &mut self,
        simd: S,
        rows: impl Iterator<Item = Weighted>,
        source: F,
        sum: &mut Sum,
    ) {
        self.rows.clear();
        self.rows.extend(rows);
        let [mut scaled, mut in_runs] = [(); 2].map(|()| Vec::<Scaled<F::Row>>::with_capacity(self.rows.len()));
        for (group, columns) in column_groups(sum.columns()).enumerate() {
            scaled.clear();
            for row in &self.rows {
                let greatest = f32::from_bits(self.magnitudes[row.row * self.groups + group]);
                match row.weight {
                    Weight::Finite(_) if greatest == 0.0 => {}
                    Weight::Finite(weight) if greatest.is_finite() => {
                        scaled.push(Scaled { row: source.row(row.row), scale: Scale::of(weight, greatest) });
                    }
                    _ => add_with_specials(simd, row, source, columns.clone(), sum),
                }
            }
            put_in_runs(&scaled, &mut in_runs);
            for rows in in_runs.chunk_by(|a, b| a.scale.exponent == b.scale.exponent) {
                add_rows(simd, rows, source, columns.clone(), &mut sum.groups[group]);
            }
        }
    }
}

/// Rows of one exponent beside each other, the greatest first. By counting: there are few exponents, and as many sums as
/// columns wait for it.
fn put_in_runs<Row: Copy>(rows: &[Scaled<Row>], to: &mut Vec<Scaled<Row>>) {
    to.clear();
    let Some(greatest) = rows.iter().map(|row| row.scale.exponent).max() else { return };
    let below = |row: &Scaled<Row>| Some((greatest - row.scale.exponent) as usize).filter(|&below| below < EXPONENTS);
    let (mut places, mut used) = ([0_usize; EXPONENTS], 0_u128);
    for below in rows.iter().filter_map(below) {
        places[below] += 1;
        used |= 1 << below;
    }
    // Counts become the places of the first rows.
    let mut all = 0;
    while used != 0 {
        let place = &mut places[used.trailing_zeros() as usize];
        all += std::mem::replace(place, all);
        used &= used - 1;
    }
    to.resize(all, rows[0]);
    for (row, below) in rows.iter().filter_map(|row| Some((row, below(row)?))) {
        to[places[below]] = *row;
        places[below] += 1;
    }
}

/// Of each group of columns of a row.
#[inline(never)]
fn greatest_magnitudes<S: Simd>(simd: S, source: impl Source<S>, row: usize, dim: usize, magnitudes: &mut [u32]) {
    simd.vectorize(
        #[inline(always)]
        || {
            let row = source.row(row);
            for (columns, magnitude) in column_groups(dim).zip(magnitudes) {
                let mut greatest = simd.splat_int(0);
                let whole = columns.len() / S::LANES * S::LANES;
                for column in columns.clone().take(whole).step_by(S::LANES) {
                    greatest = simd.greater_magnitude(source.stream(simd, row, column), greatest);
                }
                if whole < columns.len() {
                    let rest = source.load(simd, row, columns.start + whole);
                    greatest = simd.greater_magnitude(rest, greatest);
                }
                *magnitude = simd.greatest_int(greatest) as u32;
            }
        },
    );
}

/// Adds the columns `columns` of rows of one exponent to the bins of their group.
#[inline(never)]
fn add_rows<S: Simd, F: Source<S>>(
    simd: S,
    rows: &[Scaled<F::Row>],
    source: F,
    columns: Range<usize>,
    group: &mut Bins,
) {
    let Some(mut bin) = group.at(rows[0].scale.exponent) else { return };
    simd.vectorize(
        #[inline(always)]
        || {
            let wide = columns.len() / (BLOCK * S::LANES) * (BLOCK * S::LANES);
            for start in (0..wide).step_by(BLOCK * S::LANES) {
                let at = start..start + BLOCK * S::LANES;
                let sums = sum_columns::<S, F, BLOCK>(simd, rows, source, columns.start + start);
                add_sums(&mut bin, at, &sums);
            }
            for start in (wide..columns.len()).step_by(S::LANES) {
                let at = start..columns.len().min(start + S::LANES);
                let sums = sum_columns::<S, F, 1>(simd, rows, source, columns.start + start);
                add_sums(&mut bin, at, &sums);
            }
        },
    );
}

/// Both halves of the terms of [`BLOCK`] vectors of columns or fewer, summed over rows.
type Sums = [[i32; BLOCK * MAX_LANES]; 2];

/// Of `VECTORS` vectors of columns from `start` on, and rows of one exponent. As many as [`BLOCK`] are whole.
#[inline(always)]
fn sum_columns<S: Simd, F: Source<S>, const VECTORS: usize>(
    simd: S,
    rows: &[Scaled<F::Row>],
    source: F,
    start: usize,
) -> Sums {
    // What the bits of the two zeros add up to is taken off in advance; all of it wraps around.
    let [high_zero, low_zero] = LIMB_ZEROS.map(|zero| (zero.to_bits() as i32).wrapping_mul(-(rows.len() as i32)));
    let mut high = [simd.splat_int(high_zero); VECTORS];
    let mut low = [simd.splat_int(low_zero); VECTORS];
    for row in rows {
        let scale = simd.splat(row.scale.scale);
        for i in 0..VECTORS {
            let column = start + i * S::LANES;
            let x = if VECTORS == BLOCK {
                source.load_whole(simd, row.row, column)
            } else {
                source.load(simd, row.row, column)
            };
            let limbs = simd.limbs(scale, x);
            high[i] = simd.add_ints(high[i], limbs[0]);
            low[i] = simd.add_ints(low[i], limbs[1]);
        }
    }
    let mut sums = [[0; BLOCK * MAX_LANES]; 2];
    for i in 0..VECTORS {
        // SAFETY: VECTORS is at most BLOCK and LANES at most MAX_LANES, so that the lanes are within either array.
        unsafe {
            simd.store_ints(sums[0].as_mut_ptr().add(i * S::LANES), high[i]);
            simd.store_ints(sums[1].as_mut_ptr().add(i * S::LANES), low[i]);
        }
    }
    sums
}

#[inline(always)]
fn add_sums(bin: &mut Bin<'_>, at: Range<usize>, [high, low]: &Sums) {
    let (high, low) = (&high[..at.len()], &low[..at.len()]);
    bin.add(at.start, high.iter().zip(low).map(|(&high, &low)| (i64::from(high) << LIMB) + i64::from(low)));
}

/// Adds the columns `columns` of a row in which there are infinities or NaNs, or whose weight is one.
#[cold]
fn add_with_specials<S: Simd>(simd: S, row: &Weighted, source: impl Source<S>, columns: Range<usize>, sum: &mut Sum) {
    let features = source.row(row.row);
    let mut finite = vec![0.0; columns.len()];
    simd.vectorize(
        #[inline(always)]
        || {
            for (i, to) in finite.chunks_mut(S::LANES).enumerate() {
                simd.store_slice(to, source.load(simd, features, columns.start + i * S::LANES));
            }
        },
    );
    let weight = match row.weight {
        Weight::Finite(weight) => weight,
        Weight::Special(weight) => {
            for (column, x) in columns.zip(finite) {
                sum.add_special(column, weight * x, row.score);
            }
            return;
        }
    };
    for (column, x) in columns.clone().zip(&mut finite).filter(|(_, x)| !x.is_finite()) {
        sum.add_special(column, *x * weight.mantissa, row.score);
        *x = 0.0;
    }
    let greatest = finite.iter().fold(0.0_f32, |greatest, x| greatest.max(x.abs()));
    if greatest != 0.0 {
        let scaled = Scaled { row: (), scale: Scale::of(weight, greatest) };
        let bins = &mut sum.groups[columns.start / COLUMN_GROUP];
        add_rows(simd, &[scaled], OneRow(&finite), 0..finite.len(), bins);
    }
}

/// A row by itself.
#[derive(Clone, Copy)]
struct OneRow<'a>(&'a [f32]);

impl<S: Simd> Source<S> for OneRow<'_> {
    type Row = ();

    #[inline(always)]
    fn row(self, _: usize) {}

    #[inline(always)]
    fn load(self, simd: S, _: (), column: usize) -> S::Vector {
        simd.load_slice(&self.0[column..])
    }

    #[inline(always)]
    fn load_whole(self, simd: S, _: (), column: usize) -> S::Vector {
        simd.load_slice(&self.0[column..column + S::LANES])
    }
}
