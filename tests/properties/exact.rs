//! In `Order::Exact` the order of instances changes no bit: of what is pooled, of weights put back where they were, of
//! states merged in any tree, of gradients. Numbers are of all magnitudes, with sums that cancel.
//!
//! `make exact` runs 800 cases of each where `make test` runs 64.

use mivc::cpu::{Cpu, Isa, MaxMeanOutputs, Values};
use mivc::{Bags, Element, Gradient, Order, PoolState, Rows};
use proptest::prelude::*;
use rayon::ThreadPoolBuilder;

use crate::backends::Backend;
use crate::order::Permutation;
use crate::state::Piece;
use crate::support::backward::{Mode, PoolCall};
use crate::support::{Bits, Case, Check, Matrix, Outcome, Subject, cases, same};

tests![
    softmax, softmax_backward, softmax_backward_of_infinities;
    weighted_sum, weighted_sum_of_each_head, max_mean, attention_pool, attention_pool_onto, mean_onto,
    scores_backward, scores_backward_of_equals, attention_pool_backward, threads, long_bags, within_the_bound, same_on_every_instruction_set
];

const CASES: u32 = 64;
/// Of bags of 100,000 instances.
const LONG_CASES: u32 = 2;

/// Numbers of all magnitudes: each row has its own, and one in four is another's negative; one in fifty has an infinity
/// or a NaN where `specials` says so.
fn wild<E: Element>(case: &Case, what: &str, dim: usize, specials: bool) -> Matrix<E> {
    let mut rng = case.rng(what);
    let greatest = if E::from_f32(1e30).to_f32().is_finite() { 110 } else { 12 };
    let mut data: Vec<f32> = Vec::with_capacity(case.instances() * dim);
    for n in 0..case.instances() {
        let at = data.len();
        if n > 0 && rng.random_ratio(1, 4) {
            let other = rng.random_range(0..n);
            data.extend_from_within(other * dim..(other + 1) * dim);
            data[at..].iter_mut().for_each(|x| *x = -*x);
            continue;
        }
        let reach = if rng.random_ratio(1, 8) { greatest } else { 12 };
        let of_row = rng.random_range(-reach..=reach);
        for _ in 0..dim {
            let exponent = of_row - rng.random_range(0..12);
            data.push(rng.random_range(-1.0_f32..1.0) * 2_f32.powi(exponent));
        }
        if specials && rng.random_ratio(1, 50) {
            data[at + rng.random_range(0..dim)] = [f32::INFINITY, f32::NEG_INFINITY, f32::NAN][rng.random_range(0..3)];
        }
    }
    let mut matrix = Matrix::from_f32(dim, &data);
    for (n, _) in case.bags().mask().unwrap_or_default().iter().enumerate().filter(|(_, present)| **present == 0) {
        matrix.row_mut(n).fill(E::from_f32(f32::NAN));
    }
    matrix
}

/// Weights of all magnitudes and either sign, some of them 0.
fn wild_weights(case: &Case) -> Vec<f32> {
    let mut rng = case.rng("wild weights");
    let weight = |weight: f32| weight * 2_f32.powi(rng.random_range(-40..10));
    case.weights().into_iter().map(weight).collect()
}

/// Gradients of weights, of which one in two hundred is an infinity or a NaN.
fn wild_d_weights(case: &Case) -> Vec<f32> {
    let mut rng = case.rng("wild gradients");
    let mut gradients = case.of_rows("d weights", &case.bags());
    for gradient in &mut gradients {
        if rng.random_ratio(1, 200) {
            *gradient = [f32::INFINITY, f32::NEG_INFINITY, f32::NAN][rng.random_range(0..3)];
        }
    }
    gradients
}

/// Scores far apart and close together.
fn wild_scores(case: &Case) -> Vec<f32> {
    let mut rng = case.rng("wild scores");
    let reach = [1.0, 20.0, 1e4, 1e12][rng.random_range(0..4)];
    case.scores().into_iter().map(|score| score * reach).collect()
}

/// Those of the tests, and one in sixteen as long as several parts that threads sum.
fn exact_cases() -> BoxedStrategy<Case> {
    let several_parts = (cases(), 2000..2600_i64).prop_map(|(case, length)| Case {
        lengths: vec![3, length],
        dim: case.dim.min(33),
        hidden: case.hidden.min(16),
        heads: 1 + case.heads % 2,
        groups: 1,
        ..case
    });
    prop_oneof![15 => cases(), 1 => several_parts, 1 => several_groups()].boxed()
}

