//! Every backward: agrees with that of the oracle, also where instances are permuted; adds where it is told to; is
//! linear; keeps a bag's bits whatever is beside it; and is 0 where nothing flows.

use mivc::cpu::{MaxMeanUpstream, SoftmaxUpstream, Values};
use mivc::{AttentionParams, AttentionTensors, Bags, Element};
use proptest::prelude::*;

use crate::backends::Backend;
use crate::order::Permutation;
use crate::support::backward::{self, Mode, PoolCall};
use crate::support::{Case, Check, Matrix, Outcome, Subject, cases, every, same};

tests![
    softmax, adds_softmax, batch_softmax;
    activations, gate, weighted_sum, max_mean, ties, scores, attention_pool, permuted, adds_gate, adds_weighted_sum,
    adds_max_mean, adds_attention_pool, linear, batch, batch_weighted_sum, batch_max_mean, one_instance, nothing_flows,
    masked_pool, bites, keeps
];

const CASES: u32 = 32;

/// What a forward keeps is what the oracle has, rounded; and it returns the scores that it does without.
fn activations<B: Backend, E: Element>(subject: &Subject<B>) -> Outcome {
    subject.forall(CASES, cases(), |case| {
        let (params, features, bags) = (case.params(), case.features::<E>(), case.bags());
        let (scores, kept) = subject.scores_keeping(&params, features.rows(), bags.mask())?;
        backward::activations::<E>(&params, features.rows(), bags.mask()).check("activations", &kept)?;
        same("scores", &scores, &subject.scores(&params, features.rows(), bags.mask())?)
    })
}

fn gate<B: Backend, E: Element>(subject: &Subject<B>) -> Outcome {
    subject.forall(CASES, cases(), |case| {
        let (x, y) = case.gate_arguments::<E>();
        let d_g: Vec<E> = case.uniform("d g", x.len(), 2.0).into_iter().map(E::from_f32).collect();
        let arguments = [&x[..], &y, &d_g];
        let [of_x, of_y] = backward::gate(arguments);
        let (d_x, d_y) = subject.gate_backward(arguments, Mode::Set)?;
        of_x.check("d_x", &d_x)?;
        of_y.check("d_y", &d_y)
    })
}

fn softmax<B: Backend>(subject: &Subject<B>) -> Outcome {
    subject.forall(CASES, cases(), |case| {
        let bags = case.bags();
        let mut weights = subject.softmax(&case.scores(), case.heads, &bags)?.weights;
        // What is masked is not read, whatever the forward has written there.
        for (row, &there) in weights.chunks_mut(case.heads).zip(bags.mask().unwrap_or_default()) {
            if there == 0 {
                row.fill(f32::NAN);
            }
        }
        let (d_weights, d_lse) =
            (case.of_rows("d weights", &bags), case.uniform("d lse", bags.len() * case.heads, 1.0));
        for (weights_too, lse_too) in [(true, false), (false, true), (true, true)] {
            let upstream =
                SoftmaxUpstream { weights: weights_too.then_some(&d_weights), lse: lse_too.then_some(&d_lse) };
            let d_scores = subject.softmax_backward(&weights, case.heads, &bags, upstream, Mode::Set)?;
            backward::softmax(&weights, case.heads, &bags, upstream).check("d_scores", &d_scores)?;
        }
        Ok(())
    })
}

