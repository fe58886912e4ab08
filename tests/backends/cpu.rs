use mivc::cpu::{AttentionOutputs, Cpu, Isa, MaxMeanOutputs, PackedAttention, Values};
use mivc::{AttentionParams, Bags, Device, Dtype, Element, PoolState, Result, Rows};

use super::Backend;

/// The CPU backend on one instruction set.
pub struct CpuBackend {
    isa: Isa,
    /// None where this processor lacks the instruction set.
    cpu: Option<Cpu>,
}

impl CpuBackend {
    pub fn new(isa: Isa) -> Self {
        CpuBackend { isa, cpu: Cpu::with_isa(isa) }
    }

    fn cpu(&self) -> Cpu {
        self.cpu.expect("a backend that is not available must not be called")
    }
}

impl Backend for CpuBackend {
    type Packed = PackedAttention;

    fn name(&self) -> &'static str {
        match self.isa {
            Isa::Portable => "cpu-portable",
            Isa::Avx2 => "cpu-avx2",
            Isa::Avx512 => "cpu-avx512",
            Isa::Avx512Bf16 => "cpu-avx512bf16",
        }
    }

    fn availability(&self) -> Result<(), String> {
        self.cpu.map(|_| ()).ok_or_else(|| format!("this processor lacks {:?}", self.isa))
    }

    fn device(&self) -> Option<Device> {
        (self.cpu == Some(Cpu::detect())).then_some(Device::Cpu)
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

    fn merge_state(&self, state: &mut PoolState, other: &PoolState) -> Result<()> {
        state.merge(other)
    }
}
