//! Every backward of the oracle against central differences of its forward, in f64.

use mivc::reference::{self, AttentionPoolUpstream, Bounded, ScoresGradients, Values};
use mivc::{AttentionParams, AttentionShape, AttentionTensors, Bags};

/// A power of two, so that an input ± STEP is exact in f32 as well: parameters are f32.
const STEP: f64 = 1.0 / 4096.0;

/// Repeatable numbers: multiples of 1/256 in [−1, 1), by a linear congruential generator (Knuth, MMIX).
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> f64 {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (self.0 >> 55) as f64 / 256.0 - 1.0
    }

    fn take(&mut self, len: usize) -> Vec<f64> {
        (0..len).map(|_| self.next()).collect()
    }

    fn take_f32(&mut self, len: usize) -> Vec<f32> {
        (0..len).map(|_| self.next() as f32).collect()
    }

    fn params(&mut self, case: &Case) -> AttentionParams {
        let AttentionShape { dim, hidden, heads, groups } = case.shape;
        let (v, u) = (self.take_f32(groups * hidden * dim), self.take_f32(groups * hidden * dim));
        let (v_bias, u_bias) = (self.take_f32(groups * hidden), self.take_f32(groups * hidden));
        let (w, w_bias) = (self.take_f32(heads * hidden), self.take_f32(heads));
        let tensors = AttentionTensors {
            v: &v,
            v_bias: case.biases.then_some(&v_bias),
            u: case.gated.then_some(&u),
            u_bias: (case.gated && case.biases).then_some(&u_bias),
            w: &w,
            w_bias: case.biases.then_some(&w_bias),
        };
        AttentionParams::new(case.shape, tensors).expect("the lengths follow from the shape")
    }

    /// Features with NaN in the masked rows, where nothing may read them.
    fn features(&mut self, case: &Case, dim: usize) -> Vec<f64> {
        let mut features = self.take(case.instances() * dim);
        for n in (0..case.instances()).filter(|&n| case.is_masked(n)) {
            features[n * dim..(n + 1) * dim].fill(f64::NAN);
        }
        features
    }

    fn gradient(&mut self, len: usize) -> Bounded<f64> {
        Bounded::exact(self.take(len))
    }
}

#[derive(Debug)]
struct Case {
    shape: AttentionShape,
    gated: bool,
    biases: bool,
    lengths: &'static [i64],
    mask: Option<&'static [u8]>,
}

impl Case {
    fn bags(&self) -> Bags<'static> {
        let bags = Bags::from_lengths(self.lengths).expect("lengths");
        match self.mask {
            Some(mask) => bags.with_mask(mask).expect("a mask of N entries"),
            None => bags,
        }
    }

    fn instances(&self) -> usize {
        self.bags().instances()
    }

    fn is_masked(&self, n: usize) -> bool {
        self.mask.is_some_and(|mask| mask[n] == 0)
    }
}

fn cases() -> [Case; 6] {
    let shape = |heads, groups| AttentionShape { dim: 3, hidden: 2, heads, groups };
    let some_masked: &[u8] = &[1, 0, 1, 1, 1, 1, 0];
    let bag_masked: &[u8] = &[1, 1, 0, 0, 1, 0, 1];
    [
        Case { shape: shape(1, 1), gated: false, biases: false, lengths: &[4], mask: None },
        Case { shape: shape(1, 1), gated: true, biases: true, lengths: &[0, 3, 1, 0, 2], mask: None },
        Case { shape: shape(2, 1), gated: true, biases: false, lengths: &[3, 0, 4], mask: Some(some_masked) },
        Case { shape: shape(3, 3), gated: false, biases: true, lengths: &[2, 2, 3], mask: Some(bag_masked) },
        Case { shape: shape(4, 2), gated: true, biases: true, lengths: &[2, 5], mask: Some(some_masked) },
        Case { shape: shape(2, 1), gated: true, biases: true, lengths: &[], mask: None },
    ]
}

/// A loss whose gradient with respect to the output is `gradient`.
fn dot(gradient: &Bounded<f64>, output: &[f64]) -> f64 {
    assert_eq!(gradient.value.len(), output.len());
    // −inf is constant: the score of a masked instance, the lse of an empty bag.
    let terms = gradient.value.iter().zip(output).filter(|(_, x)| **x != f64::NEG_INFINITY);
    terms.map(|(gradient, x)| gradient * x).sum()
}

