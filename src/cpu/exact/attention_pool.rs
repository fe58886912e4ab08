//! Attention pool in integers: the tiles of [`attention_pool`](super::super::attention_pool), without a running maximum.

use std::ops::Range;

use super::super::attention_pool::Outputs;
use super::super::chunks::{chunks, for_each, reduce, take};
use super::super::kernels::Output;
use super::super::simd::{Multiply, Simd};
use super::super::source::{Columns, Source, TileRows};
use super::super::tile::TILE_ROWS;
use super::super::workspace::{Workspace, Workspaces};
use super::rows::{RowSums, Weight, Weighted};
use super::softmax::weigh;
use super::{leaves, merged};
use crate::bags::{Bags, present};
use crate::element::Element;
use crate::exact::sum::{Head, Total};
use crate::rows::Rows;

pub(in crate::cpu) struct Pool<'a, M: Multiply, E> {
    pub(in crate::cpu) m: M,
    pub(in crate::cpu) workspaces: Workspaces<'a, M>,
    pub(in crate::cpu) keys: Rows<'a, E>,
    pub(in crate::cpu) values: Option<Rows<'a, E>>,
    pub(in crate::cpu) bags: &'a Bags<'a>,
    pub(in crate::cpu) heads: usize,
    pub(in crate::cpu) dim: usize,
    /// Of an instance.
    pub(in crate::cpu) activations: usize,
}

/// A part of a long bag, and where its scores and activations are kept.
struct Leaf<'a> {
    rows: Range<usize>,
    kept: Option<&'a mut [f32]>,
    activations: Option<Output<'a>>,
}

