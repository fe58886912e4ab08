//! Backward of attention pool: of the weighted sum, the softmax and the scores, one after the other.
//!
//! Features are read twice: for the gradients of the weights, which the softmax then needs of whole bags, and for those
//! of everything else. Where they are pooled themselves, what they have as values is added when they are written.

use super::super::Step;
use super::super::scratch::{Layout, Part};
use super::super::work_list::{Capacity, Offsets, too_large};
use super::Gradient;
use super::pack::PackBackward;
use super::scores::{self, InBags, ParamGradients, Pooled, ScoresBackward};
use super::softmax::{self, SoftmaxBackward};
use super::weighted_sum::{self, WeightedSumBackward};
use crate::element::Dtype;
use crate::error::{Error, Result};
use crate::order::Order;

/// What does not change from call to call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    /// How the parameters are packed; it gives the dimension and type of the keys.
    pub pack: PackBackward,
    /// D of the values, of the type of the keys. Where the keys are pooled, theirs.
    pub value_dim: usize,
    /// Of the gradient of what was pooled: f32, or as the keys.
    pub upstream: Dtype,
    /// Of the gradients of keys and values: f32, or as the keys.
    pub gradients: Dtype,
}

/// Where a call finds its arguments: device addresses, 0 where one is left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Addresses {
    /// As [`PackBackward`] has made it.
    pub packed: u64,
    /// `[N, D']`, rows [`key_stride`](Self::key_stride) elements apart.
    pub keys: u64,
    /// Elements from row to row.
    pub key_stride: usize,
    /// `[N, D]`, rows [`value_stride`](Self::value_stride) elements apart. It may be the keys, which then have the
    /// gradient of both.
    pub values: u64,
    /// Elements from row to row.
    pub value_stride: usize,
    /// `[B + 1]`, any values.
    pub offsets: Offsets,
    /// u8 `[N]`, 0 = not there.
    pub mask: u64,
    /// f32 `[N, K]`, of the forward.
    pub weights: u64,
    /// As the forward has kept them; without them they are computed again.
    pub activations: u64,
    /// `[B, K, D]`, the gradient of what was pooled; may be left out, as those of the other outputs.
    pub d_pooled: u64,
    /// f32 `[N, K]`.
    pub d_scores: u64,
    /// f32 `[N, K]`.
    pub d_weights: u64,
    /// f32 `[B, K]`.
    pub d_lse: u64,
    /// `[N, D']`, nothing between its rows.
    pub d_keys: Option<Gradient>,
    /// `[N, D]`, nothing between its rows; only where the values are not the keys.
    pub d_values: Option<Gradient>,
    /// Of the parameters.
    pub params: ParamGradients,
    /// [`AttentionPoolBackward::scratch_bytes`], at a multiple of [`SCRATCH_ALIGN`](crate::launch::SCRATCH_ALIGN).
    pub scratch: u64,
}

impl Addresses {
    fn pools_keys(&self) -> bool {
        self.values == self.keys && self.value_stride == self.key_stride
    }
}

/// Backward of attention pool of certain shapes.
#[derive(Debug, Clone, Copy)]
pub struct AttentionPoolBackward {
    shape: Shape,
    sum: WeightedSumBackward,
    softmax: SoftmaxBackward,
    scores: ScoresBackward,
    d_weights: Part,
    d_scores: Part,
    /// Of the parts, each of which has its own.
    sum_scratch: Part,
    softmax_scratch: Part,
    scratch_bytes: usize,
}