/// With whole groups of columns, and the beginning of another.
fn several_groups() -> BoxedStrategy<Case> {
    (cases(), prop::sample::select(vec![256, 520])).prop_map(|(case, dim)| Case { dim, ..case }).boxed()
}

fn forall<B: Backend>(subject: &Subject<B>, count: u32, check: impl Fn(Case) -> Check) -> Outcome {
    subject.forall(count, exact_cases(), check)
}

fn softmax<B: Backend>(subject: &Subject<B>) -> Outcome {
    forall(subject, CASES, |case| {
        let (order, scores, bags) = (Permutation::of(&case), wild_scores(&case), case.bags());
        let one = subject.softmax(&scores, case.heads, &bags)?;
        let other = subject.softmax(&order.rows(&scores, case.heads), case.heads, &order.bags(&bags))?;
        same("weights", &one.weights, &order.undone(&other.weights, case.heads))?;
        same("lse", &one.lse, &other.lse)
    })
}

fn softmax_backward<B: Backend>(subject: &Subject<B>) -> Outcome {
    forall(subject, CASES, |case| {
        let (order, bags, heads) = (Permutation::of(&case), case.bags(), case.heads);
        let weights = subject.softmax(&case.scores(), heads, &bags)?.weights;
        let (d_weights, d_lse) = (wild_d_weights(&case), case.uniform("d lse", bags.len() * heads, 1.0));
        let backward = |weights: &[f32], d_weights: &[f32], bags: &Bags<'_>| {
            let upstream = mivc::cpu::SoftmaxUpstream { weights: Some(d_weights), lse: Some(&d_lse) };
            subject.softmax_backward(weights, heads, bags, upstream, Mode::Set)
        };
        let one = backward(&weights, &d_weights, &bags)?;
        let other = backward(&order.rows(&weights, heads), &order.rows(&d_weights, heads), &order.bags(&bags))?;
        same("d_scores", &one, &order.undone(&other, heads))
    })
}

/// An infinite product in one chunk of a long bag makes Σ a·da of all of it infinite.
fn softmax_backward_of_infinities<B: Backend>(subject: &Subject<B>) -> Outcome {
    subject.forall(LONG_CASES, (cases(), 600..1200_i64), |(case, length)| {
        let case = Case { lengths: vec![length], heads: 1, groups: 1, masked: false, ..case };
        let (bags, instances) = (case.bags(), case.instances());
        let (weights, mut d_weights) = (vec![1.0 / instances as f32; instances], vec![1.0; instances]);
        d_weights[case.rng("an infinity").random_range(0..instances)] = f32::INFINITY;
        let upstream = mivc::cpu::SoftmaxUpstream { weights: Some(&d_weights), lse: None };
        let d_scores = subject.softmax_backward(&weights, 1, &bags, upstream, Mode::Set)?;
        for (d_score, d_weight) in d_scores.into_iter().zip(d_weights) {
            let is_right = if d_weight == 1.0 { d_score == f32::NEG_INFINITY } else { d_score.is_nan() };
            prop_assert!(is_right, "{d_score} where the gradient of the weight is {d_weight}");
        }
        Ok(())
    })
}

fn weighted_sum<B: Backend, E: Element>(subject: &Subject<B>) -> Outcome {
    forall(subject, CASES, |case| {
        let (order, weights, bags) = (Permutation::of(&case), wild_weights(&case), case.bags());
        let values = wild::<E>(&case, "wild values", case.dim, true);
        let one = subject.weighted_sum::<E, f32>(&weights, case.heads, values.shared(), &bags)?;
        let (weights, values, bags) = (order.rows(&weights, case.heads), order.matrix(&values), order.bags(&bags));
        same("pooled", &one, &subject.weighted_sum::<E, f32>(&weights, case.heads, values.shared(), &bags)?)
    })
}

