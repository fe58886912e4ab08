//! Runs a call on the virtual machine and holds it against the oracle, bag by bag.
//!
//! The machine itself finds accesses out of bounds, races and reads of what nobody has written.

use half::{bf16, f16};
use mivc::cpu::{AttentionOutputs, MaxMeanOutputs, Values};
use mivc::reference::{self, Bounded};
use mivc::{AttentionParams, AttentionShape, AttentionTensors, Bags, Dtype, Element, Rows};
use ptx_vm::Checks;

use crate::backends::Backend;
use crate::backends::vm::VmBackend;
use crate::backends::vm::{Call, DeviceBags, Layout, Machine, from_bytes};
use crate::case::{Case, Draw, Operation};

pub type Check<T = ()> = Result<T, String>;

/// An output as f32, which every element and every row's number is.
#[derive(Debug, Clone, PartialEq)]
pub struct Output {
    what: &'static str,
    values: Vec<f32>,
    /// Elements of a row, where the output has rows of instances, and those in no bag are left as they were.
    instance_row: Option<usize>,
}

/// Fails where a result is not what it must be.
pub fn check(case: &Case) -> Check {
    compare(case, &run(case)?)
}

/// All outputs of a call, the same ones whatever they held before, wherever they lie, whichever of them are asked for,
/// and with mended offsets of the other type.
pub fn run(case: &Case) -> Check<Vec<Output>> {
    let plain = Variant {
        offsets: case.offsets.clone(),
        wide: case.wide,
        poison: f32::NAN,
        layout: case.layout,
        schedule: case.schedule,
        left_out: 0,
    };
    let other = Variant {
        offsets: case.mended_offsets(),
        wide: !case.wide,
        poison: 12345.0,
        layout: Layout { scratch: Some(0xff), ..case.layout },
        schedule: case.schedule + 1,
        left_out: case.left_out,
    };
    let first = outputs(case, &plain)?;
    for output in outputs(case, &other)? {
        let before = first.iter().find(|before| before.what == output.what).expect("an output of all");
        same(case, before, &output)?;
    }
    Ok(first)
}

fn same(case: &Case, first: &Output, second: &Output) -> Check {
    let written = in_bags(case);
    for (i, (&first_i, &second_i)) in first.values.iter().zip(&second.values).enumerate() {
        let is_written = first.instance_row.is_none_or(|row| written[i / row]);
        let are_same = if is_written { are_alike(first_i, second_i) } else { first_i.is_nan() && second_i == 12345.0 };
        if !are_same {
            let expected = if is_written { "not the same in both calls" } else { "of no bag, and not left as it was" };
            return Err(format!("{}: [{i}] is {expected}: {first_i:?} and {second_i:?}", first.what));
        }
    }
    Ok(())
}

/// The same bits, or both NaN.
fn are_alike(x: f32, y: f32) -> bool {
    x.to_bits() == y.to_bits() || x.is_nan() && y.is_nan()
}

/// Which rows are in a bag.
fn in_bags(case: &Case) -> Vec<bool> {
    let mut rows = vec![false; case.instances];
    for range in case.mended_offsets().windows(2) {
        rows[range[0] as usize..range[1] as usize].fill(true);
    }
    rows
}

/// What changes no result.
struct Variant {
    offsets: Vec<i64>,
    wide: bool,
    /// What outputs hold before.
    poison: f32,
    layout: Layout,
    schedule: u64,
    left_out: u8,
}

/// For each pair of types, of features and of what is pooled.
macro_rules! with_types {
    ($case:expr, $function:ident($($argument:expr),*)) => {
        match ($case.dtype, $case.output_is_f32) {
            (Dtype::F32, _) => $function::<f32, f32>($($argument),*),
            (Dtype::F16, true) => $function::<f16, f32>($($argument),*),
            (Dtype::F16, false) => $function::<f16, f16>($($argument),*),
            (Dtype::Bf16, true) => $function::<bf16, f32>($($argument),*),
            (Dtype::Bf16, false) => $function::<bf16, bf16>($($argument),*),
        }
    };
}

