//! Softmax over the instances of each bag: `a[n,k] = exp(s[n,k] − lse[b,k])`, with
//! `lse = m + log Σ exp(s − m)` and m the greatest score.

use super::chunks::{for_each, groups, reduce, take};
use super::simd::{Simd, math};
use super::tile::TILE_ROWS;
use super::{Cpu, exact, with_simd};
use crate::bags::Bags;
use crate::error::{Error, Result, expect_len};
use crate::order::Order;
use crate::state::{join, lse};

/// The running softmax of some rows of a bag: per head the greatest score `m` and `l = Σ exp(s − m)`.
///
/// `m` is −∞ where no score is above it, and NaN where one is NaN or +∞, which `l` then is too.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Normaliser {
    pub(super) m: Vec<f32>,
    pub(super) l: Vec<f32>,
}

impl Normaliser {
    pub(super) fn new(heads: usize) -> Self {
        Normaliser { m: vec![f32::NEG_INFINITY; heads], l: vec![0.0; heads] }
    }

    /// Of scores `[rows, K]`; leaves `exp(s − m)` in `p`, exactly 0 where the score is −∞ or the
    /// exponential underflows.
    pub(super) fn of_scores<S: Simd>(&mut self, simd: S, scores: &[f32], p: &mut [f32]) {
        let heads = self.m.len();
        self.m.fill(f32::NEG_INFINITY);
        for scores in scores.chunks(heads) {
            for (m, &s) in self.m.iter_mut().zip(scores) {
                if s.is_nan() || s == f32::INFINITY {
                    *m = f32::NAN;
                } else if s > *m {
                    *m = s;
                }
            }
        }
        p.copy_from_slice(scores);
        exp_minus(simd, p, &self.m);
        self.l.fill(0.0);
        for p in p.chunks(heads) {
            for (l, &p) in self.l.iter_mut().zip(p) {
                *l += p;
            }
        }
        for (l, m) in self.l.iter_mut().zip(&self.m) {
            if m.is_nan() {
                *l = f32::NAN;
            }
        }
    }

    /// Joins the rows of `other`, and calls `scale(k, mine, theirs)` with the factors that what was
    /// summed with either side's `m` now takes. A factor of exactly 0 drops its side whole.
    pub(super) fn merge(&mut self, other: &Normaliser, mut scale: impl FnMut(usize, f32, f32)) {
        for k in 0..self.m.len() {
            let joined = join((self.m[k], self.l[k]), (other.m[k], other.l[k]));
            let [mine, theirs] = joined.factors;
            (self.m[k], self.l[k]) = (joined.max, joined.sum);
            scale(k, mine, theirs);
        }
    }

    /// Weights in place of scores `[rows, K]`: exp(s − m) / l, since log l would be lost beside an m of
    /// 1e30.
    pub(super) fn scores_to_weights<S: Simd>(&self, simd: S, scores: &mut [f32]) {
        exp_minus(simd, scores, &self.m);
        for p in scores.chunks_mut(self.l.len()) {
            for (p, &l) in p.iter_mut().zip(&self.l) {
                if *p != 0.0 {
                    *p /= l;
                }
            }
        }
    }

    /// log Σ exp(s) of each head.
    pub(super) fn lse(&self) -> impl Iterator<Item = f32> + '_ {
        self.m.iter().zip(&self.l).map(|(&m, &l)| lse(m, l))
    }
}

/// `exp(s − m)` in place of scores `[rows, K]`; 0 where the score is −∞, whatever the m.
#[inline(never)]
fn exp_minus<S: Simd>(simd: S, scores: &mut [f32], m: &[f32]) {
    for scores in scores.chunks_mut(m.len()) {
        for (s, &m) in scores.iter_mut().zip(m) {
            *s = if *s == f32::NEG_INFINITY { *s } else { *s - m };
        }
    }
    simd.vectorize(
        #[inline(always)]
        || math::exp_in_place(simd, scores),
    );
}

