//! A bag that is empty, or all of it masked or at score −inf: pooled 0, weights 0, lse −inf, argmax −1.

use mivc::{AttentionTensors, Bags, Element};
use proptest::prelude::*;

use super::with_tensors;
use crate::backends::Backend;
use crate::support::{Case, Check, Matrix, Outcome, Subject, every, same, small_cases};

tests![softmax, softmax_without_scores; scores_of_none, gate_of_none, weighted_sum, max_mean, attention_pool,
       attention_pool_without_scores];

const CASES: u32 = 32;

/// Bags of which some have rows, some have none and some have masked rows alone, or no bag at all.
fn empty_ones_among_others() -> impl Strategy<Value = (Case, Bags<'static>)> {
    let kinds = prop::collection::vec((0..=9_i64, any::<bool>()), 0..6);
    (kinds, small_cases()).prop_map(|(kinds, case)| {
        let lengths: Vec<i64> = kinds.iter().map(|&(length, _)| length).collect();
        let present = |&(length, masked): &(i64, bool)| vec![u8::from(!masked); length as usize];
        let mask: Vec<u8> = kinds.iter().flat_map(present).collect();
        let bags = Bags::from_lengths(&lengths).unwrap().with_mask(mask).unwrap();
        (Case { lengths, masked: false, ..case }, bags)
    })
}

/// The numbers of the bags without a row that is present.
fn empty<'b>(bags: &'b Bags<'_>) -> impl Iterator<Item = usize> + 'b {
    let mask = bags.mask().unwrap();
    (0..bags.len()).filter(move |&b| mask[bags.range(b)].iter().all(|&present| present == 0))
}

fn check_rows(what: &str, out: &[f32], row: usize, rows: impl Iterator<Item = usize>, is: fn(f32) -> bool) -> Check {
    rows.into_iter().try_for_each(|n| every(what, &out[n * row..][..row], is))
}

fn is_zero(x: f32) -> bool {
    x == 0.0
}

fn is_no_score(x: f32) -> bool {
    x == f32::NEG_INFINITY
}

fn scores_of_none<B: Backend, E: Element>(subject: &Subject<B>) -> Outcome {
    subject.forall(CASES, small_cases(), |case| {
        subject.scores(&case.params(), Matrix::<E>::new(case.dim, vec![]).rows(), None).map(drop)
    })
}

fn gate_of_none<B: Backend, E: Element>(subject: &Subject<B>) -> Outcome {
    Ok(subject.gate::<E>(&[], &[]).map(drop)?)
}

fn softmax<B: Backend>(subject: &Subject<B>) -> Outcome {
    subject.forall(CASES, empty_ones_among_others(), |(case, bags)| {
        let out = subject.softmax(&case.scores(), case.heads, &bags)?;
        for b in empty(&bags) {
            check_rows("weights", &out.weights, case.heads, bags.range(b), is_zero)?;
            check_rows("lse", &out.lse, case.heads, b..b + 1, is_no_score)?;
        }
        Ok(())
    })
}

/// All scores of one head are −inf: that head of every bag is empty, the others are as they were.
fn softmax_without_scores<B: Backend>(subject: &Subject<B>) -> Outcome {
    subject.forall(CASES, small_cases(), |case| {
        let (scores, bags) = (case.scores(), case.bags());
        let before = subject.softmax(&scores, case.heads, &bags)?;
        let last = case.heads - 1;
        let mut without = scores.clone();
        without.iter_mut().skip(last).step_by(case.heads).for_each(|s| *s = f32::NEG_INFINITY);
        let after = subject.softmax(&without, case.heads, &bags)?;
        for (what, before, after, nothing) in
            [("weights", &before.weights, &after.weights, 0.0), ("lse", &before.lse, &after.lse, f32::NEG_INFINITY)]
        {
            for (before, after) in before.chunks(case.heads).zip(after.chunks(case.heads)) {
                same(what, &before[..last], &after[..last])?;
                prop_assert_eq!(after[last], nothing);
            }
        }
        Ok(())
    })
}

fn weighted_sum<B: Backend, E: Element>(subject: &Subject<B>) -> Outcome {
    subject.forall(CASES, empty_ones_among_others(), |(case, bags)| {
        let (weights, values, blocks) = (case.weights(), case.features::<E>(), case.values_per_head::<E>());
        for (values, row) in [(values.shared(), case.heads * case.dim), (blocks.per_head(), blocks.dim())] {
            let pooled = subject.weighted_sum::<E, f32>(&weights, case.heads, values, &bags)?;
            check_rows("pooled", &pooled, row, empty(&bags), is_zero)?;
        }
        Ok(())
    })
}

fn max_mean<B: Backend, E: Element>(subject: &Subject<B>) -> Outcome {
    subject.forall(CASES, empty_ones_among_others(), |(case, bags)| {
        let out = subject.max_mean::<E, f32>(case.features::<E>().rows(), &bags)?;
        check_rows("max", &out.max, case.dim, empty(&bags), is_zero)?;
        check_rows("mean", &out.mean, case.dim, empty(&bags), is_zero)?;
        for b in empty(&bags) {
            prop_assert!(out.argmax[b * case.dim..][..case.dim].iter().all(|&row| row == -1), "{:?}", out.argmax);
        }
        Ok(())
    })
}

fn attention_pool<B: Backend, E: Element>(subject: &Subject<B>) -> Outcome {
    subject.forall(CASES, empty_ones_among_others(), |(case, bags)| {
        let keys = case.features::<E>();
        let out = subject.attention_pool::<E, f32>(&case.params(), keys.rows(), None, &bags)?;
        check_rows("pooled", &out.pooled, case.heads * case.dim, empty(&bags), is_zero)?;
        check_rows("lse", &out.lse, case.heads, empty(&bags), is_no_score)?;
        for b in empty(&bags) {
            check_rows("weights", &out.weights, case.heads, bags.range(b), is_zero)?;
            check_rows("scores", &out.scores, case.heads, bags.range(b), is_no_score)?;
        }
        Ok(())
    })
}

/// A bias of −inf takes every score from one head.
fn attention_pool_without_scores<B: Backend, E: Element>(subject: &Subject<B>) -> Outcome {
    subject.forall(CASES, small_cases(), |case| {
        let (params, keys, bags) = (case.params(), case.features::<E>(), case.bags());
        let last = case.heads - 1;
        let biases = |bias| [vec![0.25; last], vec![bias]].concat();
        let pool = |bias| {
            let biases = biases(bias);
            let params = with_tensors(&params, |tensors| AttentionTensors { w_bias: Some(&biases), ..tensors });
            subject.attention_pool::<E, f32>(&params, keys.rows(), None, &bags)
        };
        let (before, after) = (pool(0.5)?, pool(f32::NEG_INFINITY)?);
        for (what, before, after, row, nothing) in [
            ("pooled", &before.pooled, &after.pooled, case.dim, 0.0),
            ("weights", &before.weights, &after.weights, 1, 0.0),
            ("scores", &before.scores, &after.scores, 1, f32::NEG_INFINITY),
            ("lse", &before.lse, &after.lse, 1, f32::NEG_INFINITY),
        ] {
            for (before, after) in before.chunks(case.heads * row).zip(after.chunks(case.heads * row)) {
                same(what, &before[..last * row], &after[..last * row])?;
                every(what, &after[last * row..], |x| x == nothing)?;
            }
        }
        Ok(())
    })
}
