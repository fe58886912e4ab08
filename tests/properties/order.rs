//! The order of the instances in a bag changes results within tolerance alone: what a permuted bag
//! gives is what the oracle gives for the bag as it was, put in the new order.

use mivc::{Bags, Element};
use proptest::prelude::*;

use crate::backends::Backend;
use crate::support::{Case, Matrix, Outcome, Subject, cases, oracle, same};

tests![softmax; scores, weighted_sum, max_mean, attention_pool];

const CASES: u32 = 32;

/// The rows in another order, each in the bag it was in: place `n` takes row `order[n]`.
pub struct Permutation {
    order: Vec<usize>,
}

impl Permutation {
    pub fn of(case: &Case) -> Self {
        let mut rng = case.rng("order");
        let mut order: Vec<usize> = (0..case.instances()).collect();
        for bag in case.bags().ranges() {
            for i in (bag.start + 1..bag.end).rev() {
                order.swap(i, rng.random_range(bag.start..=i));
            }
        }
        Permutation { order }
    }

    pub fn matrix<E: Element>(&self, matrix: &Matrix<E>) -> Matrix<E> {
        matrix.select(self.order.iter().copied())
    }

    pub fn bags(&self, bags: &Bags<'static>) -> Bags<'static> {
        let Some(mask) = bags.mask() else { return bags.clone() };
        let mask: Vec<u8> = self.order.iter().map(|&n| mask[n]).collect();
        bags.clone().with_mask(mask).unwrap()
    }

    /// `[N, K]`.
    pub fn rows(&self, data: &[f32], heads: usize) -> Vec<f32> {
        self.order.iter().flat_map(|&n| &data[n * heads..][..heads]).copied().collect()
    }

    /// `[N, K]`, back where they were.
    pub fn undone(&self, data: &[f32], heads: usize) -> Vec<f32> {
        let mut undone = vec![f32::NAN; data.len()];
        for (row, &n) in data.chunks(heads).zip(&self.order) {
            undone[n * heads..][..heads].copy_from_slice(row);
        }
        undone
    }
}

fn scores<B: Backend, E: Element>(subject: &Subject<B>) -> Outcome {
    subject.forall(CASES, cases(), |case| {
        let (order, params, features, bags) =
            (Permutation::of(&case), case.params(), case.features::<E>(), case.bags());
        let scores = subject.scores(&params, order.matrix(&features).rows(), order.bags(&bags).mask())?;
        let expected = oracle::scores(&params, features.rows(), bags.mask());
        expected.check("scores", &order.undone(&scores, case.heads))
    })
}

fn softmax<B: Backend>(subject: &Subject<B>) -> Outcome {
    subject.forall(CASES, cases(), |case| {
        let (order, scores, bags) = (Permutation::of(&case), case.scores(), case.bags());
        let out = subject.softmax(&order.rows(&scores, case.heads), case.heads, &order.bags(&bags))?;
        let [weights, lse] = oracle::softmax(&scores, case.heads, &bags);
        weights.check("weights", &order.undone(&out.weights, case.heads))?;
        lse.check("lse", &out.lse)
    })
}

fn weighted_sum<B: Backend, E: Element>(subject: &Subject<B>) -> Outcome {
    subject.forall(CASES, cases(), |case| {
        let (order, weights, values, bags) =
            (Permutation::of(&case), case.weights(), case.features::<E>(), case.bags());
        let pooled: Vec<f32> = subject.weighted_sum(
            &order.rows(&weights, case.heads),
            case.heads,
            order.matrix(&values).shared(),
            &order.bags(&bags),
        )?;
        oracle::weighted_sum(&weights, case.heads, values.shared(), &bags).check("pooled", &pooled)
    })
}

/// The maximum does not depend on the order at all; its row is one that holds it.
fn max_mean<B: Backend, E: Element>(subject: &Subject<B>) -> Outcome {
    subject.forall(CASES, cases(), |case| {
        let (order, features, bags) = (Permutation::of(&case), case.features::<E>(), case.bags());
        let permuted = order.matrix(&features);
        let out = subject.max_mean::<E, f32>(permuted.rows(), &order.bags(&bags))?;
        same("max", &out.max, &subject.max_mean::<E, f32>(features.rows(), &bags)?.max)?;
        oracle::max_mean(features.rows(), &bags).mean.check("mean", &out.mean)?;
        for (i, &row) in out.argmax.iter().enumerate() {
            let at = usize::try_from(row).map(|row| permuted.row(row)[i % case.dim].to_f32());
            prop_assert_eq!(at.unwrap_or(0.0), out.max[i], "argmax[{}] = {}", i, row);
        }
        Ok(())
    })
}

fn attention_pool<B: Backend, E: Element>(subject: &Subject<B>) -> Outcome {
    subject.forall(CASES, cases(), |case| {
        let (order, params, bags) = (Permutation::of(&case), case.params(), case.bags());
        let (keys, values) = (case.features::<E>(), case.values::<E>());
        let permuted = values.as_ref().map(|values| order.matrix(values));
        let mut out = subject.attention_pool::<E, f32>(
            &params,
            order.matrix(&keys).rows(),
            permuted.as_ref().map(Matrix::rows),
            &order.bags(&bags),
        )?;
        out.scores = order.undone(&out.scores, case.heads);
        out.weights = order.undone(&out.weights, case.heads);
        oracle::attention_pool(&params, keys.rows(), values.as_ref().map(Matrix::rows), &bags).check(&out)
    })
}