fn weighted_sum_of_each_head<B: Backend, E: Element>(subject: &Subject<B>) -> Outcome {
    forall(subject, CASES, |case| {
        let (order, weights, bags) = (Permutation::of(&case), wild_weights(&case), case.bags());
        let values = wild::<E>(&case, "wild values", case.heads * case.dim.min(33), true);
        let one = subject.weighted_sum::<E, f32>(&weights, case.heads, values.per_head(), &bags)?;
        let (weights, values, bags) = (order.rows(&weights, case.heads), order.matrix(&values), order.bags(&bags));
        same("pooled", &one, &subject.weighted_sum::<E, f32>(&weights, case.heads, values.per_head(), &bags)?)
    })
}

fn max_mean<B: Backend, E: Element>(subject: &Subject<B>) -> Outcome {
    forall(subject, CASES, |case| {
        let (order, features, bags) =
            (Permutation::of(&case), wild::<E>(&case, "wild features", case.dim, true), case.bags());
        let one = subject.max_mean::<E, f32>(features.rows(), &bags)?;
        let other = subject.max_mean::<E, f32>(order.matrix(&features).rows(), &order.bags(&bags))?;
        same("mean", &one.mean, &other.mean)?;
        same("max", &one.max, &other.max)
    })
}

/// Also where a bag is in another call, with other bags.
fn attention_pool<B: Backend, E: Element>(subject: &Subject<B>) -> Outcome {
    forall(subject, CASES, |case| {
        let (order, params, bags) = (Permutation::of(&case), case.params(), case.bags());
        let keys = case.features::<E>();
        let values = case.value_dim.map(|dim| wild::<E>(&case, "wild values", dim, true));
        let pool = |keys: &Matrix<E>, values: &Option<Matrix<E>>, bags: &Bags<'_>| {
            subject.attention_pool::<E, f32>(&params, keys.rows(), values.as_ref().map(Matrix::rows), bags)
        };
        let one = pool(&keys, &values, &bags)?;
        let permuted = values.as_ref().map(|values| order.matrix(values));
        let other = pool(&order.matrix(&keys), &permuted, &order.bags(&bags))?;
        same("pooled", &one.pooled, &other.pooled)?;
        same("lse", &one.lse, &other.lse)?;
        same("scores", &one.scores, &order.undone(&other.scores, case.heads))?;
        same("weights", &one.weights, &order.undone(&other.weights, case.heads))
    })
}

/// Whole, and in pieces merged in a random tree.
fn attention_pool_onto<B: Backend, E: Element>(subject: &Subject<B>) -> Outcome {
    forall(subject, CASES, |case| {
        let (params, bags) = (case.params(), case.bags());
        let keys = case.features::<E>();
        let values = case.value_dim.map(|dim| wild::<E>(&case, "wild values", dim, true));
        let packed = subject.backend().pack(&params, E::DTYPE);
        let dim = values.as_ref().unwrap_or(&keys).dim();
        let empty = || PoolState::empty_in(Order::Exact, bags.len(), case.heads, dim).unwrap();
        let onto = |state: &mut PoolState, rows: &[usize], bags: &Bags<'_>| {
            let [keys, values] = [Some(&keys), values.as_ref()].map(|it| it.map(|it| it.select(rows.iter().copied())));
            let keys = keys.expect("there are keys");
            let values = values.as_ref().map(Matrix::rows);
            subject.backend().attention_pool_onto(&packed, keys.rows(), values, bags, state, None)
        };
        let state = expect_pieces(&case, empty, onto)?;
        let values = values.as_ref().map(Matrix::rows);
        same("pooled", state.pooled(), &subject.attention_pool::<E, f32>(&params, keys.rows(), values, &bags)?.pooled)
    })
}

/// Whole, and in pieces merged in a random tree; and the same integers as those of the CPU.
fn mean_onto<B: Backend, E: Element>(subject: &Subject<B>) -> Outcome {
    let plain = Cpu::with_isa(Isa::Portable).expect("every processor has it").with_order(Order::Exact);
    forall(subject, CASES, |case| {
        let (bags, features) = (case.bags(), wild::<E>(&case, "wild features", case.dim, true));
        let empty = || PoolState::empty_in(Order::Exact, bags.len(), 1, case.dim).unwrap();
        let onto = |state: &mut PoolState, rows: &[usize], bags: &Bags<'_>| {
            subject.backend().mean_onto(features.select(rows.iter().copied()).rows(), bags, state)
        };
        let state = expect_pieces(&case, empty, onto)?;
        same("mean", state.pooled(), &subject.max_mean::<E, f32>(features.rows(), &bags)?.mean)?;
        let mut on_cpu = empty();
        plain.mean_onto(features.rows(), &bags, &mut on_cpu)?;
        prop_assert_eq!(bytes(&state), bytes(&on_cpu));
        Ok(())
    })
}

