//! Softmax with an exact sum of exponentials.

use super::super::chunks::{for_each, reduce};
use super::super::tile::TILE_ROWS;
use super::{LEAF_ROWS, merged};
use crate::exact::sum::{Mass, Total};

/// Turns the scores of a bag `[n, K]` into weights; writes lse `[K]`.
pub(in crate::cpu) fn softmax_of_bag(scores: &mut [f32], lse: &mut [f32]) {
    let heads = lse.len();
    let totals = totals(scores, heads);
    lse.iter_mut().zip(&totals).for_each(|(lse, total)| *lse = total.lse());
    for_each(scores.chunks_mut(TILE_ROWS * heads).collect(), &|scores| weigh(scores, &totals));
}

/// Weights in place of scores `[n, K]`.
pub(super) fn weigh(scores: &mut [f32], totals: &[Total]) {
    for scores in scores.chunks_mut(totals.len()) {
        scores.iter_mut().zip(totals).for_each(|(score, total)| *score = total.weight(*score));
    }
}

fn totals(scores: &[f32], heads: usize) -> Vec<Total> {
    let leaf = |scores: &mut &[f32]| {
        let mut masses = vec![Mass::new(); heads];
        for scores in scores.chunks(heads) {
            for (mass, &score) in masses.iter_mut().zip(scores) {
                mass.add(score);
            }
        }
        masses.iter_mut().for_each(|mass| mass.exponentials.carry());
        masses
    };
    let merge = |a, b| merged(a, b, Mass::merge);
    let masses = reduce(&mut scores.chunks(LEAF_ROWS * heads).collect::<Vec<_>>(), &leaf, &merge);
    masses.unwrap_or_else(|| vec![Mass::new(); heads]).iter_mut().map(Mass::total).collect()
}
