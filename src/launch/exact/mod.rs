//! What [`Order::Exact`](crate::Order::Exact) does otherwise: operations that have a sum, and the order of instances that
//! gradients of parameters are summed in. [`mod@crate::exact`] has the scheme.

pub mod attention_pool;
pub mod max_mean;
pub(super) mod params;
pub mod softmax;
pub mod state;
pub mod weighted_sum;
