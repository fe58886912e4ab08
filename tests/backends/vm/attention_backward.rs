//! The backward of the scores and of attention pool, and the forwards that keep what it needs.

use mivc::cpu::{
    AttentionOutputs, AttentionPoolGradients, AttentionPoolUpstream, ParamGradients, Saved, ScoresGradients,
};
use mivc::launch::backward::attention_pool::{self, AttentionPoolBackward};
use mivc::launch::backward::pack::PackBackward;
use mivc::launch::backward::scores::{self, ScoresBackward};
use mivc::launch::scores::{Addresses as ScoresAddresses, Scores};
use mivc::{AttentionParams, Bags, Dtype, Element, Gradient, Result, Rows};

use super::attention::{finish_pool, packed_by};
use super::backward::{Target, finish};
use super::{DeviceBags, Machine, Output, Packed, VmBackend};

/// Parameters as the kernels have packed them.
#[derive(Debug)]
pub struct PackedBackward {
    plan: PackBackward,
    bytes: Vec<u8>,
}

const PARAMS: [&str; 6] = ["d_v", "d_v_bias", "d_u", "d_u_bias", "d_w", "d_w_bias"];

/// Where gradients of parameters are, and what they then hold.
pub type Params<T> = [Option<T>; 6];

fn in_order<'a, 'b>(params: &'a ParamGradients<'b>) -> Params<&'a Gradient<'b, f32>> {
    let ParamGradients { v, v_bias, u, u_bias, w, w_bias } = params;
    [v, v_bias, u, u_bias, w, w_bias].map(Option::as_ref)
}

fn finish_params(params: ParamGradients<'_>, results: Params<Vec<f32>>) {
    let ParamGradients { v, v_bias, u, u_bias, w, w_bias } = params;
    for (to, result) in [v, v_bias, u, u_bias, w, w_bias].into_iter().zip(results) {
        finish(to, result);
    }
}

/// The outputs of a launch.
struct ParamOutputs(Params<(Output, mivc::launch::backward::Gradient)>);

impl ParamOutputs {
    fn new(machine: &mut Machine, targets: Params<Target<'_, f32>>) -> Self {
        let mut names = PARAMS.into_iter();
        ParamOutputs(targets.map(|target| {
            let name = names.next().unwrap_or_default();
            target.map(|target| machine.gradient(name, target))
        }))
    }

    fn addresses(&self) -> scores::ParamGradients {
        let [v, v_bias, u, u_bias, w, w_bias] = self.0.map(|output| output.map(|(_, gradient)| gradient));
        scores::ParamGradients { v, v_bias, u, u_bias, w, w_bias }
    }

    fn read(&self, machine: &Machine) -> Params<Vec<f32>> {
        self.0.map(|output| output.map(|(output, _)| machine.read(output)))
    }
}

/// The arguments of a backward of attention pool.
pub struct PoolBackwardCall<'a, E, O> {
    pub packed: &'a PackedBackward,
    pub keys: Rows<'a, E>,
    pub values: Option<Rows<'a, E>>,
    pub bags: DeviceBags<'a>,
    pub saved: Saved<'a, E>,
    pub upstream: AttentionPoolUpstream<'a, O>,
}

/// Of features and of parameters.
type ScoresResults<G> = (Option<Vec<G>>, Params<Vec<f32>>);

/// Of keys, of values and of parameters.
pub type PoolTargets<'a, O> = (Option<Target<'a, O>>, Option<Target<'a, O>>, Params<Target<'a, f32>>);
pub type PoolResults<O> = (Option<Vec<O>>, Option<Vec<O>>, Params<Vec<f32>>);

impl Machine {
    fn packed_backward(&mut self, packed: &PackedBackward) -> u64 {
        self.device.upload("packed", &packed.bytes).address()
    }

    fn some<E: Element>(&mut self, name: &str, values: Option<&[E]>) -> u64 {
        values.map_or(0, |values| self.output_at(name, values, values.len() % 3).address())
    }

