//! As of the forwards: arguments of every backward.

use mivc::cpu::{
    AttentionPoolGradients, AttentionPoolUpstream, MaxMeanUpstream, ParamGradients, Saved, ScoresGradients,
    SoftmaxUpstream, WeightedSumGradients,
};
use mivc::{AttentionParams, Bags, Element, Gradient, Result};

use super::{CASES, Wrong, each_refused, other_bags, other_dtypes, refused, wrong};
use crate::backends::Backend;
use crate::support::backward::PARAMS;
use crate::support::{Check, Matrix, Outcome, Subject, small_cases};

tests![softmax; gate, weighted_sum, max_mean, scores, attention_pool];

fn gate<B: Backend, E: Element>(subject: &Subject<B>) -> Outcome {
    subject.forall(CASES, (0..100_usize, wrong()), |(len, wrong)| {
        let of = |len| vec![E::default(); len];
        each_refused([("y", len), ("d_g", len), ("d_x", len), ("d_y", len)], wrong, |[y, d_g, d_x, d_y]| {
            let (mut d_x, mut d_y) = (of(d_x), of(d_y));
            let (d_x, d_y) = (Some(Gradient::Set(&mut d_x[..])), Some(Gradient::Add(&mut d_y[..])));
            subject.backend().gate_backward([&of(len)[..], &of(y), &of(d_g)], d_x, d_y)
        })
    })
}

fn softmax<B: Backend>(subject: &Subject<B>) -> Outcome {
    subject.forall(CASES, (small_cases(), wrong()), |(case, wrong)| {
        let (rows, bags) = (case.instances() * case.heads, case.bags());
        let softmax = |heads, [weights, d_weights, d_lse, d_scores]: [usize; 4]| {
            let [weights, d_weights, d_lse, mut d_scores] =
                [weights, d_weights, d_lse, d_scores].map(|len| vec![0.0; len]);
            let upstream = SoftmaxUpstream { weights: Some(&d_weights), lse: Some(&d_lse) };
            subject.backend().softmax_backward(&weights, heads, &bags, upstream, Gradient::Set(&mut d_scores))
        };
        let lse = bags.len() * case.heads;
        let arguments = [("weights", rows), ("d_weights", rows), ("d_lse", lse), ("d_scores", rows)];
        each_refused(arguments, wrong, |lengths| softmax(case.heads, lengths))?;
        refused(softmax(0, [0; 4]), &["heads"])
    })
}

fn weighted_sum<B: Backend, E: Element>(subject: &Subject<B>) -> Outcome {
    subject.forall(CASES, (small_cases(), wrong()), |(case, wrong)| {
        let (heads, bags, features) = (case.heads, case.bags(), case.features::<E>());
        let sum = |heads, bags: &Bags<'_>, lengths: [usize; 4]| {
            let [weights, d_pooled, mut d_weights, mut d_values] = lengths.map(|len| vec![0.0_f32; len]);
            let gradients = WeightedSumGradients {
                weights: Some(Gradient::Set(&mut d_weights)),
                values: Some(Gradient::Set(&mut d_values)),
            };
            subject.backend().weighted_sum_backward(&weights, heads, features.shared(), bags, &d_pooled, gradients)
        };
        let rows = case.instances();
        let lengths = [rows * heads, bags.len() * heads * case.dim, rows * heads, rows * case.dim];
        let [weights, d_pooled, d_weights, d_values] = lengths;
        let arguments =
            [("weights", weights), ("d_pooled", d_pooled), ("d_weights", d_weights), ("d_values", d_values)];
        each_refused(arguments, wrong, |lengths| sum(heads, &bags, lengths))?;
        refused(sum(0, &bags, lengths), &["heads"])?;
        refused(sum(heads, &other_bags(rows), lengths), &["offsets", "values"])
    })
}

fn max_mean<B: Backend, E: Element>(subject: &Subject<B>) -> Outcome {
    subject.forall(CASES, (small_cases(), wrong()), |(case, wrong)| {
        let (features, bags) = (case.features::<E>(), case.bags());
        let max_mean = |bags: &Bags<'_>, lengths: [usize; 3]| {
            let [d_max, d_mean, mut d_features] = lengths.map(|len| vec![0.0_f32; len]);
            let upstream = MaxMeanUpstream { max: Some(&d_max[..]), mean: Some(&d_mean) };
            subject.backend().max_mean_backward(features.rows(), bags, upstream, Gradient::Set(&mut d_features))
        };
        let (right, elements) = (bags.len() * case.dim, case.instances() * case.dim);
        let arguments = [("d_max", right), ("d_mean", right), ("d_features", elements)];
        each_refused(arguments, wrong, |lengths| max_mean(&bags, lengths))?;
        let other = max_mean(&other_bags(case.instances()), [case.dim, case.dim, elements]);
        refused(other, &["offsets", "features"])?;
        let mut d_features = vec![0.0_f32; elements];
        let none = MaxMeanUpstream::<f32> { max: None, mean: None };
        let result = subject.backend().max_mean_backward(features.rows(), &bags, none, Gradient::Set(&mut d_features));
        refused(result, &["upstream"])
    })
}