fn weighted_sum<B: Backend, E: Element>(subject: &Subject<B>) -> Outcome {
    subject.forall(CASES, cases(), |case| {
        let (weights, heads, bags) = (case.weights(), case.heads, case.bags());
        let (features, blocks) = (case.features::<E>(), case.values_per_head::<E>());
        for (values, dim) in [(features.shared(), features.dim()), (blocks.per_head(), blocks.dim() / heads)] {
            let d_pooled = case.upstream::<f32>(&bags, dim, false).pooled;
            let [of_weights, of_values] = backward::weighted_sum(&weights, heads, values, &bags, &d_pooled);
            let (d_weights, d_values) =
                subject.weighted_sum_backward(&weights, heads, values, &bags, &d_pooled, Mode::Set)?;
            of_weights.check("d_weights", &d_weights)?;
            of_values.check("d_values", &d_values)?;

            let d_pooled = case.upstream::<E>(&bags, dim, false).pooled;
            let [of_weights, of_values] = backward::weighted_sum(&weights, heads, values, &bags, &d_pooled);
            let (d_weights, d_values) =
                subject.weighted_sum_backward(&weights, heads, values, &bags, &d_pooled, Mode::Set)?;
            of_weights.check("d_weights of narrow", &d_weights)?;
            of_values.check("narrow d_values", &d_values)?;
        }
        Ok(())
    })
}

/// Of maximum and mean, together and alone.
fn check_max_mean<B: Backend, E: Element, O: Element>(
    subject: &Subject<B>,
    case: &Case,
    features: &Matrix<E>,
    bags: &Bags<'_>,
) -> Check {
    let gradient = |what| case.uniform(what, bags.len() * features.dim(), 1.0).into_iter().map(O::from_f32);
    let (d_max, d_mean): (Vec<O>, Vec<O>) = (gradient("d max").collect(), gradient("d mean").collect());
    for (max_too, mean_too) in [(true, true), (true, false), (false, true)] {
        let upstream = MaxMeanUpstream { max: max_too.then_some(&d_max[..]), mean: mean_too.then_some(&d_mean[..]) };
        let d_features = subject.max_mean_backward(features.rows(), bags, upstream, Mode::Set)?;
        backward::max_mean(features.rows(), bags, upstream).check("d_features", &d_features)?;
    }
    Ok(())
}

fn max_mean<B: Backend, E: Element>(subject: &Subject<B>) -> Outcome {
    subject.forall(CASES, cases(), |case| {
        let (features, bags) = (case.features::<E>(), case.bags());
        check_max_mean::<B, E, f32>(subject, &case, &features, &bags)?;
        check_max_mean::<B, E, E>(subject, &case, &features, &bags)
    })
}

/// Of few different features, zeros of either sign and NaN among them.
fn ties<B: Backend, E: Element>(subject: &Subject<B>) -> Outcome {
    subject.forall(CASES, cases(), |case| {
        let bags = case.bags();
        let digits = case.uniform("digits", case.instances() * case.dim, 3.0);
        let values = digits.iter().map(|x| match x.round() {
            0.0 => 0.0_f32.copysign(*x),
            3.0 if case.seed % 2 == 0 => f32::NAN,
            digit => digit,
        });
        let features = Matrix::<E>::from_f32(case.dim, &values.collect::<Vec<_>>());
        check_max_mean::<B, E, f32>(subject, &case, &features, &bags)
    })
}

fn scores<B: Backend, E: Element>(subject: &Subject<B>) -> Outcome {
    subject.forall(CASES, cases(), |case| {
        let (params, features, bags) = (case.params(), case.features::<E>(), case.bags());
        let d_scores = case.of_rows("d scores", &bags);
        let (features, mask) = (features.rows(), bags.mask());
        let (_, kept) = subject.scores_keeping(&params, features, mask)?;
        for kept in [None, Some(&kept[..])] {
            let expected = backward::scores(&params, features, mask, kept, &d_scores);
            expected.check::<f32>(&subject.scores_backward(&params, features, mask, kept, &d_scores, Mode::Set)?)?;
            expected.check::<E>(&subject.scores_backward(&params, features, mask, kept, &d_scores, Mode::Set)?)?;
        }
        Ok(())
    })
}

fn attention_pool<B: Backend, E: Element>(subject: &Subject<B>) -> Outcome {
    subject.forall(CASES, cases(), |case| {
        for all in [false, true] {
            check_pool::<B, E, f32>(subject, &case, all, false)?;
            check_pool::<B, E, E>(subject, &case, all, false)?;
        }
        // Of f32 nothing is lost where activations are kept.
        if E::DTYPE == mivc::Dtype::F32 { check_pool::<B, E, f32>(subject, &case, true, true) } else { Ok(()) }
    })
}

