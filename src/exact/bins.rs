//! Columns of integers that are added to whatever the order.

use std::ops::Range;

/// Bits of a bin that [`Bins`] holds in its lower word.
const LOW_BITS: u32 = 48;
const LOW_MASK: i64 = (1 << LOW_BITS) - 1;
/// Additions after which carries are taken over: each leaves less than 2⁴⁸ in a lower word.
const CARRY_EVERY: u32 = 1 << 14;
/// No bin that terms have is beyond it.
const GREATEST: i64 = 1 << 40;
/// In the place of the greatest bin, in files and of kernels, where there is none.
pub(crate) const NO_BIN: i64 = i64::MIN;
/// Binades of a bin.
pub(crate) const BIN_WIDTH: i64 = 32;
/// Bins that are kept.
const KEPT: usize = 3;

/// A sum of terms q·2^R for each of some columns: integers q of at most 53 bits, and one exponent R for all columns of
/// an addition.
///
/// Bin J holds the terms of 32·J ≤ R < 32·(J + 1) as the integer Σ q·2^(R − 32·J). The three greatest bins that have
/// terms are kept; what lies below is dropped, and it makes no difference whether that was before or after a term raised
/// the greatest. So the bins are the same in whatever order, and in whatever grouping, terms are added.
#[derive(Debug, Clone)]
pub(crate) struct Bins {
    columns: usize,
    /// The greatest bin that has terms.
    top: Option<i64>,
    /// Bin J is at J mod 3: the lower 48 bits of each column, then what is above them.
    words: Vec<i64>,
    /// Which of the three have been added to since they were 0.
    used: [bool; KEPT],
    /// Additions since the lower words last were below 2⁴⁸.
    pending: u32,
}

impl Bins {
    pub(crate) fn new(columns: usize) -> Self {
        Bins { columns, top: None, words: vec![0; Bins::words_len(columns)], used: [false; KEPT], pending: 0 }
    }

    /// The words of so many columns.
    pub(crate) const fn words_len(columns: usize) -> usize {
        KEPT * 2 * columns
    }

    /// From what [`parts`](Self::parts) gave, if it may have.
    pub(crate) fn from_parts(columns: usize, top: Option<i64>, words: Vec<i64>) -> Option<Self> {
        let fits = words.len() == Bins::words_len(columns) && top.is_none_or(|top| top.abs() <= GREATEST);
        let lower = words.chunks(2 * columns).flat_map(|words| &words[..columns]);
        let carried = lower.into_iter().all(|low| (0..1 << LOW_BITS).contains(low));
        let empty = top.is_some() || words.iter().all(|&word| word == 0);
        (fits && carried && empty).then_some(Bins { columns, top, words, used: [true; KEPT], pending: 0 })
    }

    /// The greatest bin that has terms, and the words of all that are kept. Carries have been taken over.
    pub(crate) fn parts(&self) -> (Option<i64>, &[i64]) {
        debug_assert_eq!(self.pending, 0);
        (self.top, &self.words)
    }

    /// Where a bin is among the words: at so many times twice the columns.
    pub(crate) fn slot_of(bin: i64) -> usize {
        bin.rem_euclid(KEPT as i64) as usize
    }

    pub(crate) fn columns(&self) -> usize {
        self.columns
    }

    pub(crate) fn clear(&mut self) {
        (0..KEPT).for_each(|slot| self.clear_slot(slot));
        (self.top, self.pending) = (None, 0);
    }

    fn clear_slot(&mut self, slot: usize) {
        if std::mem::take(&mut self.used[slot]) {
            let words = self.words_in(slot);
            self.words[words].fill(0);
        }
    }

    fn words_in(&self, slot: usize) -> Range<usize> {
        slot * 2 * self.columns..(slot + 1) * 2 * self.columns
    }

