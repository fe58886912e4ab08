//! Known answers, edge cases, and what the tolerance must and must not let through.

use super::*;
use crate::{AttentionParams, AttentionShape, AttentionTensors};

const NAN: f64 = f64::NAN;
const INF: f64 = f64::INFINITY;

fn bags(lengths: &[i64]) -> Bags<'static> {
    Bags::from_lengths(lengths).unwrap()
}

fn masked_bags(lengths: &[i64], mask: &[u8]) -> Bags<'static> {
    bags(lengths).with_mask(mask.to_vec()).unwrap()
}

fn exact(values: &[f64]) -> Bounded<f64> {
    Bounded::exact(values.to_vec())
}

fn shared(rows: &[f64], dim: usize) -> Values<'_, f64> {
    Values::Shared { rows, dim }
}

#[track_caller]
fn assert_close(got: &[f64], expected: &[f64]) {
    let close =
        |(&x, &y): (&f64, &f64)| x == y || (x - y).abs() <= 1e-14 * y.abs().max(1.0) || x.is_nan() && y.is_nan();
    assert!(got.len() == expected.len() && got.iter().zip(expected).all(close), "{got:?}, expected {expected:?}");
}

/// One hidden unit and head: `v = [1, −1]`, and gated `u = [2, 0]`.
fn tiny_params(gated: bool) -> AttentionParams {
    let shape = AttentionShape { dim: 2, hidden: 1, heads: 1, groups: 1 };
    let u = gated.then_some(&[2.0, 0.0][..]);
    let tensors = AttentionTensors { v: &[1.0, -1.0], u, w: &[-2.0], w_bias: Some(&[0.25]), ..Default::default() };
    AttentionParams::new(shape, tensors).unwrap()
}

mod known_answers {
    use super::*;

    // tanh(½ ln 3) = ½, tanh(ln 2) = 3/5, σ(ln 3) = ¾
    const HALF_LN_3: f64 = 0.549_306_144_334_054_8;
    const LN_3: f64 = 2.0 * HALF_LN_3;

    #[test]
    fn gate_and_its_backward() {
        let out = gate(&[HALF_LN_3, -HALF_LN_3], &[LN_3, -LN_3]);
        assert_close(&out.value, &[0.375, -0.125]);
        assert_close(&out.scale, &[0.375, 0.375]);

        let gradients = gate_backward(&[HALF_LN_3], &[LN_3], &exact(&[16.0]));
        assert_close(&gradients.x.value, &[16.0 * 0.75 * 0.75]);
        assert_close(&gradients.y.value, &[16.0 * 0.5 * 0.75 * 0.25]);
    }

    #[test]
    fn scores_and_their_scale() {
        // V h cancels in the second row, and S remembers what cancelled.
        let ln_2 = 2.0_f64.ln();
        let features = [HALF_LN_3, 0.0, ln_2 / 2.0, ln_2 / 2.0];
        let ungated = scores(&tiny_params(false), &features, None);
        assert_close(&ungated.value, &[-2.0 * 0.5 + 0.25, 0.25]);
        assert_close(&ungated.scale, &[2.0 * 0.5 + 0.25, 2.0 * 0.6 + 0.25]);

        let gated = scores(&tiny_params(true), &features, None);
        assert_close(&gated.value, &[-2.0 * 0.5 * 0.75 + 0.25, 0.25]);
    }

    #[test]
    fn each_head_uses_its_group() {
        let shape = AttentionShape { dim: 1, hidden: 1, heads: 4, groups: 2 };
        let tensors = AttentionTensors { v: &[1.0, -1.0], w: &[1.0, 2.0, 4.0, 8.0], ..Default::default() };
        let params = AttentionParams::new(shape, tensors).unwrap();
        assert_close(&scores(&params, &[HALF_LN_3], None).value, &[0.5, 1.0, -2.0, -4.0]);
    }

