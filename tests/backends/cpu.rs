use mivc::cpu::{
    AttentionOutputs, AttentionPoolGradients, AttentionPoolUpstream, Cpu, Isa, MaxMeanOutputs, MaxMeanUpstream,
    PackedAttention, PackedBackward, Saved, ScoresGradients, SoftmaxUpstream, Values, WeightedSumGradients,
};
use mivc::{AttentionParams, Bags, Device, Dtype, Element, Gradient, Order, PoolState, Result, Rows};

use super::Backend;

/// The CPU backend on one instruction set.
pub struct CpuBackend {
    isa: Isa,
    order: Order,
    /// None where this processor lacks the instruction set.
    cpu: Option<Cpu>,
}

impl CpuBackend {
    pub fn new(isa: Isa, order: Order) -> Self {
        CpuBackend { isa, order, cpu: Cpu::with_isa(isa).map(|cpu| cpu.with_order(order)) }
    }

    fn cpu(&self) -> Cpu {
        self.cpu.expect("a backend that is not available must not be called")
    }
}

impl Backend for CpuBackend {
    type Packed = PackedAttention;
    type PackedBackward = PackedBackward;

    fn name(&self) -> &'static str {
        match (self.isa, self.order) {
            (Isa::Portable, Order::Rounding) => "cpu-portable",
            (Isa::Avx2, Order::Rounding) => "cpu-avx2",
            (Isa::Avx512, Order::Rounding) => "cpu-avx512",
            (Isa::Avx512Bf16, Order::Rounding) => "cpu-avx512bf16",
            (Isa::Portable, Order::Exact) => "cpu-portable-exact",
            (Isa::Avx2, Order::Exact) => "cpu-avx2-exact",
            (Isa::Avx512, Order::Exact) => "cpu-avx512-exact",
            (Isa::Avx512Bf16, Order::Exact) => "cpu-avx512bf16-exact",
        }
    }

    fn order(&self) -> Order {
        self.order
    }

    fn availability(&self) -> Result<(), String> {
        self.cpu.map(|_| ()).ok_or_else(|| format!("this processor lacks {:?}", self.isa))
    }

    fn device(&self) -> Option<Device> {
        (self.cpu == Some(Cpu::detect().with_order(self.order))).then_some(Device::Cpu)
    }

    fn pack(&self, params: &AttentionParams, dtype: Dtype) -> PackedAttention {
        self.cpu().pack(params, dtype)
    }

    fn scores<E: Element>(
        &self,
        packed: &PackedAttention,
        features: Rows<'_, E>,
        mask: Option<&[u8]>,
        scores: &mut [f32],
    ) -> Result<()> {
        self.cpu().scores(packed, features, mask, scores)
    }

    fn gate<E: Element>(&self, x: &[E], y: &[E], g: &mut [E]) -> Result<()> {
        self.cpu().gate(x, y, g)
    }

    fn softmax(
        &self,
        scores: &[f32],
        heads: usize,
        bags: &Bags<'_>,
        weights: &mut [f32],
        lse: &mut [f32],
    ) -> Result<()> {
        self.cpu().softmax(scores, heads, bags, weights, lse)
    }

    fn weighted_sum<E: Element, O: Element>(
        &self,
        weights: &[f32],
        heads: usize,
        values: Values<'_, E>,
        bags: &Bags<'_>,
        pooled: &mut [O],
    ) -> Result<()> {
        self.cpu().weighted_sum(weights, heads, values, bags, pooled)
    }

    fn max_mean<E: Element, O: Element>(
        &self,
        features: Rows<'_, E>,
        bags: &Bags<'_>,
        outputs: MaxMeanOutputs<'_, O>,
    ) -> Result<()> {
        self.cpu().max_mean(features, bags, outputs)
    }

    fn attention_pool<E: Element, O: Element>(
        &self,
        packed: &PackedAttention,
        keys: Rows<'_, E>,
        values: Option<Rows<'_, E>>,
        bags: &Bags<'_>,
        outputs: AttentionOutputs<'_, O>,
    ) -> Result<()> {
        self.cpu().attention_pool(packed, keys, values, bags, outputs)
    }

    fn attention_pool_onto<E: Element>(
        &self,
        packed: &PackedAttention,
        keys: Rows<'_, E>,
        values: Option<Rows<'_, E>>,
        bags: &Bags<'_>,
        state: &mut PoolState,
        scores: Option<&mut [f32]>,
    ) -> Result<()> {
        self.cpu().attention_pool_onto(packed, keys, values, bags, state, scores)
    }

    fn mean_onto<E: Element>(&self, features: Rows<'_, E>, bags: &Bags<'_>, state: &mut PoolState) -> Result<()> {
        self.cpu().mean_onto(features, bags, state)
    }

    fn merge_state(&self, state: &mut PoolState, other: &PoolState) -> Result<()> {
        state.merge(other)
    }

    fn pack_backward(&self, params: &AttentionParams, dtype: Dtype) -> PackedBackward {
        self.cpu().pack_backward(params, dtype)
    }

    fn scores_keeping<E: Element>(
        &self,
        packed: &PackedAttention,
        features: Rows<'_, E>,
        mask: Option<&[u8]>,
        scores: &mut [f32],
        activations: &mut [E],
    ) -> Result<()> {
        self.cpu().scores_keeping(packed, features, mask, scores, activations)
    }

    fn attention_pool_keeping<E: Element, O: Element>(
        &self,
        packed: &PackedAttention,
        keys: Rows<'_, E>,
        values: Option<Rows<'_, E>>,
        bags: &Bags<'_>,
        outputs: AttentionOutputs<'_, O>,
        activations: &mut [E],
    ) -> Result<()> {
        self.cpu().attention_pool_keeping(packed, keys, values, bags, outputs, activations)
    }

    fn gate_backward<E: Element>(
        &self,
        [x, y, d_g]: [&[E]; 3],
        d_x: Option<Gradient<'_, E>>,
        d_y: Option<Gradient<'_, E>>,
    ) -> Result<()> {
        self.cpu().gate_backward(x, y, d_g, d_x, d_y)
    }

    fn softmax_backward(
        &self,
        weights: &[f32],
        heads: usize,
        bags: &Bags<'_>,
        upstream: SoftmaxUpstream<'_>,
        d_scores: Gradient<'_, f32>,
    ) -> Result<()> {
        self.cpu().softmax_backward(weights, heads, bags, upstream, d_scores)
    }

    fn weighted_sum_backward<E: Element, O: Element>(
        &self,
        weights: &[f32],
        heads: usize,
        values: Values<'_, E>,
        bags: &Bags<'_>,
        d_pooled: &[O],
        gradients: WeightedSumGradients<'_, O>,
    ) -> Result<()> {
        self.cpu().weighted_sum_backward(weights, heads, values, bags, d_pooled, gradients)
    }

    fn max_mean_backward<E: Element, O: Element>(
        &self,
        features: Rows<'_, E>,
        bags: &Bags<'_>,
        upstream: MaxMeanUpstream<'_, O>,
        d_features: Gradient<'_, O>,
    ) -> Result<()> {
        self.cpu().max_mean_backward(features, bags, upstream, d_features)
    }

    fn scores_backward<E: Element, G: Element>(
        &self,
        packed: &PackedBackward,
        features: Rows<'_, E>,
        mask: Option<&[u8]>,
        activations: Option<&[E]>,
        d_scores: &[f32],
        gradients: ScoresGradients<'_, G>,
    ) -> Result<()> {
        self.cpu().scores_backward(packed, features, mask, activations, d_scores, gradients)
    }

    fn attention_pool_backward<E: Element, O: Element>(
        &self,
        packed: &PackedBackward,
        keys: Rows<'_, E>,
        values: Option<Rows<'_, E>>,
        bags: &Bags<'_>,
        saved: Saved<'_, E>,
        upstream: AttentionPoolUpstream<'_, O>,
        gradients: AttentionPoolGradients<'_, O>,
    ) -> Result<()> {
        self.cpu().attention_pool_backward(packed, keys, values, bags, saved, upstream, gradients)
    }
}
