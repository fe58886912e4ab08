//! Tests of the tests: a result that is wrong in the way kernels go wrong, by one dropped instance, two
//! swapped weights or a neighbour's row, is beyond the tolerance that the right one keeps.

use mivc::{Bags, Element};
use proptest::prelude::*;
use proptest::sample::select;

use crate::backends::Backend;
use crate::support::{Case, Check, Outcome, Subject, oracle};

tests![dropped_score; neighbours_score, dropped_instance, dropped_instance_of_mean, dropped_maximum, swapped_weights,
       neighbours_row];

const CASES: u32 = 24;

/// Three bags; the one in the middle is meddled with.
fn meddled() -> impl Strategy<Value = Case> {
    let shape = (select(vec![3_i64, 9, 126, 127, 300]), select(vec![1_usize, 32, 100]), 1..=2_usize);
    (shape, any::<u64>(), any::<bool>()).prop_map(|((length, dim, heads), seed, gated)| Case {
        seed,
        lengths: vec![4, length, 4],
        dim,
        value_dim: None,
        hidden: 16,
        heads,
        groups: 1,
        gated,
        biases: [true; 3],
        masked: false,
        padding: 0,
        spread: 0.25,
    })
}

/// The same bags without row `dropped`.
fn without(case: &Case, dropped: usize) -> Bags<'static> {
    let mask: Vec<u8> = (0..case.instances()).map(|n| u8::from(n != dropped)).collect();
    case.bags().with_mask(mask).unwrap()
}

fn bites(right: Check, wrong: Check) -> Check {
    right?;
    prop_assert!(wrong.is_err(), "the wrong result is within the tolerance");
    Ok(())
}

fn dropped_score<B: Backend>(subject: &Subject<B>) -> Outcome {
    subject.forall(CASES, meddled(), |case| {
        let (scores, heads) = (case.uniform("scores", case.instances() * case.heads, 1.0), case.heads);
        let [weights, lse] = oracle::softmax(&scores, heads, &case.bags());
        let right = subject.softmax(&scores, heads, &case.bags())?;
        let wrong = subject.softmax(&scores, heads, &without(&case, 5))?;
        bites(weights.check("weights", &right.weights), weights.check("weights", &wrong.weights))?;
        bites(lse.check("lse", &right.lse), lse.check("lse", &wrong.lse))
    })
}

fn neighbours_score<B: Backend, E: Element>(subject: &Subject<B>) -> Outcome {
    subject.forall(CASES, meddled(), |case| {
        let (params, features) = (case.params(), case.features::<E>());
        let expected = oracle::scores(&params, features.rows(), None);
        let right = subject.scores(&params, features.rows(), None)?;
        let mut wrong = right.clone();
        wrong.copy_within(5 * case.heads..6 * case.heads, 4 * case.heads);
        bites(expected.check("scores", &right), expected.check("scores", &wrong))
    })
}

fn dropped_instance<B: Backend, E: Element>(subject: &Subject<B>) -> Outcome {
    subject.forall(CASES, meddled(), |case| {
        let (params, keys, bags) = (case.params(), case.features::<E>(), case.bags());
        let expected = oracle::attention_pool(&params, keys.rows(), None, &bags);
        let right = subject.attention_pool::<E, f32>(&params, keys.rows(), None, &bags)?;
        let wrong = subject.attention_pool::<E, f32>(&params, keys.rows(), None, &without(&case, 5))?;
        bites(expected.check(&right), expected.pooled.check("pooled", &wrong.pooled))
    })
}

fn dropped_instance_of_mean<B: Backend, E: Element>(subject: &Subject<B>) -> Outcome {
    subject.forall(CASES, meddled(), |case| {
        let (features, bags) = (case.features::<E>(), case.bags());
        let expected = oracle::max_mean(features.rows(), &bags);
        let right = subject.max_mean::<E, f32>(features.rows(), &bags)?;
        let wrong = subject.max_mean::<E, f32>(features.rows(), &without(&case, 5))?;
        bites(expected.check(&right), expected.mean.check("mean", &wrong.mean))
    })
}

fn dropped_maximum<B: Backend, E: Element>(subject: &Subject<B>) -> Outcome {
    subject.forall(CASES, meddled(), |case| {
        let (mut features, bags) = (case.features::<E>(), case.bags());
        features.row_mut(5).fill(E::from_f32(3.0));
        let expected = oracle::max_mean(features.rows(), &bags);
        let right = subject.max_mean::<E, f32>(features.rows(), &bags)?;
        let wrong = subject.max_mean::<E, f32>(features.rows(), &without(&case, 5))?;
        bites(expected.check(&right), expected.check(&wrong))
    })
}

fn swapped_weights<B: Backend, E: Element>(subject: &Subject<B>) -> Outcome {
    subject.forall(CASES, meddled(), |case| {
        let (values, bags, heads) = (case.features::<E>(), case.bags(), case.heads);
        let scores = case.uniform("scores", case.instances() * heads, 1.0);
        let weights = subject.softmax(&scores, heads, &bags)?.weights;
        let mut swapped = weights.clone();
        swapped.swap(4 * heads, 5 * heads);
        let expected = oracle::weighted_sum(&weights, heads, values.shared(), &bags);
        let right: Vec<f32> = subject.weighted_sum(&weights, heads, values.shared(), &bags)?;
        let wrong: Vec<f32> = subject.weighted_sum(&swapped, heads, values.shared(), &bags)?;
        bites(expected.check("pooled", &right), expected.check("pooled", &wrong))
    })
}

/// The bag takes the first row of the next one.
fn neighbours_row<B: Backend, E: Element>(subject: &Subject<B>) -> Outcome {
    subject.forall(CASES, meddled(), |case| {
        let (params, keys, bags) = (case.params(), case.features::<E>(), case.bags());
        let shifted = Bags::from_lengths(&[4, case.lengths[1] + 1, 3]).unwrap();
        let expected = oracle::attention_pool(&params, keys.rows(), None, &bags);
        let right = subject.attention_pool::<E, f32>(&params, keys.rows(), None, &bags)?;
        let wrong = subject.attention_pool::<E, f32>(&params, keys.rows(), None, &shifted)?;
        bites(expected.check(&right), expected.pooled.check("pooled", &wrong.pooled))?;

        let expected = oracle::max_mean(keys.rows(), &bags);
        let wrong = subject.max_mean::<E, f32>(keys.rows(), &shifted)?;
        bites(Ok(()), expected.mean.check("mean", &wrong.mean))
    })
}
