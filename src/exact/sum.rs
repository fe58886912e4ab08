//! Sums of a bag and head, as they are while rows are added and merged, and what they come to.

use std::ops::Range;

use super::bins::Bins;
use super::terms::{Power, UNIT, scaled};

/// Neighbouring columns whose terms of a row have one exponent.
pub(crate) const COLUMN_GROUP: usize = 256;

/// Σ weight·x of each column.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Sum {
    columns: usize,
    /// Of each [`COLUMN_GROUP`] columns.
    pub(crate) groups: Vec<Bins>,
    /// Of each column, where there is an infinity or a NaN at all.
    pub(crate) specials: Option<Vec<Special>>,
}

/// The greatest scores that a column's infinities and NaNs have come with, −∞ where there were none; of a sum whose
/// weights come from no scores, [`ANY_SCORE`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Special {
    pub(crate) infinity: f32,
    pub(crate) minus_infinity: f32,
    pub(crate) nan: f32,
}

/// The score of a special whose weight is not 0 in any case.
pub(crate) const ANY_SCORE: f32 = 0.0;

impl Special {
    pub(crate) const NONE: Special =
        Special { infinity: f32::NEG_INFINITY, minus_infinity: f32::NEG_INFINITY, nan: f32::NEG_INFINITY };

    /// Whether it is made of scores that have weights, or of none.
    fn is_of_scores(&self) -> bool {
        let is_score = |score: f32| score.is_finite() || score == f32::NEG_INFINITY;
        [self.infinity, self.minus_infinity, self.nan].into_iter().all(is_score)
    }

    fn merge(&mut self, other: &Special) {
        self.infinity = self.infinity.max(other.infinity);
        self.minus_infinity = self.minus_infinity.max(other.minus_infinity);
        self.nan = self.nan.max(other.nan);
    }

    /// What takes the place of a column's sum, if those that weigh something are special at all.
    fn value(&self, weighs: impl Fn(f32) -> bool) -> Option<f32> {
        let there = |score: f32| score != f32::NEG_INFINITY && weighs(score);
        match (there(self.infinity), there(self.minus_infinity), there(self.nan)) {
            (false, false, false) => None,
            (true, false, false) => Some(f32::INFINITY),
            (false, true, false) => Some(f32::NEG_INFINITY),
            _ => Some(f32::NAN),
        }
    }
}

impl Sum {
    pub(crate) fn new(columns: usize) -> Self {
        Sum { columns, groups: column_groups(columns).map(|group| Bins::new(group.len())).collect(), specials: None }
    }

    /// From the bins of each group of columns, and the specials of each column where there may be any.
    pub(crate) fn from_parts(groups: Vec<Bins>, specials: Option<Vec<Special>>) -> Self {
        let specials = specials.filter(|specials| specials.iter().any(|special| *special != Special::NONE));
        Sum { columns: groups.iter().map(Bins::columns).sum(), groups, specials }
    }

    pub(crate) fn clear(&mut self) {
        self.groups.iter_mut().for_each(Bins::clear);
        self.specials = None;
    }

    pub(crate) fn carry(&mut self) {
        self.groups.iter_mut().for_each(Bins::carry);
    }

    pub(crate) fn columns(&self) -> usize {
        self.columns
    }

    /// Adds a number, infinity or NaN to a sum of one column.
    pub(crate) fn add(&mut self, term: f32) {
        debug_assert_eq!(self.columns, 1);
        if !term.is_finite() {
            self.add_special(0, term, ANY_SCORE);
        } else if term != 0.0 {
            let Power { mantissa, exponent } = Power::of(term);
            if let Some(mut bin) = self.groups[0].at(exponent + UNIT - MANTISSA) {
                bin.add(0, [(mantissa * (1 << MANTISSA) as f32) as i64].into_iter());
            }
        }
    }

    /// Adds an infinity or a NaN to a column.
    pub(crate) fn add_special(&mut self, column: usize, term: f32, score: f32) {
        let columns = self.columns;
        let special = &mut self.specials.get_or_insert_with(|| vec![Special::NONE; columns])[column];
        let place = if term.is_nan() {
            &mut special.nan
        } else if term > 0.0 {
            &mut special.infinity
        } else {
            &mut special.minus_infinity
        };
        // Of +0 and −0, the former.
        *place = place.max(score) + 0.0;
    }

    /// Of sums whose carries have been taken over.
    pub(crate) fn merge(&mut self, other: &Sum) {
        self.groups.iter_mut().zip(&other.groups).for_each(|(mine, theirs)| mine.merge(theirs));
        let Some(theirs) = &other.specials else { return };
        let mine = self.specials.get_or_insert_with(|| vec![Special::NONE; theirs.len()]);
        mine.iter_mut().zip(theirs).for_each(|(mine, theirs)| mine.merge(theirs));
    }

    /// The sums over `divisor`·2^`exponent`. Specials that weigh nothing take no part.
    #[inline(always)]
    pub(crate) fn finish(&mut self, (divisor, exponent): (f64, i64), weighs: impl Fn(f32) -> bool, to: &mut [f32]) {
        for (to, group) in to.chunks_mut(COLUMN_GROUP).zip(&mut self.groups) {
            let unit = group.exponent() - UNIT;
            group.write_sums(scaled(1.0 / divisor, unit.saturating_sub(exponent)), to);
        }
        for (to, special) in to.iter_mut().zip(self.specials.iter().flatten()) {
            if let Some(value) = special.value(&weighs) {
                *to = value;
            }
        }
    }
}

/// The groups of `columns` columns.
pub(crate) fn column_groups(columns: usize) -> impl ExactSizeIterator<Item = Range<usize>> {
    (0..columns.div_ceil(COLUMN_GROUP)).map(move |group| {
        let start = group * COLUMN_GROUP;
        start..columns.min(start + COLUMN_GROUP)
    })
}