/// The state of all instances, if that of pieces merged in a random tree is the same.
fn expect_pieces(
    case: &Case,
    empty: impl Fn() -> PoolState,
    onto: impl Fn(&mut PoolState, &[usize], &Bags<'_>) -> mivc::Result<()>,
) -> Check<PoolState> {
    let (mut whole, bags) = (empty(), case.bags());
    onto(&mut whole, &(0..case.instances()).collect::<Vec<_>>(), &bags)?;

    let mut rng = case.rng("merges");
    let mut states = Vec::new();
    for piece in Piece::any(case, rng.random_range(1..6)) {
        states.push(empty());
        let at = rng.random_range(0..states.len());
        onto(&mut states[at], &piece.rows, &piece.bags)?;
    }
    while states.len() > 1 {
        let other = states.swap_remove(rng.random_range(0..states.len()));
        let at = rng.random_range(0..states.len());
        states[at].merge(&other)?;
    }
    same("merged", &states[0], &whole)?;
    let saved = PoolState::from_safetensors(&states[0].to_safetensors()?)?;
    if !whole.max().iter().any(|max| max.is_nan()) {
        // Not only what can be seen of it.
        prop_assert_eq!(bytes(&saved), bytes(&whole));
    }
    Ok(whole)
}

fn bytes(state: &PoolState) -> Vec<u8> {
    state.to_safetensors().unwrap()
}

fn scores_backward<B: Backend, E: Element>(subject: &Subject<B>) -> Outcome {
    forall(subject, CASES / 2, |case| {
        let d_scores = case.of_rows("d scores", &case.bags());
        expect_the_same_gradients(subject, &case, &case.features::<E>(), &d_scores)
    })
}

/// Thousands of instances, of which many have the same gradients of their scores, and many of these the same features or
/// some that differ late.
fn scores_backward_of_equals<B: Backend, E: Element>(subject: &Subject<B>) -> Outcome {
    subject.forall(LONG_CASES, (cases(), 2000..2600_i64), |(case, length)| {
        let case =
            Case { lengths: vec![length], dim: 1 + case.dim % 24, hidden: 1 + case.hidden % 8, groups: 1, ..case };
        let mut rng = case.rng("equals");
        let mut of_few = |choices: i32| rng.random_range(-choices..=choices) as f32;
        let d_scores: Vec<f32> = (0..case.instances() * case.heads).map(|_| of_few(1)).collect();
        let mut features: Vec<f32> = vec![0.5; case.instances() * case.dim];
        features.chunks_mut(case.dim).for_each(|row| row[case.dim - 1] = of_few(40) / 3.0);
        expect_the_same_gradients(subject, &case, &Matrix::<E>::from_f32(case.dim, &features), &d_scores)
    })
}

/// Whatever the order of the instances.
fn expect_the_same_gradients<B: Backend, E: Element>(
    subject: &Subject<B>,
    case: &Case,
    features: &Matrix<E>,
    d_scores: &[f32],
) -> Check {
    let (order, params, bags) = (Permutation::of(case), case.params(), case.bags());
    let backward = |features: &Matrix<E>, bags: &Bags<'_>, d_scores: &[f32]| {
        subject.scores_backward::<E, f32>(&params, features.rows(), bags.mask(), None, d_scores, Mode::Set)
    };
    let one = backward(features, &bags, d_scores)?;
    let other = backward(&order.matrix(features), &order.bags(&bags), &order.rows(d_scores, case.heads))?;
    same("parameters", &one.params, &other.params)?;
    same("d_features", &one.features, &order.undone(&other.features, case.dim))
}