    #[test]
    fn softmax_and_its_scale() {
        let s = [0.0, 2.0_f64.ln(), LN_3];
        let out = softmax(&exact(&s), 1, &bags(&[3]));
        let a = [1.0 / 6.0, 2.0 / 6.0, 3.0 / 6.0];
        assert_close(&out.weights.value, &a);
        assert_close(&out.lse.value, &[6.0_f64.ln()]);

        let mean_scale = a[1] * s[1] + a[2] * s[2];
        assert_close(&out.weights.scale, &[0, 1, 2].map(|n| a[n] * (1.0 + s[n] + mean_scale)));
        assert_close(&out.lse.scale, &[1.0 + 6.0_f64.ln() + mean_scale]);
    }

    #[test]
    fn softmax_of_two_heads_does_not_mix_them() {
        let out = softmax(&exact(&[0.0, LN_3, LN_3, 0.0]), 2, &bags(&[2]));
        assert_close(&out.weights.value, &[0.25, 0.75, 0.75, 0.25]);
        assert_close(&out.lse.value, &[4.0_f64.ln(); 2]);
    }

    #[test]
    fn weighted_sum_of_shared_and_per_head_values() {
        let weights = exact(&[0.25, 1.0, 0.75, -2.0]);
        let out = weighted_sum(&weights, 2, shared(&[4.0, 8.0], 1), &bags(&[2]));
        assert_close(&out.value, &[7.0, -12.0]);
        assert_close(&out.scale, &[7.0, 20.0]);

        let per_head = Values::PerHead { rows: &[4.0, 1.0, 8.0, 2.0], dim: 1 };
        assert_close(&weighted_sum(&weights, 2, per_head, &bags(&[2])).value, &[7.0, -3.0]);
    }

    #[test]
    fn max_and_mean() {
        let out = max_mean(&[1.0, -4.0, 3.0, -2.0, -1.0, -6.0, 9.0, 9.0], 2, &bags(&[3, 1]));
        assert_close(&out.max, &[3.0, -2.0, 9.0, 9.0]);
        assert_close(&out.mean.value, &[1.0, -4.0, 9.0, 9.0]);
        assert_close(&out.mean.scale, &[5.0 / 3.0, 4.0, 9.0, 9.0]);
        assert_eq!(out.argmax, [1, 1, 3, 3]);
    }

    #[test]
    fn attention_pool_joins_the_three() {
        // scores ¼ + 1 and ¼ − 1
        let keys = [-HALF_LN_3, 0.0, HALF_LN_3, 0.0];
        let out = attention_pool(&tiny_params(false), &keys, shared(&[1.0, 10.0], 1), &bags(&[2]));
        assert_close(&out.scores.value, &[1.25, -0.75]);
        let first = 2.0_f64.sigmoid();
        assert_close(&out.softmax.weights.value, &[first, 1.0 - first]);
        assert_close(&out.pooled.value, &[first + 10.0 * (1.0 - first)]);
        assert_close(&out.pooled.scale, &[out.softmax.weights.scale[0] + 10.0 * out.softmax.weights.scale[1]]);
    }
}

mod edges {
    use super::*;

    #[test]
    fn bag_without_instances() {
        let params = tiny_params(true);
        // Empty, all masked (with NaN features), one that is there.
        let bags = masked_bags(&[0, 2, 1], &[0, 0, 1]);
        let features = [NAN, NAN, NAN, NAN, 0.5, 0.25];
        let out = attention_pool(&params, &features, shared(&features, 2), &bags);
        assert_close(&out.scores.value[..2], &[-INF, -INF]);
        assert_close(&out.softmax.weights.value, &[0.0, 0.0, 1.0]);
        assert_close(&out.softmax.lse.value, &[-INF, -INF, out.scores.value[2]]);
        assert_close(&out.pooled.value, &[0.0, 0.0, 0.0, 0.0, 0.5, 0.25]);

        let out = max_mean(&features, 2, &bags);
        assert_close(&out.max, &[0.0, 0.0, 0.0, 0.0, 0.5, 0.25]);
        assert_close(&out.mean.value, &out.max);
        assert_eq!(out.argmax, [-1, -1, -1, -1, 2, 2]);
    }

