//! What attention is made of.

use mivc::cpu::{AttentionOutputs, Values};
use mivc::launch::Step;
use mivc::launch::attention_pool::{self, Path};
use mivc::launch::exact::state::ExactSums;
use mivc::launch::gate::{self, Gate};
use mivc::launch::in_order::{AttentionPool, Softmax, WeightedSum};
use mivc::launch::pack::{self, Pack};
use mivc::launch::scores::{self, Scores};
use mivc::launch::softmax;
use mivc::launch::weighted_sum;
use mivc::{AttentionParams, AttentionShape, Bags, Dtype, Element, Result, Rows};
use ptx_vm::{Checks, Statistics};

use super::{DeviceBags, Machine, Output, VmBackend};

/// Parameters as the kernels have packed them.
#[derive(Debug)]
pub struct Packed {
    pub plan: Pack,
    /// How keys are pooled by them.
    pub path: Path,
    bytes: Vec<u8>,
}

impl Machine {
    pub(super) fn packed(&mut self, packed: &Packed) -> u64 {
        self.device.upload("packed", &packed.bytes).address()
    }

    /// As every operation here, gives back the output with what it then holds.
    pub fn scores<E: Element>(
        &mut self,
        packed: &Packed,
        features: Rows<'_, E>,
        mask: Option<&[u8]>,
        scores: &[f32],
    ) -> Result<Vec<f32>> {
        let output = self.output("scores", scores);
        let instances = features.len();
        let (features, row_stride) = self.upload_rows(features);
        let addresses = scores::Addresses {
            packed: self.packed(packed),
            features,
            row_stride,
            mask: self.mask(mask),
            scores: output.address(),
            activations: 0,
        };
        self.run(&Scores::plan(packed.plan).steps(instances, addresses)?.map(Vec::from).unwrap_or_default());
        Ok(self.read(output))
    }

    pub fn gate<E: Element>(&mut self, x: &[E], y: &[E], g: &[E]) -> Result<Vec<E>> {
        let output = self.output("g", g);
        let addresses =
            gate::Addresses { x: self.output("x", x).address(), y: self.output("y", y).address(), g: output.address() };
        self.run(&Gate::plan(E::DTYPE).steps(g.len(), addresses)?.map(Vec::from).unwrap_or_default());
        Ok(self.read(output))
    }

    /// Weights and lse.
    pub fn softmax(
        &mut self,
        scores: &[f32],
        heads: usize,
        bags: DeviceBags<'_>,
        weights: &[f32],
        lse: &[f32],
    ) -> Result<[Vec<f32>; 2]> {
        let call = bags.capacity(scores.len() / heads);
        let plan = Softmax::plan(self.order, heads, call)?;
        let outputs = [self.output("weights", weights), self.output("lse", lse)];
        let addresses = softmax::Addresses {
            scores: self.floats("scores", scores),
            offsets: self.offsets(bags.offsets, bags.wide),
            mask: self.mask(bags.mask),
            weights: outputs[0].address(),
            lse: outputs[1].address(),
            scratch: self.scratch(plan.scratch_bytes()),
        };
        self.run(&plan.steps(call, addresses)?);
        Ok(outputs.map(|output| self.read(output)))
    }

    pub fn weighted_sum<E: Element, O: Element>(
        &mut self,
        weights: &[f32],
        heads: usize,
        values: Values<'_, E>,
        bags: DeviceBags<'_>,
        pooled: &[O],
    ) -> Result<Vec<O>> {
        let (rows, dim, per_head) = match values {
            Values::Shared(rows) => (rows, rows.dim(), false),
            Values::PerHead(rows) => (rows, rows.dim() / heads, true),
        };
        let call = bags.capacity(rows.len());
        let shape = weighted_sum::Shape { dim, heads, per_head, values: E::DTYPE, outputs: O::DTYPE };
        let plan = WeightedSum::plan(self.order, shape, call)?;
        let output = self.output("pooled", pooled);
        let (values, row_stride) = self.upload_rows(rows);
        let addresses = weighted_sum::Addresses {
            weights: self.floats("weights", weights),
            values,
            row_stride,
            offsets: self.offsets(bags.offsets, bags.wide),
            mask: self.mask(bags.mask),
            pooled: output.address(),
            scratch: self.scratch(plan.scratch_bytes()),
        };
        self.run(&plan.steps(call, addresses)?);
        Ok(self.read(output))
    }

    pub fn attention_pool<E: Element, O: Element>(
        &mut self,
        packed: &Packed,
        keys: Rows<'_, E>,
        values: Option<Rows<'_, E>>,
        bags: DeviceBags<'_>,
        outputs: &AttentionOutputs<'_, O>,
    ) -> Result<Pool<O>> {
        self.pool(packed, keys, values, bags, outputs, Kept::default())
    }

