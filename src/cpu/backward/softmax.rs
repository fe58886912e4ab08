//! Backward of the softmax: `ds[n] = a[n] · (da[n] − Σ_i a[i] da[i] + dlse)`.

use std::ops::Range;

use super::super::chunks::{chunks, for_each, groups, reduce, take};
use super::super::weighted_sum::add;
use super::super::{Cpu, tile::TILE_ROWS};
use crate::bags::{Bags, present};
use crate::error::{Error, Result, expect_len};
use crate::exact::sum::Sum;
use crate::gradient::Gradient;
use crate::order::Order;

/// The gradients of what the softmax returns, of each that the loss depends on.
#[derive(Debug, Clone, Copy, Default)]
pub struct SoftmaxUpstream<'a> {
    /// `[N, K]`.
    pub weights: Option<&'a [f32]>,
    /// `[B, K]`.
    pub lse: Option<&'a [f32]>,
}

impl Cpu {
    /// Backward of [`softmax`](Self::softmax): weights `[N, K]` and the gradients of weights and lse → the gradient of
    /// the scores `[N, K]`.
    ///
    /// It is 0 where the weight is: of a masked instance, of one at −∞.
    ///
    /// # Errors
    /// [`Error::Argument`] where `heads` is 0 or a slice is not of the length that its shape asks for.
    pub fn softmax_backward(
        &self,
        weights: &[f32],
        heads: usize,
        bags: &Bags<'_>,
        upstream: SoftmaxUpstream<'_>,
        d_scores: Gradient<'_, f32>,
    ) -> Result<()> {
        if heads == 0 {
            return Err(Error::argument("heads", "at least 1", heads));
        }
        let len = bags.instances().saturating_mul(heads);
        expect_len("weights", "[N, K]", len, weights.len())?;
        expect_len("d_weights", "[N, K]", len, upstream.weights.map_or(len, <[f32]>::len))?;
        let bag_heads = bags.len().saturating_mul(heads);
        expect_len("d_lse", "[B, K]", bag_heads, upstream.lse.map_or(bag_heads, <[f32]>::len))?;
        expect_len("d_scores", "[N, K]", len, d_scores.slice().len())?;
        run(self.order, weights, heads, bags, upstream, d_scores);
        Ok(())
    }
}

pub(super) fn run(
    order: Order,
    weights: &[f32],
    heads: usize,
    bags: &Bags<'_>,
    upstream: SoftmaxUpstream<'_>,
    d_scores: Gradient<'_, f32>,
) {
    let (mut d_scores, adds) = d_scores.into_parts();
    let jobs: Vec<_> = groups(bags)
        .into_iter()
        .map(|group| (group.clone(), take(&mut d_scores, bags.rows_of(&group).len() * heads)))
        .collect();
    let backward = Backward { weights, heads, mask: bags.mask(), upstream, adds, order };
    for_each(jobs, &|(group, mut d_scores)| {
        for b in group {
            let bag = bags.range(b);
            backward.bag(b, bag.clone(), take(&mut d_scores, bag.len() * heads));
        }
    });
}

struct Backward<'a> {
    weights: &'a [f32],
    heads: usize,
    mask: Option<&'a [u8]>,
    upstream: SoftmaxUpstream<'a>,
    adds: bool,
    order: Order,
}

impl Backward<'_> {
    fn bag(&self, b: usize, bag: Range<usize>, d_scores: &mut [f32]) {
        let mut means = match self.order {
            Order::Rounding => {
                let leaf = |rows: &mut Range<usize>| self.means(rows.clone());
                let means = reduce(&mut chunks(bag.clone()).collect::<Vec<_>>(), &leaf, &add);
                means.unwrap_or_else(|| vec![0.0; self.heads])
            }
            Order::Exact => self.exact_means(bag.clone()),
        };
        if let Some(d_lse) = self.upstream.lse {
            means.iter_mut().zip(&d_lse[b * self.heads..]).for_each(|(mean, d_lse)| *mean -= d_lse);
        }
        for_each(chunks(bag).zip(d_scores.chunks_mut(TILE_ROWS * self.heads)).collect(), &|(rows, d_scores)| {
            self.chunk(rows, &means, d_scores);
        });
    }

    /// Σ a·da of each head over some rows.
    fn means(&self, rows: Range<usize>) -> Vec<f32> {
        let mut means = vec![0.0; self.heads];
        self.each_term(rows, |k, term| means[k] += term);
        means
    }

    /// The same of a whole bag, the products rounded but not their sums.
    fn exact_means(&self, bag: Range<usize>) -> Vec<f32> {
        let mut sums = vec![Sum::new(1); self.heads];
        self.each_term(bag, |k, term| sums[k].add(term));
        let mut means = vec![0.0; self.heads];
        sums.iter_mut().zip(means.chunks_mut(1)).for_each(|(sum, mean)| sum.finish((1.0, 0), |_| true, mean));
        means
    }

    /// a·da of each head of some rows, where the weight is not 0.
    #[inline(always)]
    fn each_term(&self, rows: Range<usize>, mut add: impl FnMut(usize, f32)) {
        for n in rows {
            for k in 0..self.heads {
                let weight = self.weight(n, k);
                if weight != 0.0 {
                    add(k, weight * self.d_weight(n, k));
                }
            }
        }
    }

    /// `means` are less the gradient of lse.
    fn chunk(&self, rows: Range<usize>, means: &[f32], d_scores: &mut [f32]) {
        for (n, d_scores) in rows.zip(d_scores.chunks_mut(self.heads)) {
            for (k, (d_score, mean)) in d_scores.iter_mut().zip(means).enumerate() {
                let weight = self.weight(n, k);
                let gradient = if weight == 0.0 { 0.0 } else { weight * (self.d_weight(n, k) - mean) };
                *d_score = if self.adds { *d_score + gradient } else { gradient };
            }
        }
    }

    /// 0 where the instance is masked.
    fn weight(&self, n: usize, k: usize) -> f32 {
        if present(self.mask, n) { self.weights[n * self.heads + k] } else { 0.0 }
    }

    fn d_weight(&self, n: usize, k: usize) -> f32 {
        self.upstream.weights.map_or(0.0, |d_weights| d_weights[n * self.heads + k])
    }
}
