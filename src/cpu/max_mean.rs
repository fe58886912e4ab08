//! Max and mean pooling, both in one read of the features.

use std::ops::Range;

use super::chunks::{by_fours, chunks, for_each, groups, reduce, take};
use super::kernels::Output;
use super::simd::{Simd, prefetch};
use super::source::ROWS_AHEAD;
use super::tile::TILE_ROWS;
use super::{Cpu, exact, with_simd};
use crate::bags::{Bags, present};
use crate::element::Element;
use crate::error::{Error, Result, expect_len};
use crate::order::Order;
use crate::rows::Rows;
use crate::state::PoolState;

/// Where max/mean pooling writes; at least one of them.
#[derive(Debug, Default)]
pub struct MaxMeanOutputs<'a, O> {
    /// `[B, D]`.
    pub max: Option<&'a mut [O]>,
    /// `[B, D]`.
    pub mean: Option<&'a mut [O]>,
    /// `[B, D]`: the row that each maximum came from, the lowest of equals, and the first NaN's where
    /// there is one; −1 where the bag is empty.
    pub argmax: Option<&'a mut [i64]>,
}

impl Cpu {
    /// Max and mean of each feature over the instances of each bag: features `[N, D]` → `[B, D]`.
    ///
    /// A NaN makes its feature of its bag NaN, in both. An empty bag gives 0.
    ///
    /// # Errors
    /// [`Error::Argument`] where there is no output or one does not have `B·D` elements;
    /// [`Error::Bags`] where the bags do not cover the features.
    pub fn max_mean<E: Element, O: Element>(
        &self,
        features: Rows<'_, E>,
        bags: &Bags<'_>,
        outputs: MaxMeanOutputs<'_, O>,
    ) -> Result<()> {
        bags.expect_instances(features.len())?;
        let pooled = bags.len().saturating_mul(features.dim());
        let MaxMeanOutputs { max, mean, argmax } = outputs;
        let lengths = [
            ("max", max.as_ref().map(|max| max.len())),
            ("mean", mean.as_ref().map(|mean| mean.len())),
            ("argmax", argmax.as_ref().map(|argmax| argmax.len())),
        ];
        if lengths.iter().all(|(_, len)| len.is_none()) {
            return Err(Error::argument("outputs", "max, mean or argmax", "none of them"));
        }
        for (name, len) in lengths {
            expect_len(name, "[B, D]", pooled, len.unwrap_or(pooled))?;
        }
        E::max_mean(*self, features, bags, Outputs { max: max.map(O::output), mean: mean.map(O::output), argmax });
        Ok(())
    }
}

impl Cpu {
    /// The mean of further instances of the bags whose `state` this is, merged into it: the state of an attention of one
    /// head whose scores are all 0, so that [`PoolState::sum`] counts the instances.
    ///
    /// ```
    /// use mivc::cpu::Cpu;
    /// use mivc::{Bags, PoolState, Rows};
    ///
    /// let mut state = PoolState::empty(1, 1, 2)?;
    /// for piece in [&[1.0_f32, 5.0, 3.0, 7.0][..], &[8.0, 0.0]] {
    ///     let rows = Rows::new(piece, 2)?;
    ///     Cpu::detect().mean_onto(rows, &Bags::from_lengths(&[rows.len() as i64])?, &mut state)?;
    /// }
    /// assert_eq!((state.pooled(), state.sum()), (&[4.0, 4.0][..], &[3.0][..]));
    /// # Ok::<(), mivc::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Bags`] where the bags do not cover the features; [`Error::Argument`] where the state is not of the shape
    /// `[B, 1, D]` or of another order. It is then as it was.
    pub fn mean_onto<E: Element>(&self, features: Rows<'_, E>, bags: &Bags<'_>, state: &mut PoolState) -> Result<()> {
        bags.expect_instances(features.len())?;
        state.expect_shape("state", bags.len(), 1, features.dim())?;
        state.expect_order("state", self.order)?;
        let mut piece = PoolState::empty_in(self.order, bags.len(), 1, features.dim())?;
        let parts = piece.parts_mut();
        match parts.exact {
            Some(heads) => E::exact_mean(*self, features, bags, heads),
            None => {
                let outputs = MaxMeanOutputs { mean: Some(&mut *parts.pooled), ..Default::default() };
                self.max_mean(features, bags, outputs)?;
                parts.count_instances(bags);
            }
        }
        state.merge(&piece)
    }
}