fn outputs(case: &Case, variant: &Variant) -> Check<Vec<Output>> {
    with_types!(case, outputs_of(case, variant)).map_err(|error| error.to_string())
}

fn outputs_of<E: Element, O: Element>(case: &Case, variant: &Variant) -> mivc::Result<Vec<Output>> {
    let &Case { instances, dim, shape: AttentionShape { hidden, heads, .. }, .. } = case;
    let (bags, mask) = (case.bags(), case.mask.as_deref());
    let device_bags = DeviceBags { offsets: &variant.offsets, wide: variant.wide, mask };
    let mut machine = Machine::new(Checks::Full, variant.schedule).laid_out(variant.layout).in_order(case.order);
    let backend = VmBackend { name: "vm", f32_product: case.f32_product, one_pass: case.one_pass, order: case.order };
    let features = case.features::<E>();
    let features = Rows::new(&features, dim)?;
    let asked_for = |bit: u8| variant.left_out >> bit & 1 == 0;

    let of_instances = |what, values: Vec<f32>| Output { what, values, instance_row: Some(heads) };
    Ok(match case.operation {
        Operation::Scores => {
            let packed = backend.pack(&case.params(), E::DTYPE);
            let before = variant.poisoned(instances * heads);
            // Written for every instance.
            vec![output("scores", &machine.scores(&packed, features, mask, &before)?)]
        }
        Operation::Gate => {
            let [x, y] = case.gate_arguments::<E>();
            vec![output("g", &machine.gate(&x, &y, &variant.poisoned(instances * hidden))?)]
        }
        Operation::Softmax => {
            let before = [variant.poisoned(instances * heads), variant.poisoned(bags * heads)];
            let [weights, lse] = machine.softmax(&case.scores(), heads, device_bags, &before[0], &before[1])?;
            vec![of_instances("weights", weights), output("lse", &lse)]
        }
        Operation::WeightedSum | Operation::WeightedSumPerHead => {
            let per_head = case.values_per_head::<E>();
            let values = match case.operation {
                Operation::WeightedSum => Values::Shared(features),
                _ => Values::PerHead(Rows::new(&per_head, heads * dim)?),
            };
            let before = variant.poisoned::<O>(bags * heads * dim);
            vec![output("pooled", &machine.weighted_sum(&case.weights(), heads, values, device_bags, &before)?)]
        }
        Operation::MaxMean => {
            let (mut max, mut mean) = (variant.poisoned::<O>(bags * dim), variant.poisoned::<O>(bags * dim));
            let mut argmax = vec![variant.poison as i64; bags * dim];
            // One at least.
            let all = variant.left_out & 7 == 7;
            let outputs = MaxMeanOutputs {
                max: (all || asked_for(0)).then_some(&mut max),
                mean: (all || asked_for(1)).then_some(&mut mean),
                argmax: (all || asked_for(2)).then_some(&mut argmax),
            };
            let call = Call { features, offsets: &variant.offsets, mask, wide: variant.wide };
            let [max, mean, argmax] = machine.max_mean(&call, &outputs)?.outputs;
            let pooled =
                [("max", max), ("mean", mean)].map(|(what, bytes)| Some(output(what, &from_bytes::<O>(&bytes?))));
            let argmax = argmax.map(|bytes| {
                let row = |bytes: &[u8]| i64::from_le_bytes(bytes.try_into().expect("8 bytes")) as f32;
                output("argmax", &bytes.chunks(8).map(row).collect::<Vec<_>>())
            });
            pooled.into_iter().chain([argmax]).flatten().collect()
        }
        Operation::AttentionPool => {
            let packed = backend.pack(&case.params(), E::DTYPE);
            let values = case.values::<E>();
            let values =
                values.as_deref().map(|values| Rows::new(values, case.value_dim.unwrap_or(dim))).transpose()?;
            let mut pooled = variant.poisoned::<O>(bags * heads * values.unwrap_or(features).dim());
            let [mut scores, mut weights] = [(); 2].map(|()| variant.poisoned(instances * heads));
            let mut lse = variant.poisoned(bags * heads);
            let before = AttentionOutputs {
                pooled: &mut pooled,
                scores: asked_for(0).then_some(&mut scores),
                weights: asked_for(1).then_some(&mut weights),
                lse: asked_for(2).then_some(&mut lse),
            };
            let (pooled, [scores, weights, lse]) =
                machine.attention_pool(&packed, features, values, device_bags, &before)?;
            let mut outputs = vec![output("pooled", &pooled)];
            // Those in no bag get one where it takes two passes, and none else.
            let scores = scores.map(|scores| of_bags(case, heads, scores));
            outputs.extend(scores.map(|scores| output("scores", &scores)));
            outputs.extend(weights.map(|weights| of_instances("weights", weights)));
            outputs.extend(lse.map(|lse| output("lse", &lse)));
            outputs
        }
    })
}