impl AttentionPoolBackward {
    /// Fixes the layout of the scratch memory, and whether gradients may depend on the order of instances.
    ///
    /// # Errors
    /// [`Error::Argument`] where `upstream` or `gradients` is neither f32 nor the type of the keys, or a size is 0 or
    /// beyond what a launch can have.
    pub fn plan(order: Order, shape: Shape, capacity: Capacity) -> Result<Self> {
        let Shape { pack, value_dim, upstream, gradients } = shape;
        let forward = pack.forward().shape();
        let heads = forward.attention.heads;
        let of_sum = weighted_sum::Shape {
            dim: value_dim,
            heads,
            per_head: false,
            values: forward.features,
            upstream,
            gradients,
        };
        let sum = WeightedSumBackward::plan(of_sum, capacity)?;
        let softmax = SoftmaxBackward::plan(order, heads, capacity)?;
        let mut layout = Layout::default();
        let scores = ScoresBackward::place(order, scores::Shape { pack, gradients }, capacity.instances, &mut layout)?;
        let place = |layout: &mut Layout| {
            let weights = capacity.instances.checked_mul(heads)?;
            Some(AttentionPoolBackward {
                shape,
                sum,
                softmax,
                scores,
                d_weights: layout.part(weights, size_of::<f32>())?,
                d_scores: layout.part(weights, size_of::<f32>())?,
                sum_scratch: layout.part(sum.scratch_bytes(), 1)?,
                softmax_scratch: layout.part(softmax.scratch_bytes(), 1)?,
                scratch_bytes: layout.bytes(),
            })
        };
        place(&mut layout).ok_or_else(|| too_large(capacity))
    }

    /// What was planned for.
    pub fn shape(&self) -> Shape {
        self.shape
    }

    /// Bytes of scratch memory that every call needs, whatever its size.
    pub fn scratch_bytes(&self) -> usize {
        self.scratch_bytes
    }

    /// What a call on `call` instances and bags does, in order.
    ///
    /// # Errors
    /// [`Error::Argument`] where the call is larger than the plan, or a gradient is asked for of what is not there.
    pub fn steps(&self, call: Capacity, addresses: Addresses) -> Result<Vec<Step>> {
        self.softmax.expect(call)?;
        if addresses.d_values.is_some() && addresses.pools_keys() {
            return Err(Error::argument("d_values", "none, as the keys are pooled", "one"));
        }
        let mut steps = Vec::new();
        // Without bags no instance counts.
        let instances = if call.bags == 0 { 0 } else { call.instances };
        let call = Capacity { instances, ..call };
        let wants_scores = addresses.d_keys.is_some() || addresses.params != ParamGradients::default();
        let d_weights = self.weighted_sum_steps(call, addresses, wants_scores, &mut steps)?;
        if wants_scores {
            self.softmax_steps(call, addresses, d_weights, &mut steps)?;
            self.scores_steps(call, addresses, &mut steps)?;
        }
        Ok(steps)
    }

    /// Gives the gradient of the weights, if there is any.
    fn weighted_sum_steps(
        &self,
        call: Capacity,
        addresses: Addresses,
        wants_weights: bool,
        steps: &mut Vec<Step>,
    ) -> Result<u64> {
        let d_weights = self.d_weights.at(addresses.scratch);
        // Without it, what flows to the weights is what the caller gives, and nothing flows to the values.
        if addresses.d_pooled == 0 {
            steps.extend(self.no_d_values_step(call, addresses));
            return Ok(addresses.d_weights);
        }
        let of_weights = wants_weights.then(|| self.begin_with(addresses.d_weights, d_weights, call, steps));
        let sum = weighted_sum::Addresses {
            weights: addresses.weights,
            values: addresses.values,
            row_stride: addresses.value_stride,
            offsets: addresses.offsets,
            mask: addresses.mask,
            d_pooled: addresses.d_pooled,
            d_weights: of_weights,
            d_values: addresses.d_values,
            scratch: self.sum_scratch.at(addresses.scratch),
        };
        steps.extend(self.sum.steps(call, sum)?.into_iter().flatten());
        Ok(d_weights)
    }

    /// A gradient in the scratch memory to which that of the caller is added, if there is any.
    fn begin_with(&self, from: u64, to: u64, call: Capacity, steps: &mut Vec<Step>) -> Gradient {
        if from == 0 {
            return Gradient::Set(to);
        }
        let bytes = call.instances * self.shape.pack.forward().shape().attention.heads * size_of::<f32>();
        steps.push(Step::Copy { from, to, bytes });
        Gradient::Add(to)
    }