/// [`MaxMeanOutputs`], whatever type they are of.
pub struct Outputs<'a> {
    pub(super) max: Option<Output<'a>>,
    pub(super) mean: Option<Output<'a>>,
    pub(super) argmax: Option<&'a mut [i64]>,
}

impl<'a> Outputs<'a> {
    /// Cuts off the first `n` elements of each.
    fn take(&mut self, n: usize) -> Outputs<'a> {
        Outputs {
            max: self.max.as_mut().map(|max| max.take(n)),
            mean: self.mean.as_mut().map(|mean| mean.take(n)),
            argmax: self.argmax.as_mut().map(|argmax| take(argmax, n)),
        }
    }
}

pub(super) fn run<E: Element>(cpu: Cpu, features: Rows<'_, E>, bags: &Bags<'_>, mut outputs: Outputs<'_>) {
    if cpu.order == Order::Exact
        && let Some(mean) = outputs.mean.take()
    {
        exact::weighted_sum::mean(cpu, features, bags, mean);
    }
    if outputs.max.is_none() && outputs.mean.is_none() && outputs.argmax.is_none() {
        return;
    }
    let jobs: Vec<_> =
        groups(bags).into_iter().map(|group| (group.clone(), outputs.take(group.len() * features.dim()))).collect();
    with_simd!(cpu, |simd| {
        let pool = Pool { simd, features, bags };
        let (max, mean, argmax) = (outputs.max.is_some(), outputs.mean.is_some(), outputs.argmax.is_some());
        for_each(jobs, &|(group, outputs)| match (max, mean, argmax) {
            (_, _, true) => pool.run::<true, true, true>(group, outputs),
            (true, true, false) => pool.run::<true, true, false>(group, outputs),
            (true, false, false) => pool.run::<true, false, false>(group, outputs),
            (false, _, false) => pool.run::<false, true, false>(group, outputs),
        });
    });
}

/// Rows of a bag, pooled; vectors of `D` elements, empty where not asked for.
struct Partial {
    /// Rows that are there.
    count: usize,
    max: Vec<f32>,
    sum: Vec<f32>,
    argmax: Vec<i64>,
}

impl Partial {
    /// What a bag without instances is pooled to.
    fn empty(dim: usize) -> Self {
        Partial { count: 0, max: vec![0.0; dim], sum: vec![0.0; dim], argmax: vec![-1; dim] }
    }
}

/// What is pooled is fixed at compile time, so that the loop over the features holds nothing else.
#[derive(Clone, Copy)]
struct Pool<'a, S, E> {
    simd: S,
    features: Rows<'a, E>,
    bags: &'a Bags<'a>,
}

