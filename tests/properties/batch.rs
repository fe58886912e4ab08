//! The bits of a bag depend on nothing but the bag: not on its neighbours, not on where its rows lie
//! in memory, not on the number of threads.

use mivc::{Bags, Element};
use proptest::prelude::*;
use rayon::ThreadPoolBuilder;

use crate::backends::Backend;
use crate::support::{Bits, Case, Check, Matrix, Outcome, Subject, cases, same};

tests![softmax; scores, gate, weighted_sum, max_mean, attention_pool];

const CASES: u32 = 32;

/// Each bag by itself: its number, its rows and the bag alone.
pub fn alone(bags: &Bags<'static>) -> impl Iterator<Item = (usize, std::ops::Range<usize>, Bags<'static>)> {
    bags.ranges().enumerate().map(|(b, rows)| {
        let bag = Bags::from_lengths(&[rows.len() as i64]).unwrap();
        let bag = match bags.mask() {
            Some(mask) => bag.with_mask(mask[rows.clone()].to_vec()).unwrap(),
            None => bag,
        };
        (b, rows, bag)
    })
}

/// What `call` gives on pools of one, two and five threads.
pub fn on_any_threads<T: Bits + Send>(call: impl Fn() -> Check<T> + Sync) -> Check<T> {
    let run = |threads| ThreadPoolBuilder::new().num_threads(threads).build().unwrap().install(&call);
    let single = run(1)?;
    same("1 and 2 threads", &single, &run(2)?)?;
    same("1 and 5 threads", &single, &run(5)?)?;
    Ok(single)
}

/// Rows here have no bags: any part of them gives what it gives among the others.
fn scores<B: Backend, E: Element>(subject: &Subject<B>) -> Outcome {
    subject.forall(CASES, cases(), |case| {
        let (params, features, bags) = (case.params(), case.features::<E>(), case.bags());
        let whole = on_any_threads(|| subject.scores(&params, features.rows(), bags.mask()))?;
        for (_, rows, bag) in alone(&bags) {
            let part = subject.scores(&params, features.slice(rows.clone()).rows(), bag.mask())?;
            same("scores", &part[..], &whole[rows.start * case.heads..rows.end * case.heads])?;
        }
        Ok(())
    })
}

fn gate<B: Backend, E: Element>(subject: &Subject<B>) -> Outcome {
    subject.forall(CASES, cases(), |case| {
        let (x, y) = case.gate_arguments::<E>();
        let whole = on_any_threads(|| subject.gate(&x, &y))?;
        for rows in case.bags().ranges() {
            let part = subject.gate(&x[rows.clone()], &y[rows.clone()])?;
            same("g", &part[..], &whole[rows])?;
        }
        Ok(())
    })
}

fn softmax<B: Backend>(subject: &Subject<B>) -> Outcome {
    subject.forall(CASES, cases(), |case| {
        let Case { heads, .. } = case;
        let (scores, bags) = (case.scores(), case.bags());
        let whole = on_any_threads(|| subject.softmax(&scores, heads, &bags))?;
        for (b, rows, bag) in alone(&bags) {
            let span = rows.start * heads..rows.end * heads;
            let part = subject.softmax(&scores[span.clone()], heads, &bag)?;
            same("weights", &part.weights[..], &whole.weights[span])?;
            same("lse", &part.lse[..], &whole.lse[b * heads..][..heads])?;
        }
        Ok(())
    })
}

fn weighted_sum<B: Backend, E: Element>(subject: &Subject<B>) -> Outcome {
    subject.forall(CASES, cases(), |case| {
        let Case { heads, .. } = case;
        let (weights, bags) = (case.weights(), case.bags());
        let (features, blocks) = (case.features::<E>(), case.values_per_head::<E>());
        let shared = on_any_threads(|| subject.weighted_sum::<E, f32>(&weights, heads, features.shared(), &bags))?;
        let per_head = on_any_threads(|| subject.weighted_sum::<E, f32>(&weights, heads, blocks.per_head(), &bags))?;
        for (b, rows, bag) in alone(&bags) {
            let weights = &weights[rows.start * heads..rows.end * heads];
            let (features, blocks) = (features.slice(rows.clone()), blocks.slice(rows));
            let part = subject.weighted_sum::<E, f32>(weights, heads, features.shared(), &bag)?;
            same("pooled", &part[..], &shared[b * part.len()..][..part.len()])?;
            let part = subject.weighted_sum::<E, f32>(weights, heads, blocks.per_head(), &bag)?;
            same("pooled per head", &part[..], &per_head[b * part.len()..][..part.len()])?;
        }
        Ok(())
    })
}

fn max_mean<B: Backend, E: Element>(subject: &Subject<B>) -> Outcome {
    subject.forall(CASES, cases(), |case| {
        let (features, bags) = (case.features::<E>(), case.bags());
        let whole = on_any_threads(|| subject.max_mean::<E, f32>(features.rows(), &bags))?;
        for (b, rows, bag) in alone(&bags) {
            let part = subject.max_mean::<E, f32>(features.slice(rows.clone()).rows(), &bag)?;
            let argmax: Vec<i64> = part.argmax.iter().map(|&n| if n < 0 { n } else { n + rows.start as i64 }).collect();
            let span = b * case.dim..(b + 1) * case.dim;
            same("max", &part.max[..], &whole.max[span.clone()])?;
            same("mean", &part.mean[..], &whole.mean[span.clone()])?;
            prop_assert_eq!(&argmax[..], &whole.argmax[span]);
        }
        Ok(())
    })
}

fn attention_pool<B: Backend, E: Element>(subject: &Subject<B>) -> Outcome {
    subject.forall(CASES, cases(), |case| {
        let Case { heads, .. } = case;
        let (params, keys, values, bags) = (case.params(), case.features::<E>(), case.values::<E>(), case.bags());
        let whole = on_any_threads(|| {
            subject.attention_pool::<E, f32>(&params, keys.rows(), values.as_ref().map(Matrix::rows), &bags)
        })?;
        for (b, rows, bag) in alone(&bags) {
            let keys = keys.slice(rows.clone());
            let values = values.as_ref().map(|values| values.slice(rows.clone()));
            let part =
                subject.attention_pool::<E, f32>(&params, keys.rows(), values.as_ref().map(Matrix::rows), &bag)?;
            let span = rows.start * heads..rows.end * heads;
            same("pooled", &part.pooled[..], &whole.pooled[b * part.pooled.len()..][..part.pooled.len()])?;
            same("scores", &part.scores[..], &whole.scores[span.clone()])?;
            same("weights", &part.weights[..], &whole.weights[span])?;
            same("lse", &part.lse[..], &whole.lse[b * heads..][..heads])?;
        }
        Ok(())
    })
}
