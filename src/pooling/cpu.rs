//! Pooling on the CPU.

use std::borrow::Cow;
use std::sync::OnceLock;

use super::{Attention, Call};
use crate::attention::{AttentionParams, AttentionShape};
use crate::bags::Bags;
use crate::cpu::{self, MaxMeanOutputs, PackedAttention};
use crate::element::{Dtype, Element};
use crate::error::Result;
use crate::order::Order;
use crate::rows::Rows;
use crate::state::PoolState;

/// The operations for this processor, and what they need of the parameters.
#[derive(Debug)]
pub(super) struct Cpu {
    pub(super) operations: cpu::Cpu,
    projected: bool,
    /// The parameters packed for f32, f16 and bf16 features, on first use.
    packed: [OnceLock<PackedAttention>; 3],
}

impl Cpu {
    pub(super) fn new() -> Self {
        Cpu { operations: cpu::Cpu::detect(), projected: false, packed: Default::default() }
    }

    pub(super) fn set_order(&mut self, order: Order) {
        self.operations = self.operations.with_order(order);
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

    pub(super) fn attention_state<E: Element>(
        &self,
        params: &AttentionParams,
        call: Call<'_, E>,
    ) -> Result<(PoolState, Vec<f32>)> {
        let packed = self.packed(params, E::DTYPE)?;
        let AttentionShape { heads, dim, .. } = params.shape();
        let Call { keys, values, positions, bags } = call;
        let (keys, bags) = match positions {
            1 => (keys, Cow::Borrowed(bags)),
            _ => (keys.position_first(positions), Cow::Owned(bags.repeated(positions)?)),
        };
        let dim = values.map_or(dim, |values| values.dim());
        let mut state = PoolState::empty_in(self.operations.order(), bags.len(), heads, dim)?;
        let mut scores = vec![0.0; bags.instances() * heads];
        self.operations.attention_pool_onto(packed, keys, values, &bags, &mut state, Some(&mut scores))?;
        Ok((state, scores))
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