/// Scores, NaN where an instance is in no bag.
fn of_bags(case: &Case, heads: usize, mut scores: Vec<f32>) -> Vec<f32> {
    for (of_row, is_in_bag) in scores.chunks_mut(heads).zip(in_bags(case)) {
        if !is_in_bag {
            of_row.fill(f32::NAN);
        }
    }
    scores
}

impl Variant {
    fn poisoned<E: Element>(&self, len: usize) -> Vec<E> {
        vec![E::from_f32(self.poison); len]
    }
}

fn output<E: Element>(what: &'static str, values: &[E]) -> Output {
    Output { what, values: values.iter().map(|x| x.to_f32()).collect(), instance_row: None }
}

/// Whether each output of a call is what the oracle says.
pub fn compare(case: &Case, outputs: &[Output]) -> Check {
    with_types!(case, compare_as(case, outputs))
}

fn compare_as<E: Element, O: Element>(case: &Case, outputs: &[Output]) -> Check {
    let &Case { dim, shape: AttentionShape { heads, .. }, .. } = case;
    let found = |what| &outputs.iter().find(|output| output.what == what).expect("an output of all").values[..];
    let features = f32s(&case.features::<E>());
    match case.operation {
        Operation::Scores => {
            return expect_scores::<E>(case, &features, found("scores"), &vec![true; case.instances]);
        }
        Operation::Gate => {
            let [x, y] = case.gate_arguments::<E>().map(|argument| f32s(&argument));
            let expected = Expected {
                oracle: reference::gate(&f64s(&x), &f64s(&y)),
                naive: reference::gate(&x, &y),
                rule: Rule::of(case).min(GATED),
            };
            return expected.check::<E>("g", found("g"));
        }
        Operation::AttentionPool => expect_scores::<E>(case, &features, found("scores"), &in_bags(case))?,
        _ => {}
    }

    let (weights, scores) = (case.weights(), case.scores());
    let per_head = f32s(&case.values_per_head::<E>());
    let pool_values = case.values::<E>().map_or(features.clone(), |values| f32s(&values));
    let pool_dim = case.value_dim.unwrap_or(dim);
    for (b, range) in case.mended_offsets().windows(2).enumerate() {
        let bag = OneBag::of(case, range[0] as usize..range[1] as usize);
        let check = || match case.operation {
            Operation::Softmax => {
                let weights = bag.rows(found("weights"), heads);
                let [expected_weights, expected_lse] = bag.softmax(case, bag.rows(&scores, heads), weights);
                expected_weights.check::<f32>("weights", weights)?;
                expected_lse.check::<f32>("lse", row(found("lse"), heads, b))
            }
            Operation::WeightedSum => {
                let expected = bag.weighted_sum(case, bag.rows(&weights, heads), bag.rows(&features, dim), dim);
                expected.check::<O>("pooled", row(found("pooled"), heads * dim, b))
            }
            Operation::WeightedSumPerHead => {
                let expected = bag.weighted_sum(case, bag.rows(&weights, heads), bag.rows(&per_head, heads * dim), dim);
                expected.check::<O>("pooled", row(found("pooled"), heads * dim, b))
            }
            Operation::MaxMean => {
                bag.check_max_mean::<O>(case, bag.rows(&features, dim), |what| row(found(what), dim, b))
            }
            // Each step against the oracle's on what the call itself gave for the step before: bounds stay tight.
            Operation::AttentionPool => {
                let (scores, weights) = (bag.rows(found("scores"), heads), bag.rows(found("weights"), heads));
                let [expected_weights, expected_lse] = bag.softmax(case, scores, weights);
                expected_weights.check::<f32>("weights", weights)?;
                expected_lse.check::<f32>("lse", row(found("lse"), heads, b))?;
                let mut expected = bag.weighted_sum(case, weights, bag.rows(&pool_values, pool_dim), pool_dim);
                if !weights.iter().all(|&weight| weight.to_bits().trailing_zeros() >= 23) {
                    expected.rule = expected.rule.min(Rule::Elementwise);
                }
                expected.check::<O>("pooled", row(found("pooled"), heads * pool_dim, b))
            }
            Operation::Scores | Operation::Gate => unreachable!("they have no bags"),
        };
        check().map_err(|error| format!("bag {b}, rows {range:?}: {error}"))?;
    }
    Ok(())
}

