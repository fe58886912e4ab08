//! A masked instance has weight 0 and score −inf, and its features are never used, whatever they are:
//! the bag is as it would be without the row.

use mivc::{Bags, Element};
use proptest::prelude::*;

use crate::backends::Backend;
use crate::support::{Case, Check, Matrix, Outcome, Subject, cases, every, oracle, same};

tests![softmax; scores, weighted_sum, max_mean, attention_pool];

const CASES: u32 = 32;

const ANYTHING: [f32; 4] = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 7.0];

fn masked_cases() -> impl Strategy<Value = Case> {
    cases().prop_map(|case| Case { masked: true, ..case })
}

/// The rows that are present.
fn present(bags: &Bags<'_>) -> Vec<usize> {
    (0..bags.instances()).filter(|&n| bags.mask().unwrap()[n] != 0).collect()
}

/// The bags without the rows that are not.
fn compacted(bags: &Bags<'_>) -> Bags<'static> {
    let mask = bags.mask().unwrap();
    let lengths: Vec<i64> =
        bags.ranges().map(|rows| mask[rows].iter().filter(|&&present| present != 0).count() as i64).collect();
    Bags::from_lengths(&lengths).unwrap()
}

/// The same rows, with `value` throughout those that are masked.
fn overwritten<E: Element>(matrix: &Matrix<E>, bags: &Bags<'_>, value: f32) -> Matrix<E> {
    let mut matrix = matrix.clone();
    for (n, _) in bags.mask().unwrap().iter().enumerate().filter(|(_, present)| **present == 0) {
        matrix.row_mut(n).fill(E::from_f32(value));
    }
    matrix
}

/// `out` `[N, K]` is `nothing` in the masked rows; the others, put together.
fn split(what: &str, out: &[f32], heads: usize, bags: &Bags<'_>, nothing: f32) -> Check<Vec<f32>> {
    let mut kept = Vec::new();
    for (row, &present) in out.chunks(heads).zip(bags.mask().unwrap()) {
        match present {
            0 => every(what, row, |x| x == nothing)?,
            _ => kept.extend_from_slice(row),
        }
    }
    Ok(kept)
}

fn scores<B: Backend, E: Element>(subject: &Subject<B>) -> Outcome {
    subject.forall(CASES, masked_cases(), |case| {
        let (params, features, bags) = (case.params(), case.features::<E>(), case.bags());
        let scores = |value| subject.scores(&params, overwritten(&features, &bags, value).rows(), bags.mask());
        let first = scores(0.0)?;
        ANYTHING.iter().try_for_each(|&value| same("scores", &first, &scores(value)?))?;

        let kept = split("scores", &first, case.heads, &bags, f32::NEG_INFINITY)?;
        oracle::scores(&params, features.select(present(&bags)).rows(), None).check("scores", &kept)
    })
}

fn softmax<B: Backend>(subject: &Subject<B>) -> Outcome {
    subject.forall(CASES, masked_cases(), |case| {
        let (bags, heads) = (case.bags(), case.heads);
        let scores = Matrix::new(heads, case.scores());
        let softmax = |value| {
            let scores: Vec<f32> = overwritten(&scores, &bags, value).iter().flatten().copied().collect();
            subject.softmax(&scores, heads, &bags)
        };
        let first = softmax(0.0)?;
        ANYTHING.iter().try_for_each(|&value| same("softmax", &first, &softmax(value)?))?;

        let kept: Vec<f32> = scores.select(present(&bags)).iter().flatten().copied().collect();
        let [weights, lse] = oracle::softmax(&kept, heads, &compacted(&bags));
        weights.check("weights", &split("weights", &first.weights, heads, &bags, 0.0)?)?;
        lse.check("lse", &first.lse)
    })
}

/// Whatever their weights, too.
fn weighted_sum<B: Backend, E: Element>(subject: &Subject<B>) -> Outcome {
    subject.forall(CASES, masked_cases(), |case| {
        let (bags, heads) = (case.bags(), case.heads);
        let (weights, values, blocks) =
            (Matrix::new(heads, case.weights()), case.features::<E>(), case.values_per_head::<E>());
        let kept: Vec<f32> = weights.select(present(&bags)).iter().flatten().copied().collect();
        let sums = |value| {
            let weights: Vec<f32> = overwritten(&weights, &bags, value).iter().flatten().copied().collect();
            let (values, blocks) = (overwritten(&values, &bags, value), overwritten(&blocks, &bags, value));
            let shared = subject.weighted_sum::<E, f32>(&weights, heads, values.shared(), &bags)?;
            Ok::<_, TestCaseError>([shared, subject.weighted_sum(&weights, heads, blocks.per_head(), &bags)?])
        };
        let [shared, per_head] = sums(0.0)?;
        for value in ANYTHING {
            let [other_shared, other_per_head] = sums(value)?;
            same("pooled", &shared, &other_shared)?;
            same("pooled per head", &per_head, &other_per_head)?;
        }
        let (values, blocks) = (values.select(present(&bags)), blocks.select(present(&bags)));
        let bags = compacted(&bags);
        oracle::weighted_sum(&kept, heads, values.shared(), &bags).check("pooled", &shared)?;
        oracle::weighted_sum(&kept, heads, blocks.per_head(), &bags).check("pooled per head", &per_head)
    })
}

fn max_mean<B: Backend, E: Element>(subject: &Subject<B>) -> Outcome {
    subject.forall(CASES, masked_cases(), |case| {
        let (features, bags) = (case.features::<E>(), case.bags());
        let max_mean = |value| subject.max_mean::<E, f32>(overwritten(&features, &bags, value).rows(), &bags);
        let mut first = max_mean(0.0)?;
        ANYTHING.iter().try_for_each(|&value| same("max, mean, argmax", &first, &max_mean(value)?))?;

        let present = present(&bags);
        for row in first.argmax.iter_mut().filter(|row| **row >= 0) {
            *row = present.binary_search(&(*row as usize)).expect("argmax is a row that is present") as i64;
        }
        oracle::max_mean(features.select(present).rows(), &compacted(&bags)).check(&first)
    })
}

fn attention_pool<B: Backend, E: Element>(subject: &Subject<B>) -> Outcome {
    subject.forall(CASES, masked_cases(), |case| {
        let (params, keys, values, bags) = (case.params(), case.features::<E>(), case.values::<E>(), case.bags());
        let pool = |value| {
            let keys = overwritten(&keys, &bags, value);
            let values = values.as_ref().map(|values| overwritten(values, &bags, value));
            subject.attention_pool::<E, f32>(&params, keys.rows(), values.as_ref().map(Matrix::rows), &bags)
        };
        let mut first = pool(0.0)?;
        ANYTHING.iter().try_for_each(|&value| same("pooled, scores, weights, lse", &first, &pool(value)?))?;

        first.scores = split("scores", &first.scores, case.heads, &bags, f32::NEG_INFINITY)?;
        first.weights = split("weights", &first.weights, case.heads, &bags, 0.0)?;
        let keys = keys.select(present(&bags));
        let values = values.as_ref().map(|values| values.select(present(&bags)));
        oracle::attention_pool(&params, keys.rows(), values.as_ref().map(Matrix::rows), &compacted(&bags)).check(&first)
    })
}
