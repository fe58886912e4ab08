//! Backward of max and mean: `dh[n] = dmax[b] / ties` where h[n] is the maximum, `+ dmean[b] / count`.

use std::ops::Range;

use super::super::Cpu;
use super::super::chunks::{chunks, for_each, groups, reduce, take};
use super::super::kernels::Output;
use super::super::max_mean::{self, Outputs};
use super::super::weighted_sum::add;
use super::target::Target;
use super::{bags_of, tiles};
use crate::bags::{Bags, present};
use crate::element::Element;
use crate::error::{Error, Result, expect_len};
use crate::gradient::Gradient;
use crate::rows::Rows;

/// The gradients of what max/mean pooling returns, `[B, D]` each; at least one of them.
#[derive(Debug, Clone, Copy, Default)]
pub struct MaxMeanUpstream<'a, O> {
    /// Of the maximum.
    pub max: Option<&'a [O]>,
    /// Of the mean.
    pub mean: Option<&'a [O]>,
}

impl Cpu {
    /// Backward of [`max_mean`](Self::max_mean): features `[N, D]` and the gradients of max and mean → the gradient of
    /// the features, `[N, D]`.
    ///
    /// Instances that tie at the maximum share its gradient equally, and so do NaNs where the maximum is one. Without a
    /// gradient of the maximum the features are not read.
    ///
    /// # Errors
    /// [`Error::Argument`] where there is no gradient or one is not of the length that its shape asks for;
    /// [`Error::Bags`] where the bags do not cover the features.
    pub fn max_mean_backward<E: Element, O: Element, G: Element>(
        &self,
        features: Rows<'_, E>,
        bags: &Bags<'_>,
        upstream: MaxMeanUpstream<'_, O>,
        d_features: Gradient<'_, G>,
    ) -> Result<()> {
        bags.expect_instances(features.len())?;
        if upstream.max.is_none() && upstream.mean.is_none() {
            return Err(Error::argument("upstream", "max or mean", "none of them"));
        }
        let pooled = bags.len().saturating_mul(features.dim());
        expect_len("d_max", "[B, D]", pooled, upstream.max.map_or(pooled, <[O]>::len))?;
        expect_len("d_mean", "[B, D]", pooled, upstream.mean.map_or(pooled, <[O]>::len))?;
        let elements = features.len().saturating_mul(features.dim());
        expect_len("d_features", "[N, D]", elements, d_features.slice().len())?;
        let [d_max, d_mean] = [upstream.max, upstream.mean].map(|from| from.map(|from| O::f32s(from).into_owned()));
        E::max_mean_backward(*self, features, bags, [d_max, d_mean], Target::new(d_features));
        Ok(())
    }
}

/// `d_max` and `d_mean`.
pub(in crate::cpu) fn run<E: Element>(
    cpu: Cpu,
    features: Rows<'_, E>,
    bags: &Bags<'_>,
    [mut d_max, mut d_mean]: [Option<Vec<f32>>; 2],
    mut d_features: Target<'_>,
) {
    let dim = features.dim();
    let mut max = Vec::new();
    if let Some(d_max) = &mut d_max {
        max.resize(bags.len() * dim, 0.0);
        max_mean::run(cpu, features, bags, Outputs { max: Some(Output::F32(&mut max)), mean: None, argmax: None });
        share_max(features, bags, &max, d_max);
    }
    if let Some(d_mean) = &mut d_mean {
        for (bag, d_mean) in bags.ranges().zip(d_mean.chunks_mut(dim)) {
            let count = bag.filter(|&n| present(bags.mask(), n)).count() as f32;
            d_mean.iter_mut().for_each(|x| *x /= count);
        }
    }
    let jobs = tiles(bags.instances()).map(|rows| (rows.clone(), d_features.take(rows.len() * dim))).collect();
    let shares = Shares { features, bags, max, d_max, d_mean };
    for_each(jobs, &|(rows, target)| shares.write(rows, target));
}

/// Divides the gradient of each maximum by how many instances tie at it.
fn share_max<E: Element>(features: Rows<'_, E>, bags: &Bags<'_>, max: &[f32], mut d_max: &mut [f32]) {
    let dim = features.dim();
    let jobs =
        groups(bags).into_iter().map(|group| (group.clone(), take(&mut d_max, group.len() * dim))).collect::<Vec<_>>();
    for_each(jobs, &|(group, d_max)| {
        for (b, d_max) in group.zip(d_max.chunks_mut(dim)) {
            let max = &max[b * dim..(b + 1) * dim];
            let leaf = |rows: &mut Range<usize>| {
                let mut ties = vec![0.0; dim];
                for n in rows.filter(|&n| present(bags.mask(), n)) {
                    for ((ties, &x), &max) in ties.iter_mut().zip(features.row(n)).zip(max) {
                        *ties += f32::from(tie(x.to_f32(), max));
                    }
                }
                ties
            };
            // More than 2^24 of them are counted approximately.
            if let Some(ties) = reduce(&mut chunks(bags.range(b)).collect::<Vec<_>>(), &leaf, &add) {
                d_max.iter_mut().zip(ties).for_each(|(x, ties)| *x /= ties);
            }
        }
    });
}

/// Whether a feature is the maximum: equal to it, or NaN as it is.
fn tie(x: f32, max: f32) -> bool {
    x == max || (x.is_nan() && max.is_nan())
}

/// What each instance of a bag has of its gradients.
struct Shares<'a, E> {
    features: Rows<'a, E>,
    bags: &'a Bags<'a>,
    /// `[B, D]`, and empty where it has no gradient.
    max: Vec<f32>,
    /// `[B, D]`.
    d_max: Option<Vec<f32>>,
    /// `[B, D]`.
    d_mean: Option<Vec<f32>>,
}

impl<E: Element> Shares<'_, E> {
    fn write(&self, rows: Range<usize>, mut target: Target<'_>) {
        let dim = self.features.dim();
        let mut row = vec![0.0; dim];
        for (i, (n, b)) in bags_of(self.bags, rows).enumerate() {
            let (at, of_bag) = (i * dim..(i + 1) * dim, b * dim..(b + 1) * dim);
            if !present(self.bags.mask(), n) {
                target.write_zeros(at);
                continue;
            }
            match &self.d_mean {
                Some(d_mean) => row.copy_from_slice(&d_mean[of_bag.clone()]),
                None => row.fill(0.0),
            }
            if let Some(d_max) = &self.d_max {
                let maxima = self.max[of_bag.clone()].iter().zip(&d_max[of_bag]);
                for ((to, &x), (&max, d_max)) in row.iter_mut().zip(self.features.row(n)).zip(maxima) {
                    *to += if tie(x.to_f32(), max) { *d_max } else { 0.0 };
                }
            }
            target.write(at, &row);
        }
    }
}
