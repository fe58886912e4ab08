//! Pooling on the CPU.

use std::sync::OnceLock;

use super::{Attention, Call};
use crate::attention::AttentionParams;
use crate::bags::Bags;
use crate::cpu::{self, MaxMeanOutputs, PackedAttention};
use crate::element::{Dtype, Element};
use crate::error::Result;
use crate::rows::Rows;

/// The operations for this processor, and what they need of the parameters.
#[derive(Debug)]
pub(super) struct Cpu {
    operations: cpu::Cpu,
    projected: bool,
    /// The parameters packed for f32, f16 and bf16 features, on first use.
    packed: [OnceLock<PackedAttention>; 3],
}

impl Cpu {
    pub(super) fn new() -> Self {
        Cpu { operations: cpu::Cpu::detect(), projected: false, packed: Default::default() }
    }

    /// Applies the projection that the parameters hold first.
    pub(super) fn project(&mut self) {
        self.projected = true;
        self.packed = Default::default();
    }

    pub(super) fn max_mean<E: Element>(
        &self,
        rows: Rows<'_, E>,
        bags: &Bags<'_>,
        outputs: MaxMeanOutputs<'_, f32>,
    ) -> Result<()> {
        self.operations.max_mean(rows, bags, outputs)
    }

    pub(super) fn attention<E: Element>(&self, params: &AttentionParams, call: Call<'_, E>) -> Result<Attention> {
        let packed = self.packed(params, E::DTYPE)?;
        let mut pooled = Attention::new(params.shape(), &call);
        let Call { keys, values, positions, bags } = call;
        match positions {
            1 => self.operations.attention_pool(packed, keys, values, bags, pooled.outputs())?,
            // One call: the bags of each position are bags like others.
            _ => {
                let (keys, bags) = (keys.position_first(positions), bags.repeated(positions)?);
                self.operations.attention_pool(packed, keys, values, &bags, pooled.outputs())?;
            }
        }
        Ok(pooled)
    }

    fn packed(&self, params: &AttentionParams, dtype: Dtype) -> Result<&PackedAttention> {
        let slot = &self.packed[dtype as usize];
        if let Some(packed) = slot.get() {
            return Ok(packed);
        }
        let packed = match self.projected {
            true => self.operations.pack_projected(params, dtype)?,
            false => self.operations.pack(params, dtype),
        };
        Ok(slot.get_or_init(|| packed))
    }
}
