//! Pieces of bags pooled onto states, and states merged.

use mivc::cpu::AttentionOutputs;
use mivc::launch::exact::state::ExactSums;
use mivc::launch::state::{Addresses, Merge};
use mivc::{Bags, Element, Order, PoolState, Result, Rows};
use ptx_vm::{Checks, Statistics};

use super::{Machine, Packed, VmBackend};

/// m and l `[B, K]` and what is pooled `[B, K, D]`, of any values.
pub type Parts = [Vec<f32>; 3];

fn parts(state: &PoolState) -> Parts {
    [state.max(), state.sum(), state.pooled()].map(<[f32]>::to_vec)
}

impl Machine {
    /// What the state then holds. What is pooled lies at a multiple of 16 bytes, or by the number of rows does not, on
    /// either side by itself.
    fn merge(&mut self, dim: usize, [max, sum, pooled]: &Parts, other: &Parts) -> Result<Parts> {
        let rows = max.len();
        let [max, sum] = [("max", max), ("sum", sum)].map(|(name, part)| self.output(name, part));
        let [pooled, other_pooled] = [("pooled", pooled, rows % 2), ("other pooled", &other[2], rows % 3)]
            .map(|(name, part, offset)| self.output_at(name, part, offset));
        let addresses = Addresses {
            max: max.address(),
            sum: sum.address(),
            pooled: pooled.address(),
            other_max: self.floats("other max", &other[0]),
            other_sum: self.floats("other sum", &other[1]),
            other_pooled: other_pooled.address(),
        };
        self.run(&Merge::plan(dim)?.steps(rows, addresses)?.map(Vec::from).unwrap_or_default());
        Ok([max, sum, pooled].map(|output| self.read(output)))
    }
}

impl VmBackend {
    /// `state` with what `other` has seen.
    pub fn merge_parts(&self, dim: usize, state: &Parts, other: &Parts) -> Result<Parts> {
        self.everywhere(state[2].len(), |machine| machine.merge(dim, state, other))
    }

    /// What the kernel did.
    pub fn statistics_of_merge(&self, dim: usize, state: &Parts, other: &Parts) -> Result<Statistics> {
        let mut machine = Machine::new(Checks::Bounds, 0);
        machine.merge(dim, state, other)?;
        Ok(machine.last)
    }

    pub(super) fn merge_state(&self, state: &mut PoolState, other: &PoolState) -> Result<()> {
        let (bags, heads, dim) = (state.bags(), state.heads(), state.dim());
        let [max, sum, pooled] = self.merge_parts(dim, &parts(state), &parts(other))?;
        *state = PoolState::from_parts(bags, heads, dim, max, sum, pooled)?;
        Ok(())
    }

    pub(super) fn attention_pool_onto<E: Element>(
        &self,
        packed: &Packed,
        keys: Rows<'_, E>,
        values: Option<Rows<'_, E>>,
        bags: &Bags<'_>,
        state: &mut PoolState,
        scores: Option<&mut [f32]>,
    ) -> Result<()> {
        let (heads, dim) = (state.heads(), state.dim());
        // Poisoned.
        let mut pooled = vec![f32::NAN; bags.len() * heads * dim];
        let outputs = AttentionOutputs { pooled: &mut pooled, scores, weights: None, lse: None };
        let elements = keys.len() * keys.dim();
        if self.order == Order::Exact {
            let sums = ExactSums::new(bags.len(), heads, dim)?;
            let ((_, [of_piece, ..]), exact) = self.everywhere(elements, |machine| {
                machine.attention_pool_sums(packed, keys, values, bags.into(), &outputs, sums)
            })?;
            if let (Some(to), Some(from)) = (outputs.scores, of_piece) {
                to.copy_from_slice(&from);
            }
            return state.merge(&sums.state(&exact)?);
        }
        let ((pooled, [of_piece, ..]), [max, sum]) = self.everywhere(elements, |machine| {
            machine.attention_pool_state(packed, keys, values, bags.into(), &outputs)
        })?;
        if let (Some(to), Some(from)) = (outputs.scores, of_piece) {
            to.copy_from_slice(&from);
        }
        self.merge_state(state, &PoolState::from_parts(bags.len(), heads, dim, max, sum, pooled)?)
    }
}