    #[test]
    fn bag_without_instances_has_no_gradient() {
        let params = tiny_params(true);
        let bags = masked_bags(&[0, 2], &[0, 0]);
        let features = [NAN; 4];
        let (pooled, per_score, per_bag) = (exact(&[NAN; 4]), exact(&[NAN; 2]), exact(&[NAN; 2]));
        let upstream = AttentionPoolUpstream {
            pooled: &pooled,
            scores: Some(&per_score),
            weights: Some(&per_score),
            lse: Some(&per_bag),
        };
        let gradients = attention_pool_backward(&params, &features, shared(&features, 2), &bags, None, upstream);
        assert_close(&gradients.values.value, &[0.0; 4]);
        assert_close(&gradients.scores.features.value, &[0.0; 4]);
        assert_close(&gradients.scores.v.value, &[0.0; 2]);
        assert_close(&gradients.scores.u.unwrap().value, &[0.0; 2]);
        assert_close(&gradients.scores.w.value, &[0.0]);
        assert_close(&gradients.scores.w_bias.unwrap().value, &[0.0]);
        assert_close(&max_mean_backward(&features, 2, &bags, Some(&pooled), Some(&pooled)).value, &[0.0; 4]);
    }

    #[test]
    fn bag_at_score_minus_infinity() {
        let scores = exact(&[-INF, -INF, 1.0, -INF]);
        let out = softmax(&scores, 1, &bags(&[2, 2]));
        assert_close(&out.weights.value, &[0.0, 0.0, 1.0, 0.0]);
        assert_close(&out.lse.value, &[-INF, 1.0]);
        // S of a score −inf is infinite, and must not reach the others.
        assert_close(&out.weights.scale, &[0.0, 0.0, 3.0, 0.0]);
        assert_close(&out.lse.scale, &[0.0, 3.0]);

        let values = [NAN, INF, 7.0, NAN];
        assert_close(&weighted_sum(&out.weights, 1, shared(&values, 1), &bags(&[2, 2])).value, &[0.0, 7.0]);
        let d = exact(&[1.0; 4]);
        let d_scores = softmax_backward(&out.weights, 1, &bags(&[2, 2]), Some(&d), Some(&exact(&[1.0, 2.0])));
        assert_close(&d_scores.value, &[0.0, 0.0, 2.0, 0.0]);
        let d_pooled = exact(&[1.0, 1.0]);
        let gradients = weighted_sum_backward(&out.weights, 1, shared(&values, 1), &bags(&[2, 2]), &d_pooled);
        assert_close(&gradients.weights.value, &[0.0, 0.0, 7.0, 0.0]);
        assert_close(&gradients.values.value, &[0.0, 0.0, 1.0, 0.0]);
    }

    #[test]
    fn masked_instance_is_never_read() {
        let bags = masked_bags(&[3], &[1, 0, 1]);
        let out = softmax(&exact(&[1.0, NAN, 1.0]), 1, &bags);
        assert_close(&out.weights.value, &[0.5, 0.0, 0.5]);
        // Not even where the caller gives it a weight.
        let sum = weighted_sum(&exact(&[0.5, 9.0, 0.5]), 1, shared(&[2.0, NAN, 4.0], 1), &bags);
        assert_close(&sum.value, &[3.0]);
        let pooled = max_mean(&[2.0, NAN, 4.0], 1, &bags);
        assert_close(&[pooled.max[0], pooled.mean.value[0]], &[4.0, 3.0]);
        assert_eq!(pooled.argmax, [2]);

        let out = scores(&tiny_params(true), &[NAN, NAN, 0.0, 0.0], Some(&[0, 1]));
        assert_close(&out.value, &[-INF, 0.25]);
        assert_close(&out.scale, &[0.0, 0.25]);
    }

    #[test]
    fn weight_that_underflows_an_f32_skips_its_row() {
        // e^-200 is a number in f64 and 0 in f32.
        let scores = exact(&[0.0, -200.0]);
        let weights = softmax(&scores, 1, &bags(&[2])).weights;
        assert!(weights.value[1] > 0.0);
        assert_close(&weighted_sum(&weights, 1, shared(&[3.0, NAN], 1), &bags(&[2])).value, &[3.0]);

        let d_pooled = exact(&[2.0]);
        let gradients = weighted_sum_backward(&weights, 1, shared(&[3.0, NAN], 1), &bags(&[2]), &d_pooled);
        assert_close(&gradients.weights.value, &[6.0, 0.0]);
        assert_close(&gradients.values.value, &[2.0, 0.0]);
        let d_scores = softmax_backward(&weights, 1, &bags(&[2]), Some(&exact(&[6.0, NAN])), None);
        assert_close(&d_scores.value, &[0.0, 0.0]);
    }

