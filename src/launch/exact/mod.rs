//! Operations in [`Order::Exact`](crate::Order::Exact): forward, of those that have a sum. [`mod@crate::exact`] has the scheme.

pub mod attention_pool;
pub mod max_mean;
pub mod softmax;
pub mod weighted_sum;
