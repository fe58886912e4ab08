//! The backward of every operation, one file each.

pub(super) mod attention_pool;
pub(super) mod gate;
pub(super) mod max_mean;
mod packed;
mod product;
pub(super) mod scores;
mod softmax;
mod target;
pub(super) mod weighted_sum;

pub use attention_pool::{AttentionPoolGradients, AttentionPoolUpstream, Saved};
pub use max_mean::MaxMeanUpstream;
pub use packed::PackedBackward;
pub use scores::{ParamGradients, ScoresGradients};
pub use softmax::SoftmaxUpstream;
pub(super) use target::Target;
pub use weighted_sum::WeightedSumGradients;

use std::ops::Range;

use super::tile::TILE_ROWS;
use crate::bags::Bags;

/// The instances of a call, a tile at a time: for gradients of instances, none of which depends on another.
fn tiles(instances: usize) -> impl Iterator<Item = Range<usize>> {
    (0..instances).step_by(TILE_ROWS).map(move |start| start..instances.min(start + TILE_ROWS))
}

/// Some instances, each with its bag.
fn bags_of(bags: &Bags<'_>, rows: Range<usize>) -> impl Iterator<Item = (usize, usize)> {
    // Offsets begin with 0, so that one is never above the first row.
    let mut b = bags.offsets().partition_point(|&offset| offset as usize <= rows.start) - 1;
    rows.map(move |n| {
        while bags.range(b).end <= n {
            b += 1;
        }
        (n, b)
    })
}
