//! Weighted sum, and mean, in integers.

use std::ops::Range;

use super::super::chunks::{chunks, for_each, groups, reduce, take};
use super::super::kernels::Output;
use super::super::simd::Simd;
use super::super::source::Columns;
use super::super::tile::TILE_ROWS;
use super::super::weighted_sum::Values;
use super::super::{Cpu, with_simd};
use super::rows::{RowSums, Weighted};
use super::{leaves, merged};
use crate::bags::{Bags, present};
use crate::element::Element;
use crate::exact::sum::{Head, Mass, Sum};
use crate::rows::Rows;

/// What rows are multiplied with.
#[derive(Clone, Copy)]
enum Weights<'a> {
    /// `[N, K]`.
    Given(&'a [f32]),
    /// One over the rows that are there.
    Mean,
}

pub(in crate::cpu) fn run<E: Element>(
    cpu: Cpu,
    weights: &[f32],
    heads: usize,
    values: Values<'_, E>,
    bags: &Bags<'_>,
    pooled: Output<'_>,
) {
    sum_bags(cpu, Weights::Given(weights), heads, values, bags, Results::Pooled(pooled));
}

/// The mean of each feature, `[B, D]`.
pub(in crate::cpu) fn mean<E: Element>(cpu: Cpu, features: Rows<'_, E>, bags: &Bags<'_>, mean: Output<'_>) {
    sum_bags(cpu, Weights::Mean, 1, Values::Shared(features), bags, Results::Pooled(mean));
}

/// The sums that a mean is of, `[B]`.
pub(in crate::cpu) fn mean_heads<E: Element>(cpu: Cpu, features: Rows<'_, E>, bags: &Bags<'_>, heads: &mut [Head]) {
    sum_bags(cpu, Weights::Mean, 1, Values::Shared(features), bags, Results::Mean(heads));
}

/// Where results go, of the bags in their order.
enum Results<'a> {
    /// `[B, K, D]`.
    Pooled(Output<'a>),
    /// `[B]`, of a mean.
    Mean(&'a mut [Head]),
}

impl<'a> Results<'a> {
    /// Cuts off those of the first bags.
    fn take(&mut self, bags: usize, of_bag: usize) -> Results<'a> {
        match self {
            Results::Pooled(pooled) => Results::Pooled(pooled.take(bags * of_bag)),
            Results::Mean(heads) => Results::Mean(take(heads, bags)),
        }
    }
}

fn sum_bags<E: Element>(
    cpu: Cpu,
    weights: Weights<'_>,
    heads: usize,
    values: Values<'_, E>,
    bags: &Bags<'_>,
    mut results: Results<'_>,
) {
    let dim = values.dim(heads);
    let jobs = groups(bags).into_iter().map(|bags| (bags.clone(), results.take(bags.len(), heads * dim))).collect();
    with_simd!(cpu, |simd| {
        let pool = Pool { simd, weights, heads, values, dim, mask: bags.mask() };
        for_each(jobs, &|(group, results)| pool.run(bags, group, results));
    });
}

#[derive(Clone, Copy)]
struct Pool<'a, S, E> {
    simd: S,
    weights: Weights<'a>,
    heads: usize,
    values: Values<'a, E>,
    dim: usize,
    mask: Option<&'a [u8]>,
}

impl<S: Simd, E: Element> Pool<'_, S, E> {
    fn run(&self, bags: &Bags<'_>, group: Range<usize>, mut results: Results<'_>) {
        let (mut rows, mut sums) = (RowSums::new(), self.sums());
        let mut z = vec![0.0; self.heads * self.dim];
        for (i, b) in group.enumerate() {
            let bag = bags.range(b);
            if bag.len() <= TILE_ROWS {
                sums.iter_mut().for_each(Sum::clear);
                self.chunk(bag.clone(), &mut rows, &mut sums);
            } else {
                sums = self.long_bag(bag.clone());
            }
            let count = || bag.filter(|&n| present(self.mask, n)).count();
            let pooled = match &mut results {
                Results::Pooled(pooled) => pooled,
                Results::Mean(heads) => {
                    heads[i] = Head { mass: Mass::of_mean(count()), sum: sums[0].clone() };
                    heads[i].carry();
                    continue;
                }
            };
            let divisor = if matches!(self.weights, Weights::Mean) { count().max(1) } else { 1 };
            self.simd.vectorize(
                #[inline(always)]
                || {
                    for (sum, z) in sums.iter_mut().zip(z.chunks_mut(self.dim)) {
                        sum.finish((divisor as f64, 0), |_| true, z);
                    }
                },
            );
            pooled.write(i * z.len()..(i + 1) * z.len(), &z);
        }
    }

    fn sums(&self) -> Vec<Sum> {
        vec![Sum::new(self.dim); self.heads]
    }

    fn long_bag(&self, bag: Range<usize>) -> Vec<Sum> {
        let leaf = |leaf: &mut Range<usize>| {
            let (mut rows, mut sums) = (RowSums::new(), self.sums());
            chunks(leaf.clone()).for_each(|chunk| self.chunk(chunk, &mut rows, &mut sums));
            sums.iter_mut().for_each(|sum| sum.carry());
            sums
        };
        let merge = |a, b| merged(a, b, Sum::merge);
        reduce(&mut leaves(bag), &leaf, &merge).unwrap_or_else(|| self.sums())
    }

    /// Adds a chunk to the sums of each head.
    fn chunk(&self, chunk: Range<usize>, rows: &mut RowSums, sums: &mut [Sum]) {
        for (head, sum) in sums.iter_mut().enumerate() {
            let (values, start) = match self.values {
                Values::Shared(values) => (values, 0),
                Values::PerHead(values) => (values, head * self.dim),
            };
            let source = Columns { rows: values, first: chunk.start, start, dim: self.dim };
            if head == 0 || start > 0 {
                let is_read = |row| present(self.mask, chunk.start + row);
                rows.measure(self.simd, chunk.len(), is_read, self.dim, source);
            }
            let there = chunk.clone().filter(|&n| present(self.mask, n));
            let weighted = there.filter_map(|n| {
                let row = n - chunk.start;
                let weight = match self.weights {
                    Weights::Mean => 1.0,
                    Weights::Given(weights) => weights[n * self.heads + head],
                };
                Weighted::given(row, weight)
            });
            rows.add(self.simd, weighted, source, sum);
        }
    }
}