/// A bag by itself.
struct OneBag {
    range: std::ops::Range<usize>,
    bags: Bags<'static>,
}

impl OneBag {
    fn of(case: &Case, range: std::ops::Range<usize>) -> Self {
        let bags = Bags::from_lengths(&[range.len() as i64]).expect("a bag");
        let bags = match &case.mask {
            Some(mask) => bags.with_mask(mask[range.clone()].to_vec()).expect("a mask as long"),
            None => bags,
        };
        OneBag { range, bags }
    }

    fn rows<'a>(&self, of_instances: &'a [f32], row: usize) -> &'a [f32] {
        &of_instances[self.range.start * row..self.range.end * row]
    }

    /// Of weights, which turned out as `found`, and of lse.
    fn softmax(&self, case: &Case, scores: &[f32], found: &[f32]) -> [Expected; 2] {
        let heads = case.shape.heads;
        // The scores are what they are, and no scale of their errors enters: it would be vast beside a huge one.
        let oracle = Bounded { value: f64s(scores), scale: vec![0.0; scores.len()] };
        let naive = Bounded::exact(scores.to_vec());
        let mut oracle = reference::softmax(&oracle, heads, &self.bags);
        let mut naive = reference::softmax(&naive, heads, &self.bags);
        // A row at −inf may keep its weight of 0 where the bag is NaN.
        for i in (0..scores.len()).filter(|&i| scores[i] == f32::NEG_INFINITY && found[i] == 0.0) {
            (oracle.weights.value[i], naive.weights.value[i]) = (0.0, 0.0);
        }
        [(oracle.weights, naive.weights), (oracle.lse, naive.lse)].map(|(oracle, naive)| Expected {
            oracle,
            naive,
            rule: Rule::Elementwise,
        })
    }

    /// Of one block for each head, if there are as many.
    fn weighted_sum(&self, case: &Case, weights: &[f32], values: &[f32], dim: usize) -> Expected {
        let heads = case.shape.heads;
        let per_head = case.operation == Operation::WeightedSumPerHead;
        let oracle = reference::weighted_sum(
            &Bounded::exact(f64s(weights)),
            heads,
            reference_values(&f64s(values), dim, per_head),
            &self.bags,
        );
        let naive = reference::weighted_sum(
            &Bounded::exact(weights.to_vec()),
            heads,
            reference_values(values, dim, per_head),
            &self.bags,
        );
        Expected { oracle, naive, rule: Rule::of(case) }
    }

    fn check_max_mean<'a, O: Element>(
        &self,
        case: &Case,
        features: &[f32],
        found: impl Fn(&'static str) -> &'a [f32],
    ) -> Check {
        let oracle = reference::max_mean(&f64s(features), case.dim, &self.bags);
        let naive = reference::max_mean(features, case.dim, &self.bags);
        for (i, (&max, &row)) in naive.max.iter().zip(&oracle.argmax).enumerate() {
            let row = if row < 0 { -1.0 } else { (row + self.range.start as i64) as f32 };
            let (max, got_max, got_row) = (O::from_f32(max).to_f32(), found("max")[i], found("argmax")[i]);
            if !are_alike(max, got_max) || row != got_row {
                return Err(format!("[{i}]: max {got_max:?} in row {got_row}, not {max:?} in row {row}"));
            }
        }
        Expected { oracle: oracle.mean, naive: naive.mean, rule: Rule::of(case) }.check::<O>("mean", found("mean"))
    }
}