    #[test]
    fn score_without_gradient_passes_none_on() {
        let gradients = scores_backward(&tiny_params(true), &[INF, NAN, 0.0, 0.0], None, None, &exact(&[0.0, 4.0]));
        assert_close(&gradients.w_bias.unwrap().value, &[4.0]);
        // v = 1, −1; slope w · ½ at 0
        assert_close(&gradients.features.value, &[0.0, 0.0, -4.0, 4.0]);
        assert_close(&gradients.v.value, &[0.0, 0.0]);
    }

    #[test]
    fn nan_or_infinite_score_is_that_bag_and_head_alone() {
        for bad in [NAN, INF] {
            // [N, K]: bag 0 has a bad score in head 1 and a masked instance, bag 1 none.
            let scores = exact(&[0.0, bad, 0.0, 0.0, 5.0, 5.0, 1.0, 1.0]);
            let bags = masked_bags(&[3, 1], &[1, 1, 0, 1]);
            let out = softmax(&scores, 2, &bags);
            assert_close(&out.weights.value, &[0.5, NAN, 0.5, NAN, 0.0, 0.0, 1.0, 1.0]);
            assert_close(&out.lse.value, &[2.0_f64.ln(), NAN, 1.0, 1.0]);
            let pooled = weighted_sum(&out.weights, 2, shared(&[2.0, 4.0, NAN, 8.0], 1), &bags);
            assert_close(&pooled.value, &[3.0, NAN, 8.0, 8.0]);

            let d_scores = softmax_backward(&out.weights, 2, &bags, None, Some(&exact(&[1.0; 4])));
            assert_close(&d_scores.value, &[0.5, NAN, 0.5, NAN, 0.0, 0.0, 1.0, 1.0]);
        }
    }

    #[test]
    fn huge_scores_stay_finite() {
        let scores = Bounded::exact(vec![1e30_f32, 1e30, -1e30]);
        let out = softmax(&scores, 1, &bags(&[3]));
        assert_eq!(out.weights.value, [0.5, 0.5, 0.0]);
        assert_eq!(out.lse.value, [1e30]);

        let out = softmax(&exact(&[-1e30, -1e30]), 1, &bags(&[2]));
        assert_close(&out.weights.value, &[0.5, 0.5]);
        assert_close(&out.lse.value, &[-1e30]);
    }

    #[test]
    fn infinite_features_follow_the_formula() {
        // inf − 0 → tanh 1; inf − inf → NaN
        let out = scores(&tiny_params(false), &[INF, 0.0, -INF, 0.0, INF, INF], None);
        assert_close(&out.value, &[-1.75, 2.25, NAN]);
        let out = max_mean(&[INF, 1.0, -INF], 1, &bags(&[2, 1]));
        assert_close(&out.max, &[INF, -INF]);
        assert_close(&out.mean.value, &[INF, -INF]);
        assert_eq!(out.argmax, [0, 2]);
    }

    #[test]
    fn nan_in_max_and_mean_is_that_feature_of_that_bag() {
        let features = [1.0, 9.0, NAN, 2.0, NAN, 3.0, 5.0, 6.0];
        let out = max_mean(&features, 2, &bags(&[3, 1]));
        assert_close(&out.max, &[NAN, 9.0, 5.0, 6.0]);
        assert_close(&out.mean.value, &[NAN, 14.0 / 3.0, 5.0, 6.0]);
        assert_eq!(out.argmax, [1, 0, 3, 3]);

        let d_features = max_mean_backward(&features, 2, &bags(&[3, 1]), Some(&exact(&[1.0; 4])), None);
        assert_close(&d_features.value, &[0.0, 1.0, 0.5, 0.0, 0.5, 0.0, 1.0, 1.0]);
    }