/// Equal instances have different gradients where they are in different bags.
fn attention_pool_backward<B: Backend, E: Element>(subject: &Subject<B>) -> Outcome {
    forall(subject, CASES / 2, |case| {
        let (order, params, bags) = (Permutation::of(&case), case.params(), case.bags());
        let twins =
            |matrix: Matrix<E>| matrix.select((0..case.instances()).map(|n| if n % 3 == 1 { n - 1 } else { n }));
        let masked = bags.mask().is_some();
        let (mut keys, values) = (case.features::<E>(), case.values::<E>());
        if !masked {
            keys = twins(keys);
        }
        let mut upstream = case.upstream::<f32>(&bags, values.as_ref().unwrap_or(&keys).dim(), true);
        let backward = |keys: &Matrix<E>, values: Option<&Matrix<E>>, bags: &Bags<'_>, upstream: &_| {
            let (keys, values, params) = (keys.rows(), values.map(Matrix::rows), &params);
            subject.attention_pool_backward(PoolCall {
                params,
                keys,
                values,
                bags,
                upstream,
                keeps: case.seed % 2 == 0,
                mode: Mode::Set,
            })
        };
        let one = backward(&keys, values.as_ref(), &bags, &upstream)?;
        for of_rows in [&mut upstream.scores, &mut upstream.weights].into_iter().flatten() {
            *of_rows = order.rows(of_rows, case.heads);
        }
        let permuted = values.as_ref().map(|values| order.matrix(values));
        let other = backward(&order.matrix(&keys), permuted.as_ref(), &order.bags(&bags), &upstream)?;
        same("parameters", &one.scores.params, &other.scores.params)?;
        same("d_keys", &one.scores.features, &order.undone(&other.scores.features, case.dim))?;
        if let (Some(one), Some(other), Some(values)) = (&one.values, &other.values, &values) {
            same("d_values", one, &order.undone(other, values.dim()))?;
        }
        Ok(())
    })
}

/// All that has a sum, of one bag and one head.
fn pooled_all_ways<B: Backend, E: Element>(subject: &Subject<B>, case: &Case, values: &Matrix<E>) -> Check<Vec<u64>> {
    let (params, bags, keys) = (case.params(), case.bags(), case.features::<E>());
    let weighted = subject.weighted_sum::<E, f32>(&case.weights(), case.heads, values.shared(), &bags)?;
    let mean = subject.max_mean::<E, f32>(values.rows(), &bags)?.mean;
    let pooled = subject.attention_pool::<E, f32>(&params, keys.rows(), Some(values.rows()), &bags)?.pooled;
    Ok([weighted.bits(), mean.bits(), pooled.bits()].concat())
}

fn threads<B: Backend, E: Element>(subject: &Subject<B>) -> Outcome {
    let pools = [1, 2, 7].map(|threads| ThreadPoolBuilder::new().num_threads(threads).build().unwrap());
    subject.forall(4, exact_cases(), |case| {
        let case = Case { lengths: vec![0, 2600, 1100, 40], dim: 5, hidden: 3, heads: 1, groups: 1, ..case };
        let values = wild::<E>(&case, "wild values", 9, false);
        let of_pool = |pool: &rayon::ThreadPool| pool.install(|| pooled_all_ways(subject, &case, &values));
        let first = of_pool(&pools[0])?;
        for pool in &pools[1..] {
            prop_assert_eq!(&of_pool(pool)?, &first);
        }
        Ok(())
    })
}

fn long_bags<B: Backend, E: Element>(subject: &Subject<B>) -> Outcome {
    subject.forall(LONG_CASES, exact_cases(), |case| {
        let lengths = vec![subject.backend().long_bag()];
        let case = Case { lengths, dim: 3, hidden: 1, heads: 1, groups: 1, ..case };
        let (order, values) = (Permutation::of(&case), wild::<E>(&case, "wild values", 3, false));
        let (bags, params, keys) = (case.bags(), case.params(), case.features::<E>());
        let one = subject.attention_pool::<E, f32>(&params, keys.rows(), Some(values.rows()), &bags)?;
        let (bags, keys, values) = (order.bags(&bags), order.matrix(&keys), order.matrix(&values));
        let other = subject.attention_pool::<E, f32>(&params, keys.rows(), Some(values.rows()), &bags)?;
        same("pooled", &one.pooled, &other.pooled)?;
        same("lse", &one.lse, &other.lse)
    })
}