    fn scores_keeping<E: Element>(
        &mut self,
        packed: &Packed,
        features: Rows<'_, E>,
        mask: Option<&[u8]>,
        scores: &[f32],
        activations: &[E],
    ) -> Result<(Vec<f32>, Vec<E>)> {
        let (of_scores, kept) =
            (self.output("scores", scores), self.output_at("activations", activations, activations.len() % 3));
        let instances = features.len();
        let (features, row_stride) = self.upload_rows(features);
        let addresses = ScoresAddresses {
            packed: self.packed(packed),
            features,
            row_stride,
            mask: self.mask(mask),
            scores: of_scores.address(),
            activations: kept.address(),
        };
        self.run(&Scores::plan(packed.plan).steps(instances, addresses)?.map(Vec::from).unwrap_or_default());
        Ok((self.read(of_scores), self.read(kept)))
    }

    #[expect(clippy::too_many_arguments, reason = "those of the library")]
    fn scores_backward<E: Element, G: Element>(
        &mut self,
        packed: &PackedBackward,
        features: Rows<'_, E>,
        mask: Option<&[u8]>,
        activations: Option<&[E]>,
        d_scores: &[f32],
        d_features: Option<Target<'_, G>>,
        params: Params<Target<'_, f32>>,
    ) -> Result<ScoresResults<G>> {
        let instances = features.len();
        let plan =
            ScoresBackward::plan(self.order, scores::Shape { pack: packed.plan, gradients: G::DTYPE }, instances)?;
        let of_features = d_features.map(|target| self.gradient("d_features", target));
        let of_params = ParamOutputs::new(self, params);
        let (features, row_stride) = self.upload_rows(features);
        let addresses = scores::Addresses {
            packed: self.packed_backward(packed),
            features,
            row_stride,
            mask: self.mask(mask),
            activations: self.some("activations", activations),
            d_scores: self.floats("d_scores", d_scores),
            d_features: of_features.map(|(_, gradient)| gradient),
            params: of_params.addresses(),
            scratch: self.scratch(plan.scratch_bytes()),
        };
        self.run(&plan.steps(instances, addresses)?);
        Ok((of_features.map(|(output, _)| self.read(output)), of_params.read(self)))
    }

    pub fn attention_pool_backward<E: Element, O: Element>(
        &mut self,
        call: &PoolBackwardCall<'_, E, O>,
        (d_keys, d_values, params): PoolTargets<'_, O>,
    ) -> Result<PoolResults<O>> {
        let &PoolBackwardCall { packed, keys, values, bags, saved, upstream } = call;
        let capacity = bags.capacity(keys.len());
        let shape = attention_pool::Shape {
            pack: packed.plan,
            value_dim: values.unwrap_or(keys).dim(),
            upstream: O::DTYPE,
            gradients: O::DTYPE,
        };
        let plan = AttentionPoolBackward::plan(self.order, shape, capacity)?;
        let of_keys = d_keys.map(|target| self.gradient("d_keys", target));
        let of_values = d_values.map(|target| self.gradient("d_values", target));
        let of_params = ParamOutputs::new(self, params);
        let (keys, key_stride) = self.upload_rows(keys);
        let (values, value_stride) = values.map_or((keys, key_stride), |values| self.upload_rows(values));
        let addresses = attention_pool::Addresses {
            packed: self.packed_backward(packed),
            keys,
            key_stride,
            values,
            value_stride,
            offsets: self.offsets(bags.offsets, bags.wide),
            mask: self.mask(bags.mask),
            weights: self.floats("weights", saved.weights),
            activations: self.some("activations", saved.activations),
            d_pooled: self.some("d_pooled", upstream.pooled),
            d_scores: self.optional("d_scores", upstream.scores),
            d_weights: self.optional("d_weights", upstream.weights),
            d_lse: self.optional("d_lse", upstream.lse),
            d_keys: of_keys.map(|(_, gradient)| gradient),
            d_values: of_values.map(|(_, gradient)| gradient),
            params: of_params.addresses(),
            scratch: self.scratch(plan.scratch_bytes()),
        };
        self.run(&plan.steps(capacity, addresses)?);
        let read = |output: Option<(Output, _)>| output.map(|(output, _)| self.read(output));
        Ok((read(of_keys), read(of_values), of_params.read(self)))
    }
}