    #[test]
    fn zeros_of_either_sign_tie_and_the_maximum_is_positive() {
        for features in [[0.0_f64, -0.0], [-0.0, 0.0]] {
            let out = max_mean(&features, 1, &bags(&[2]));
            assert_eq!((out.max[0].to_bits(), out.argmax[0]), (0.0_f64.to_bits(), 0));
            let d_features = max_mean_backward(&features, 1, &bags(&[2]), Some(&exact(&[1.0])), None);
            assert_close(&d_features.value, &[0.5, 0.5]);
        }
        let out = max_mean(&[-0.0_f64, -0.0], 1, &bags(&[2]));
        assert_eq!(out.max[0].to_bits(), (-0.0_f64).to_bits());
    }

    #[test]
    fn ties_share_the_gradient_and_the_lowest_is_argmax() {
        let features = [1.0, 3.0, 3.0, 2.0, 3.0];
        assert_eq!(max_mean(&features, 1, &bags(&[5])).argmax, [1]);
        let d_features = max_mean_backward(&features, 1, &bags(&[5]), Some(&exact(&[6.0])), Some(&exact(&[5.0])));
        assert_close(&d_features.value, &[1.0, 3.0, 3.0, 1.0, 3.0]);
    }
}

mod properties {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    /// f32 features in f64, so that the naive evaluation gets the same numbers.
    fn features(rows: usize, dim: usize) -> impl Strategy<Value = Vec<f64>> {
        vec((-3.0_f32..3.0).prop_map(f64::from), rows * dim)
    }

    fn params(dim: usize, hidden: usize, heads: usize) -> impl Strategy<Value = AttentionParams> {
        let tensor = |len| vec(-1.0_f32..1.0, len);
        let tensors = (tensor(hidden * dim), tensor(hidden * dim), tensor(hidden), tensor(heads * hidden));
        tensors.prop_map(move |(v, u, v_bias, w)| {
            let shape = AttentionShape { dim, hidden, heads, groups: 1 };
            let tensors = AttentionTensors { v: &v, v_bias: Some(&v_bias), u: Some(&u), w: &w, ..Default::default() };
            AttentionParams::new(shape, tensors).unwrap()
        })
    }

    fn to_f32(x: &[f64]) -> Vec<f32> {
        x.iter().map(|&x| x as f32).collect()
    }

    fn max_difference(x: &[f64], y: &[f64]) -> f64 {
        x.iter().zip(y).map(|(x, y)| (x - y).abs()).fold(0.0, f64::max)
    }

    const ROWS: usize = 12;
    const DIM: usize = 5;
    const HEADS: usize = 2;

    proptest! {
        #[test]
        fn weights_of_a_bag_add_up_to_one(params in params(DIM, 3, HEADS), features in features(ROWS, DIM)) {
            let bags = bags(&[5, 0, 6, 1]);
            let out = attention_pool(&params, &features, shared(&features, DIM), &bags);
            for b in [0, 2, 3] {
                for k in 0..HEADS {
                    let sum: f64 = bags.range(b).map(|n| out.softmax.weights.value[n * HEADS + k]).sum();
                    prop_assert!((sum - 1.0).abs() < 1e-12);
                }
            }
        }

        #[test]
        fn order_does_not_matter(
            params in params(DIM, 3, HEADS),
            features in features(ROWS, DIM),
            order in Just((0..ROWS).collect::<Vec<_>>()).prop_shuffle(),
        ) {
            let bags = bags(&[ROWS as i64]);
            let permuted: Vec<f64> = order.iter().flat_map(|&n| row(&features, DIM, n).to_vec()).collect();
            let out = attention_pool(&params, &features, shared(&features, DIM), &bags);
            let other = attention_pool(&params, &permuted, shared(&permuted, DIM), &bags);
            prop_assert!(max_difference(&out.pooled.value, &other.pooled.value) < 1e-12);
            for (i, &n) in order.iter().enumerate() {
                let (weights, permuted) = (&out.softmax.weights.value, &other.softmax.weights.value);
                prop_assert!(max_difference(row(weights, HEADS, n), row(permuted, HEADS, i)) < 1e-12);
            }
            prop_assert_eq!(max_mean(&features, DIM, &bags).max, max_mean(&permuted, DIM, &bags).max);
        }

        /// The tolerance is close to f32 rounding: the naive evaluation is within it, and it is small
        /// against S.
        #[test]
        fn tolerance_lets_f32_rounding_through_and_little_else(
            params in params(DIM, 3, HEADS),
            features in features(ROWS, DIM),
        ) {
            let bags = bags(&[ROWS as i64]);
            let out = attention_pool(&params, &features, shared(&features, DIM), &bags);
            let naive_features = to_f32(&features);
            let naive_values = Values::Shared { rows: &naive_features, dim: DIM };
            let naive = attention_pool(&params, &naive_features, naive_values, &bags);
            for (out, naive) in [
                (&out.scores, &naive.scores),
                (&out.softmax.weights, &naive.softmax.weights),
                (&out.softmax.lse, &naive.softmax.lse),
                (&out.pooled, &naive.pooled),
            ] {
                let naive_value: Vec<f64> = naive.value.iter().map(|&x| x.into()).collect();
                let tolerance = out.tolerance(naive);
                prop_assert!(max_difference(&naive_value, &out.value) <= tolerance);
                prop_assert!(tolerance <= 1e-5 * out.scale.iter().copied().fold(0.0, f64::max));
            }
        }
    }
}

