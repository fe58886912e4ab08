//! Backward of the weighted sum: `da[n,k] = dz[b,k] · x[n]`, `dx[n] = Σ_k a[n,k] dz[b,k]`.

use std::ops::Range;

use super::super::chunks::for_each;
use super::super::simd::Simd;
use super::super::weighted_sum::Values;
use super::super::{Cpu, with_simd};
use super::target::Target;
use super::{bags_of, tiles};
use crate::bags::{Bags, present};
use crate::element::Element;
use crate::error::{Result, expect_len};
use crate::gradient::Gradient;

/// What [`Cpu::weighted_sum_backward`] writes.
#[derive(Debug)]
pub struct WeightedSumGradients<'a, G> {
    /// Of the weights, `[N, K]`.
    pub weights: Option<Gradient<'a, f32>>,
    /// Of the values, `[N, D]` or `[N, K, D]` as they are.
    pub values: Option<Gradient<'a, G>>,
}

impl Cpu {
    /// Backward of [`weighted_sum`](Self::weighted_sum): weights `[N, K]`, values and the gradient of the pooled
    /// `[B, K, D]` → the gradients of weights and values.
    ///
    /// Both are 0 where the weight is: the forward skips such a row, and so does this.
    ///
    /// # Errors
    /// As of the forward, and where a gradient is not of the length that its shape asks for.
    pub fn weighted_sum_backward<E: Element, O: Element, G: Element>(
        &self,
        weights: &[f32],
        heads: usize,
        values: Values<'_, E>,
        bags: &Bags<'_>,
        d_pooled: &[O],
        gradients: WeightedSumGradients<'_, G>,
    ) -> Result<()> {
        let dim = values.expect(weights, heads, bags)?;
        let pooled = bags.len().saturating_mul(heads).saturating_mul(dim);
        expect_len("d_pooled", "[B, K, D]", pooled, d_pooled.len())?;
        Gradient::expect_len(&gradients.weights, "d_weights", "[N, K]", weights.len())?;
        let rows = values.rows();
        Gradient::expect_len(&gradients.values, "d_values", "of the values", rows.len().saturating_mul(rows.dim()))?;
        let targets = [gradients.weights.map(Target::new), gradients.values.map(Target::new)];
        E::weighted_sum_backward(*self, weights, heads, values, bags, &O::f32s(d_pooled), targets);
        Ok(())
    }
}

/// `d_weights` and `d_values`.
pub(in crate::cpu) fn run<E: Element>(
    cpu: Cpu,
    weights: &[f32],
    heads: usize,
    values: Values<'_, E>,
    bags: &Bags<'_>,
    d_pooled: &[f32],
    [mut d_weights, mut d_values]: [Option<Target<'_>>; 2],
) {
    let (dim, row) = (values.dim(heads), values.rows().dim());
    let job = |rows: Range<usize>| {
        let d_weights = d_weights.as_mut().map(|to| to.take(rows.len() * heads));
        let d_values = d_values.as_mut().map(|to| to.take(rows.len() * row));
        (rows, d_weights, d_values)
    };
    let jobs: Vec<_> = tiles(bags.instances()).map(job).collect();
    with_simd!(cpu, |simd| {
        let backward = Backward { simd, weights, heads, values, dim, bags, d_pooled };
        for_each(jobs, &|(rows, d_weights, d_values)| backward.run(rows, d_weights, d_values));
    });
}

struct Backward<'a, S, E> {
    simd: S,
    weights: &'a [f32],
    heads: usize,
    values: Values<'a, E>,
    dim: usize,
    bags: &'a Bags<'a>,
    /// `[B, K, D]`.
    d_pooled: &'a [f32],
}

impl<S: Simd, E: Element> Backward<'_, S, E> {
    fn run(&self, rows: Range<usize>, mut d_weights: Option<Target<'_>>, mut d_values: Option<Target<'_>>) {
        let (heads, row) = (self.heads, self.values.rows().dim());
        let mut weights = vec![0.0; heads];
        let mut row_gradient = vec![0.0; row];
        for (i, (n, b)) in bags_of(self.bags, rows).enumerate() {
            let d_pooled = &self.d_pooled[b * heads * self.dim..(b + 1) * heads * self.dim];
            weights.fill(0.0);
            if present(self.bags.mask(), n) {
                weights.copy_from_slice(&self.weights[n * heads..(n + 1) * heads]);
            }
            if let Some(to) = &mut d_values {
                self.values(&weights, d_pooled, &mut row_gradient);
                to.write(i * row..(i + 1) * row, &row_gradient);
            }
            if let Some(to) = &mut d_weights {
                self.weights(n, d_pooled, &mut weights);
                to.write(i * heads..(i + 1) * heads, &weights);
            }
        }
    }

    /// Of the values of one instance.
    #[inline(never)]
    fn values(&self, weights: &[f32], d_pooled: &[f32], d_row: &mut [f32]) {
        let simd = self.simd;
        d_row.fill(0.0);
        simd.vectorize(
            #[inline(always)]
            || {
                for (k, (&weight, d_pooled)) in weights.iter().zip(d_pooled.chunks(self.dim)).enumerate() {
                    if weight == 0.0 {
                        continue;
                    }
                    let d_row = match self.values {
                        Values::Shared(_) => &mut *d_row,
                        Values::PerHead(_) => &mut d_row[k * self.dim..(k + 1) * self.dim],
                    };
                    add_scaled(simd, weight, d_pooled, d_row);
                }
            },
        );
    }

    /// Of the weights of instance `n`, in their place.
    #[inline(never)]
    fn weights(&self, n: usize, d_pooled: &[f32], weights: &mut [f32]) {
        let simd = self.simd;
        let row = self.values.rows().row(n);
        simd.vectorize(
            #[inline(always)]
            || {
                for (k, (weight, d_pooled)) in weights.iter_mut().zip(d_pooled.chunks(self.dim)).enumerate() {
                    if *weight == 0.0 {
                        continue;
                    }
                    let row = match self.values {
                        Values::Shared(_) => row,
                        Values::PerHead(_) => &row[k * self.dim..(k + 1) * self.dim],
                    };
                    let mut sum = simd.splat(0.0);
                    for (x, d_pooled) in row.chunks(S::LANES).zip(d_pooled.chunks(S::LANES)) {
                        sum = simd.mul_add(simd.load_slice(x), simd.load_slice(d_pooled), sum);
                    }
                    *weight = simd.sum(sum);
                }
            },
        );
    }
}

/// `to += weight · from`.
#[inline(always)]
pub(super) fn add_scaled<S: Simd>(simd: S, weight: f32, from: &[f32], to: &mut [f32]) {
    let weight = simd.splat(weight);
    for (to, from) in to.chunks_mut(S::LANES).zip(from.chunks(S::LANES)) {
        let sum = simd.mul_add(weight, simd.load_slice(from), simd.load_slice(to));
        simd.store_slice(to, sum);
    }
}