fn check_pool<B: Backend, E: Element, O: Element>(subject: &Subject<B>, case: &Case, all: bool, keeps: bool) -> Check {
    let (params, keys, values, bags) = (&case.params(), case.features::<E>(), case.values::<E>(), &case.bags());
    let (keys, values) = (keys.rows(), values.as_ref().map(Matrix::rows));
    let upstream = &case.upstream::<O>(bags, values.unwrap_or(keys).dim(), all);
    let call = PoolCall { params, keys, values, bags, upstream, keeps, mode: Mode::Set };
    let out = subject.attention_pool_backward(call)?;
    backward::attention_pool(params, keys, values, bags, upstream).check(&out)
}

/// Gradients of instances move with them, and those of parameters stay, within the tolerance.
fn permuted<B: Backend, E: Element>(subject: &Subject<B>) -> Outcome {
    subject.forall(CASES, cases(), |case| {
        let (order, params, keys, bags) = (Permutation::of(&case), &case.params(), case.features::<E>(), &case.bags());
        let upstream = case.upstream::<f32>(bags, case.dim, true);
        let mut moved = upstream.clone();
        for rows in [&mut moved.scores, &mut moved.weights].into_iter().flatten() {
            *rows = order.rows(rows, case.heads);
        }
        let (moved_keys, moved_bags) = (order.matrix(&keys), order.bags(bags));
        let mut out = subject.attention_pool_backward(PoolCall {
            params,
            keys: moved_keys.rows(),
            values: None,
            bags: &moved_bags,
            upstream: &moved,
            keeps: false,
            mode: Mode::Set,
        })?;
        out.scores.features = order.undone(&out.scores.features, case.dim);
        backward::attention_pool(params, keys.rows(), None, bags, &upstream).check(&out)
    })
}

/// What is added is what would be written.
fn adds_attention_pool<B: Backend, E: Element>(subject: &Subject<B>) -> Outcome {
    subject.forall(CASES, cases(), |case| {
        let (params, keys, values, bags) = (&case.params(), case.features::<E>(), case.values::<E>(), &case.bags());
        let (keys, values) = (keys.rows(), values.as_ref().map(Matrix::rows));
        let upstream = &case.upstream::<f32>(bags, values.unwrap_or(keys).dim(), true);
        let call = |mode| PoolCall { params, keys, values, bags, upstream, keeps: false, mode };
        let set = subject.attention_pool_backward(call(Mode::Set))?;
        let added = subject.attention_pool_backward(call(Mode::Add))?;
        same("d_keys", &added.scores.features, &backward::plus_base(&set.scores.features))?;
        for ((name, added), (_, set)) in added.scores.params.iter().zip(set.scores.params.iter()) {
            same(name, added, &backward::plus_base(set))?;
        }
        if let (Some(added), Some(set)) = (&added.values, &set.values) {
            same("d_values", added, &backward::plus_base(set))?;
        }

        let upstream = &case.upstream::<E>(bags, values.unwrap_or(keys).dim(), true);
        let call = |mode| PoolCall { params, keys, values, bags, upstream, keeps: false, mode };
        let expected = backward::attention_pool(params, keys, values, bags, upstream);
        let set = subject.attention_pool_backward(call(Mode::Set))?;
        let added = subject.attention_pool_backward(call(Mode::Add))?;
        expected.scores.features.check_added("narrow d_keys", &set.scores.features, &added.scores.features)
    })
}

fn adds_gate<B: Backend, E: Element>(subject: &Subject<B>) -> Outcome {
    subject.forall(CASES, cases(), |case| {
        let (x, y) = case.gate_arguments::<E>();
        let d_g: Vec<E> = case.uniform("d g", x.len(), 2.0).into_iter().map(E::from_f32).collect();
        let arguments = [&x[..], &y, &d_g];
        let [of_x, of_y] = backward::gate(arguments);
        let [set, added] = [Mode::Set, Mode::Add].map(|mode| subject.gate_backward(arguments, mode));
        let (set, added) = (set?, added?);
        of_x.check_added("d_x", &set.0, &added.0)?;
        of_y.check_added("d_y", &set.1, &added.1)
    })
}