    fn softmax_steps(&self, call: Capacity, addresses: Addresses, d_weights: u64, steps: &mut Vec<Step>) -> Result<()> {
        let d_scores = self.begin_with(addresses.d_scores, self.d_scores.at(addresses.scratch), call, steps);
        let of_bags = softmax::Addresses {
            weights: addresses.weights,
            offsets: addresses.offsets,
            mask: addresses.mask,
            d_weights,
            d_lse: addresses.d_lse,
            d_scores,
            scratch: self.softmax_scratch.at(addresses.scratch),
        };
        steps.extend(self.softmax.steps(call, of_bags)?.into_iter().flatten());
        Ok(())
    }

    fn scores_steps(&self, call: Capacity, addresses: Addresses, steps: &mut Vec<Step>) -> Result<()> {
        let pools_keys = addresses.pools_keys() && addresses.d_pooled != 0;
        let pooled = Pooled { weights: addresses.weights, d_pooled: addresses.d_pooled, upstream: self.shape.upstream };
        let in_bags = InBags {
            ranges: self.softmax.ranges(self.softmax_scratch.at(addresses.scratch)),
            bags: call.bags,
            pooled: pools_keys.then_some(pooled),
        };
        let of_scores = scores::Addresses {
            packed: addresses.packed,
            features: addresses.keys,
            row_stride: addresses.key_stride,
            mask: addresses.mask,
            activations: addresses.activations,
            d_scores: self.d_scores.at(addresses.scratch),
            d_features: addresses.d_keys,
            params: addresses.params,
            scratch: addresses.scratch,
        };
        steps.extend(self.scores.steps_in_bags(call.instances, of_scores, Some(in_bags))?);
        Ok(())
    }

    /// Gradients of values to which nothing flows are 0; those of instances in no bag, too.
    fn no_d_values_step(&self, call: Capacity, addresses: Addresses) -> Option<Step> {
        let Gradient::Set(address) = addresses.d_values? else { return None };
        let bytes = call.instances * self.shape.value_dim * self.shape.gradients.size();
        (bytes > 0).then_some(Step::Clear { address, bytes })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attention::AttentionShape;
    use crate::launch::pack::{self, F32Product};

    const CALL: Capacity = Capacity { instances: 1000, bags: 10 };
    const ADDRESSES: Addresses = Addresses {
        packed: 0x1000,
        keys: 0x2000_0000,
        key_stride: 768,
        values: 0x2000_0000,
        value_stride: 768,
        offsets: Offsets::I64(0x3000),
        mask: 0,
        weights: 0x4000_0000,
        activations: 0x5000_0000,
        d_pooled: 0x6000_0000,
        d_scores: 0,
        d_weights: 0,
        d_lse: 0,
        d_keys: Some(Gradient::Set(0x7000_0000)),
        d_values: None,
        params: ParamGradients { v: None, v_bias: None, u: None, u_bias: None, w: None, w_bias: None },
        scratch: 0x1_0000_0000,
    };
    const OTHER_VALUES: Addresses =
        Addresses { values: 0x2800_0000, d_values: Some(Gradient::Set(0x7800_0000)), ..ADDRESSES };

    fn plan() -> AttentionPoolBackward {
        let attention = AttentionShape { dim: 768, hidden: 128, heads: 2, groups: 1 };
        let pack = pack::Shape { attention, gated: true, features: Dtype::Bf16, f32_product: F32Product::Split };
        let pack = PackBackward::plan(pack).unwrap();
        let shape = Shape { pack, value_dim: 768, upstream: Dtype::F32, gradients: Dtype::Bf16 };
        AttentionPoolBackward::plan(Order::Rounding, shape, CALL).unwrap()
    }

    /// Names of kernels, of clearings and of copies.
    fn names(addresses: Addresses) -> Vec<&'static str> {
        let name = |step: &Step| match step {
            Step::Clear { .. } => "clear",
            Step::Copy { .. } => "copy",
            Step::Launch(launch) => launch.kernel.trim_start_matches("mivc_"),
        };
        plan().steps(CALL, addresses).unwrap().iter().map(name).collect()
    }

