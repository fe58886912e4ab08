//! Operations in either [`Order`], chosen when they are planned. Of a backward one plan does for both: no other steps are
//! taken, or some more.

use super::{Capacity, Step, attention_pool, exact, max_mean, softmax, weighted_sum};
use crate::error::Result;
use crate::order::Order;

/// An operation in one order or the other.
#[derive(Debug, Clone, Copy)]
pub enum InOrder<R, E> {
    /// [`Order::Rounding`].
    Rounding(R),
    /// [`Order::Exact`].
    Exact(E),
}

/// `body` with `plan` bound to the operation, whichever it is.
macro_rules! either {
    ($operation:expr, |$plan:ident| $body:expr) => {
        match $operation {
            InOrder::Rounding($plan) => $body,
            InOrder::Exact($plan) => $body,
        }
    };
}

/// Implements what the operations have in common: `plan`, `scratch_bytes`, one getter of what was planned for, and `steps`,
/// given how what either returns becomes a list.
macro_rules! in_order {
    ($name:ident, $module:ident, $getter:ident -> $shape:ty, |$steps:ident| $list:expr) => {
        #[doc = concat!("As [`", stringify!($module), "::", stringify!($name), "`].")]
        pub type $name = InOrder<$module::$name, exact::$module::$name>;

        impl $name {
            #[doc = concat!("As [`", stringify!($module), "::", stringify!($name), "::plan`].")]
            ///
            /// # Errors
            /// As there.
            pub fn plan(order: Order, $getter: $shape, capacity: Capacity) -> Result<Self> {
                Ok(match order {
                    Order::Rounding => InOrder::Rounding($module::$name::plan($getter, capacity)?),
                    Order::Exact => InOrder::Exact(exact::$module::$name::plan($getter, capacity)?),
                })
            }

            /// What was planned for.
            pub fn $getter(&self) -> $shape {
                either!(self, |plan| plan.$getter())
            }

            /// Bytes of scratch memory that every call needs, whatever its size.
            pub fn scratch_bytes(&self) -> usize {
                either!(self, |plan| plan.scratch_bytes())
            }

            #[doc = concat!("As [`", stringify!($module), "::", stringify!($name), "::steps`]; nothing where there is no bag.")]
            ///
            /// # Errors
            /// As there.
            pub fn steps(&self, call: Capacity, addresses: $module::Addresses) -> Result<Vec<Step>> {
                either!(self, |plan| {
                    let $steps = plan.steps(call, addresses)?;
                    Ok($list)
                })
            }
        }
    };
}

in_order!(Softmax, softmax, heads -> usize, |steps| steps.into_iter().flatten().collect());
in_order!(WeightedSum, weighted_sum, shape -> weighted_sum::Shape, |steps| steps.into_iter().flatten().collect());
in_order!(MaxMean, max_mean, shape -> max_mean::Shape, |steps| steps.into_iter().flatten().collect());
in_order!(AttentionPool, attention_pool, shape -> attention_pool::Shape, |steps| steps);
