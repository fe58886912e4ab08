//! Rows of a weighted sum, added to integers.

use super::super::simd::{LIMB_ZEROS, MAX_LANES, Simd};
use super::super::source::Source;
use super::super::tile::TILE_ROWS;
use crate::exact::bins::Bin;
use crate::exact::sum::{ANY_SCORE, Sum};
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

/// A row with what it is multiplied with.
#[derive(Clone, Copy)]
struct Scaled {
    row: usize,
    scale: Scale,
}

/// Vectors of columns whose sums are in registers at once.
const BLOCK: usize = 4;

/// Room for the rows of a tile.
pub(super) struct RowSums {
    /// The bits of the greatest magnitude of each row.
    magnitudes: Vec<u32>,
    scaled: Vec<Scaled>,
}

impl RowSums {
    pub(super) fn new() -> Self {
        RowSums { magnitudes: Vec::with_capacity(TILE_ROWS), scaled: Vec::with_capacity(TILE_ROWS) }
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
        self.magnitudes.clear();
        let of_row = |row| if is_read(row) { greatest_magnitude(simd, source, row, dim) } else { 0 };
        self.magnitudes.extend((0..rows).map(of_row));
    }

    /// Adds rows that have been measured, at most [`TILE_ROWS`] of them, to `sum`.
    pub(super) fn add<S: Simd>(
        &mut self,
        simd: S,
        rows: impl Iterator<Item = Weighted>,
        source: impl Source<S>,
        sum: &mut Sum,
    ) {
        self.scaled.clear();
        for row in rows {
            let greatest = f32::from_bits(self.magnitudes[row.row]);
            match row.weight {
                Weight::Finite(_) if greatest == 0.0 => {}
                Weight::Finite(weight) if greatest.is_finite() => {
                    self.scaled.push(Scaled { row: row.row, scale: Scale::of(weight, greatest) });
                }
                _ => add_with_specials(simd, row, source, sum),
            }
        }
        self.scaled.sort_unstable_by_key(|row| row.scale.exponent);
        for rows in self.scaled.chunk_by(|a, b| a.scale.exponent == b.scale.exponent) {
            add_rows(simd, rows, source, sum);
        }
    }
}

#[inline(never)]
fn greatest_magnitude<S: Simd>(simd: S, source: impl Source<S>, row: usize, dim: usize) -> u32 {
    simd.vectorize(
        #[inline(always)]
        || {
            let row = source.row(row);
            let mut greatest = [simd.splat_int(0); BLOCK];
            let vectors = dim.div_ceil(S::LANES);
            for block in (0..vectors).step_by(BLOCK) {
                for (i, greatest) in greatest.iter_mut().enumerate().take(vectors - block) {
                    let x = source.load(simd, row, (block + i) * S::LANES);
                    *greatest = simd.greater_magnitude(x, *greatest);
                }
            }
            let mut lanes = [[0; MAX_LANES]; BLOCK];
            for (lanes, greatest) in lanes.iter_mut().zip(greatest) {
                // SAFETY: a vector has at most MAX_LANES lanes.
                unsafe { simd.store_ints(lanes.as_mut_ptr(), greatest) };
            }
            lanes.as_flattened().iter().fold(0, |greatest, &lane| greatest.max(lane as u32))
        },
    )
}

/// Adds rows of one exponent.
#[inline(never)]
fn add_rows<S: Simd>(simd: S, rows: &[Scaled], source: impl Source<S>, sum: &mut Sum) {
    let columns = sum.finite.columns();
    let Some(mut bin) = sum.finite.at(rows[0].scale.exponent) else { return };
    simd.vectorize(
        #[inline(always)]
        || {
            let wide = columns / (BLOCK * S::LANES) * (BLOCK * S::LANES);
            for start in (0..wide).step_by(BLOCK * S::LANES) {
                add_columns::<S, BLOCK>(simd, rows, source, start..start + BLOCK * S::LANES, &mut bin);
            }
            for start in (wide..columns).step_by(S::LANES) {
                add_columns::<S, 1>(simd, rows, source, start..columns.min(start + S::LANES), &mut bin);
            }
        },
    );
}

/// Adds the columns `at` of rows of one exponent, `VECTORS` vectors of them, the last perhaps not whole.
#[inline(always)]
fn add_columns<S: Simd, const VECTORS: usize>(
    simd: S,
    rows: &[Scaled],
    source: impl Source<S>,
    at: std::ops::Range<usize>,
    bin: &mut Bin<'_>,
) {
    // What the bits of the two zeros add up to is taken off in advance; all of it wraps around.
    let [high_zero, low_zero] = LIMB_ZEROS.map(|zero| (zero.to_bits() as i32).wrapping_mul(-(rows.len() as i32)));
    let mut high = [simd.splat_int(high_zero); VECTORS];
    let mut low = [simd.splat_int(low_zero); VECTORS];
    for row in rows {
        let scale = simd.splat(row.scale.scale);
        let features = source.row(row.row);
        for i in 0..VECTORS {
            let limbs = simd.limbs(scale, source.load(simd, features, at.start + i * S::LANES));
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
    let (high, low) = (&sums[0][..at.len()], &sums[1][..at.len()]);
    bin.add(at.start, high.iter().zip(low).map(|(&high, &low)| (i64::from(high) << LIMB) + i64::from(low)));
}

/// Adds a row in which there are infinities or NaNs, or whose weight is one.
#[cold]
fn add_with_specials<S: Simd>(simd: S, row: Weighted, source: impl Source<S>, sum: &mut Sum) {
    let columns = sum.finite.columns();
    let features = source.row(row.row);
    let mut finite = vec![0.0; columns];
    simd.vectorize(
        #[inline(always)]
        || {
            for (i, to) in finite.chunks_mut(S::LANES).enumerate() {
                simd.store_slice(to, source.load(simd, features, i * S::LANES));
            }
        },
    );
    let weight = match row.weight {
        Weight::Finite(weight) => weight,
        Weight::Special(weight) => {
            for (column, x) in finite.iter().enumerate() {
                sum.add_special(column, weight * x, row.score);
            }
            return;
        }
    };
    for (column, x) in finite.iter_mut().enumerate().filter(|(_, x)| !x.is_finite()) {
        sum.add_special(column, *x * weight.mantissa, row.score);
        *x = 0.0;
    }
    let greatest = finite.iter().fold(0.0_f32, |greatest, x| greatest.max(x.abs()));
    if greatest != 0.0 {
        let scaled = Scaled { row: 0, scale: Scale::of(weight, greatest) };
        add_rows(simd, &[scaled], OneRow(&finite), sum);
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
}
