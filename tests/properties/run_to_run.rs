//! The same call gives the same bits, from parameters packed anew and inputs elsewhere in memory.

use std::env;

use mivc::Element;

use crate::backends::Backend;
use crate::support::backward::{Mode, PoolCall};
use crate::support::{Bits, Check, Matrix, Outcome, Subject, cases, same};

tests![softmax; scores, gate, weighted_sum, max_mean, attention_pool, attention_pool_backward];

const CASES: u32 = 12;

/// Four times, or `MIVC_REPEATS`.
fn again<T: Bits>(call: impl Fn() -> Check<T>) -> Check {
    let repeats = env::var("MIVC_REPEATS").map_or(4, |repeats| repeats.parse::<usize>().expect("a number of repeats"));
    let first = call()?;
    (1..repeats).try_for_each(|_| same("two runs", &first, &call()?))
}

fn scores<B: Backend, E: Element>(subject: &Subject<B>) -> Outcome {
    subject.forall(CASES, cases(), |case| {
        again(|| subject.scores(&case.params(), case.features::<E>().rows(), case.bags().mask()))
    })
}

fn gate<B: Backend, E: Element>(subject: &Subject<B>) -> Outcome {
    subject.forall(CASES, cases(), |case| {
        again(|| {
            let (x, y) = case.gate_arguments::<E>();
            subject.gate(&x, &y)
        })
    })
}

fn softmax<B: Backend>(subject: &Subject<B>) -> Outcome {
    subject.forall(CASES, cases(), |case| again(|| subject.softmax(&case.scores(), case.heads, &case.bags())))
}

fn weighted_sum<B: Backend, E: Element>(subject: &Subject<B>) -> Outcome {
    subject.forall(CASES, cases(), |case| {
        let (weights, heads, bags) = (case.weights(), case.heads, case.bags());
        again(|| subject.weighted_sum::<E, f32>(&weights, heads, case.features::<E>().shared(), &bags))?;
        again(|| subject.weighted_sum::<E, f32>(&weights, heads, case.values_per_head::<E>().per_head(), &bags))
    })
}

fn max_mean<B: Backend, E: Element>(subject: &Subject<B>) -> Outcome {
    subject
        .forall(CASES, cases(), |case| again(|| subject.max_mean::<E, f32>(case.features::<E>().rows(), &case.bags())))
}

fn attention_pool<B: Backend, E: Element>(subject: &Subject<B>) -> Outcome {
    subject.forall(CASES, cases(), |case| {
        again(|| {
            let (keys, values) = (case.features::<E>(), case.values::<E>());
            let values = values.as_ref().map(Matrix::rows);
            subject.attention_pool::<E, f32>(&case.params(), keys.rows(), values, &case.bags())
        })
    })
}

/// Parameters have gradients that sum over all instances, whatever runs when.
fn attention_pool_backward<B: Backend, E: Element>(subject: &Subject<B>) -> Outcome {
    subject.forall(CASES, cases(), |case| {
        let bags = &case.bags();
        let upstream = &case.upstream::<f32>(bags, case.dim, true);
        again(|| {
            let (params, keys) = (&case.params(), case.features::<E>());
            let keys = keys.rows();
            let call = PoolCall { params, keys, values: None, bags, upstream, keeps: true, mode: Mode::Set };
            subject.attention_pool_backward(call)
        })
    })
}
