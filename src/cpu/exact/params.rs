//! Gradients of parameters that no order changes: instances are put in an order of their own content first.

use std::cmp::Ordering;

use rayon::prelude::*;

use super::super::backward::scores::Scored;
use crate::bags::present;
use crate::element::Element;
use crate::order::Order;
use crate::rows::Rows;

/// What the backward of scores reads, of instances in the order of the bits of the gradients of their scores, then of
/// their features, masked ones last. Instances that are equal in both add equal terms, wherever they stand.
pub(in crate::cpu) struct Sorted<E> {
    features: Vec<E>,
    dim: usize,
    mask: Option<Vec<u8>>,
    activations: Option<Vec<E>>,
    d_scores: Vec<f32>,
}

impl<E: Element> Sorted<E> {
    /// `activations` is how many an instance has.
    pub(in crate::cpu) fn new(scored: &Scored<'_, E>, heads: usize, activations: usize) -> Self {
        let is_present = |n: usize| present(scored.mask, n);
        let d_scores = |n: usize| &scored.d_scores[n * heads..(n + 1) * heads];
        let bits = |n: usize| d_scores(n).iter().map(|x| x.to_bits());
        let row_bits = |n: usize| scored.features.row(n).iter().map(|x| x.to_f32().to_bits());
        let compare = |&a: &usize, &b: &usize| match (is_present(a), is_present(b)) {
            (true, true) => bits(a).cmp(bits(b)).then_with(|| row_bits(a).cmp(row_bits(b))),
            (false, false) => Ordering::Equal,
            (a, b) => b.cmp(&a),
        };
        let mut order: Vec<usize> = (0..scored.features.len()).collect();
        order.par_sort_unstable_by(compare);

        let gathered = |from: &[E], len: usize| order.iter().flat_map(|n| &from[n * len..][..len]).copied().collect();
        Sorted {
            features: order.iter().flat_map(|&n| scored.features.row(n)).copied().collect(),
            dim: scored.features.dim(),
            mask: scored.mask.map(|mask| order.iter().map(|&n| mask[n]).collect()),
            activations: scored.activations.map(|kept| gathered(kept, activations)),
            d_scores: order.iter().flat_map(|&n| d_scores(n)).copied().collect(),
        }
    }

    pub(in crate::cpu) fn scored(&self) -> Scored<'_, E> {
        Scored {
            features: Rows::whole(&self.features, self.dim),
            mask: self.mask.as_deref(),
            activations: self.activations.as_deref(),
            d_scores: &self.d_scores,
            pooled: None,
            order: Order::Rounding,
        }
    }
}