impl<M: Multiply, E: Element> Pool<'_, M, E> {
    /// Bags that fill at most one tile together, or a single one that does not.
    pub(in crate::cpu) fn run(&self, bags: Range<usize>, outputs: Outputs<'_>) {
        if self.bags.rows_of(&bags).len() <= TILE_ROWS {
            self.tile(bags, outputs)
        } else {
            self.long_bag(bags.start, outputs)
        }
    }

    fn tile(&self, group: Range<usize>, mut outputs: Outputs<'_>) {
        let rows = self.bags.rows_of(&group);
        let mut scores = vec![0.0; rows.len() * self.heads];
        let (mut sums, mut heads) = (RowSums::new(), self.new_heads());
        self.workspaces.with(|work| {
            work.score(self.keys, rows.clone(), self.bags.mask(), &mut scores, outputs.activations.as_mut());
            if let Some(to) = &mut outputs.scores {
                to.copy_from_slice(&scores);
            }
            for (i, b) in group.enumerate() {
                let bag = self.bags.range(b);
                let in_tile = bag.start - rows.start..bag.end - rows.start;
                let of_bag = in_tile.start * self.heads..in_tile.end * self.heads;
                heads.iter_mut().for_each(Head::clear);
                self.add(work, in_tile, bag.start, &scores[of_bag.clone()], &mut sums, &mut heads);
                let totals = self.finish(i, &mut heads, &mut outputs);
                if let Some(weights) = &mut outputs.weights {
                    let weights = &mut weights[of_bag.clone()];
                    weights.copy_from_slice(&scores[of_bag]);
                    weigh(weights, &totals);
                }
            }
        });
    }

    fn long_bag(&self, b: usize, mut outputs: Outputs<'_>) {
        let bag = self.bags.range(b);
        // Scores are kept where either output wants them, and become weights below.
        let mut kept = outputs.scores.as_deref_mut().or(outputs.weights.as_deref_mut());
        let activations = &mut outputs.activations;
        let leaf = |rows: Range<usize>| Leaf {
            kept: kept.as_mut().map(|kept| take(kept, rows.len() * self.heads)),
            activations: activations.as_mut().map(|to| to.take(rows.len() * self.activations)),
            rows,
        };
        let mut items: Vec<_> = leaves(bag).into_iter().map(leaf).collect();
        let merge = |a, b| merged(a, b, Head::merge);
        let heads = reduce(&mut items, &|leaf: &mut Leaf<'_>| self.leaf(leaf), &merge);
        let totals = self.finish(0, &mut heads.unwrap_or_else(|| self.new_heads()), &mut outputs);
        if let Some(weights) = outputs.weights {
            if let Some(scores) = outputs.scores {
                weights.copy_from_slice(scores);
            }
            for_each(weights.chunks_mut(TILE_ROWS * self.heads).collect(), &|scores| weigh(scores, &totals));
        }
    }

    fn leaf(&self, leaf: &mut Leaf<'_>) -> Vec<Head> {
        let (mut sums, mut heads) = (RowSums::new(), self.new_heads());
        let mut scores = vec![0.0; TILE_ROWS * self.heads];
        self.workspaces.with(|work| {
            for rows in chunks(leaf.rows.clone()) {
                let scores = &mut scores[..rows.len() * self.heads];
                let mut activations = leaf.activations.as_mut().map(|to| to.take(rows.len() * self.activations));
                work.score(self.keys, rows.clone(), self.bags.mask(), scores, activations.as_mut());
                if let Some(kept) = &mut leaf.kept {
                    let start = (rows.start - leaf.rows.start) * self.heads;
                    kept[start..start + scores.len()].copy_from_slice(scores);
                }
                self.add(work, 0..rows.len(), rows.start, scores, &mut sums, &mut heads);
            }
        });
        heads.iter_mut().for_each(Head::carry);
        heads
    }

    fn new_heads(&self) -> Vec<Head> {
        vec![Head::new(self.dim); self.heads]
    }

    /// Adds the rows `in_tile` of the staged tile, the first of which is instance `first`.
    fn add(
        &self,
        work: &Workspace<'_, M>,
        in_tile: Range<usize>,
        first: usize,
        scores: &[f32],
        sums: &mut RowSums,
        heads: &mut [Head],
    ) {
        let is_read = |row| present(self.bags.mask(), first + row);
        match self.values {
            None => {
                let rows = TileRows { tile: work.tile(), first: in_tile.start };
                sums.measure(self.m.simd(), in_tile.len(), is_read, self.dim, rows);
                self.add_from(rows, scores, sums, heads);
            }
            Some(rows) => {
                let rows = Columns { rows, first, start: 0, dim: self.dim };
                sums.measure(self.m.simd(), in_tile.len(), is_read, self.dim, rows);
                self.add_from(rows, scores, sums, heads);
            }
        }
    }

    fn add_from(&self, rows: impl Source<M::Simd>, scores: &[f32], sums: &mut RowSums, heads: &mut [Head]) {
        for (k, Head { mass, sum }) in heads.iter_mut().enumerate() {
            let of_head = scores.iter().skip(k).step_by(self.heads).enumerate();
            let weighted = of_head.filter_map(|(row, &score)| {
                mass.add(score).map(|power| Weighted { row, weight: Weight::Finite(power), score })
            });
            sums.add(self.m.simd(), weighted, rows, sum);
        }
    }

    /// Writes what is wanted of the heads of a bag, the `i`th of the outputs.
    fn finish(&self, i: usize, heads: &mut [Head], outputs: &mut Outputs<'_>) -> Vec<Total> {
        let mut z = vec![0.0; self.heads * self.dim];
        let mut totals = Vec::with_capacity(self.heads);
        self.m.simd().vectorize(
            #[inline(always)]
            || {
                for (head, z) in heads.iter_mut().zip(z.chunks_mut(self.dim)) {
                    totals.push(head.finish(z));
                }
            },
        );
        outputs.pooled.write(i * z.len()..(i + 1) * z.len(), &z);
        for (k, (total, head)) in totals.iter().zip(heads).enumerate() {
            outputs.write_total(i * self.heads + k, total);
            if let Some(states) = &mut outputs.states {
                states[i * self.heads + k].clone_from(head);
            }
        }
        totals
    }
}