fn check(what: &str, inputs: &[f64], gradient: &Bounded<f64>, loss: impl Fn(&[f64]) -> f64) {
    assert_eq!(gradient.value.len(), inputs.len(), "{what}");
    let mut moved = inputs.to_vec();
    for i in 0..inputs.len() {
        let mut loss_at = |x| {
            moved[i] = x;
            loss(&moved)
        };
        let difference = (loss_at(inputs[i] + STEP) - loss_at(inputs[i] - STEP)) / (2.0 * STEP);
        moved[i] = inputs[i];

        let (value, scale) = (gradient.value[i], gradient.scale[i]);
        let error = (value - difference).abs();
        assert!(error <= 1e-6 * (1.0 + value.abs()), "{what}[{i}]: {value}, by differences {difference}");
        assert!(scale >= value.abs() * (1.0 - 1e-12), "{what}[{i}]: {value} with S = {scale}");
    }
}

fn check_params(params: &AttentionParams, gradients: &ScoresGradients<f64>, loss: impl Fn(&AttentionParams) -> f64) {
    type Replace = for<'a> fn(&mut AttentionTensors<'a>, &'a [f32]);
    let tensors = params.tensors();
    let all: [(_, _, _, Replace); 6] = [
        ("v", Some(tensors.v), Some(&gradients.v), |all, v| all.v = v),
        ("v_bias", tensors.v_bias, gradients.v_bias.as_ref(), |all, b| all.v_bias = Some(b)),
        ("u", tensors.u, gradients.u.as_ref(), |all, u| all.u = Some(u)),
        ("u_bias", tensors.u_bias, gradients.u_bias.as_ref(), |all, b| all.u_bias = Some(b)),
        ("w", Some(tensors.w), Some(&gradients.w), |all, w| all.w = w),
        ("w_bias", tensors.w_bias, gradients.w_bias.as_ref(), |all, c| all.w_bias = Some(c)),
    ];
    for (what, tensor, gradient, replace) in all {
        assert_eq!(tensor.is_some(), gradient.is_some(), "{what}");
        let (Some(tensor), Some(gradient)) = (tensor, gradient) else { continue };
        let inputs: Vec<f64> = tensor.iter().map(|&x| x.into()).collect();
        check(what, &inputs, gradient, |moved| {
            let moved: Vec<f32> = moved.iter().map(|&x| x as f32).collect();
            let mut tensors = params.tensors();
            replace(&mut tensors, &moved);
            loss(&AttentionParams::new(params.shape(), tensors).expect("the same shape"))
        });
    }
}

#[test]
fn gate() {
    let mut numbers = Numbers(1);
    let (x, y, d_g) = (numbers.take(20), numbers.take(20), numbers.gradient(20));
    let gradients = reference::gate_backward(&x, &y, &d_g);
    check("x", &x, &gradients.x, |x| dot(&d_g, &reference::gate(x, &y).value));
    check("y", &y, &gradients.y, |y| dot(&d_g, &reference::gate(&x, y).value));
}

#[test]
fn scores() {
    for case in cases() {
        let mut numbers = Numbers(2);
        let params = numbers.params(&case);
        let features = numbers.features(&case, case.shape.dim);
        let d_scores = numbers.gradient(case.instances() * case.shape.heads);
        let loss = |params: &AttentionParams, features: &[f64]| {
            dot(&d_scores, &reference::scores(params, features, case.mask).value)
        };

        let gradients = reference::scores_backward(&params, &features, case.mask, None, &d_scores);
        check(&format!("features of {case:?}"), &features, &gradients.features, |h| loss(&params, h));
        check_params(&params, &gradients, |params| loss(params, &features));
    }
}

#[test]
fn softmax() {
    for case in cases() {
        let mut numbers = Numbers(3);
        let (bags, heads) = (case.bags(), case.shape.heads);
        let scores = numbers.features(&case, heads);
        let d_weights = numbers.gradient(scores.len());
        let d_lse = numbers.gradient(bags.len() * heads);
        let forward = |scores: &[f64]| reference::softmax(&Bounded::exact(scores.to_vec()), heads, &bags);
        let weights = forward(&scores).weights;
        let backward = |d_weights, d_lse| reference::softmax_backward(&weights, heads, &bags, d_weights, d_lse);
        let loss_of_weights = |scores: &[f64]| dot(&d_weights, &forward(scores).weights.value);
        let loss_of_lse = |scores: &[f64]| dot(&d_lse, &forward(scores).lse.value);

        check(&format!("through weights, {case:?}"), &scores, &backward(Some(&d_weights), None), loss_of_weights);
        check(&format!("through lse, {case:?}"), &scores, &backward(None, Some(&d_lse)), loss_of_lse);
        check(&format!("through both, {case:?}"), &scores, &backward(Some(&d_weights), Some(&d_lse)), |scores| {
            loss_of_weights(scores) + loss_of_lse(scores)
        });
    }
}