/// The test of the tests: mistakes of the kind that kernels make are outside the tolerance.
mod tolerance {
    use super::*;

    const DIM: usize = 3;

    fn values() -> Vec<f64> {
        (0..60 * DIM).map(|i| f64::from((i as f32 * 0.7).sin())).collect()
    }

    /// Weights of a bag of 50 rows with 10 neighbours.
    fn weights() -> Bounded<f64> {
        let scores: Vec<f64> = (0..60).map(|n| f64::from((n as f32 * 1.3).cos())).collect();
        softmax(&exact(&scores), 1, &bags(&[50, 10])).weights
    }

    fn pooled(weights: &[f64], lengths: &[i64]) -> Bounded<f64> {
        weighted_sum(&exact(weights), 1, shared(&values(), DIM), &bags(lengths))
    }

    fn assert_fails(wrong: &[f64]) {
        let weights = weights();
        let right = weighted_sum(&weights, 1, shared(&values(), DIM), &bags(&[50, 10]));
        let naive_weights = Bounded::exact(weights.value.iter().map(|&a| a as f32).collect());
        let naive_values: Vec<f32> = values().iter().map(|&x| x as f32).collect();
        let naive_values = Values::Shared { rows: &naive_values, dim: DIM };
        let naive = weighted_sum(&naive_weights, 1, naive_values, &bags(&[50, 10]));
        let error = right.value.iter().zip(wrong).map(|(x, y)| (x - y).abs()).fold(0.0, f64::max);
        let tolerance = right.tolerance(&naive);
        assert!(error > 100.0 * tolerance, "off by {error}, tolerance {tolerance}");
    }

    #[test]
    fn catches_a_dropped_instance() {
        for n in [0, 17, 49] {
            let mut weights = weights().value;
            weights[n] = 0.0;
            assert_fails(&pooled(&weights, &[50, 10]).value);
        }
    }

    #[test]
    fn catches_swapped_weights() {
        let mut weights = weights().value;
        weights.swap(20, 21);
        assert_fails(&pooled(&weights, &[50, 10]).value);
    }

    #[test]
    fn catches_a_neighbours_row() {
        assert_fails(&pooled(&weights().value, &[51, 9]).value);
    }

    #[test]
    fn is_twice_the_naive_error_and_a_millionth_of_the_scale() {
        let out = Bounded { value: vec![1.0, -2.0], scale: vec![1.0, 4.0] };
        let naive = Bounded::exact(vec![1.25_f32, -2.125]);
        assert_close(&[out.tolerance(&naive)], &[0.5 + 4e-6]);
    }

    #[test]
    fn leaves_out_what_is_not_finite() {
        let value = vec![-INF, NAN, 1.0, 0.0];
        let out = Bounded { value, scale: vec![INF, NAN, 1.0, 0.0] };
        let naive = Bounded::exact(vec![f32::NEG_INFINITY, f32::NAN, 1.0, f32::INFINITY]);
        assert_close(&[out.tolerance(&naive)], &[1e-6]);
    }
}