impl VmBackend {
    pub fn pack_backward(&self, params: &AttentionParams, features: Dtype) -> PackedBackward {
        let plan = PackBackward::plan(self.pack_shape(params, features)).expect("parameters that were accepted");
        let bytes = packed_by(params, plan.bytes(), |addresses| plan.steps(addresses).map(Vec::from));
        PackedBackward { plan, bytes }
    }

    pub(super) fn scores_keeping<E: Element>(
        &self,
        packed: &Packed,
        features: Rows<'_, E>,
        mask: Option<&[u8]>,
        scores: &mut [f32],
        activations: &mut [E],
    ) -> Result<()> {
        let elements = features.len() * features.dim();
        let (of_scores, kept) =
            self.everywhere(elements, |machine| machine.scores_keeping(packed, features, mask, scores, activations))?;
        scores.copy_from_slice(&of_scores);
        activations.copy_from_slice(&kept);
        Ok(())
    }

    pub(super) fn attention_pool_keeping<E: Element, O: Element>(
        &self,
        packed: &Packed,
        keys: Rows<'_, E>,
        values: Option<Rows<'_, E>>,
        bags: &Bags<'_>,
        outputs: AttentionOutputs<'_, O>,
        activations: &mut [E],
    ) -> Result<()> {
        let elements = keys.len() * keys.dim();
        let (pool, kept) = self.everywhere(elements, |machine| {
            machine.attention_pool_keeping(packed, keys, values, bags.into(), &outputs, activations)
        })?;
        finish_pool(outputs, pool);
        activations.copy_from_slice(&kept);
        Ok(())
    }

    pub(super) fn scores_backward<E: Element, G: Element>(
        &self,
        packed: &PackedBackward,
        features: Rows<'_, E>,
        mask: Option<&[u8]>,
        activations: Option<&[E]>,
        d_scores: &[f32],
        gradients: ScoresGradients<'_, G>,
    ) -> Result<()> {
        let d_features = gradients.features.as_ref().map(Target::of);
        let params = in_order(&gradients.params).map(|gradient| gradient.map(Target::of));
        let elements = features.len() * features.dim();
        let (of_features, of_params) = self.everywhere(elements, |machine| {
            machine.scores_backward(packed, features, mask, activations, d_scores, d_features, params)
        })?;
        finish(gradients.features, of_features);
        finish_params(gradients.params, of_params);
        Ok(())
    }

    #[expect(clippy::too_many_arguments, reason = "those of the library")]
    pub(super) fn attention_pool_backward<E: Element, O: Element>(
        &self,
        packed: &PackedBackward,
        keys: Rows<'_, E>,
        values: Option<Rows<'_, E>>,
        bags: &Bags<'_>,
        saved: Saved<'_, E>,
        upstream: AttentionPoolUpstream<'_, O>,
        gradients: AttentionPoolGradients<'_, O>,
    ) -> Result<()> {
        let call = PoolBackwardCall { packed, keys, values, bags: bags.into(), saved, upstream };
        let AttentionPoolGradients { scores, values: to_values } = gradients;
        let [d_keys, d_values] = [&scores.features, &to_values].map(|to| to.as_ref().map(Target::of));
        let params = in_order(&scores.params).map(|gradient| gradient.map(Target::of));
        let elements = keys.len() * keys.dim();
        let (of_keys, of_values, of_params) =
            self.everywhere(elements, |machine| machine.attention_pool_backward(&call, (d_keys, d_values, params)))?;
        finish(scores.features, of_keys);
        finish(to_values, of_values);
        finish_params(scores.params, of_params);
        Ok(())
    }
}
