//! Every operation agrees with the oracle, within the tolerance rule.

use mivc::Element;
use mivc::cpu::{AttentionOutputs, MaxMeanOutputs};

use proptest::prelude::*;

use crate::backends::Backend;
use crate::support::{Case, Outcome, Subject, cases, oracle, same};

tests![softmax; scores, scores_of_many_columns, gate, weighted_sum, max_mean, attention_pool];

const CASES: u32 = 64;

fn scores<B: Backend, E: Element>(subject: &Subject<B>) -> Outcome {
    subject.forall(CASES, cases(), |case| {
        let (params, features, bags) = (case.params(), case.features::<E>(), case.bags());
        let scores = subject.scores(&params, features.rows(), bags.mask())?;
        oracle::scores(&params, features.rows(), bags.mask()).check("scores", &scores)
    })
}

/// More columns than one tile has, whole tiles and padded ones; and each row alone, which no tile may show.
fn scores_of_many_columns<B: Backend, E: Element>(subject: &Subject<B>) -> Outcome {
    for (hidden, gated) in [(128, true), (200, true), (150, true), (129, false), (512, false)] {
        let case = Case {
            seed: hidden as u64,
            lengths: vec![70, 1, 129],
            dim: 40,
            value_dim: None,
            hidden,
            heads: 3,
            groups: 1,
            gated,
            biases: [true; 3],
            masked: true,
            padding: 0,
            spread: 0.25,
        };
        let (params, features, bags) = (case.params(), case.features::<E>(), case.bags());
        let scores = subject.scores(&params, features.rows(), bags.mask())?;
        oracle::scores(&params, features.rows(), bags.mask()).check("scores", &scores)?;
        for n in [0, 70, 199] {
            let mask = bags.mask().map(|mask| &mask[n..n + 1]);
            let alone = subject.scores(&params, features.slice(n..n + 1).rows(), mask)?;
            same("a row alone", &alone[..], &scores[3 * n..3 * (n + 1)])?;
        }
    }
    Ok(())
}

fn gate<B: Backend, E: Element>(subject: &Subject<B>) -> Outcome {
    subject.forall(CASES, cases(), |case| {
        let (x, y) = case.gate_arguments::<E>();
        oracle::gate(&x, &y).check("g", &subject.gate(&x, &y)?)
    })
}

fn softmax<B: Backend>(subject: &Subject<B>) -> Outcome {
    subject.forall(CASES, cases(), |case| {
        let (scores, bags) = (case.scores(), case.bags());
        let out = subject.softmax(&scores, case.heads, &bags)?;
        let [weights, lse] = oracle::softmax(&scores, case.heads, &bags);
        weights.check("weights", &out.weights)?;
        lse.check("lse", &out.lse)
    })
}

fn weighted_sum<B: Backend, E: Element>(subject: &Subject<B>) -> Outcome {
    subject.forall(CASES, cases(), |case| {
        let (weights, bags) = (case.weights(), case.bags());
        let (features, blocks) = (case.features::<E>(), case.values_per_head::<E>());
        for values in [features.shared(), blocks.per_head()] {
            let expected = oracle::weighted_sum(&weights, case.heads, values, &bags);
            expected.check("pooled", &subject.weighted_sum::<E, f32>(&weights, case.heads, values, &bags)?)?;
            expected.check("narrow", &subject.weighted_sum::<E, E>(&weights, case.heads, values, &bags)?)?;
        }
        Ok(())
    })
}

fn max_mean<B: Backend, E: Element>(subject: &Subject<B>) -> Outcome {
    subject.forall(CASES, cases(), |case| {
        let (features, bags) = (case.features::<E>(), case.bags());
        let expected = oracle::max_mean(features.rows(), &bags);
        let both = subject.max_mean::<E, f32>(features.rows(), &bags)?;
        expected.check(&both)?;
        expected.check(&subject.max_mean::<E, E>(features.rows(), &bags)?)?;

        let (mut max, mut mean, mut argmax) = (both.max.clone(), both.mean.clone(), both.argmax.clone());
        max.fill(f32::NAN);
        mean.fill(f32::NAN);
        argmax.fill(i64::MIN);
        for outputs in [
            MaxMeanOutputs { max: Some(&mut max), ..Default::default() },
            MaxMeanOutputs { mean: Some(&mut mean), ..Default::default() },
            MaxMeanOutputs { argmax: Some(&mut argmax), ..Default::default() },
        ] {
            subject.backend().max_mean(features.rows(), &bags, outputs)?;
        }
        same("max alone", &max, &both.max)?;
        same("mean alone", &mean, &both.mean)?;
        prop_assert_eq!(argmax, both.argmax);
        Ok(())
    })
}

fn attention_pool<B: Backend, E: Element>(subject: &Subject<B>) -> Outcome {
    subject.forall(CASES, cases(), |case| {
        let (params, keys, values, bags) = (case.params(), case.features::<E>(), case.values::<E>(), case.bags());
        let (keys, values) = (keys.rows(), values.as_ref().map(|values| values.rows()));
        let expected = oracle::attention_pool(&params, keys, values, &bags);
        let whole = subject.attention_pool::<E, f32>(&params, keys, values, &bags)?;
        expected.check(&whole)?;
        expected.check(&subject.attention_pool::<E, E>(&params, keys, values, &bags)?)?;

        let mut pooled = vec![f32::NAN; whole.pooled.len()];
        let outputs = AttentionOutputs { pooled: &mut pooled, scores: None, weights: None, lse: None };
        subject.backend().attention_pool(&subject.backend().pack(&params, E::DTYPE), keys, values, &bags, outputs)?;
        same("pooled alone", &pooled, &whole.pooled)
    })
}
