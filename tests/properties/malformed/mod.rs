//! Arguments that do not fit are refused by a typed error that names the argument; nothing panics.

pub mod backward;

use mivc::cpu::{AttentionOutputs, MaxMeanOutputs, Values};
use mivc::{Bags, Dtype, Element, Error, Result};
use proptest::prelude::*;
use proptest::sample::select;

use crate::backends::Backend;
use crate::support::{Check, Matrix, Outcome, Subject, small_cases};

tests![softmax; scores, gate, weighted_sum, max_mean, attention_pool];

const CASES: u32 = 64;

/// What a length that ought to be `right` is made.
#[derive(Debug, Clone, Copy)]
enum Wrong {
    None,
    Shorter,
    Longer,
    Double,
}

impl Wrong {
    fn of(self, right: usize) -> usize {
        match self {
            Wrong::None => 0,
            Wrong::Shorter => right.saturating_sub(1),
            Wrong::Longer => right + 1,
            Wrong::Double => 2 * right,
        }
    }
}

fn wrong() -> impl Strategy<Value = Wrong> {
    select(vec![Wrong::None, Wrong::Shorter, Wrong::Longer, Wrong::Double])
}

/// Calls once with each of the arguments `(name, length)` of a wrong length; `call` gets all lengths.
fn each_refused<const N: usize>(
    arguments: [(&str, usize); N],
    wrong: Wrong,
    mut call: impl FnMut([usize; N]) -> Result<()>,
) -> Check {
    for (broken, (name, right)) in arguments.into_iter().enumerate() {
        let mut lengths = arguments.map(|(_, length)| length);
        lengths[broken] = wrong.of(right);
        if lengths[broken] != right {
            refused(call(lengths), &[name])?;
        }
    }
    Ok(())
}

/// An error whose message starts with one of the names that the argument goes by.
fn refused(result: Result<()>, names: &[&str]) -> Check {
    let Err(error) = result else {
        return Err(TestCaseError::fail(format!("expected an error that names {names:?}, got none")));
    };
    let message = error.to_string();
    let argument = message.split([':', '[']).next().unwrap();
    prop_assert!(names.contains(&argument), "expected an error that names {names:?}, got: {message}");
    prop_assert!(message.contains("expected") && message.contains("got"), "{message}");
    let typed = matches!(error, Error::Argument { .. } | Error::Bags(_));
    prop_assert!(typed, "{error:?}");
    Ok(())
}

fn other_dtypes<E: Element>() -> impl Iterator<Item = Dtype> {
    [Dtype::F32, Dtype::F16, Dtype::Bf16].into_iter().filter(|&dtype| dtype != E::DTYPE)
}

/// A number of rows that is not N.
fn other_bags(instances: usize) -> Bags<'static> {
    Bags::from_lengths(&[instances as i64 + 1]).unwrap()
}

fn scores<B: Backend, E: Element>(subject: &Subject<B>) -> Outcome {
    subject.forall(CASES, (small_cases(), wrong()), |(case, wrong)| {
        let (params, features) = (case.params(), case.features::<E>());
        let packed = subject.backend().pack(&params, E::DTYPE);
        let right = case.instances() * case.heads;
        each_refused([("scores", right), ("mask", case.instances())], wrong, |[scores, mask]| {
            let mask = vec![1; mask];
            subject.backend().scores(&packed, features.rows(), Some(&mask), &mut vec![0.0; scores])
        })?;

        let other = Matrix::<E>::from_f32(case.dim + 1, &vec![0.0; case.instances() * (case.dim + 1)]);
        refused(subject.backend().scores(&packed, other.rows(), None, &mut vec![0.0; right]), &["features"])?;
        other_dtypes::<E>().try_for_each(|dtype| {
            let packed = subject.backend().pack(&params, dtype);
            let result = subject.backend().scores(&packed, features.rows(), None, &mut vec![0.0; right]);
            refused(result, &["features", "packed"])
        })
    })
}

fn gate<B: Backend, E: Element>(subject: &Subject<B>) -> Outcome {
    subject.forall(CASES, (0..100_usize, wrong()), |(len, wrong)| {
        let of = |len| vec![E::default(); len];
        each_refused([("y", len), ("g", len)], wrong, |[y, g]| subject.backend().gate(&of(len), &of(y), &mut of(g)))
    })
}

fn softmax<B: Backend>(subject: &Subject<B>) -> Outcome {
    subject.forall(CASES, (small_cases(), wrong()), |(case, wrong)| {
        let (rows, bags) = (case.instances() * case.heads, case.bags());
        let softmax = |heads, [scores, weights, lse]: [usize; 3]| {
            let scores = vec![0.0; scores];
            subject.backend().softmax(&scores, heads, &bags, &mut vec![0.0; weights], &mut vec![0.0; lse])
        };
        let arguments = [("scores", rows), ("weights", rows), ("lse", bags.len() * case.heads)];
        each_refused(arguments, wrong, |lengths| softmax(case.heads, lengths))?;
        refused(softmax(0, [0, 0, 0]), &["heads"])
    })
}