fn reference_values<R>(rows: &[R], dim: usize, per_head: bool) -> reference::Values<'_, R> {
    if per_head { reference::Values::PerHead { rows, dim } } else { reference::Values::Shared { rows, dim } }
}

/// Of all instances, in bags or not.
/// Scores of the instances that `expected` says are looked at.
fn expect_scores<E: Element>(case: &Case, features: &[f32], scores: &[f32], expected: &[bool]) -> Check {
    let (params, mask) = (rounded::<E>(&case.params()), case.mask.as_deref());
    let mut oracle = reference::scores(&params, &f64s(features), mask);
    let naive = reference::scores(&params, features, mask);
    for (scale, slack) in oracle.scale.iter_mut().zip(ill_conditioned(case, &params, features)) {
        *scale += slack / ROUNDING;
    }
    let looked_at = |i: usize| expected[i / case.shape.heads];
    let scores: Vec<f32> = scores
        .iter()
        .enumerate()
        .map(|(i, &score)| if looked_at(i) { score } else { oracle.value[i] as f32 })
        .collect();
    let rule = if case.gated { Rule::of(case).min(GATED) } else { Rule::of(case) };
    Expected { oracle, naive, rule }.check::<f32>("scores", &scores)
}

/// By how much scores may be off, where V h or U h is small beside its terms: S, which passes through tanh and σ, does
/// not tell.
fn ill_conditioned(case: &Case, params: &AttentionParams, features: &[f32]) -> Vec<f64> {
    let AttentionShape { dim, hidden, heads, groups } = case.shape;
    let tensors = params.tensors();
    // How far a sigmoid curve of this greatest slope and height moves.
    let off = |matrix: &[f32], bias: Option<&[f32]>, unit: usize, h: &[f32], height: f64| {
        let bias = f64::from(bias.map_or(0.0, |bias| bias[unit]));
        let terms = || row(matrix, dim, unit).iter().zip(h).map(|(&m, &h)| f64::from(m) * f64::from(h));
        let (sum, scale) = (terms().sum::<f64>() + bias, terms().map(f64::abs).sum::<f64>() + bias.abs());
        let error = ROUNDING * scale;
        // What is small enough is within the rule, what is not finite has no tolerance.
        if scale < 50.0 || !scale.is_finite() {
            return 0.0;
        }
        let slope = 1.0 / (sum.abs() - error).clamp(0.0, 300.0).cosh();
        (error * slope).min(height)
    };
    let mut slack = Vec::with_capacity(case.instances * heads);
    for h in features.chunks(dim) {
        for k in 0..heads {
            let unit = |l| k / (heads / groups) * hidden + l;
            let of_hidden = |(l, &w): (usize, &f32)| {
                let v = off(tensors.v, tensors.v_bias, unit(l), h, 2.0);
                let u = tensors.u.map_or(0.0, |u| off(u, tensors.u_bias, unit(l), h, 1.0));
                if v + u > 0.0 && w.is_finite() { f64::from(w.abs()) * (v + u) } else { 0.0 }
            };
            slack.push(row(tensors.w, hidden, k).iter().enumerate().map(of_hidden).sum());
        }
    }
    slack
}