fn adds_softmax<B: Backend>(subject: &Subject<B>) -> Outcome {
    subject.forall(CASES, cases(), |case| {
        let bags = case.bags();
        let weights = subject.softmax(&case.scores(), case.heads, &bags)?.weights;
        let (d_weights, d_lse) =
            (case.of_rows("d weights", &bags), case.uniform("d lse", bags.len() * case.heads, 1.0));
        let upstream = SoftmaxUpstream { weights: Some(&d_weights), lse: Some(&d_lse) };
        let [set, added] =
            [Mode::Set, Mode::Add].map(|mode| subject.softmax_backward(&weights, case.heads, &bags, upstream, mode));
        backward::softmax(&weights, case.heads, &bags, upstream).check_added("d_scores", &set?, &added?)
    })
}

fn adds_weighted_sum<B: Backend, E: Element>(subject: &Subject<B>) -> Outcome {
    fn check<B: Backend, E: Element, O: Element>(subject: &Subject<B>, case: &Case, values: Values<'_, E>) -> Check {
        let (weights, heads, bags) = (case.weights(), case.heads, case.bags());
        let dim = match values {
            Values::Shared(rows) => rows.dim(),
            Values::PerHead(rows) => rows.dim() / heads,
        };
        let d_pooled = case.upstream::<O>(&bags, dim, false).pooled;
        let [of_weights, of_values] = backward::weighted_sum(&weights, heads, values, &bags, &d_pooled);
        let [set, added] = [Mode::Set, Mode::Add]
            .map(|mode| subject.weighted_sum_backward(&weights, heads, values, &bags, &d_pooled, mode));
        let (set, added) = (set?, added?);
        of_weights.check_added("d_weights", &set.0, &added.0)?;
        of_values.check_added("d_values", &set.1, &added.1)
    }
    subject.forall(CASES, cases(), |case| {
        let (features, blocks) = (case.features::<E>(), case.values_per_head::<E>());
        check::<B, E, f32>(subject, &case, features.shared())?;
        check::<B, E, E>(subject, &case, blocks.per_head())
    })
}

fn adds_max_mean<B: Backend, E: Element>(subject: &Subject<B>) -> Outcome {
    fn check<B: Backend, E: Element, O: Element>(subject: &Subject<B>, case: &Case) -> Check {
        let (features, bags) = (case.features::<E>(), case.bags());
        let gradient = |what| case.uniform(what, bags.len() * case.dim, 1.0).into_iter().map(O::from_f32);
        let (d_max, d_mean): (Vec<O>, Vec<O>) = (gradient("d max").collect(), gradient("d mean").collect());
        let upstream = MaxMeanUpstream { max: Some(&d_max[..]), mean: Some(&d_mean[..]) };
        let [set, added] =
            [Mode::Set, Mode::Add].map(|mode| subject.max_mean_backward(features.rows(), &bags, upstream, mode));
        backward::max_mean(features.rows(), &bags, upstream).check_added("d_features", &set?, &added?)
    }
    subject.forall(CASES, cases(), |case| {
        check::<B, E, f32>(subject, &case)?;
        check::<B, E, E>(subject, &case)
    })
}

