//! An infinite feature is what IEEE arithmetic on the formula makes of it: tanh(±inf) = ±1, and inf − inf
//! and 0·inf are NaN. Zeros that only pad a tile are no part of the formula.

use mivc::{AttentionParams, AttentionShape, AttentionTensors, Element};
use proptest::prelude::*;

use super::{one_feature, with_tensors};
use crate::backends::Backend;
use crate::support::{Case, Matrix, Outcome, Subject, cases, oracle, small_cases};

tests![; scores, saturated_scores, gate, weighted_sum, max_mean, attention_pool];

const CASES: u32 = 32;

/// One element in `one_in` is infinite, of either sign.
fn with_infinities<E: Element>(case: &Case, mut matrix: Matrix<E>, one_in: u32) -> Matrix<E> {
    let mut rng = case.rng("infinities");
    for n in 0..matrix.len() {
        for x in matrix.row_mut(n) {
            if rng.random_ratio(1, one_in) {
                *x = E::from_f32(if rng.random() { f32::INFINITY } else { f32::NEG_INFINITY });
            }
        }
    }
    matrix
}

/// Parameters of which one element of V in four is 0.
fn with_zeros(case: &Case) -> AttentionParams {
    let (params, mut rng) = (case.params(), case.rng("zeros"));
    let v: Vec<f32> = params.tensors().v.iter().map(|&v| if rng.random_ratio(1, 4) { 0.0 } else { v }).collect();
    with_tensors(&params, |tensors| AttentionTensors { v: &v, ..tensors })
}

fn scores<B: Backend, E: Element>(subject: &Subject<B>) -> Outcome {
    subject.forall(CASES, (cases(), 1..200_u32), |(case, one_in)| {
        let (params, features) = (with_zeros(&case), with_infinities(&case, case.features::<E>(), one_in));
        let scores = subject.scores(&params, features.rows(), case.bags().mask())?;
        oracle::scores(&params, features.rows(), case.bags().mask()).check("scores", &scores)
    })
}

/// The row of the table in numbers.
fn saturated_scores<B: Backend, E: Element>(subject: &Subject<B>) -> Outcome {
    let infinities = Matrix::<E>::from_f32(1, &[f32::INFINITY, f32::NEG_INFINITY]);
    let scores = subject.scores(&one_feature(&[0.75, -3.0]), infinities.rows(), None)?;
    assert_eq!(scores, [0.75, -3.0, -0.75, 3.0]);

    let shape = AttentionShape { dim: 2, hidden: 1, heads: 1, groups: 1 };
    let rows = Matrix::<E>::from_f32(2, &[f32::INFINITY, f32::INFINITY, f32::INFINITY, 1.0]);
    for v in [[1.0, -1.0], [0.0, 1.0]] {
        let params = AttentionParams::new(shape, AttentionTensors { v: &v, w: &[1.0], ..Default::default() })?;
        let scores = subject.scores(&params, rows.rows(), None)?;
        // inf − inf, then inf + finite; or 0·inf twice.
        assert!(scores[0].is_nan() && (scores[1] == 1.0 || v[0] == 0.0 && scores[1].is_nan()), "{v:?}: {scores:?}");
    }
    Ok(())
}

fn gate<B: Backend, E: Element>(subject: &Subject<B>) -> Outcome {
    let extremes = [f32::INFINITY, f32::NEG_INFINITY, 0.0, -0.0, 1.0, -200.0, 200.0, 65504.0, -65504.0];
    let pair = |i: usize| (E::from_f32(extremes[i / extremes.len()]), E::from_f32(extremes[i % extremes.len()]));
    let (x, y): (Vec<E>, Vec<E>) = (0..extremes.len() * extremes.len()).map(pair).unzip();
    Ok(oracle::gate(&x, &y).check("g", &subject.gate(&x, &y)?)?)
}

fn weighted_sum<B: Backend, E: Element>(subject: &Subject<B>) -> Outcome {
    subject.forall(CASES, (small_cases(), 1..20_u32), |(case, one_in)| {
        let (weights, heads, bags) = (case.weights(), case.heads, case.bags());
        let values = with_infinities(&case, case.features::<E>(), one_in);
        let blocks = with_infinities(&case, case.values_per_head::<E>(), one_in);
        for values in [values.shared(), blocks.per_head()] {
            let pooled = subject.weighted_sum::<E, f32>(&weights, heads, values, &bags)?;
            oracle::weighted_sum(&weights, heads, values, &bags).check("pooled", &pooled)?;
        }
        Ok(())
    })
}

fn max_mean<B: Backend, E: Element>(subject: &Subject<B>) -> Outcome {
    subject.forall(CASES, (cases(), 1..200_u32), |(case, one_in)| {
        let (features, bags) = (with_infinities(&case, case.features::<E>(), one_in), case.bags());
        oracle::max_mean(features.rows(), &bags).check(&subject.max_mean::<E, f32>(features.rows(), &bags)?)
    })
}

/// Keys and values at once. The scores lie close, so that no weight is 0 in one precision alone.
fn attention_pool<B: Backend, E: Element>(subject: &Subject<B>) -> Outcome {
    let close = small_cases().prop_map(|case| Case { spread: 0.25, ..case });
    subject.forall(2 * CASES, (close, 1..100_u32), |(case, one_in)| {
        let (keys, bags) = (with_infinities(&case, case.features::<E>(), one_in), case.bags());
        for params in [case.params(), with_zeros(&case)] {
            let out = subject.attention_pool::<E, f32>(&params, keys.rows(), None, &bags)?;
            oracle::attention_pool(&params, keys.rows(), None, &bags).check(&out)?;
        }
        Ok(())
    })
}
