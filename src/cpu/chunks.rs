//! How bags become work: small ones together, large ones in chunks that merge in a fixed tree.

use std::ops::Range;

use rayon::prelude::*;

use super::tile::TILE_ROWS;
use crate::bags::Bags;

/// Children of a node of the tree that merges the chunks of a bag.
const RADIX: usize = 32;

/// Runs of consecutive bags: each a single bag of more than [`TILE_ROWS`] rows, or bags that fill at
/// most one tile together.
pub(super) fn groups(bags: &Bags<'_>) -> Vec<Range<usize>> {
    let mut groups = Vec::new();
    let (mut first, mut rows) = (0, 0);
    for (b, range) in bags.ranges().enumerate() {
        if b > first && (rows + range.len() > TILE_ROWS || b - first == TILE_ROWS) {
            groups.push(first..b);
            (first, rows) = (b, 0);
        }
        rows += range.len();
    }
    if first < bags.len() {
        groups.push(first..bags.len());
    }
    groups
}

/// The chunks of a bag, counted from its own first row.
pub(super) fn chunks(bag: Range<usize>) -> impl ExactSizeIterator<Item = Range<usize>> {
    let count = bag.len().div_ceil(TILE_ROWS);
    (0..count).map(move |i| {
        let start = bag.start + i * TILE_ROWS;
        start..bag.end.min(start + TILE_ROWS)
    })
}

/// Runs `f` on every job, on all threads; a single one, as each of many small bags is, on this thread. Dynamic, as is
/// [`reduce`]: rayon's machinery is then compiled for each kind of job and not for each kernel.
pub(super) fn for_each<J: Send>(jobs: Vec<J>, f: &(dyn Fn(J) + Sync)) {
    if jobs.len() == 1 {
        jobs.into_iter().for_each(f);
    } else {
        jobs.into_par_iter().for_each(f);
    }
}

/// Merges what `leaf` makes of each item in a tree whose shape depends on their number alone.
/// None where there is no item.
pub(super) fn reduce<I: Send, T: Send>(
    items: &mut [I],
    leaf: &(dyn Fn(&mut I) -> T + Sync),
    merge: &(dyn Fn(T, T) -> T + Sync),
) -> Option<T> {
    if let [item] = items {
        return Some(leaf(item));
    }
    let mut child = 1;
    while child * RADIX < items.len() {
        child *= RADIX;
    }
    let children: Vec<T> = items.par_chunks_mut(child).filter_map(|items| reduce(items, leaf, merge)).collect();
    children.into_iter().reduce(merge)
}

/// Hands rows on four at a time, the last fewer: one pass over running results then takes in four rows.
#[inline(always)]
pub(super) fn by_fours(mut rows: impl Iterator<Item = usize>, mut take_in: impl FnMut(&[usize])) {
    loop {
        let mut four = [0; 4];
        let mut count = 0;
        for (to, row) in four.iter_mut().zip(&mut rows) {
            *to = row;
            count += 1;
        }
        take_in(&four[..count]);
        if count < four.len() {
            return;
        }
    }
}

/// Cuts the first `n` elements off a slice.
pub(super) fn take<'a, T>(slice: &mut &'a mut [T], n: usize) -> &'a mut [T] {
    let (front, rest) = std::mem::take(slice).split_at_mut(n);
    *slice = rest;
    front
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_cover_every_bag_once_and_fill_at_most_a_tile() {
        let bags = Bags::from_lengths(&[0, 100, 26, 1, 0, 127, 0, 126, 0, 1000, 3]).unwrap();
        let groups = groups(&bags);
        assert_eq!(groups, [0..3, 3..5, 5..6, 6..9, 9..10, 10..11]);
    }

    #[test]
    fn the_tree_keeps_the_order_of_its_leaves() {
        for count in [0, 1, 2, 31, 32, 33, 1024, 1025, 3000] {
            let mut items: Vec<usize> = (0..count).collect();
            let merged = reduce(&mut items, &|&mut i| vec![i], &|a, b| [a, b].concat());
            assert_eq!(merged, (count > 0).then_some(items));
        }
    }

    #[test]
    fn the_tree_is_of_radix_32() {
        let shape = |count: usize| {
            let leaf = |_: &mut ()| 1;
            reduce(&mut vec![(); count], &leaf, &|a: i32, _| a + 1)
        };
        // A node's depth as the merges on its first child's path: 31 a level, and what is over.
        assert_eq!(shape(32), Some(32));
        assert_eq!(shape(33), Some(33));
        assert_eq!(shape(1024), Some(63));
    }
}
