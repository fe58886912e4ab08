//! The backward of every operation, one file each.

pub(super) mod attention_pool;
pub(super) mod gate;
pub(super) mod max_mean;
mod product;
pub(super) mod scores;
mod softmax;
mod target;
pub(super) mod weighted_sum;

pub use attention_pool::{AttentionPoolGradients, AttentionPoolUpstream, Saved};
pub use max_mean::MaxMeanUpstream;
pub use scores::{PackedBackward, ParamGradients, ScoresGradients};
pub use softmax::SoftmaxUpstream;
pub(super) use target::Target;
pub use weighted_sum::WeightedSumGradients;

use std::ops::Range;

use super::chunks::{chunks, groups};
use crate::bags::Bags;

/// Bags that fill a tile together and all of their rows, and each chunk of a longer bag.
fn pieces(bags: &Bags<'_>) -> Vec<(Range<usize>, Range<usize>)> {
    let of_group = |group: Range<usize>| match group.len() {
        1 => chunks(bags.range(group.start)).map(|rows| (group.clone(), rows)).collect(),
        _ => vec![(group.clone(), bags.rows_of(&group))],
    };
    groups(bags).into_iter().flat_map(of_group).collect()
}
