//! NaN goes exactly where the contract says: a NaN feature to that feature of that bag in max and mean,
//! a NaN or +inf score to that bag and head. Everything else keeps its bits.

use mivc::{AttentionParams, AttentionTensors, Element};
use proptest::prelude::*;

use super::with_tensors;
use crate::backends::Backend;
use crate::support::{Case, Check, MaxMean, Outcome, Pool, Subject, cases, every};

tests![softmax; scores, gate, weighted_sum, weighted_sum_of_nan_values, max_mean, attention_pool,
       attention_pool_by_head, attention_pool_by_group];

const CASES: u32 = 24;

/// Cases that have a row that is present, and such a row.
fn cases_and_row() -> impl Strategy<Value = (Case, usize)> {
    (cases(), any::<prop::sample::Index>()).prop_filter_map("no row is present", |(case, index)| {
        let bags = case.bags();
        let present: Vec<usize> =
            (0..case.instances()).filter(|&n| bags.mask().is_none_or(|mask| mask[n] != 0)).collect();
        (!present.is_empty()).then(|| (case, *index.get(&present)))
    })
}

/// The bag that row `n` is in.
fn bag_of(case: &Case, n: usize) -> usize {
    case.bags().ranges().position(|rows| rows.contains(&n)).unwrap()
}

/// `after` is NaN where `hit`, and has the bits of `before` elsewhere.
fn nan_exactly(what: &str, before: &[f32], after: &[f32], hit: impl Fn(usize) -> bool) -> Check {
    prop_assert_eq!(before.len(), after.len());
    for (i, (before, after)) in before.iter().zip(after).enumerate() {
        let right = if hit(i) { after.is_nan() } else { after.to_bits() == before.to_bits() };
        prop_assert!(right, "{what}[{i}] is {after}, was {before}, and must be NaN: {}", hit(i));
    }
    Ok(())
}

fn scores<B: Backend, E: Element>(subject: &Subject<B>) -> Outcome {
    subject.forall(CASES, cases_and_row(), |(case, row)| {
        let (params, mut features, bags) = (case.params(), case.features::<E>(), case.bags());
        let before = subject.scores(&params, features.rows(), bags.mask())?;
        features.row_mut(row)[case.dim / 2] = E::from_f32(f32::NAN);
        let after = subject.scores(&params, features.rows(), bags.mask())?;
        nan_exactly("scores", &before, &after, |i| i / case.heads == row)
    })
}

fn gate<B: Backend, E: Element>(subject: &Subject<B>) -> Outcome {
    subject.forall(CASES, cases_and_row(), |(case, row)| {
        let (x, y) = case.gate_arguments::<E>();
        let wide = |g: Vec<E>| -> Vec<f32> { g.iter().map(|g| g.to_f32()).collect() };
        let before = wide(subject.gate(&x, &y)?);
        let hit = |data: &[E]| -> Vec<E> {
            (0..data.len()).map(|i| if i == row { E::from_f32(f32::NAN) } else { data[i] }).collect()
        };
        nan_exactly("x", &before, &wide(subject.gate(&hit(&x), &y)?), |i| i == row)?;
        nan_exactly("y", &before, &wide(subject.gate(&x, &hit(&y))?), |i| i == row)
    })
}

fn softmax<B: Backend>(subject: &Subject<B>) -> Outcome {
    let score = prop::sample::select(vec![f32::NAN, f32::INFINITY]);
    subject.forall(2 * CASES, (cases_and_row(), score), |((case, row), score)| {
        let (mut scores, bags, heads) = (case.scores(), case.bags(), case.heads);
        let (bag, head) = (bag_of(&case, row), row % heads);
        let before = subject.softmax(&scores, heads, &bags)?;
        scores[row * heads + head] = score;
        let after = subject.softmax(&scores, heads, &bags)?;
        nan_exactly("lse", &before.lse, &after.lse, |i| i == bag * heads + head)?;

        // What is not there keeps its weight of 0.
        let takes_part = |n: usize| bags.mask().is_none_or(|mask| mask[n] != 0);
        let has_score = |i: usize| scores[i] != f32::NEG_INFINITY;
        let hit = |i: usize| bags.range(bag).contains(&(i / heads)) && i % heads == head;
        for i in 0..after.weights.len() {
            let (before, after) = (before.weights[i], after.weights[i]);
            let right = match (hit(i), takes_part(i / heads), has_score(i)) {
                (true, true, true) => after.is_nan(),
                (true, true, false) => after.is_nan() || after == 0.0,
                _ => after.to_bits() == before.to_bits(),
            };
            prop_assert!(right, "weights[{i}] is {after}, was {before}");
        }
        Ok(())
    })
}

