//! What one thread needs to turn a run of instances into staged features and scores.

use std::ops::Range;
use std::sync::{Mutex, PoisonError};

use super::kernels::Output;
use super::projection::PackedProjection;
use super::scores::{PackedScores, Sums};
use super::simd::{Multiply, Simd};
use super::tile::Tile;
use crate::bags::present;
use crate::element::Element;
use crate::rows::Rows;

/// How instances get from memory to scores.
#[derive(Clone, Copy)]
pub(super) struct Staging<'a, M: Multiply> {
    m: M,
    scorer: &'a PackedScores<M::Staged>,
    projection: Option<&'a PackedProjection>,
}

impl<'a, M: Multiply> Staging<'a, M> {
    pub(super) fn new(m: M, scorer: &'a PackedScores<M::Staged>, projection: Option<&'a PackedProjection>) -> Self {
        Staging { m, scorer, projection }
    }
}

/// A thread's buffers for one tile.
pub(super) struct Workspace<'a, M: Multiply> {
    staging: Staging<'a, M>,
    /// The instances as they are scored and, where they are their own values, pooled.
    tile: Tile<M::Staged>,
    /// Before the projection.
    input: Option<Tile<f32>>,
    sums: Sums,
}

impl<'a, M: Multiply> Workspace<'a, M> {
    fn new(staging: Staging<'a, M>) -> Self {
        let shape = staging.scorer.shape();
        let strip = M::Simd::STRIP;
        Workspace {
            staging,
            tile: Tile::new(shape.dim, strip),
            input: staging.projection.map(|projection| Tile::new(projection.input(), strip)),
            sums: Sums::new::<M::Simd>(shape.heads),
        }
    }

    pub(super) fn tile(&self) -> &Tile<M::Staged> {
        &self.tile
    }

    /// Stages instances `rows` and scores them: `scores` is `[rows, K]`. What is masked is staged as
    /// zeros, its features unread, and scored −∞; where activations are kept, its own are 0.
    pub(super) fn score<E: Element>(
        &mut self,
        features: Rows<'_, E>,
        rows: Range<usize>,
        mask: Option<&[u8]>,
        scores: &mut [f32],
        mut activations: Option<&mut Output<'_>>,
    ) {
        let Staging { m, scorer, projection } = self.staging;
        let (simd, count) = (m.simd(), rows.len());
        match (&mut self.input, projection) {
            (Some(input), Some(projection)) => {
                stage(simd, input, features, rows.clone(), |n| present(mask, n));
                projection.project_tile(simd, input, count, &mut self.sums.products, &mut self.tile);
            }
            _ => stage(simd, &mut self.tile, features, rows.clone(), |n| present(mask, n)),
        }
        scorer.of_tile(m, &self.tile, count, &mut self.sums, scores, activations.as_deref_mut());
        let len = scorer.units().activations();
        for (i, (row, scores)) in rows.zip(scores.chunks_mut(scorer.shape().heads)).enumerate() {
            if present(mask, row) {
                continue;
            }
            scores.fill(f32::NEG_INFINITY);
            if let Some(activations) = &mut activations {
                activations.fill(i * len..(i + 1) * len, 0.0);
            }
        }
    }
}

/// Stages instances `rows`, those that are not read as zeros.
pub(super) fn stage<S: Simd, X: Element, E: Element>(
    simd: S,
    tile: &mut Tile<X>,
    features: Rows<'_, E>,
    rows: Range<usize>,
    is_read: impl Fn(usize) -> bool,
) {
    simd.vectorize(
        #[inline(always)]
        || {
            for (to, from) in rows.enumerate() {
                if is_read(from) {
                    tile.stage(simd, to, features.row(from));
                } else {
                    tile.clear(to);
                }
            }
        },
    );
}

/// The workspaces of one call: as many as threads take one at a time.
pub(super) struct Workspaces<'a, M: Multiply> {
    staging: Staging<'a, M>,
    free: Mutex<Vec<Workspace<'a, M>>>,
}

impl<'a, M: Multiply> Workspaces<'a, M> {
    pub(super) fn new(staging: Staging<'a, M>) -> Self {
        Workspaces { staging, free: Mutex::default() }
    }

    /// Lends a workspace to `f`.
    pub(super) fn with<R>(&self, f: impl FnOnce(&mut Workspace<'a, M>) -> R) -> R {
        let free = || self.free.lock().unwrap_or_else(PoisonError::into_inner);
        let lent = free().pop();
        let mut workspace = lent.unwrap_or_else(|| Workspace::new(self.staging));
        let result = f(&mut workspace);
        free().push(workspace);
        result
    }
}