    /// Where terms of the exponent `exponent` are added; none where they are dropped.
    #[inline]
    pub(crate) fn at(&mut self, exponent: i64) -> Option<Bin<'_>> {
        let shift = exponent.rem_euclid(BIN_WIDTH) as u32;
        let (low, high) = self.words_of(exponent.div_euclid(BIN_WIDTH))?;
        Some(Bin { low, high, shift })
    }

    /// The words of bin `bin`, about to be added to.
    fn words_of(&mut self, bin: i64) -> Option<(&mut [i64], &mut [i64])> {
        self.raise(bin);
        let kept = self.top.is_some_and(|top| top - bin < KEPT as i64);
        if !kept {
            return None;
        }
        self.pending += 1;
        if self.pending == CARRY_EVERY {
            self.carry();
        }
        let slot = Bins::slot_of(bin);
        self.used[slot] = true;
        let words = self.words_in(slot);
        Some(self.words[words].split_at_mut(self.columns))
    }

    /// Makes `bin` the greatest if it is above it: the bins that leave make room for those that come.
    fn raise(&mut self, bin: i64) {
        let top = *self.top.get_or_insert(bin);
        if bin <= top {
            return;
        }
        for entering in (top + 1..=bin).rev().take(KEPT) {
            self.clear_slot(Bins::slot_of(entering));
        }
        self.top = Some(bin);
    }

    /// The words of a bin that is kept, if it has been added to.
    fn used_words(&self, bin: i64) -> Option<(&[i64], &[i64])> {
        let slot = Bins::slot_of(bin);
        self.used[slot].then(|| self.words[self.words_in(slot)].split_at(self.columns))
    }

    /// Takes what the lower words have above 48 bits over to the upper ones.
    pub(crate) fn carry(&mut self) {
        if self.pending == 0 || self.columns == 0 {
            return;
        }
        for (words, _) in self.words.chunks_mut(2 * self.columns).zip(self.used).filter(|(_, used)| *used) {
            let (low, high) = words.split_at_mut(self.columns);
            for (low, high) in low.iter_mut().zip(high) {
                *high = high.wrapping_add(*low >> LOW_BITS);
                *low &= LOW_MASK;
            }
        }
        self.pending = 0;
    }

    /// Adds the terms of `other`, of which the carries have been taken over.
    pub(crate) fn merge(&mut self, other: &Bins) {
        debug_assert!(other.pending == 0 && other.columns == self.columns);
        let Some(top) = other.top else { return };
        self.raise(top);
        for bin in top - (KEPT as i64 - 1)..=top {
            let Some((their_low, their_high)) = other.used_words(bin) else { continue };
            if let Some((low, high)) = self.words_of(bin) {
                low.iter_mut().zip(their_low).for_each(|(to, from)| *to += from);
                high.iter_mut().zip(their_high).for_each(|(to, from)| *to = to.wrapping_add(*from));
            }
        }
        self.carry();
    }

    /// The exponent of what [`write_sums`](Self::write_sums) writes.
    pub(crate) fn exponent(&self) -> i64 {
        self.top.unwrap_or(0) * BIN_WIDTH
    }

    /// Writes the sums times `factor`, over 2^[`exponent`](Self::exponent): each within 2⁻⁵² of what its terms amount to.
    #[inline(always)]
    pub(crate) fn write_sums(&mut self, factor: f64, to: &mut [f32]) {
        self.carry();
        match self.kept() {
            [Some((low, high)), None, None] => {
                for ((to, &low), &high) in to.iter_mut().zip(low).zip(high) {
                    *to = (number(low, high) * factor) as f32;
                }
            }
            bins => {
                for (i, to) in to.iter_mut().enumerate() {
                    *to = (sum_of(&bins, i) * factor) as f32;
                }
            }
        }
    }

    /// The sum of one column, over 2^[`exponent`](Self::exponent).
    pub(crate) fn sum(&mut self) -> f64 {
        self.carry();
        sum_of(&self.kept(), 0)
    }

    /// The words of each bin that has been added to, the greatest first.
    #[inline(always)]
    fn kept(&self) -> [Option<(&[i64], &[i64])>; KEPT] {
        let top = self.top.unwrap_or(0);
        [top, top - 1, top - 2].map(|bin| self.used_words(bin))
    }
}

#[inline(always)]
fn number(low: i64, high: i64) -> f64 {
    high as f64 * TWO_48 + low as f64
}