/// The bound that `mivc::exact` states, of the weighted sum: products are exact in f64, and their sum is compensated.
fn within_the_bound<B: Backend, E: Element>(subject: &Subject<B>) -> Outcome {
    forall(subject, CASES, |case| {
        let case = Case { masked: false, ..case };
        let (weights, bags) = (wild_weights(&case), case.bags());
        let values = wild::<E>(&case, "wild values", case.dim, false);
        let pooled = subject.weighted_sum::<E, f32>(&weights, case.heads, values.shared(), &bags)?;
        for (i, &got) in pooled.iter().enumerate() {
            let (bag_head, column) = (i / case.dim, i % case.dim);
            let (b, k) = (bag_head / case.heads, bag_head % case.heads);
            let bag = bags.ranges().nth(b).expect("a bag");
            let (mut sum, mut lost, mut scale) = (0.0_f64, 0.0_f64, 0.0_f64);
            for n in bag.clone() {
                let weight = f64::from(weights[n * case.heads + k]);
                let row = values.row(n);
                let term = weight * f64::from(row[column].to_f32());
                let next = sum + term;
                lost += if sum.abs() >= term.abs() { (sum - next) + term } else { (term - next) + sum };
                sum = next;
                let greatest = row.iter().fold(2_f64.powi(-105), |max, x| max.max(f64::from(x.to_f32()).abs()));
                scale += weight.abs() * greatest;
            }
            let exact = sum + lost;
            let bound = (1.01 * 2_f64.powi(-44) + bag.len() as f64 * 2_f64.powi(-63)) * scale;
            let ulp = f64::from((exact as f32).abs().next_up()) - f64::from((exact as f32).abs());
            let error = (f64::from(got) - exact).abs();
            prop_assert!(
                error <= bound + 0.51 * ulp,
                "[{}] {} for {}: {} above {}",
                i,
                got,
                exact,
                error,
                bound + ulp / 2.0
            );
        }
        Ok(())
    })
}

/// From equal weights, scores and features; the scores themselves differ.
fn same_on_every_instruction_set<B: Backend, E: Element>(subject: &Subject<B>) -> Outcome {
    let plain = Cpu::with_isa(Isa::Portable).expect("every processor has it").with_order(Order::Exact);
    subject.forall(CASES, prop_oneof![3 => exact_cases(), 1 => several_groups()], |case| {
        let (weights, scores, bags, heads) = (wild_weights(&case), wild_scores(&case), case.bags(), case.heads);
        let values = wild::<E>(&case, "wild values", case.dim, true);

        let mut pooled = vec![0.0_f32; bags.len() * heads * case.dim];
        plain.weighted_sum(&weights, heads, Values::Shared(values.rows()), &bags, &mut pooled)?;
        same("weighted sum", &pooled, &subject.weighted_sum(&weights, heads, values.shared(), &bags)?)?;

        let mut mean = vec![0.0_f32; bags.len() * case.dim];
        let rows: Rows<'_, E> = values.rows();
        plain.max_mean(rows, &bags, MaxMeanOutputs { mean: Some(&mut mean), ..Default::default() })?;
        same("mean", &mean, &subject.max_mean::<E, f32>(rows, &bags)?.mean)?;

        let (mut softmax, mut lse) = (vec![0.0; scores.len()], vec![0.0; bags.len() * heads]);
        plain.softmax(&scores, heads, &bags, &mut softmax, &mut lse)?;
        same("softmax", &softmax, &subject.softmax(&scores, heads, &bags)?.weights)?;

        let (d_weights, d_lse) = (wild_d_weights(&case), case.uniform("d lse", bags.len() * heads, 1.0));
        let upstream = mivc::cpu::SoftmaxUpstream { weights: Some(&d_weights), lse: Some(&d_lse) };
        let mut d_scores = vec![0.0; scores.len()];
        plain.softmax_backward(&softmax, heads, &bags, upstream, Gradient::Set(&mut d_scores))?;
        let got = subject.softmax_backward(&softmax, heads, &bags, upstream, Mode::Set)?;
        // Computed NaNs have the bits that a processor gives them.
        let [d_scores, got] = [d_scores, got].map(|all| all.into_iter().map(|x| if x.is_nan() { f32::NAN } else { x }));
        same("d_scores", &d_scores.collect::<Vec<_>>(), &got.collect())
    })
}