/// A NaN weight is a NaN bag and head.
fn weighted_sum<B: Backend, E: Element>(subject: &Subject<B>) -> Outcome {
    subject.forall(CASES, cases_and_row(), |(case, row)| {
        let (mut weights, bags, heads) = (case.weights(), case.bags(), case.heads);
        let (values, blocks) = (case.features::<E>(), case.values_per_head::<E>());
        let hit = bag_of(&case, row) * heads + row % heads;
        let shared = subject.weighted_sum::<E, f32>(&weights, heads, values.shared(), &bags)?;
        let per_head = subject.weighted_sum::<E, f32>(&weights, heads, blocks.per_head(), &bags)?;
        weights[row * heads + row % heads] = f32::NAN;
        let after = subject.weighted_sum::<E, f32>(&weights, heads, values.shared(), &bags)?;
        nan_exactly("pooled", &shared, &after, |i| i / case.dim == hit)?;
        let after = subject.weighted_sum::<E, f32>(&weights, heads, blocks.per_head(), &bags)?;
        nan_exactly("pooled per head", &per_head, &after, |i| i / (blocks.dim() / heads) == hit)
    })
}

/// A NaN value is NaN in its own column, for each head that gives its row a weight.
fn weighted_sum_of_nan_values<B: Backend, E: Element>(subject: &Subject<B>) -> Outcome {
    subject.forall(CASES, cases_and_row(), |(case, row)| {
        let (weights, mut values, bags, heads) = (case.weights(), case.features::<E>(), case.bags(), case.heads);
        let (bag, column) = (bag_of(&case, row), case.dim / 2);
        let before = subject.weighted_sum::<E, f32>(&weights, heads, values.shared(), &bags)?;
        values.row_mut(row)[column] = E::from_f32(f32::NAN);
        let after = subject.weighted_sum::<E, f32>(&weights, heads, values.shared(), &bags)?;
        nan_exactly("pooled", &before, &after, |i| {
            let (b, head) = (i / case.dim / heads, i / case.dim % heads);
            b == bag && i % case.dim == column && weights[row * heads + head] != 0.0
        })
    })
}

/// The argmax is the first NaN's.
fn max_mean<B: Backend, E: Element>(subject: &Subject<B>) -> Outcome {
    subject.forall(CASES, cases_and_row(), |(case, row)| {
        let (mut features, bags) = (case.features::<E>(), case.bags());
        let (bag, column) = (bag_of(&case, row), case.dim / 2);
        let before: MaxMean<f32> = subject.max_mean(features.rows(), &bags)?;
        features.row_mut(row)[column] = E::from_f32(f32::NAN);
        let one: MaxMean<f32> = subject.max_mean(features.rows(), &bags)?;
        // Rows after it are NaN in that column, too: it stays the first.
        for n in row..bags.range(bag).end {
            features.row_mut(n)[column] = E::from_f32(f32::NAN);
        }
        let many: MaxMean<f32> = subject.max_mean(features.rows(), &bags)?;

        let hit = bag * case.dim + column;
        let mut argmax = before.argmax.clone();
        argmax[hit] = row as i64;
        for after in [one, many] {
            nan_exactly("max", &before.max, &after.max, |i| i == hit)?;
            nan_exactly("mean", &before.mean, &after.mean, |i| i == hit)?;
            prop_assert_eq!(&argmax, &after.argmax);
        }
        Ok(())
    })
}