    /// Beside it the activations.
    pub fn attention_pool_keeping<E: Element, O: Element>(
        &mut self,
        packed: &Packed,
        keys: Rows<'_, E>,
        values: Option<Rows<'_, E>>,
        bags: DeviceBags<'_>,
        outputs: &AttentionOutputs<'_, O>,
        activations: &[E],
    ) -> Result<(Pool<O>, Vec<E>)> {
        let kept = self.output_at("activations", activations, activations.len() % 3);
        let of_pool = Kept { activations: kept.address(), ..Kept::default() };
        let pool = self.pool(packed, keys, values, bags, outputs, of_pool)?;
        Ok((pool, self.read(kept)))
    }

    /// Beside it the exact sums of `[B, K, D]`.
    pub fn attention_pool_sums<E: Element, O: Element>(
        &mut self,
        packed: &Packed,
        keys: Rows<'_, E>,
        values: Option<Rows<'_, E>>,
        bags: DeviceBags<'_>,
        outputs: &AttentionOutputs<'_, O>,
        sums: ExactSums,
    ) -> Result<(Pool<O>, Vec<i64>)> {
        let exact = self.sums(sums);
        let kept = Kept { exact: exact.address(), ..Kept::default() };
        let pool = self.pool(packed, keys, values, bags, outputs, kept)?;
        Ok((pool, self.read_words(exact)))
    }

    /// Room for exact sums, poisoned.
    pub(super) fn sums(&mut self, sums: ExactSums) -> Output {
        self.output_of("exact", size_of::<i64>(), vec![0xff; size_of::<i64>() * sums.len()], 0)
    }

    pub(super) fn read_words(&self, output: Output) -> Vec<i64> {
        let bytes = self.read_bytes(output);
        let (words, _) = bytes.as_chunks();
        words.iter().copied().map(i64::from_le_bytes).collect()
    }

    /// Beside it m and l.
    pub fn attention_pool_state<E: Element, O: Element>(
        &mut self,
        packed: &Packed,
        keys: Rows<'_, E>,
        values: Option<Rows<'_, E>>,
        bags: DeviceBags<'_>,
        outputs: &AttentionOutputs<'_, O>,
    ) -> Result<(Pool<O>, [Vec<f32>; 2])> {
        let heads = packed.plan.shape().attention.heads;
        let poison = vec![f32::NAN; bags.capacity(keys.len()).bags * heads];
        let statistics = ["max", "sum"].map(|name| self.output(name, &poison));
        let [max, sum] = statistics.map(Output::address);
        let pool = self.pool(packed, keys, values, bags, outputs, Kept { max, sum, ..Kept::default() })?;
        Ok((pool, statistics.map(|output| self.read(output))))
    }

    fn pool<E: Element, O: Element>(
        &mut self,
        packed: &Packed,
        keys: Rows<'_, E>,
        values: Option<Rows<'_, E>>,
        bags: DeviceBags<'_>,
        outputs: &AttentionOutputs<'_, O>,
        kept: Kept,
    ) -> Result<Pool<O>> {
        let call = bags.capacity(keys.len());
        let value_dim = values.unwrap_or(keys).dim();
        let shape = attention_pool::Shape { pack: packed.plan, value_dim, outputs: O::DTYPE, path: packed.path };
        let plan = AttentionPool::plan(self.order, shape, call)?;
        let pooled = self.output("pooled", outputs.pooled);
        let optional = [("scores", &outputs.scores), ("weights", &outputs.weights), ("lse", &outputs.lse)]
            .map(|(name, output)| output.as_deref().map(|output| self.output(name, output)));
        let [scores, weights, lse] = optional.map(|output| output.map_or(0, Output::address));
        let (keys, key_stride) = match packed.path {
            Path::Sm90(_) => self.upload_aligned_rows(keys),
            _ => self.upload_rows(keys),
        };
        let (values, value_stride) = values.map_or((keys, key_stride), |values| self.upload_rows(values));
        let addresses = attention_pool::Addresses {
            packed: self.packed(packed),
            keys,
            key_stride,
            values,
            value_stride,
            offsets: self.offsets(bags.offsets, bags.wide),
            mask: self.mask(bags.mask),
            pooled: pooled.address(),
            scores,
            weights,
            lse,
            activations: kept.activations,
            max: kept.max,
            sum: kept.sum,
            exact: kept.exact,
            scratch: self.scratch(plan.scratch_bytes()),
        };
        self.run(&plan.steps(call, addresses)?);
        Ok((self.read(pooled), optional.map(|output| output.map(|output| self.read(output)))))
    }
}

