//! A row whose weight is exactly 0 is skipped in the weighted sum, not multiplied: 0·NaN and 0·inf do
//! not arise.

use mivc::{Bags, Element};
use proptest::prelude::*;
use proptest::sample::select;

use super::one_feature;
use crate::backends::Backend;
use crate::support::{Matrix, Outcome, Subject, oracle, same, small_cases};

tests![; weighted_sum, attention_pool];

fn poison() -> impl Strategy<Value = f32> {
    select(vec![f32::NAN, f32::INFINITY, f32::NEG_INFINITY])
}

fn weighted_sum<B: Backend, E: Element>(subject: &Subject<B>) -> Outcome {
    subject.forall(32, (small_cases(), poison(), select(vec![0.0_f32, -0.0])), |(case, poison, zero)| {
        let (mut weights, bags, heads) = (case.weights(), case.bags(), case.heads);
        let (mut values, mut blocks) = (case.features::<E>(), case.values_per_head::<E>());
        let skipped: Vec<usize> = (0..case.instances()).filter(|n| n % 3 == 1).collect();
        skipped.iter().for_each(|&n| weights[n * heads..][..heads].fill(zero));

        let shared = subject.weighted_sum::<E, f32>(&weights, heads, values.shared(), &bags)?;
        let per_head = subject.weighted_sum::<E, f32>(&weights, heads, blocks.per_head(), &bags)?;
        for &n in &skipped {
            values.row_mut(n).fill(E::from_f32(poison));
            blocks.row_mut(n).fill(E::from_f32(poison));
        }
        same("pooled", &shared, &subject.weighted_sum(&weights, heads, values.shared(), &bags)?)?;
        same("pooled per head", &per_head, &subject.weighted_sum(&weights, heads, blocks.per_head(), &bags)?)
    })
}

/// Scores of a bag of 300 rows: `rest·w` everywhere, `w` in one row, and `row·w`, from which exp(s − lse)
/// is 0, in the row whose values are poison.
#[derive(Debug, Clone, Copy)]
struct Scores {
    w: f32,
    rest: f32,
    row: f32,
}

const SCORES: [Scores; 5] = [
    // Far below all other rows.
    Scores { w: 120.0, rest: 0.0, row: -1.0 },
    // Not far below the other rows of its chunk, or the greatest of them.
    Scores { w: 120.0, rest: 0.0, row: -0.25 },
    Scores { w: 120.0, rest: 0.0, row: 0.0 },
    // Neither far below its chunk, nor this far below the bag: only both together.
    Scores { w: 60.0, rest: 0.0, row: -1.0 },
    // exp(s − m) is the least that f32 can hold, until it is divided by the sum of all.
    Scores { w: 103.0, rest: 1.0, row: 0.0 },
];

fn attention_pool<B: Backend, E: Element>(subject: &Subject<B>) -> Outcome {
    let row = select(vec![0_usize, 1, 8, 124, 125, 126, 127, 299]);
    let highest = select(vec![2_usize, 123, 128, 252, 298]);
    let cases = (select(SCORES.to_vec()), row, highest, poison(), any::<bool>());
    subject.forall(96, cases, |(scores, row, highest, poison, second_head)| {
        // s = w·tanh(key), and tanh(20) is 1.
        let key = |factor: f32| if factor.abs() == 1.0 { 20.0 * factor } else { factor.atanh() };
        let mut keys = vec![key(scores.rest); 300];
        keys[row] = key(scores.row);
        keys[highest] = key(1.0);
        let keys = Matrix::<E>::from_f32(1, &keys);
        let w: &[f32] = if second_head { &[scores.w, 2.0 * scores.w] } else { &[scores.w] };

        let numbers: Vec<f32> = (0..300 * 9).map(|i| (i % 23) as f32 / 8.0 - 1.0).collect();
        let mut values = Matrix::<E>::from_f32(9, &numbers);
        let bags = Bags::from_lengths(&[300]).unwrap();
        let clean = oracle::attention_pool(&one_feature(w), keys.rows(), Some(values.rows()), &bags);
        values.row_mut(row).fill(E::from_f32(poison));
        let out = subject.attention_pool::<E, f32>(&one_feature(w), keys.rows(), Some(values.rows()), &bags)?;
        prop_assert_eq!(out.weights[row * w.len()], 0.0);
        clean.check(&out)
    })
}