/// Σ exp(score) of a bag and head, and the greatest score.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Mass {
    /// −∞ where no score is above it, NaN where one is NaN or +∞.
    pub(crate) max: f32,
    pub(crate) exponentials: Bins,
}

/// Bits of mantissas, as integers.
const MANTISSA: i64 = 24;

impl Mass {
    pub(crate) fn new() -> Self {
        Mass { max: f32::NEG_INFINITY, exponentials: Bins::new(1) }
    }

    pub(crate) fn clear(&mut self) {
        self.max = f32::NEG_INFINITY;
        self.exponentials.clear();
    }

    /// Of `count` scores of 0, as a mean has.
    pub(crate) fn of_mean(count: usize) -> Self {
        let mut mass = Mass::new();
        let mut rest = count as i64;
        while rest > 0 {
            mass.max = 0.0;
            let some = rest.min(1 << 28);
            if let Some(mut bin) = mass.exponentials.at(0) {
                bin.add(0, [some << MANTISSA].into_iter());
            }
            rest -= some;
        }
        mass
    }

    /// Adds a score; its exponential, where that is neither 0 nor NaN.
    pub(crate) fn add(&mut self, score: f32) -> Option<Power> {
        if score.is_nan() || score == f32::INFINITY {
            self.max = f32::NAN;
            return None;
        }
        if score == f32::NEG_INFINITY {
            return None;
        }
        if !self.max.is_nan() {
            // Of +0 and −0, the former.
            self.max = if score > self.max { score } else { self.max } + 0.0;
        }
        let power = Power::exp(score);
        if let Some(mut bin) = self.exponentials.at(power.exponent) {
            bin.add(0, [(power.mantissa * (1 << MANTISSA) as f32) as i64].into_iter());
        }
        Some(power)
    }

    pub(crate) fn merge(&mut self, other: &Mass) {
        let is_nan = self.max.is_nan() || other.max.is_nan();
        self.max = if is_nan { f32::NAN } else { self.max.max(other.max) };
        self.exponentials.merge(&other.exponentials);
    }

    pub(crate) fn total(&mut self) -> Total {
        let sum = self.exponentials.sum();
        Total { max: self.max, sum, exponent: self.exponentials.exponent() - MANTISSA }
    }
}

/// What a [`Mass`] comes to: Σ exp(score) = `sum`·2^`exponent`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Total {
    pub(crate) max: f32,
    sum: f64,
    exponent: i64,
}

impl Total {
    /// Σ exp(score − max): 0 where no score is above −∞, NaN where one is NaN or +∞.
    pub(crate) fn relative(&self) -> f64 {
        if self.max.is_nan() {
            f64::NAN
        } else if self.max == f32::NEG_INFINITY {
            0.0
        } else {
            self.sum / Power::exp(self.max).over(self.exponent)
        }
    }

    /// log Σ exp(score).
    pub(crate) fn lse(&self) -> f32 {
        if self.max == f32::NEG_INFINITY { self.max } else { (f64::from(self.max) + self.relative().ln()) as f32 }
    }

    /// exp(score) / Σ exp: 0 at score −∞ or where it underflows, NaN where a score of the bag is NaN or +∞.
    pub(crate) fn weight(&self, score: f32) -> f32 {
        if score == f32::NEG_INFINITY {
            0.0
        } else if self.max.is_nan() {
            f32::NAN
        } else {
            (Power::exp(score).over(self.exponent) / self.sum) as f32
        }
    }

    /// Σ exp(score)·x over Σ exp(score): 0 where there is nothing.
    #[inline(always)]
    pub(crate) fn divide(&self, sum: &mut Sum, to: &mut [f32]) {
        if self.max.is_nan() {
            to.fill(f32::NAN);
        } else if self.max == f32::NEG_INFINITY {
            to.fill(0.0);
        } else {
            sum.finish((self.sum, self.exponent), |score| self.weight(score) != 0.0, to);
        }
    }
}

/// A bag and head of attention pool.
#[derive(Debug, Clone, PartialEq)]
pub struct Head {
    pub(crate) mass: Mass,
    /// Σ exp(score)·x.
    pub(crate) sum: Sum,
}

impl Head {
    pub(crate) fn new(dim: usize) -> Self {
        Head { mass: Mass::new(), sum: Sum::new(dim) }
    }

    /// From its parts, if it may have come to them.
    pub(crate) fn from_parts(mass: Mass, sum: Sum) -> Option<Self> {
        let are_scores = sum.specials.iter().flatten().all(Special::is_of_scores);
        let (dim, max) = (sum.columns(), mass.max);
        let head = Head { mass, sum };
        // Where no score is above −∞, nothing has been added.
        let fits = are_scores && (max != f32::NEG_INFINITY || head == Head::new(dim));
        fits.then_some(head)
    }

    pub(crate) fn clear(&mut self) {
        self.mass.clear();
        self.sum.clear();
    }

    /// Takes carries over: then heads in which the same has been seen are equal.
    pub(crate) fn carry(&mut self) {
        self.mass.exponentials.carry();
        self.sum.carry();
    }

    /// Of heads whose carries have been taken over.
    pub(crate) fn merge(&mut self, other: &Head) {
        self.mass.merge(&other.mass);
        self.sum.merge(&other.sum);
    }

    /// Writes the pooled embedding. Carries are then taken over.
    #[inline(always)]
    pub(crate) fn finish(&mut self, to: &mut [f32]) -> Total {
        self.carry();
        let total = self.mass.total();
        total.divide(&mut self.sum, to);
        total
    }
}