/// Twice the upstream gives twice the gradients, to the bit where none is subnormal.
fn linear<B: Backend, E: Element>(subject: &Subject<B>) -> Outcome {
    subject.forall(CASES, cases(), |case| {
        let case = Case { spread: 0.25, ..case };
        let (params, keys, bags) = (&case.params(), case.features::<E>(), &case.bags());
        let upstream = case.upstream::<f32>(bags, case.dim, true);
        let call = |upstream| {
            let keys = keys.rows();
            let call = PoolCall { params, keys, values: None, bags, upstream, keeps: true, mode: Mode::Set };
            subject.attention_pool_backward(call)
        };
        let (one, two) = (call(&upstream)?, call(&upstream.map(|x| 2.0 * x))?);
        let double = |values: &[f32]| values.iter().map(|x| 2.0 * x).collect::<Vec<_>>();
        same("d_keys", &two.scores.features, &double(&one.scores.features))?;
        for ((name, two), (_, one)) in two.scores.params.iter().zip(one.scores.params.iter()) {
            same(name, two, &double(one))?;
        }
        Ok(())
    })
}

/// The gradients of a bag's instances depend on nothing but the bag; those of parameters not on threads.
fn batch<B: Backend, E: Element>(subject: &Subject<B>) -> Outcome {
    subject.forall(CASES, cases(), |case| {
        let (params, keys, bags) = (&case.params(), case.features::<E>(), case.bags());
        let upstream = case.upstream::<f32>(&bags, case.dim, true);
        let whole = crate::batch::on_any_threads(|| {
            let (keys, upstream) = (keys.rows(), &upstream);
            let call = PoolCall { params, keys, values: None, bags: &bags, upstream, keeps: false, mode: Mode::Set };
            subject.attention_pool_backward(call)
        })?;
        for (b, rows, bag) in crate::batch::alone(&bags) {
            let keys = keys.slice(rows.clone());
            let of_rows = |data: &Option<Vec<f32>>| {
                data.as_ref().map(|data| data[rows.start * case.heads..rows.end * case.heads].to_vec())
            };
            let of_bag = |data: &[f32]| {
                let len = data.len() / bags.len();
                data[b * len..(b + 1) * len].to_vec()
            };
            let upstream = &backward::Upstream {
                pooled: of_bag(&upstream.pooled),
                scores: of_rows(&upstream.scores),
                weights: of_rows(&upstream.weights),
                lse: upstream.lse.as_deref().map(of_bag),
            };
            let keys = keys.rows();
            let call = PoolCall { params, keys, values: None, bags: &bag, upstream, keeps: false, mode: Mode::Set };
            let part = subject.attention_pool_backward(call)?;
            let span = rows.start * case.dim..rows.end * case.dim;
            same("d_keys", &part.scores.features[..], &whole.scores.features[span])?;
        }
        Ok(())
    })
}

fn batch_softmax<B: Backend>(subject: &Subject<B>) -> Outcome {
    subject.forall(CASES, cases(), |case| {
        let (heads, bags) = (case.heads, case.bags());
        let weights = case.weights();
        let (d_weights, d_lse) = (case.of_rows("d weights", &bags), case.uniform("d lse", bags.len() * heads, 1.0));
        let upstream = SoftmaxUpstream { weights: Some(&d_weights), lse: Some(&d_lse) };
        let whole =
            crate::batch::on_any_threads(|| subject.softmax_backward(&weights, heads, &bags, upstream, Mode::Set))?;
        for (b, rows, bag) in crate::batch::alone(&bags) {
            let span = rows.start * heads..rows.end * heads;
            let upstream = SoftmaxUpstream {
                weights: Some(&d_weights[span.clone()]),
                lse: Some(&d_lse[b * heads..(b + 1) * heads]),
            };
            let part = subject.softmax_backward(&weights[span.clone()], heads, &bag, upstream, Mode::Set)?;
            same("d_scores", &part[..], &whole[span])?;
        }
        Ok(())
    })
}

