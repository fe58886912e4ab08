//! The backward of operations, one file each.
//!
//! What is not asked for is neither launched nor computed, and nothing is read for it.

pub mod attention_pool;
pub mod gate;
pub mod max_mean;
pub mod pack;
pub mod scores;
pub mod softmax;
pub mod weighted_sum;

use super::abi::MivcGradient;
use crate::element::Dtype;

/// Where a gradient goes: a device address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Gradient {
    /// In place of what is there.
    Set(u64),
    /// Added to what is there.
    Add(u64),
}

impl Gradient {
    /// 0 where there is none.
    fn address(this: Option<Self>) -> u64 {
        match this {
            None => 0,
            Some(Gradient::Set(address) | Gradient::Add(address)) => address,
        }
    }

    fn parameters(this: Option<Self>, dtype: Dtype) -> MivcGradient {
        MivcGradient {
            to: Self::address(this),
            adds: u32::from(matches!(this, Some(Gradient::Add(_)))),
            is_f32: u32::from(dtype == Dtype::F32),
        }
    }
}
