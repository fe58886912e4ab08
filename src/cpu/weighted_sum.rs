//! Weighted sum: `z[b,k] = Σ_n a[n,k]·x[n]`.

use std::ops::Range;

use super::chunks::{by_fours, chunks, for_each, groups, reduce};
use super::kernels::Output;
use super::simd::Simd;
use super::source::{Columns, Source};
use super::tile::TILE_ROWS;
use super::{Cpu, exact, with_simd};
use crate::bags::{Bags, present};
use crate::element::Element;
use crate::error::{Error, Result, expect_len};
use crate::order::Order;
use crate::rows::Rows;

/// Values of a weighted sum.
#[derive(Debug, Clone, Copy)]
pub enum Values<'a, E> {
    /// `[N, D]`, the same for every head.
    Shared(Rows<'a, E>),
    /// `[N, K·D]`: `K` blocks of `D` per instance.
    PerHead(Rows<'a, E>),
}

impl<E: Element> Values<'_, E> {
    pub(super) fn rows(&self) -> &Rows<'_, E> {
        match self {
            Values::Shared(rows) | Values::PerHead(rows) => rows,
        }
    }

    /// `D` of a head.
    pub(super) fn dim(&self, heads: usize) -> usize {
        match self {
            Values::Shared(rows) => rows.dim(),
            Values::PerHead(rows) => rows.dim() / heads,
        }
    }

    /// `D`, where weights, heads and bags fit the values.
    pub(super) fn expect(&self, weights: &[f32], heads: usize, bags: &Bags<'_>) -> Result<usize> {
        if heads == 0 {
            return Err(Error::argument("heads", "at least 1", heads));
        }
        if let Values::PerHead(rows) = self
            && !rows.dim().is_multiple_of(heads)
        {
            return Err(Error::argument("values", format!("rows of a multiple of heads = {heads}"), rows.dim()));
        }
        bags.expect_instances(self.rows().len())?;
        expect_len("weights", "[N, K]", bags.instances().saturating_mul(heads), weights.len())?;
        Ok(self.dim(heads))
    }
}

/// `z[k] = Σ p[row,k]·x[row]` for one head `k` of `p` `[rows, heads]`, row by row. What has weight 0 is
/// skipped, not multiplied.
#[inline(never)]
pub(super) fn sum_rows<S: Simd>(simd: S, p: &[f32], heads: usize, head: usize, source: impl Source<S>, z: &mut [f32]) {
    simd.vectorize(
        #[inline(always)]
        || add_weighted(simd, p, heads, head, source, z),
    );
}

#[inline(always)]
fn add_weighted<S: Simd>(simd: S, p: &[f32], heads: usize, head: usize, source: impl Source<S>, z: &mut [f32]) {
    let weight = |row: usize| p[row * heads + head];
    z.fill(0.0);
    let there = (0..p.len() / heads).filter(|&row| weight(row) != 0.0);
    by_fours(
        there,
        #[inline(always)]
        |rows| match *rows {
            [] => {}
            [a] => add_rows(simd, [a], weight, source, z),
            [a, b] => add_rows(simd, [a, b], weight, source, z),
            [a, b, c] => add_rows(simd, [a, b, c], weight, source, z),
            [a, b, c, d, ..] => add_rows(simd, [a, b, c, d], weight, source, z),
        },
    );
}

/// `z += Σ weight·row`, the rows in their order.
#[inline(always)]
fn add_rows<S: Simd, R: Source<S>, const N: usize>(
    simd: S,
    rows: [usize; N],
    weight: impl Fn(usize) -> f32,
    source: R,
    z: &mut [f32],
) {
    let mut weights = [simd.splat(0.0); N];
    for (to, &row) in weights.iter_mut().zip(&rows) {
        *to = simd.splat(weight(row));
    }
    let rows = rows.map(|row| source.row(row));
    for (i, z) in z.chunks_mut(S::LANES).enumerate() {
        let mut sum = simd.load_slice(z);
        for (&weight, &row) in weights.iter().zip(&rows) {
            sum = simd.mul_add(weight, source.load(simd, row, i * S::LANES), sum);
        }
        simd.store_slice(z, sum);
    }
}

