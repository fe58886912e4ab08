//! What attention is made of.

use mivc::cpu::{AttentionOutputs, Values};
use mivc::launch::attention_pool::{self, AttentionPool};
use mivc::launch::gate::{self, Gate};
use mivc::launch::pack::{self, Pack};
use mivc::launch::scores::{self, Scores};
use mivc::launch::softmax::{self, Softmax};
use mivc::launch::weighted_sum::{self, WeightedSum};
use mivc::launch::{Capacity, Step};
use mivc::{AttentionParams, Bags, Dtype, Element, Result, Rows};
use ptx_vm::{Checks, Pointer, Statistics};

use super::{Machine, VmBackend};

/// Parameters as the kernels have packed them.
#[derive(Debug)]
pub struct Packed {
    pub plan: Pack,
    bytes: Vec<u8>,
}

impl Machine {
    fn packed(&mut self, packed: &Packed) -> u64 {
        self.device.upload("packed", &packed.bytes).address()
    }
}

impl VmBackend {
    pub(super) fn pack(&self, params: &AttentionParams, features: Dtype) -> Packed {
        let shape = pack::Shape {
            attention: params.shape(),
            gated: params.is_gated(),
            features,
            f32_product: self.f32_product,
        };
        let plan = Pack::plan(shape).expect("parameters that were accepted");
        let mut machine = Machine::new(Checks::Bounds, 0);
        // Poisoned: what is not written would be NaN.
        let packed = machine.device.upload("packed", &vec![0xff; plan.bytes()]);
        let tensors = params.tensors();
        let addresses = pack::Addresses {
            v: machine.floats("v", tensors.v),
            v_bias: machine.optional("v bias", tensors.v_bias),
            u: machine.optional("u", tensors.u),
            u_bias: machine.optional("u bias", tensors.u_bias),
            w: machine.floats("w", tensors.w),
            w_bias: machine.optional("w bias", tensors.w_bias),
            packed: packed.address(),
        };
        machine.run(&plan.steps(addresses).expect("what was planned"));
        Packed { plan, bytes: machine.device.read(packed).expect("the packed parameters") }
    }

    pub(super) fn scores<E: Element>(
        &self,
        packed: &Packed,
        features: Rows<'_, E>,
        mask: Option<&[u8]>,
        scores: &mut [f32],
    ) -> Result<()> {
        let result = self.everywhere(features.len() * features.dim(), |machine| {
            self.scores_on(machine, packed, features, mask, scores)
        })?;
        scores.copy_from_slice(&result);
        Ok(())
    }

    fn scores_on<E: Element>(
        &self,
        machine: &mut Machine,
        packed: &Packed,
        features: Rows<'_, E>,
        mask: Option<&[u8]>,
        scores: &[f32],
    ) -> Result<Vec<f32>> {
        let output = machine.output("scores", scores);
        let instances = features.len();
        let (features, row_stride) = machine.upload_rows(features);
        let addresses = scores::Addresses {
            packed: machine.packed(packed),
            features,
            row_stride,
            mask: machine.mask(mask),
            scores: output.address(),
        };
        machine.run(&Scores::plan(packed.plan).steps(instances, addresses)?.map(Vec::from).unwrap_or_default());
        Ok(machine.read(output))
    }

    /// What the kernel of the scores did, in a call without a mask.
    pub fn statistics_of_scores<E: Element>(&self, params: &AttentionParams, features: Rows<'_, E>) -> Result<Statistics> {
        let mut machine = Machine::new(Checks::Bounds, 0);
        let scores = vec![0.0; features.len() * params.shape().heads];
        self.scores_on(&mut machine, &self.pack(params, E::DTYPE), features, None, &scores)?;
        Ok(machine.last)
    }

    pub(super) fn gate<E: Element>(&self, x: &[E], y: &[E], g: &mut [E]) -> Result<()> {
        let result = self.everywhere(g.len(), |machine| {
            let output = machine.output("g", g);
            let addresses = gate::Addresses {
                x: machine.output("x", x).address(),
                y: machine.output("y", y).address(),
                g: output.address(),
            };
            machine.run(&Gate::plan(E::DTYPE).steps(g.len(), addresses)?.map(Vec::from).unwrap_or_default());
            Ok(machine.read::<E>(output))
        })?;
        g.copy_from_slice(&result);
        Ok(())
    }