fn weighted_sum<B: Backend, E: Element>(subject: &Subject<B>) -> Outcome {
    subject.forall(CASES, (small_cases(), wrong()), |(case, wrong)| {
        let (heads, bags) = (case.heads, case.bags());
        let (features, blocks) = (case.features::<E>(), case.values_per_head::<E>());
        let sum = |heads, values: Values<'_, E>, bags: &Bags<'_>, [weights, pooled]: [usize; 2]| {
            subject.backend().weighted_sum(&vec![0.0; weights], heads, values, bags, &mut vec![0.0_f32; pooled])
        };
        for (values, row) in [(features.shared(), heads * case.dim), (blocks.per_head(), blocks.dim())] {
            let lengths = [case.instances() * heads, bags.len() * row];
            let arguments = [("weights", lengths[0]), ("pooled", lengths[1])];
            each_refused(arguments, wrong, |lengths| sum(heads, values, &bags, lengths))?;
            refused(sum(0, values, &bags, lengths), &["heads"])?;
            refused(sum(heads, values, &other_bags(case.instances()), lengths), &["offsets", "values"])?;
        }
        let uneven = Matrix::<E>::from_f32(heads + 1, &vec![0.0; case.instances() * (heads + 1)]);
        match heads {
            1 => Ok(()),
            _ => refused(sum(heads, uneven.per_head(), &bags, [case.instances() * heads, 0]), &["values"]),
        }
    })
}

fn max_mean<B: Backend, E: Element>(subject: &Subject<B>) -> Outcome {
    subject.forall(CASES, (small_cases(), wrong()), |(case, wrong)| {
        let (features, bags) = (case.features::<E>(), case.bags());
        let max_mean = |bags: &Bags<'_>, [max, mean, argmax]: [usize; 3]| {
            let (mut max, mut mean, mut argmax) = (vec![0.0_f32; max], vec![0.0_f32; mean], vec![0; argmax]);
            let outputs = MaxMeanOutputs { max: Some(&mut max), mean: Some(&mut mean), argmax: Some(&mut argmax) };
            subject.backend().max_mean(features.rows(), bags, outputs)
        };
        let right = bags.len() * case.dim;
        let arguments = [("max", right), ("mean", right), ("argmax", right)];
        each_refused(arguments, wrong, |lengths| max_mean(&bags, lengths))?;
        refused(max_mean(&other_bags(case.instances()), [case.dim; 3]), &["offsets", "features"])?;
        let none = MaxMeanOutputs::<f32>::default();
        refused(subject.backend().max_mean(features.rows(), &bags, none), &["outputs"])
    })
}

fn attention_pool<B: Backend, E: Element>(subject: &Subject<B>) -> Outcome {
    subject.forall(CASES, (small_cases(), wrong()), |(case, wrong)| {
        let (params, keys, bags) = (case.params(), case.features::<E>(), case.bags());
        let (rows, heads) = (case.instances(), case.heads);
        let pool = |dtype, keys: &Matrix<E>, values: Option<&Matrix<E>>, bags: &Bags<'_>, lengths: [usize; 4]| {
            let packed = subject.backend().pack(&params, dtype);
            let [mut pooled, mut scores, mut weights, mut lse] = lengths.map(|length| vec![0.0_f32; length]);
            let outputs = AttentionOutputs {
                pooled: &mut pooled,
                scores: Some(&mut scores),
                weights: Some(&mut weights),
                lse: Some(&mut lse),
            };
            subject.backend().attention_pool(&packed, keys.rows(), values.map(Matrix::rows), bags, outputs)
        };
        let right = [bags.len() * heads * case.dim, rows * heads, rows * heads, bags.len() * heads];
        let [pooled, scores, weights, lse] = right;
        let arguments = [("pooled", pooled), ("scores", scores), ("weights", weights), ("lse", lse)];
        each_refused(arguments, wrong, |lengths| pool(E::DTYPE, &keys, None, &bags, lengths))?;

        let zeros = |dim: usize, rows: usize| Matrix::<E>::from_f32(dim, &vec![0.0; rows * dim]);
        let other = pool(E::DTYPE, &zeros(case.dim + 1, rows), Some(&keys), &bags, right);
        refused(other, &["keys", "features"])?;
        refused(pool(E::DTYPE, &keys, None, &other_bags(rows), right), &["offsets", "keys", "features"])?;
        let longer = zeros(case.dim, rows + 1);
        refused(pool(E::DTYPE, &keys, Some(&longer), &bags, right), &["values"])?;
        other_dtypes::<E>()
            .try_for_each(|dtype| refused(pool(dtype, &keys, None, &bags, right), &["keys", "features", "packed"]))
    })
}