fn batch_weighted_sum<B: Backend, E: Element>(subject: &Subject<B>) -> Outcome {
    subject.forall(CASES, cases(), |case| {
        let (weights, heads, bags) = (case.weights(), case.heads, case.bags());
        let (features, blocks) = (case.features::<E>(), case.values_per_head::<E>());
        for (values, matrix, dim) in
            [(features.shared(), &features, features.dim()), (blocks.per_head(), &blocks, blocks.dim() / heads)]
        {
            let d_pooled = case.upstream::<E>(&bags, dim, false).pooled;
            let whole = crate::batch::on_any_threads(|| {
                subject.weighted_sum_backward(&weights, heads, values, &bags, &d_pooled, Mode::Set)
            })?;
            for (b, rows, bag) in crate::batch::alone(&bags) {
                let part = matrix.slice(rows.clone());
                let values = match values {
                    Values::Shared(_) => part.shared(),
                    Values::PerHead(_) => part.per_head(),
                };
                let span = rows.start * heads..rows.end * heads;
                let d_pooled = &d_pooled[b * heads * dim..(b + 1) * heads * dim];
                let (d_weights, d_values) =
                    subject.weighted_sum_backward(&weights[span.clone()], heads, values, &bag, d_pooled, Mode::Set)?;
                same("d_weights", &d_weights[..], &whole.0[span])?;
                same("d_values", &d_values[..], &whole.1[rows.start * matrix.dim()..rows.end * matrix.dim()])?;
            }
        }
        Ok(())
    })
}

fn batch_max_mean<B: Backend, E: Element>(subject: &Subject<B>) -> Outcome {
    subject.forall(CASES, cases(), |case| {
        let (features, bags, dim) = (case.features::<E>(), case.bags(), case.dim);
        let gradient = |what| case.uniform(what, bags.len() * dim, 1.0);
        let (d_max, d_mean) = (gradient("d max"), gradient("d mean"));
        let upstream = MaxMeanUpstream { max: Some(&d_max[..]), mean: Some(&d_mean[..]) };
        let whole =
            crate::batch::on_any_threads(|| subject.max_mean_backward(features.rows(), &bags, upstream, Mode::Set))?;
        for (b, rows, bag) in crate::batch::alone(&bags) {
            let of_bag = b * dim..(b + 1) * dim;
            let upstream = MaxMeanUpstream { max: Some(&d_max[of_bag.clone()]), mean: Some(&d_mean[of_bag]) };
            let part = features.slice(rows.clone());
            let part = subject.max_mean_backward(part.rows(), &bag, upstream, Mode::Set)?;
            same("d_features", &part[..], &whole[rows.start * dim..rows.end * dim])?;
        }
        Ok(())
    })
}

/// A bag of one has the weight 1 whatever its score: nothing reaches the score, exactly, and all the features.
fn one_instance<B: Backend, E: Element>(subject: &Subject<B>) -> Outcome {
    subject.forall(CASES, cases(), |case| {
        let case = Case { lengths: vec![1; 5], masked: false, ..case };
        let (params, keys, bags) = (&case.params(), case.features::<E>(), &case.bags());
        let upstream = &case.upstream::<f32>(bags, case.dim, false);
        let keys = keys.rows();
        let call = PoolCall { params, keys, values: None, bags, upstream, keeps: false, mode: Mode::Set };
        let out = subject.attention_pool_backward(call)?;
        for (name, gradient) in out.scores.params.iter() {
            every(name, gradient, |x| x == 0.0)?;
        }
        for (d_key, d_pooled) in out.scores.features.chunks(case.dim).zip(upstream.pooled.chunks(case.heads * case.dim))
        {
            for (d, x) in d_key.iter().enumerate() {
                let sum = d_pooled.iter().skip(d).step_by(case.dim).fold(0.0, |sum, d_pooled| sum + d_pooled);
                prop_assert_eq!(*x, sum);
            }
        }
        Ok(())
    })
}

/// Masked instances get nothing, to the bit, even where parameters are not finite; and add to no parameter.
fn masked_pool<B: Backend, E: Element>(subject: &Subject<B>) -> Outcome {
    subject.forall(CASES, cases(), |case| {
        let case = Case { masked: true, ..case };
        let (params, keys, bags) = (case.params(), case.features::<E>(), &case.bags());
        let mut v = params.tensors().v.to_vec();
        v[0] = f32::INFINITY;
        let params = AttentionParams::new(params.shape(), AttentionTensors { v: &v, ..params.tensors() }).unwrap();
        let (upstream, keys) = (&case.upstream::<f32>(bags, case.dim, true), keys.rows());
        for keeps in [false, true] {
            let call = PoolCall { params: &params, keys, values: None, bags, upstream, keeps, mode: Mode::Set };
            let out = subject.attention_pool_backward(call)?;
            for (n, d_key) in out.scores.features.chunks(case.dim).enumerate() {
                if bags.mask().is_some_and(|mask| mask[n] == 0) {
                    every("d_key of a masked instance", d_key, |x| x == 0.0)?;
                }
            }
        }
        Ok(())
    })
}