type NewValues = for<'a> fn(&'a [f64], usize) -> Values<'a, f64>;
const SHARED: NewValues = |rows, dim| Values::Shared { rows, dim };
const PER_HEAD: NewValues = |rows, dim| Values::PerHead { rows, dim };

#[test]
fn weighted_sum() {
    const DIM: usize = 2;
    for case in cases() {
        let (bags, heads) = (case.bags(), case.shape.heads);
        for (kind, new_values, columns) in [("shared", SHARED, DIM), ("per head", PER_HEAD, heads * DIM)] {
            let mut numbers = Numbers(4);
            let values = numbers.features(&case, columns);
            // None is 0, where the forward skips the row and is not differentiable.
            let weights: Vec<f64> = numbers.take(case.instances() * heads).iter().map(|x| x + 1.5).collect();
            let d_pooled = numbers.gradient(bags.len() * heads * DIM);
            let loss = |weights: &[f64], values: &[f64]| {
                let weights = Bounded::exact(weights.to_vec());
                dot(&d_pooled, &reference::weighted_sum(&weights, heads, new_values(values, DIM), &bags).value)
            };

            let exact = Bounded::exact(weights.clone());
            let gradients = reference::weighted_sum_backward(&exact, heads, new_values(&values, DIM), &bags, &d_pooled);
            let what = |what| format!("{what}, values {kind}, {case:?}");
            check(&what("weights"), &weights, &gradients.weights, |weights| loss(weights, &values));
            check(&what("values"), &values, &gradients.values, |values| loss(&weights, values));
        }
    }
}

#[test]
fn max_mean() {
    for case in cases() {
        let mut numbers = Numbers(5);
        let (bags, dim) = (case.bags(), case.shape.dim);
        let features = numbers.features(&case, dim);
        let d_max = numbers.gradient(bags.len() * dim);
        let d_mean = numbers.gradient(bags.len() * dim);
        let backward = |d_max, d_mean| reference::max_mean_backward(&features, dim, &bags, d_max, d_mean);
        let loss_of_max = |features: &[f64]| dot(&d_max, &reference::max_mean(features, dim, &bags).max);
        let loss_of_mean = |features: &[f64]| dot(&d_mean, &reference::max_mean(features, dim, &bags).mean.value);

        check(&format!("through max, {case:?}"), &features, &backward(Some(&d_max), None), loss_of_max);
        check(&format!("through mean, {case:?}"), &features, &backward(None, Some(&d_mean)), loss_of_mean);
        check(&format!("through both, {case:?}"), &features, &backward(Some(&d_max), Some(&d_mean)), |features| {
            loss_of_max(features) + loss_of_mean(features)
        });
    }
}

#[test]
fn attention_pool() {
    const DIM: usize = 2;
    for case in cases() {
        let (bags, heads) = (case.bags(), case.shape.heads);
        for (kind, new_values, columns) in [("shared", SHARED, DIM), ("per head", PER_HEAD, heads * DIM)] {
            let mut numbers = Numbers(6);
            let params = numbers.params(&case);
            let keys = numbers.features(&case, case.shape.dim);
            let values = numbers.features(&case, columns);
            let d_pooled = numbers.gradient(bags.len() * heads * DIM);
            let d_scores = numbers.gradient(case.instances() * heads);
            let d_weights = numbers.gradient(case.instances() * heads);
            let d_lse = numbers.gradient(bags.len() * heads);

            let pooled_alone = AttentionPoolUpstream { pooled: &d_pooled, scores: None, weights: None, lse: None };
            let all = AttentionPoolUpstream {
                scores: Some(&d_scores),
                weights: Some(&d_weights),
                lse: Some(&d_lse),
                ..pooled_alone
            };
            for upstream in [pooled_alone, all] {
                let loss = |params: &AttentionParams, keys: &[f64], values: &[f64]| {
                    let out = reference::attention_pool(params, keys, new_values(values, DIM), &bags);
                    let optional = |gradient: Option<&_>, output: &[f64]| gradient.map_or(0.0, |g| dot(g, output));
                    dot(upstream.pooled, &out.pooled.value)
                        + optional(upstream.scores, &out.scores.value)
                        + optional(upstream.weights, &out.softmax.weights.value)
                        + optional(upstream.lse, &out.softmax.lse.value)
                };
                let values_of = new_values(&values, DIM);
                let gradients = reference::attention_pool_backward(&params, &keys, values_of, &bags, None, upstream);
                let what = |what| format!("{what}, values {kind}, {case:?}");
                check(&what("keys"), &keys, &gradients.scores.features, |keys| loss(&params, keys, &values));
                check(&what("values"), &values, &gradients.values, |values| loss(&params, &keys, values));
                check_params(&params, &gradients.scores, |params| loss(params, &keys, &values));
            }
        }
    }
}