/// What the bins of column `i` amount to, over the greatest.
#[inline(always)]
fn sum_of(bins: &[Option<(&[i64], &[i64])>; KEPT], i: usize) -> f64 {
    let [first, second, third] = bins.map(|words| words.map_or(0.0, |(low, high)| number(low[i], high[i])));
    first + (second * TWO_MINUS_32 + third * (TWO_MINUS_32 * TWO_MINUS_32))
}

/// Equal words are of equal sums; which of them have been added 0 to does not matter.
impl PartialEq for Bins {
    fn eq(&self, other: &Self) -> bool {
        (self.columns, self.top, &self.words) == (other.columns, other.top, &other.words)
    }
}

const TWO_48: f64 = (1_u64 << 48) as f64;
const TWO_MINUS_32: f64 = 1.0 / (1_u64 << 32) as f64;

/// A bin of [`Bins`], and how far terms are shifted in it.
pub(crate) struct Bin<'a> {
    low: &'a mut [i64],
    high: &'a mut [i64],
    shift: u32,
}

impl Bin<'_> {
    /// Adds terms to the columns from `start` on.
    #[inline(always)]
    pub(crate) fn add(&mut self, start: usize, terms: impl ExactSizeIterator<Item = i64>) {
        let columns = start..start + terms.len();
        let (low, high) = (&mut self.low[columns.clone()], &mut self.high[columns]);
        let shift = self.shift;
        for ((low, high), term) in low.iter_mut().zip(high).zip(terms) {
            *low += (term << shift) & LOW_MASK;
            *high = high.wrapping_add(term >> (LOW_BITS - shift));
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The bins of terms of one column, one after the other.
    fn bins_of(terms: &[(i64, i64)]) -> Bins {
        let mut bins = Bins::new(1);
        for &(term, exponent) in terms {
            if let Some(mut bin) = bins.at(exponent) {
                bin.add(0, [term].into_iter());
            }
        }
        bins.carry();
        bins
    }

    fn value(bins: &mut Bins) -> f64 {
        bins.sum() * 2_f64.powi(bins.exponent() as i32)
    }

    fn terms() -> impl Strategy<Value = Vec<(i64, i64)>> {
        prop::collection::vec((-(1_i64 << 52)..1 << 52, -90_i64..90), 1..40)
    }

    proptest! {
        #[test]
        fn order_and_grouping_change_no_bit(mut terms in terms(), cut in 0..40_usize, turn in 0..40_usize) {
            let whole = bins_of(&terms);
            let (front, back) = terms.split_at(cut.min(terms.len()));
            let mut merged = bins_of(back);
            merged.merge(&bins_of(front));
            prop_assert_eq!(&merged, &whole);
            let by = turn % terms.len();
            terms.rotate_left(by);
            terms.reverse();
            prop_assert_eq!(&bins_of(&terms), &whole);
        }

        #[test]
        fn within_a_bin_nothing_is_lost(terms in prop::collection::vec((-(1_i64 << 52)..1 << 52, 0_i64..32), 1..40)) {
            let exact: i128 = terms.iter().map(|&(term, exponent)| i128::from(term) << exponent).sum();
            let got = value(&mut bins_of(&terms));
            prop_assert!((got - exact as f64).abs() <= 2_f64.powi(-51) * exact.unsigned_abs() as f64 + 2.0);
        }
    }

    #[test]
    fn carries_are_taken_over_in_time() {
        let mut bins = Bins::new(1);
        let (term, count) = ((1_i64 << 52) - 1, 40_000);
        for _ in 0..count {
            bins.at(31).unwrap().add(0, [term].into_iter());
        }
        assert_eq!(value(&mut bins), ((i128::from(term) * count) << 31) as f64);
    }

    #[test]
    fn the_fourth_bin_is_dropped_whenever_it_comes() {
        let with = [(1, 0), (1, 40), (1, 70), (1, 100)];
        let without = [(1, 40), (1, 70), (1, 100)];
        assert_eq!(bins_of(&with), bins_of(&without));
        assert_eq!(value(&mut bins_of(&without)), 2_f64.powi(100) + 2_f64.powi(70) + 2_f64.powi(40));
        assert_eq!(value(&mut Bins::new(1)), 0.0);
    }
}
