//! The operations in [`Order::Exact`](crate::Order::Exact), one file each; [`mod@crate::exact`] has the scheme.

pub(super) mod attention_pool;
pub(super) mod params;
mod rows;
pub(super) mod softmax;
pub(super) mod weighted_sum;

use std::ops::Range;

use super::tile::TILE_ROWS;

/// Rows of a long bag that one thread adds up before it merges them with others': enough that the integers, twelve
/// times as large as a row, are next to nothing beside them.
const LEAF_ROWS: usize = 8 * TILE_ROWS;

/// What two parts have come to together, one by one.
fn merged<T>(mut one: Vec<T>, other: Vec<T>, merge: fn(&mut T, &T)) -> Vec<T> {
    one.iter_mut().zip(&other).for_each(|(one, other)| merge(one, other));
    one
}

/// The parts of a bag that are added up by themselves.
fn leaves(bag: Range<usize>) -> Vec<Range<usize>> {
    bag.clone().step_by(LEAF_ROWS).map(|start| start..bag.end.min(start + LEAF_ROWS)).collect()
}