/// The length of each parameter, and of those that are not there what it would be.
fn lengths_of(params: &AttentionParams) -> ([usize; 6], [bool; 6]) {
    let (shape, it) = (params.shape(), params.tensors());
    let units = shape.groups * shape.hidden;
    let matrix = units * shape.dim;
    let lengths = [matrix, units, matrix, units, shape.heads * shape.hidden, shape.heads];
    let there = [true, it.v_bias.is_some(), it.u.is_some(), it.u_bias.is_some(), true, it.w_bias.is_some()];
    (lengths, there)
}

/// Calls with a gradient of each parameter by itself: those that are not there are refused, the others where their length
/// is wrong.
fn each_parameter_refused(
    params: &AttentionParams,
    wrong: Wrong,
    mut call: impl FnMut(ParamGradients<'_>) -> Result<()>,
) -> Check {
    let (lengths, there) = lengths_of(params);
    for (i, name) in PARAMS.into_iter().enumerate() {
        let len = if there[i] { wrong.of(lengths[i]) } else { lengths[i] };
        if there[i] && len == lengths[i] {
            continue;
        }
        let mut to = vec![0.0; len];
        let mut gradients = ParamGradients::default();
        let ParamGradients { v, v_bias, u, u_bias, w, w_bias } = &mut gradients;
        *[v, v_bias, u, u_bias, w, w_bias][i] = Some(Gradient::Set(&mut to));
        refused(call(gradients), &[name])?;
    }
    Ok(())
}

fn scores<B: Backend, E: Element>(subject: &Subject<B>) -> Outcome {
    subject.forall(CASES, (small_cases(), wrong()), |(case, wrong)| {
        let (params, features) = (case.params(), case.features::<E>());
        let (rows, backend) = (case.instances(), subject.backend());
        let call = |dtype, features: &Matrix<E>, lengths: [usize; 4], params_of: ParamGradients<'_>| {
            let packed = backend.pack_backward(&params, dtype);
            let [mask, activations, d_scores, d_features] = lengths;
            let (mask, activations) = (vec![1; mask], vec![E::default(); activations]);
            let mut d_features = vec![0.0_f32; d_features];
            let gradients = ScoresGradients { features: Some(Gradient::Set(&mut d_features)), params: params_of };
            let (mask, kept, d_scores) = (Some(&mask[..]), Some(&activations[..]), vec![0.0; d_scores]);
            backend.scores_backward(&packed, features.rows(), mask, kept, &d_scores, gradients)
        };
        let activations = rows * case.groups * case.hidden * if case.gated { 2 } else { 1 };
        let right = [rows, activations, rows * case.heads, rows * case.dim];
        let [mask, activations, d_scores, d_features] = right;
        let arguments =
            [("mask", mask), ("activations", activations), ("d_scores", d_scores), ("d_features", d_features)];
        each_refused(arguments, wrong, |lengths| call(E::DTYPE, &features, lengths, ParamGradients::default()))?;
        each_parameter_refused(&params, wrong, |gradients| call(E::DTYPE, &features, right, gradients))?;

        let other = Matrix::<E>::from_f32(case.dim + 1, &vec![0.0; rows * (case.dim + 1)]);
        refused(call(E::DTYPE, &other, right, ParamGradients::default()), &["features"])?;
        other_dtypes::<E>().try_for_each(|dtype| {
            refused(call(dtype, &features, right, ParamGradients::default()), &["features", "packed"])
        })
    })
}

fn attention_pool<B: Backend, E: Element>(subject: &Subject<B>) -> Outcome {
    subject.forall(CASES, (small_cases(), wrong()), |(case, wrong)| {
        let (params, keys, bags) = (case.params(), case.features::<E>(), case.bags());
        let (rows, heads, backend) = (case.instances(), case.heads, subject.backend());
        let call = |values: Option<&Matrix<E>>, bags: &Bags<'_>, lengths: [usize; 7], has_values: bool| {
            let packed = backend.pack_backward(&params, E::DTYPE);
            let [weights, pooled, d_scores, d_weights, d_lse, mut d_keys, mut d_values] =
                lengths.map(|len| vec![0.0_f32; len]);
            let upstream = AttentionPoolUpstream {
                pooled: Some(&pooled[..]),
                scores: Some(&d_scores),
                weights: Some(&d_weights),
                lse: Some(&d_lse),
            };
            let params = ParamGradients::default();
            let gradients = AttentionPoolGradients {
                scores: ScoresGradients { features: Some(Gradient::Set(&mut d_keys)), params },
                values: has_values.then_some(Gradient::Set(&mut d_values)),
            };
            let (values, saved) = (values.map(Matrix::rows), Saved { weights: &weights, activations: None });
            backend.attention_pool_backward(&packed, keys.rows(), values, bags, saved, upstream, gradients)
        };
        let (bag_heads, of_rows) = (bags.len() * heads, rows * heads);
        let right = [of_rows, bag_heads * case.dim, of_rows, of_rows, bag_heads, rows * case.dim, rows * case.dim];
        let names = ["weights", "d_pooled", "d_scores", "d_weights", "d_lse", "d_features", "d_values"];
        let arguments = std::array::from_fn::<_, 7, _>(|i| (names[i], right[i]));
        each_refused(arguments, wrong, |lengths| call(Some(&keys), &bags, lengths, true))?;
        refused(call(None, &bags, right, true), &["d_values"])?;
        refused(call(None, &other_bags(rows), right, false), &["offsets", "keys", "features"])?;
        let longer = Matrix::<E>::from_f32(case.dim, &vec![0.0; (rows + 1) * case.dim]);
        refused(call(Some(&longer), &bags, right, false), &["values"])
    })
}