    const SUM: [&str; 3] = ["clear", "prepare", "weighted_sum_d_weights_heads_bf16_vector"];
    const SCORES: [&str; 2] = ["scores_d_columns_bf16", "scores_d_features_bf16_split"];

    fn softmax() -> Vec<&'static str> {
        names(ADDRESSES)[SUM.len()..].iter().copied().take_while(|name| *name != SCORES[0]).collect()
    }

    #[test]
    fn keys_that_are_pooled_have_one_gradient() {
        let names = names(ADDRESSES);
        assert_eq!(names[..3], SUM);
        assert!(softmax().iter().any(|name| name.contains("softmax")), "{names:?}");
        assert_eq!(names[names.len() - 2..], SCORES);
        let steps = plan().steps(CALL, ADDRESSES).unwrap();
        let Some(launch) = steps.last().and_then(Step::as_launch) else { panic!() };
        let crate::launch::Parameters::ScoresFeaturesBackward(parameters) = &launch.parameters else { panic!() };
        assert_eq!((parameters.weights, parameters.d_pooled), (ADDRESSES.weights, ADDRESSES.d_pooled));
    }

    #[test]
    fn other_values_have_their_own() {
        let values = names(OTHER_VALUES);
        assert_eq!(values[..4], [SUM[0], SUM[1], SUM[2], "weighted_sum_d_values_bf16_vector"]);
        let of_values_alone = names(Addresses { d_keys: None, ..OTHER_VALUES });
        assert_eq!(of_values_alone, ["clear", "prepare", "weighted_sum_d_values_bf16_vector"]);
        // Nothing flows to them.
        assert_eq!(names(Addresses { d_pooled: 0, d_keys: None, ..OTHER_VALUES }), ["clear"]);
        let added = Some(Gradient::Add(0x7800_0000));
        assert_eq!(names(Addresses { d_pooled: 0, d_keys: None, d_values: added, ..OTHER_VALUES }), [""; 0]);
    }

    #[test]
    fn what_flows_to_scores_and_weights_is_where_theirs_begin() {
        let copies = |addresses| names(addresses).iter().filter(|name| **name == "copy").count();
        assert_eq!(copies(ADDRESSES), 0);
        assert_eq!(copies(Addresses { d_scores: 0x8000_0000, ..ADDRESSES }), 1);
        assert_eq!(copies(Addresses { d_scores: 0x8000_0000, d_weights: 0x9000_0000, ..ADDRESSES }), 2);
        // Without anything that was pooled, that of the weights is the caller's.
        let of_weights = Addresses { d_pooled: 0, d_weights: 0x9000_0000, ..ADDRESSES };
        assert_eq!(names(of_weights), [&softmax()[..], &SCORES].concat());
    }

    #[test]
    fn without_bags_no_instance_counts() {
        let steps = plan().steps(Capacity { bags: 0, ..CALL }, ADDRESSES).unwrap();
        assert_eq!(steps.len(), 0);
        let w = Some(Gradient::Set(0x8000_0000));
        let of_w = Addresses { params: ParamGradients { w, ..ADDRESSES.params }, ..ADDRESSES };
        let steps = plan().steps(Capacity { bags: 0, ..CALL }, of_w).unwrap();
        assert!(matches!(&steps[..], [Step::Launch(launch)] if launch.kernel == "mivc_sum_parts"), "{steps:?}");
    }

    #[test]
    fn no_more_than_planned_and_of_what_is_there() {
        let error = plan().steps(Capacity { bags: 11, ..CALL }, ADDRESSES).unwrap_err();
        assert!(error.to_string().starts_with("bags: "), "{error}");
        let error = plan().steps(CALL, Addresses { d_values: Some(Gradient::Set(0x1000)), ..ADDRESSES }).unwrap_err();
        assert!(error.to_string().starts_with("d_values: expected none"), "{error}");
    }
}