/// Where a pool leaves what it does not return: 0 where it is not asked for.
#[derive(Clone, Copy, Default)]
struct Kept {
    activations: u64,
    max: u64,
    sum: u64,
    exact: u64,
}

/// Puts what was pooled where the caller wants it.
pub(super) fn finish_pool<O: Element>(outputs: AttentionOutputs<'_, O>, (pooled, optional): Pool<O>) {
    outputs.pooled.copy_from_slice(&pooled);
    for (to, from) in [outputs.scores, outputs.weights, outputs.lse].into_iter().zip(optional) {
        if let (Some(to), Some(from)) = (to, from) {
            to.copy_from_slice(&from);
        }
    }
}

/// Parameters as the steps have packed them.
pub(super) fn packed_by(
    params: &AttentionParams,
    bytes: usize,
    steps: impl Fn(pack::Addresses) -> Result<Vec<Step>>,
) -> Vec<u8> {
    let mut machine = Machine::new(Checks::Bounds, 0);
    // Poisoned: what is not written would be NaN.
    let packed = machine.device.upload("packed", &vec![0xff; bytes]);
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
    machine.run(&steps(addresses).expect("what was planned"));
    machine.device.read(packed).expect("the packed parameters")
}

/// Pooled; and scores, weights and lse where they are asked for.
pub type Pool<O> = (Vec<O>, [Option<Vec<f32>>; 3]);

impl VmBackend {
    pub(super) fn pack_shape(&self, params: &AttentionParams, features: Dtype) -> pack::Shape {
        let (attention, gated) = (params.shape(), params.is_gated());
        pack::Shape { attention, gated, features, f32_product: self.f32_product }
    }

    pub(super) fn pack(&self, params: &AttentionParams, features: Dtype) -> Packed {
        let shape = self.pack_shape(params, features);
        let plan = Pack::plan(shape).expect("parameters that were accepted");
        let bytes = packed_by(params, plan.bytes(), |addresses| plan.steps(addresses).map(Vec::from));
        Packed { plan, path: self.path(&plan), bytes }
    }

    pub(super) fn scores<E: Element>(
        &self,
        packed: &Packed,
        features: Rows<'_, E>,
        mask: Option<&[u8]>,
        scores: &mut [f32],
    ) -> Result<()> {
        let elements = features.len() * features.dim();
        let result = self.everywhere(elements, |machine| machine.scores(packed, features, mask, scores))?;
        scores.copy_from_slice(&result);
        Ok(())
    }

    /// What the kernel of the scores did, in a call without a mask.
    pub fn statistics_of_scores<E: Element>(&self, packed: &Packed, features: Rows<'_, E>) -> Result<Statistics> {
        let mut machine = Machine::new(Checks::Bounds, 0);
        let scores = vec![0.0; features.len() * packed.plan.shape().attention.heads];
        machine.scores(packed, features, None, &scores)?;
        Ok(machine.last)
    }

    /// What the kernel that pools keys in one pass did, in a call without a mask.
    pub fn statistics_of_attention_pool<E: Element>(
        &self,
        packed: &Packed,
        keys: Rows<'_, E>,
        bags: &Bags<'_>,
    ) -> Result<Statistics> {
        let mut machine = Machine::new(Checks::Bounds, 0);
        let AttentionShape { dim, heads, .. } = packed.plan.shape().attention;
        let mut pooled = vec![0.0_f32; bags.len() * heads * dim];
        let outputs = AttentionOutputs { pooled: &mut pooled, scores: None, weights: None, lse: None };
        machine.attention_pool(packed, keys, None, bags.into(), &outputs)?;
        Ok(machine.last)
    }

    pub(super) fn gate<E: Element>(&self, x: &[E], y: &[E], g: &mut [E]) -> Result<()> {
        let result = self.everywhere(g.len(), |machine| machine.gate(x, y, g))?;
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
        let results =
            self.everywhere(scores.len(), |machine| machine.softmax(scores, heads, bags.into(), weights, lse))?;
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
        let (Values::Shared(rows) | Values::PerHead(rows)) = values;
        let elements = rows.len() * rows.dim();
        let result =
            self.everywhere(elements, |machine| machine.weighted_sum(weights, heads, values, bags.into(), pooled))?;
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
        let elements = keys.len() * keys.dim();
        let pool =
            self.everywhere(elements, |machine| machine.attention_pool(packed, keys, values, bags.into(), &outputs))?;
        finish_pool(outputs, pool);
        Ok(())
    }
}