/// The parameters as they are packed for features of type `E`: V and U rounded to it.
fn rounded<E: Element>(params: &AttentionParams) -> AttentionParams {
    let round = |data: &[f32]| data.iter().map(|&x| E::from_f32(x).to_f32()).collect::<Vec<_>>();
    let tensors = params.tensors();
    let (v, u) = (round(tensors.v), tensors.u.map(round));
    AttentionParams::new(params.shape(), AttentionTensors { v: &v, u: u.as_deref(), ..tensors }).expect("as they were")
}

/// How far a result may be from the oracle's: the later, the less.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Rule {
    /// By each element's own S, so that one that is huge widens no tolerance but its own.
    Elementwise,
    /// That of the project, `Bounded::tolerance`.
    Usual,
    /// Not at all.
    Exact,
}

impl Rule {
    fn of(case: &Case) -> Self {
        match case.draw {
            Draw::Exact => Rule::Exact,
            Draw::Special => Rule::Elementwise,
            Draw::Uniform => Rule::Usual,
        }
    }
}

/// Of gates at most: σ is approximate even where tanh is exact.
const GATED: Rule = Rule::Usual;

/// Of S, for sums of up to some hundred terms.
const ROUNDING: f64 = 1e-5;

struct Expected {
    oracle: Bounded<f64>,
    naive: Bounded<f32>,
    rule: Rule,
}

impl Expected {
    /// Of numbers that were rounded to `O` at last.
    fn check<O: Element>(&self, what: &str, out: &[f32]) -> Check {
        assert_eq!(out.len(), self.oracle.value.len(), "{what}: lengths differ");
        let usual = self.oracle.tolerance(&self.naive);
        let round = |x: f64| O::from_f32(x as f32).to_f32();
        for (i, &got) in out.iter().enumerate() {
            let (oracle, naive) = (self.oracle.value[i], f64::from(self.naive.value[i]));
            // Where f32 overflows, or underflows to a factor 0 of infinity, its order decides.
            if kind(oracle) != kind(naive) {
                continue;
            }
            let tolerance = match self.rule {
                Rule::Exact => 0.0,
                Rule::Usual => usual,
                // Denormals have few digits, and the matrix units cut them off.
                Rule::Elementwise => {
                    2.0 * (oracle - naive).abs() + ROUNDING * self.oracle.scale[i] + f64::from(f32::MIN_POSITIVE)
                }
            };
            let is_right = match oracle.is_finite() {
                // What is exact may lie beside an S that is NaN.
                true => got == round(oracle) || round(oracle - tolerance) <= got && got <= round(oracle + tolerance),
                false => kind(oracle) == kind(f64::from(got)),
            };
            if !is_right {
                return Err(format!(
                    "{what}: [{i}] is {got:?}, not within {tolerance:e} of {oracle:?}; the naive sum gives {naive:?}"
                ));
            }
        }
        Ok(())
    }
}

/// NaN, finite, or either infinity.
fn kind(x: f64) -> (bool, f64) {
    (x.is_nan(), if x.is_infinite() { x } else { 0.0 })
}

fn row<T>(matrix: &[T], dim: usize, n: usize) -> &[T] {
    &matrix[n * dim..][..dim]
}

fn f32s<E: Element>(data: &[E]) -> Vec<f32> {
    data.iter().map(|x| x.to_f32()).collect()
}

fn f64s(data: &[f32]) -> Vec<f64> {
    data.iter().map(|&x| f64::from(x)).collect()
}
