//! The backward of every operation, one file each.
//!
//! Formulas and edge cases are those of [`mod@crate::reference`]. Sums are taken in f32; a gradient of features or values is
//! written in their type or in f32, as asked, and rounded once. What is not asked for is not computed. Gradients of
//! features, values, scores and weights keep what [`super`] promises of a batch; those of parameters sum over all
//! instances in an order that depends on their number alone.

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
use crate::element::Element;

/// Bags that fill a tile together and all of their rows, and each chunk of a longer bag.
fn pieces(bags: &Bags<'_>) -> Vec<(Range<usize>, Range<usize>)> {
    let of_group = |group: Range<usize>| match group.len() {
        1 => chunks(bags.range(group.start)).map(|rows| (group.clone(), rows)).collect(),
        _ => vec![(group.clone(), bags.rows_of(&group))],
    };
    groups(bags).into_iter().flat_map(of_group).collect()
}

fn to_f32<O: Element>(from: &[O]) -> Vec<f32> {
    from.iter().map(|x| x.to_f32()).collect()
}