    pub(super) fn softmax(
        &self,
        scores: &[f32],
        heads: usize,
        bags: &Bags<'_>,
        weights: &mut [f32],
        lse: &mut [f32],
    ) -> Result<()> {
        let call = Capacity { instances: bags.instances(), bags: bags.len() };
        let plan = Softmax::plan(heads, call)?;
        let results = self.everywhere(scores.len(), |machine| {
            let outputs = [machine.output("weights", weights), machine.output("lse", lse)];
            let addresses = softmax::Addresses {
                scores: machine.floats("scores", scores),
                offsets: machine.offsets(bags.offsets()),
                mask: machine.mask(bags.mask()),
                weights: outputs[0].address(),
                lse: outputs[1].address(),
                scratch: machine.scratch(plan.scratch_bytes()),
            };
            machine.run(&plan.steps(call, addresses)?.unwrap_or_default());
            Ok(outputs.map(|output| machine.read::<f32>(output)))
        })?;
        weights.copy_from_slice(&results[0]);
        lse.copy_from_slice(&results[1]);
        Ok(())
    }

    pub(super) fn weighted_sum<E: Element, O: Element>(
        &self,
        weights: &[f32],
        heads: usize,
        values: Values<'_, E>,
        bags: &Bags<'_>,
        pooled: &mut [O],
    ) -> Result<()> {
        let (rows, dim, per_head) = match values {
            Values::Shared(rows) => (rows, rows.dim(), false),
            Values::PerHead(rows) => (rows, rows.dim() / heads, true),
        };
        let call = Capacity { instances: bags.instances(), bags: bags.len() };
        let shape = weighted_sum::Shape { dim, heads, per_head, values: E::DTYPE, outputs: O::DTYPE };
        let plan = WeightedSum::plan(shape, call)?;
        let result = self.everywhere(rows.len() * rows.dim(), |machine| {
            let output = machine.output("pooled", pooled);
            let (values, row_stride) = machine.upload_rows(rows);
            let addresses = weighted_sum::Addresses {
                weights: machine.floats("weights", weights),
                values,
                row_stride,
                offsets: machine.offsets(bags.offsets()),
                mask: machine.mask(bags.mask()),
                pooled: output.address(),
                scratch: machine.scratch(plan.scratch_bytes()),
            };
            machine.run(&plan.steps(call, addresses)?.map(Vec::from).unwrap_or_default());
            Ok(machine.read::<O>(output))
        })?;
        pooled.copy_from_slice(&result);
        Ok(())
    }

    pub(super) fn attention_pool<E: Element, O: Element>(
        &self,
        packed: &Packed,
        keys: Rows<'_, E>,
        values: Option<Rows<'_, E>>,
        bags: &Bags<'_>,
        outputs: AttentionOutputs<'_, O>,
    ) -> Result<()> {
        let call = Capacity { instances: bags.instances(), bags: bags.len() };
        let elements = keys.len() * keys.dim();
        let (pooled, optional) =
            self.everywhere(elements, |machine| pool_on(machine, packed, keys, values, bags.offsets(), bags.mask(), call, &outputs))?;
        outputs.pooled.copy_from_slice(&pooled);
        for (to, from) in [outputs.scores, outputs.weights, outputs.lse].into_iter().zip(optional) {
            if let (Some(to), Some(from)) = (to, from) {
                to.copy_from_slice(&from);
            }
        }
        Ok(())
    }
}

/// Pooled; and scores, weights and lse where they are asked for.
type Pool<O> = (Vec<O>, [Option<Vec<f32>>; 3]);

#[expect(clippy::too_many_arguments, reason = "those of the operation")]
fn pool_on<E: Element, O: Element>(
    machine: &mut Machine,
    packed: &Packed,
    keys: Rows<'_, E>,
    values: Option<Rows<'_, E>>,
    offsets: &[i64],
    mask: Option<&[u8]>,
    call: Capacity,
    outputs: &AttentionOutputs<'_, O>,
) -> Result<Pool<O>> {
    let value_dim = values.unwrap_or(keys).dim();
    let shape = attention_pool::Shape { pack: packed.plan, value_dim, outputs: O::DTYPE };
    let plan = AttentionPool::plan(shape, call)?;
    let pooled = machine.output("pooled", outputs.pooled);
    let optional = [("scores", &outputs.scores), ("weights", &outputs.weights), ("lse", &outputs.lse)]
        .map(|(name, output)| output.as_deref().map(|output| machine.output(name, output)));
    let [scores, weights, lse] = optional.map(|output| output.map_or(0, Pointer::address));
    let (keys, key_stride) = machine.upload_rows(keys);
    let (values, value_stride) = values.map_or((keys, key_stride), |values| machine.upload_rows(values));
    let addresses = attention_pool::Addresses {
        packed: machine.packed(packed),
        keys,
        key_stride,
        values,
        value_stride,
        offsets: machine.offsets(offsets),
        mask: machine.mask(mask),
        pooled: pooled.address(),
        scores,
        weights,
        lse,
        scratch: machine.scratch(plan.scratch_bytes()),
    };
    let steps: Vec<Step> = plan.steps(call, addresses)?;
    machine.run(&steps);
    Ok((machine.read(pooled), optional.map(|output| output.map(|output| machine.read(output)))))
}