impl Pool<f32> {
    /// Every number of the bags and heads that are `hit` is NaN, in rows that are present; the others
    /// have the bits of `before`. Scores are not looked at.
    fn nan_exactly(&self, before: &Self, case: &Case, hit: impl Fn(usize, usize) -> bool) -> Check {
        let (heads, bags) = (case.heads, case.bags());
        let has_row = |b: usize| bags.range(b).any(|n| bags.mask().is_none_or(|mask| mask[n] != 0));
        let hit = |bag: usize, head: usize| hit(bag, head) && has_row(bag);
        let row_bag: Vec<usize> = bags.ranges().enumerate().flat_map(|(b, rows)| rows.map(move |_| b)).collect();
        let present = |n: usize| bags.mask().is_none_or(|mask| mask[n] != 0);
        let dim = self.pooled.len() / self.lse.len().max(1);
        nan_exactly("pooled", &before.pooled, &self.pooled, |i| hit(i / dim / heads, i / dim % heads))?;
        nan_exactly("lse", &before.lse, &self.lse, |i| hit(i / heads, i % heads))?;
        nan_exactly("weights", &before.weights, &self.weights, |i| {
            present(i / heads) && hit(row_bag[i / heads], i % heads)
        })
    }
}

/// A NaN in a key, through V that all heads share, is in the score of each.
fn attention_pool<B: Backend, E: Element>(subject: &Subject<B>) -> Outcome {
    subject.forall(CASES, cases_and_row(), |(case, row)| {
        let (params, mut keys, bags) = (case.params(), case.features::<E>(), case.bags());
        let values = case.values::<E>().unwrap_or_else(|| keys.clone());
        let mut pool = |key: Option<f32>| {
            key.into_iter().for_each(|key| keys.row_mut(row)[case.dim / 2] = E::from_f32(key));
            subject.attention_pool::<E, f32>(&params, keys.rows(), Some(values.rows()), &bags)
        };
        let (before, after) = (pool(None)?, pool(Some(f32::NAN))?);
        nan_exactly("scores", &before.scores, &after.scores, |i| i / case.heads == row)?;
        after.nan_exactly(&before, &case, |bag, _| bag == bag_of(&case, row))
    })
}

/// A head whose w or bias is NaN, or whose bias is +inf, is NaN in every bag.
fn attention_pool_by_head<B: Backend, E: Element>(subject: &Subject<B>) -> Outcome {
    subject.forall(CASES, cases(), |case| {
        let (keys, bags, head) = (case.features::<E>(), case.bags(), case.heads / 2);
        let pool = |params: &AttentionParams| subject.attention_pool::<E, f32>(params, keys.rows(), None, &bags);
        let mut w_bias = case.uniform("w bias", case.heads, case.spread);
        let params = case.params();
        let biased = |w_bias: &[f32]| with_tensors(&params, |t| AttentionTensors { w_bias: Some(w_bias), ..t });
        let before = pool(&biased(&w_bias))?;

        let mut w = params.tensors().w.to_vec();
        w[head * case.hidden + case.hidden / 2] = f32::NAN;
        let nan_w = with_tensors(&params, |t| AttentionTensors { w: &w, w_bias: Some(&w_bias), ..t });
        pool(&nan_w)?.nan_exactly(&before, &case, |_, k| k == head)?;
        for bias in [f32::NAN, f32::INFINITY] {
            w_bias[head] = bias;
            pool(&biased(&w_bias))?.nan_exactly(&before, &case, |_, k| k == head)?;
        }
        Ok(())
    })
}

/// A NaN in V reaches the heads of its own group alone.
fn attention_pool_by_group<B: Backend, E: Element>(subject: &Subject<B>) -> Outcome {
    // So deep that sums rounded in another way would show.
    let deep = Just(Case {
        seed: 1,
        lengths: vec![3, 40],
        dim: 70,
        value_dim: None,
        hidden: 20,
        heads: 6,
        groups: 3,
        gated: true,
        biases: [true; 3],
        masked: false,
        padding: 0,
        spread: 1.0,
    });
    let nan_by_group = |case: Case| {
        let (params, keys, bags) = (case.params(), case.features::<E>(), case.bags());
        let pool = |params: &AttentionParams| subject.attention_pool::<E, f32>(params, keys.rows(), None, &bags);
        let before = pool(&params)?;
        let group = case.groups / 2;
        let mut v = params.tensors().v.to_vec();
        v[group * case.hidden * case.dim] = f32::NAN;
        let after = pool(&with_tensors(&params, |t| AttentionTensors { v: &v, ..t }))?;
        let heads_of_a_group = case.heads / case.groups;
        after.nan_exactly(&before, &case, |_, head| head / heads_of_a_group == group)?;
        every("lse", &before.lse, |lse| !lse.is_nan())
    };
    subject.forall(1, deep, nan_by_group)?;
    subject.forall(CASES, cases(), nan_by_group)
}