impl<S: Simd, E: Element> Pool<'_, S, E> {
    fn run<const MAX: bool, const MEAN: bool, const ARGMAX: bool>(
        &self,
        group: Range<usize>,
        mut outputs: Outputs<'_>,
    ) {
        let dim = self.features.dim();
        for (i, b) in group.enumerate() {
            let bag = self.bags.range(b);
            let mut partial = if bag.len() <= TILE_ROWS {
                self.chunk::<MAX, MEAN, ARGMAX>(bag)
            } else {
                let leaf = |rows: &mut Range<usize>| self.chunk::<MAX, MEAN, ARGMAX>(rows.clone());
                let merged = reduce(&mut chunks(bag).collect::<Vec<_>>(), &leaf, &|a, b| self.merge(a, b));
                merged.unwrap_or_else(|| Partial::empty(dim))
            };
            if partial.count == 0 {
                partial = Partial::empty(dim);
            }
            partial.sum.iter_mut().for_each(|sum| *sum /= partial.count.max(1) as f32);
            let of_bag = i * dim..(i + 1) * dim;
            if let Some(max) = &mut outputs.max {
                max.write(of_bag.clone(), &partial.max);
            }
            if let Some(mean) = &mut outputs.mean {
                mean.write(of_bag.clone(), &partial.sum);
            }
            if let Some(argmax) = &mut outputs.argmax {
                argmax[of_bag].copy_from_slice(&partial.argmax);
            }
        }
    }

    fn chunk<const MAX: bool, const MEAN: bool, const ARGMAX: bool>(&self, rows: Range<usize>) -> Partial {
        let dim = self.features.dim();
        let room = |wanted| vec![0.0; if wanted { dim } else { 0 }];
        let mut columns = Columns { max: room(MAX), sum: room(MEAN), row_of_max: room(ARGMAX) };
        let (mask, base) = (self.bags.mask(), rows.start);
        let mut count = 0;
        self.simd.vectorize(
            #[inline(always)]
            || {
                by_fours(
                    rows.filter(|&n| present(mask, n)),
                    #[inline(always)]
                    |rows| {
                        let first = count == 0;
                        match *rows {
                            [] => {}
                            [a] => self.rows::<MAX, MEAN, ARGMAX, 1>([a], base, first, &mut columns),
                            [a, b] => self.rows::<MAX, MEAN, ARGMAX, 2>([a, b], base, first, &mut columns),
                            [a, b, c] => self.rows::<MAX, MEAN, ARGMAX, 3>([a, b, c], base, first, &mut columns),
                            [a, b, c, d, ..] => {
                                self.rows::<MAX, MEAN, ARGMAX, 4>([a, b, c, d], base, first, &mut columns);
                            }
                        }
                        count += rows.len();
                    },
                );
            },
        );
        let Columns { max, sum, row_of_max } = columns;
        let argmax = row_of_max.iter().map(|&row| (base + row as usize) as i64).collect();
        Partial { count, max, sum, argmax }
    }

    /// Takes in `R` rows, in their order; the `first` of a chunk is its own maximum.
    #[inline(always)]
    fn rows<const MAX: bool, const MEAN: bool, const ARGMAX: bool, const R: usize>(
        &self,
        rows: [usize; R],
        base: usize,
        first: bool,
        columns: &mut Columns,
    ) {
        let simd = self.simd;
        let features = rows.map(|n| self.features.row(n));
        let mut row_numbers = [simd.splat(0.0); R];
        for (number, n) in row_numbers.iter_mut().zip(rows) {
            *number = simd.splat((n - base) as f32);
        }
        for start in (0..self.features.dim()).step_by(S::LANES) {
            let end = self.features.dim().min(start + S::LANES);
            let mut x = [simd.splat(0.0); R];
            for (x, row) in x.iter_mut().zip(features) {
                prefetch(row[start..].as_ptr().wrapping_add(ROWS_AHEAD * row.len()));
                *x = simd.load_slice(&row[start..end]);
            }
            if MEAN {
                let sum = &mut columns.sum[start..end];
                let mut total = simd.load_slice(sum);
                for &x in &x {
                    total = simd.add(total, x);
                }
                simd.store_slice(sum, total);
            }
            if !MAX {
                continue;
            }
            let mut max = if first { x[0] } else { simd.load_slice(&columns.max[start..end]) };
            if ARGMAX {
                let to = &mut columns.row_of_max[start..end];
                let mut row_of_max = if first { row_numbers[0] } else { simd.load_slice(to) };
                for (&x, &row) in x.iter().zip(&row_numbers) {
                    row_of_max = simd.select(simd.exceeds(x, max), row, row_of_max);
                    max = simd.maximum(max, x);
                }
                simd.store_slice(to, row_of_max);
            } else {
                for &x in &x {
                    max = simd.maximum(max, x);
                }
            }
            simd.store_slice(&mut columns.max[start..end], max);
        }
    }

    /// `a`'s rows come before `b`'s.
    fn merge(&self, mut a: Partial, b: Partial) -> Partial {
        if a.count == 0 || b.count == 0 {
            return if a.count == 0 { b } else { a };
        }
        let simd = self.simd;
        a.count += b.count;
        simd.vectorize(
            #[inline(always)]
            || {
                for (i, (argmax, (&x, &max))) in a.argmax.iter_mut().zip(b.max.iter().zip(&a.max)).enumerate() {
                    if x > max || (x.is_nan() && !max.is_nan()) {
                        *argmax = b.argmax[i];
                    }
                }
                for (a, b) in a.max.chunks_mut(S::LANES).zip(b.max.chunks(S::LANES)) {
                    simd.store_slice(a, simd.maximum(simd.load_slice(a), simd.load_slice(b)));
                }
                for (a, b) in a.sum.iter_mut().zip(&b.sum) {
                    *a += b;
                }
            },
        );
        a
    }
}

/// The running results of a chunk, `D` elements each where they are asked for.
struct Columns {
    max: Vec<f32>,
    sum: Vec<f32>,
    /// Counted from the chunk's first row, which f32 holds exactly.
    row_of_max: Vec<f32>,
}
