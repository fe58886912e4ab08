//! The same call gives the same bits, from parameters packed anew and inputs elsewhere in memory.

use mivc::Element;

use crate::backends::Backend;
use crate::support::{Bits, Check, Matrix, Outcome, Subject, cases, same};

tests![softmax; scores, gate, weighted_sum, max_mean, attention_pool];

const CASES: u32 = 12;

fn again<T: Bits>(call: impl Fn() -> Check<T>) -> Check {
    let first = call()?;
    (0..3).try_for_each(|_| same("two runs", &first, &call()?))
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