impl Cpu {
    /// Weighted sum of the values of each bag: weights `[N, K]`, values → pooled `[B, K, D]`.
    ///
    /// An instance that is masked out or of weight 0 is skipped, whatever its values.
    ///
    /// # Errors
    /// [`Error::Argument`] where `heads` is 0, the rows of per-head values are no multiple of it, or a
    /// slice is not of the length that its shape asks for; [`Error::Bags`] where the bags do not cover
    /// the values.
    pub fn weighted_sum<E: Element, O: Element>(
        &self,
        weights: &[f32],
        heads: usize,
        values: Values<'_, E>,
        bags: &Bags<'_>,
        pooled: &mut [O],
    ) -> Result<()> {
        let dim = values.expect(weights, heads, bags)?;
        expect_len("pooled", "[B, K, D]", bags.len().saturating_mul(heads).saturating_mul(dim), pooled.len())?;

        E::weighted_sum(*self, weights, heads, values, bags, O::output(pooled));
        Ok(())
    }
}

pub(super) fn run<E: Element>(
    cpu: Cpu,
    weights: &[f32],
    heads: usize,
    values: Values<'_, E>,
    bags: &Bags<'_>,
    mut pooled: Output<'_>,
) {
    if cpu.order == Order::Exact {
        return exact::weighted_sum::run(cpu, weights, heads, values, bags, pooled);
    }
    let dim = values.dim(heads);
    let jobs = groups(bags).into_iter().map(|bags| (bags.clone(), pooled.take(bags.len() * heads * dim))).collect();
    with_simd!(cpu, |simd| {
        let sum = ChunkSum { simd, weights, heads, values, dim, mask: bags.mask() };
        for_each(jobs, &|(group, pooled)| sum.pool(bags, group, pooled));
    });
}

#[derive(Clone, Copy)]
struct ChunkSum<'a, S, E> {
    simd: S,
    weights: &'a [f32],
    heads: usize,
    values: Values<'a, E>,
    dim: usize,
    mask: Option<&'a [u8]>,
}

impl<S: Simd, E: Element> ChunkSum<'_, S, E> {
    fn pool(&self, bags: &Bags<'_>, group: Range<usize>, mut pooled: Output<'_>) {
        let mut p = vec![0.0; TILE_ROWS * self.heads];
        let mut z = vec![0.0; self.heads * self.dim];
        for (i, b) in group.enumerate() {
            let bag = bags.range(b);
            if bag.len() <= TILE_ROWS {
                self.chunk(bag, &mut p, &mut z);
            } else {
                z = self.long_bag(bag);
            }
            pooled.write(i * z.len()..(i + 1) * z.len(), &z);
        }
    }

    fn long_bag(&self, bag: Range<usize>) -> Vec<f32> {
        let leaf = |rows: &mut Range<usize>| {
            let mut z = vec![0.0; self.heads * self.dim];
            self.chunk(rows.clone(), &mut vec![0.0; TILE_ROWS * self.heads], &mut z);
            z
        };
        let mut chunks: Vec<_> = chunks(bag).collect();
        reduce(&mut chunks, &leaf, &add).unwrap_or_default()
    }

    /// Sums one chunk into `z` `[K, D]`; `p` is room for its weights.
    fn chunk(&self, rows: Range<usize>, p: &mut [f32], z: &mut [f32]) {
        let heads = self.heads;
        let p = &mut p[..rows.len() * heads];
        p.copy_from_slice(&self.weights[rows.start * heads..rows.end * heads]);
        for (row, p) in rows.clone().zip(p.chunks_mut(heads)) {
            if !present(self.mask, row) {
                p.fill(0.0);
            }
        }
        let (first, dim) = (rows.start, self.dim);
        for (head, z) in z.chunks_mut(dim).enumerate() {
            let (rows, start) = match self.values {
                Values::Shared(rows) => (rows, 0),
                Values::PerHead(rows) => (rows, head * dim),
            };
            sum_rows(self.simd, p, heads, head, Columns { rows, first, start, dim }, z);
        }
    }
}

/// Element by element.
pub(super) fn add(mut a: Vec<f32>, b: Vec<f32>) -> Vec<f32> {
    a.iter_mut().zip(b).for_each(|(a, b)| *a += b);
    a
}