impl Cpu {
    /// Softmax over the instances of each bag: scores `[N, K]` → weights `[N, K]` and lse `[B, K]`.
    ///
    /// A masked instance, or one at −∞, has weight 0; an empty bag has lse −∞. A score of NaN or +∞
    /// makes its bag and head NaN.
    ///
    /// # Errors
    /// [`Error::Argument`] where `heads` is 0 or a slice is not of the length that its shape asks for.
    pub fn softmax(
        &self,
        scores: &[f32],
        heads: usize,
        bags: &Bags<'_>,
        weights: &mut [f32],
        lse: &mut [f32],
    ) -> Result<()> {
        if heads == 0 {
            return Err(Error::argument("heads", "at least 1", heads));
        }
        expect_len("scores", "[N, K]", bags.instances().saturating_mul(heads), scores.len())?;
        expect_len("weights", "[N, K]", scores.len(), weights.len())?;
        expect_len("lse", "[B, K]", bags.len().saturating_mul(heads), lse.len())?;
        weights.copy_from_slice(scores);
        mask_scores(bags, heads, weights);
        let mut outputs = (weights, lse);
        let jobs: Vec<_> = groups(bags)
            .into_iter()
            .map(|group| {
                let weights = take(&mut outputs.0, bags.rows_of(&group).len() * heads);
                let lse = take(&mut outputs.1, group.len() * heads);
                (group, weights, lse)
            })
            .collect();
        with_simd!(self, |simd| for_each(jobs, &|(group, mut weights, lse)| {
            let mut scratch = Scratch::new(heads);
            for (b, lse) in group.zip(lse.chunks_mut(heads)) {
                let scores = take(&mut weights, bags.range(b).len() * heads);
                match self.order {
                    Order::Rounding => softmax_of_bag(simd, scores, lse, &mut scratch),
                    Order::Exact => exact::softmax::softmax_of_bag(scores, lse),
                }
            }
        }));
        Ok(())
    }
}

/// What a chunk needs: its normaliser, and room for its exponentials.
struct Scratch {
    normaliser: Normaliser,
    p: Vec<f32>,
}

impl Scratch {
    fn new(heads: usize) -> Self {
        Scratch { normaliser: Normaliser::new(heads), p: vec![0.0; TILE_ROWS * heads] }
    }

    fn normalise<S: Simd>(&mut self, simd: S, scores: &[f32]) -> &Normaliser {
        self.normaliser.of_scores(simd, scores, &mut self.p[..scores.len()]);
        &self.normaliser
    }
}

/// Turns the scores of a bag into weights.
fn softmax_of_bag<S: Simd>(simd: S, scores: &mut [f32], lse: &mut [f32], scratch: &mut Scratch) {
    let heads = lse.len();
    let chunk = TILE_ROWS * heads;
    let normaliser = if scores.len() <= chunk {
        scratch.normalise(simd, scores)
    } else {
        let leaf = |scores: &mut &mut [f32]| Scratch::new(heads).normalise(simd, scores).clone();
        let merge = |mut a: Normaliser, b: Normaliser| {
            a.merge(&b, |_, _, _| ());
            a
        };
        let mut chunks: Vec<_> = scores.chunks_mut(chunk).collect();
        &reduce(&mut chunks, &leaf, &merge).unwrap_or_else(|| Normaliser::new(heads))
    };
    lse.iter_mut().zip(normaliser.lse()).for_each(|(to, lse)| *to = lse);
    for_each(scores.chunks_mut(chunk).collect(), &|scores| normaliser.scores_to_weights(simd, scores));
}

/// −∞ for what is not there.
fn mask_scores(bags: &Bags<'_>, heads: usize, scores: &mut [f32]) {
    let Some(mask) = bags.mask() else { return };
    for (scores, &present) in scores.chunks_mut(heads).zip(mask) {
        if present == 0 {
            scores.fill(f32::NEG_INFINITY);
        }
    }
}