/// A test of the tests: gradients without one of the instances are beyond the tolerance that the right ones keep.
fn bites<B: Backend, E: Element>(subject: &Subject<B>) -> Outcome {
    subject.forall(CASES, cases(), |case| {
        let case = Case { lengths: vec![400], masked: false, heads: 1, groups: 1, spread: 0.25, ..case };
        let (params, features) = (case.params(), case.features::<E>());
        let d_scores = case.uniform("d scores", case.instances(), 1.0);
        let mut without = d_scores.clone();
        without[10] = 0.0;
        let backward = |d_scores: &[f32]| -> Check<backward::ScoresBackward<f32>> {
            subject.scores_backward(&params, features.rows(), None, None, d_scores, Mode::Set)
        };
        let expected = backward::scores(&params, features.rows(), None, None, &d_scores);
        expected.check(&backward(&d_scores)?)?;
        let wrong = backward(&without)?;
        prop_assert!(expected.features.check("d_features", &wrong.features).is_err(), "d_features are right");
        for ((name, gradient), expected) in wrong.params.iter().zip(expected.params.iter().flatten()) {
            prop_assert!(expected.check(name, gradient).is_err(), "{} is within the tolerance", name);
        }
        Ok(())
    })
}

/// Attention pool that keeps activations returns what it does without, and keeps what the scores alone keep.
fn keeps<B: Backend, E: Element>(subject: &Subject<B>) -> Outcome {
    subject.forall(CASES, cases(), |case| {
        let (params, keys, bags) = (&case.params(), case.features::<E>(), &case.bags());
        let (pooled, weights, kept) = subject.attention_pool_keeping(params, keys.rows(), bags)?;
        let out = subject.attention_pool::<E, f32>(params, keys.rows(), None, bags)?;
        same("pooled", &pooled, &out.pooled)?;
        same("weights", &weights, &out.weights)?;
        same("activations", &kept, &subject.scores_keeping(params, keys.rows(), bags.mask())?.1)
    })
}

/// No gradient where none comes in, whatever the features hold: NaN of a row whose score has none stays there.
fn nothing_flows<B: Backend, E: Element>(subject: &Subject<B>) -> Outcome {
    subject.forall(CASES, cases(), |case| {
        let case = Case { groups: case.heads, ..case };
        let (params, bags) = (case.params(), case.bags());
        let mut features = case.features::<E>();
        let mut d_scores = case.of_rows("d scores", &bags);
        for n in (0..case.instances()).step_by(2) {
            features.row_mut(n).fill(E::from_f32(f32::NAN));
            d_scores[n * case.heads..(n + 1) * case.heads].fill(0.0);
        }
        // Infinite where one head of several has a gradient: the others' parameters are not touched.
        for n in (1..case.instances()).step_by(4) {
            features.row_mut(n).fill(E::from_f32(f32::INFINITY));
            d_scores[n * case.heads + 1..(n + 1) * case.heads].fill(0.0);
        }
        let out: backward::ScoresBackward<f32> =
            subject.scores_backward(&params, features.rows(), bags.mask(), None, &d_scores, Mode::Set)?;
        backward::scores(&params, features.rows(), bags.mask(), None, &d_scores).check(&out)?;
        for n in (0..case.instances()).step_by(2) {
            every("d_features", &out.features[n * case.dim..(n + 1) * case.dim], |x| x == 0.0)?;
        }
        Ok(())
    })
}
