//! Attention pool: scores, softmax over instances and weighted sum in one pass over the features.
//!
//! A tile of instances is scored and pooled while it is in cache; no `[N, L]` array exists. A tile
//! holds several small bags, or one chunk of a larger one. Chunks give partial results (m, l, z),
//! which merge in the fixed tree of [`chunks`](super::chunks).

use std::ops::Range;

use super::chunks::{chunks, for_each, groups, reduce, take};
use super::kernels::Output;
use super::simd::Multiply;
use super::softmax::Normaliser;
use super::source::{Columns, TileRows};
use super::tile::TILE_ROWS;
use super::weighted_sum::{add, sum_rows};
use super::workspace::{Staging, Workspace, Workspaces};
use super::{Cpu, PackedAttention, exact, with_multiply};
use crate::bags::Bags;
use crate::element::Element;
use crate::error::{Result, expect_len};
use crate::exact::sum::{Head, Total};
use crate::order::Order;
use crate::rows::Rows;
use crate::state::{PoolState, StateParts};

/// Where attention pool writes.
#[derive(Debug)]
pub struct AttentionOutputs<'a, O> {
    /// `[B, K, D]`.
    pub pooled: &'a mut [O],
    /// `[N, K]`, before the softmax.
    pub scores: Option<&'a mut [f32]>,
    /// `[N, K]`.
    pub weights: Option<&'a mut [f32]>,
    /// `[B, K]`.
    pub lse: Option<&'a mut [f32]>,
}

impl Cpu {
    /// Attention pool: scores of `keys` `[N, D']`, softmax over each bag, weighted sum of `values`
    /// `[N, D]` → pooled `[B, K, D]`. Without `values` the keys are pooled, behind the projection where
    /// the parameters are packed with one.
    ///
    /// The working memory is a tile of 126 instances and its scores for each thread, and up to 32
    /// partial results `[K, D]` for each thread and level of the tree over a large bag.
    ///
    /// # Errors
    /// [`Error::Argument`](crate::Error::Argument) where the keys are not of the dimension and type that
    /// the parameters are packed for, these are packed for another instruction set, or a slice is not
    /// of the length that its shape asks for; [`Error::Bags`](crate::Error::Bags) where the bags do not
    /// cover the keys.
    pub fn attention_pool<E: Element, O: Element>(
        &self,
        packed: &PackedAttention,
        keys: Rows<'_, E>,
        values: Option<Rows<'_, E>>,
        bags: &Bags<'_>,
        outputs: AttentionOutputs<'_, O>,
    ) -> Result<()> {
        let outputs = self.expect_outputs(packed, &keys, &values, bags, outputs)?;
        E::attention_pool(packed, self.order, keys, values, bags, outputs);
        Ok(())
    }

    /// As [`attention_pool`](Self::attention_pool), and keeps what its backward would compute again: `activations`, as
    /// [`scores_keeping`](Self::scores_keeping) has them.
    ///
    /// # Errors
    /// As [`attention_pool`](Self::attention_pool), and where `activations` does not have so many elements.
    pub fn attention_pool_keeping<E: Element, O: Element>(
        &self,
        packed: &PackedAttention,
        keys: Rows<'_, E>,
        values: Option<Rows<'_, E>>,
        bags: &Bags<'_>,
        outputs: AttentionOutputs<'_, O>,
        activations: &mut [E],
    ) -> Result<()> {
        let outputs = self.expect_outputs(packed, &keys, &values, bags, outputs)?;
        packed.units().expect_activations(keys.len(), activations.len())?;
        E::attention_pool(
            packed,
            self.order,
            keys,
            values,
            bags,
            Outputs { activations: Some(E::output(activations)), ..outputs },
        );
        Ok(())
    }

    /// The outputs, where all arguments fit together.
    fn expect_outputs<'a, E: Element, O: Element>(
        &self,
        packed: &PackedAttention,
        keys: &Rows<'_, E>,
        values: &Option<Rows<'_, E>>,
        bags: &Bags<'_>,
        outputs: AttentionOutputs<'a, O>,
    ) -> Result<Outputs<'a>> {
        let (heads, dim) = self.expect_inputs(packed, keys, values, bags)?;
        let weights_len = keys.len().saturating_mul(heads);
        let bag_heads = bags.len().saturating_mul(heads);
        expect_len("pooled", "[B, K, D]", bag_heads.saturating_mul(dim), outputs.pooled.len())?;
        for (name, shape, expected, slice) in [
            ("scores", "[N, K]", weights_len, &outputs.scores),
            ("weights", "[N, K]", weights_len, &outputs.weights),
            ("lse", "[B, K]", bag_heads, &outputs.lse),
        ] {
            if let Some(slice) = slice {
                expect_len(name, shape, expected, slice.len())?;
            }
        }
        let AttentionOutputs { pooled, scores, weights, lse } = outputs;
        Ok(Outputs {
            pooled: O::output(pooled),
            scores,
            weights,
            lse,
            max: None,
            sum: None,
            activations: None,
            states: None,
        })
    }

    /// As [`attention_pool`](Self::attention_pool), of further instances of the bags whose `state` this is: they are
    /// pooled by themselves, `[B, K, D]`, and merged into it. Their `scores`, `[N, K]`, become weights once the state
    /// has seen all instances, with [`PoolState::weights`].
    ///
    /// Bags of which this call has no instance are as they were. How its instances are cut into calls changes what a bag
    /// comes to within rounding. The working memory has another `[B, K, D]` beside that of
    /// [`attention_pool`](Self::attention_pool).
    ///
    /// ```
    /// use mivc::cpu::Cpu;
    /// use mivc::{AttentionParams, Bags, Dtype, PoolState, Rows};
    ///
    /// let params = AttentionParams::load("examples/data/attention_gated.safetensors")?;
    /// let cpu = Cpu::detect();
    /// let packed = cpu.pack(&params, Dtype::F32);
    ///
    /// // Two bags of 5 and 3 instances: 4 and 1 come first, 1 and 2 later.
    /// let mut state = PoolState::empty(2, 1, 128)?;
    /// for lengths in [[4, 1], [1, 2]] {
    ///     let features = vec![0.5_f32; (lengths[0] + lengths[1]) as usize * 128];
    ///     let bags = Bags::from_lengths(&lengths)?;
    ///     cpu.attention_pool_onto(&packed, Rows::new(&features, 128)?, None, &bags, &mut state, None)?;
    /// }
    /// assert_eq!(state.sum(), [5.0, 3.0]);
    /// assert!(state.pooled().iter().all(|z| (z - 0.5).abs() < 1e-6));
    /// # Ok::<(), mivc::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`attention_pool`](Self::attention_pool), and where the state is not of the shape `[B, K, D]` or of another
    /// order. It is then as it was.
    pub fn attention_pool_onto<E: Element>(
        &self,
        packed: &PackedAttention,
        keys: Rows<'_, E>,
        values: Option<Rows<'_, E>>,
        bags: &Bags<'_>,
        state: &mut PoolState,
        scores: Option<&mut [f32]>,
    ) -> Result<()> {
        let (heads, dim) = self.expect_inputs(packed, &keys, &values, bags)?;
        state.expect_shape("state", bags.len(), heads, dim)?;
        state.expect_order("state", self.order)?;
        if let Some(scores) = &scores {
            expect_len("scores", "[N, K]", keys.len().saturating_mul(heads), scores.len())?;
        }
        let mut piece = PoolState::empty_in(self.order, bags.len(), heads, dim)?;
        let StateParts { max, sum, pooled, exact } = piece.parts_mut();
        let (pooled, max, sum) = (Output::F32(pooled), Some(max), Some(sum));
        let outputs = Outputs { pooled, scores, weights: None, lse: None, max, sum, activations: None, states: exact };
        E::attention_pool(packed, self.order, keys, values, bags, outputs);
        state.merge(&piece)
    }

    /// `K`, and `D` of what is pooled, of inputs that fit together.
    fn expect_inputs<E: Element>(
        &self,
        packed: &PackedAttention,
        keys: &Rows<'_, E>,
        values: &Option<Rows<'_, E>>,
        bags: &Bags<'_>,
    ) -> Result<(usize, usize)> {
        packed.expect(*self, "keys", keys)?;
        bags.expect_instances(keys.len())?;
        let dim = values.map_or(packed.shape().dim, |values| values.dim());
        if let Some(values) = values {
            expect_len("values", "[N, D]", keys.len().saturating_mul(dim), values.len().saturating_mul(dim))?;
        }
        Ok((packed.shape().heads, dim))
    }
}

/// [`AttentionOutputs`], whatever type they are of, and the state beside them.
pub struct Outputs<'a> {
    pub(super) pooled: Output<'a>,
    pub(super) scores: Option<&'a mut [f32]>,
    pub(super) weights: Option<&'a mut [f32]>,
    lse: Option<&'a mut [f32]>,
    /// `[B, K]`.
    max: Option<&'a mut [f32]>,
    /// `[B, K]`.
    sum: Option<&'a mut [f32]>,
    /// As of [`Cpu::scores_keeping`].
    pub(super) activations: Option<Output<'a>>,
    /// In [`Order::Exact`], `[B, K]`.
    pub(super) states: Option<&'a mut [Head]>,
}

impl<'a> Outputs<'a> {
    /// Cuts off the share of the first bags: so many elements of `[B, K, D]`, `[N, K]`, `[B, K]` and activations.
    fn take(&mut self, pooled: usize, weights: usize, bag_heads: usize, activations: usize) -> Outputs<'a> {
        let some = |to: &mut Option<&'a mut [f32]>, n| to.as_mut().map(|to| take(to, n));
        Outputs {
            pooled: self.pooled.take(pooled),
            scores: some(&mut self.scores, weights),
            weights: some(&mut self.weights, weights),
            lse: some(&mut self.lse, bag_heads),
            max: some(&mut self.max, bag_heads),
            sum: some(&mut self.sum, bag_heads),
            activations: self.activations.as_mut().map(|to| to.take(activations)),
            states: self.states.as_mut().map(|to| take(to, bag_heads)),
        }
    }

    /// As [`write_normaliser`](Self::write_normaliser), of one head.
    pub(super) fn write_total(&mut self, at: usize, total: &Total) {
        let parts =
            [(&mut self.lse, total.lse()), (&mut self.max, total.max), (&mut self.sum, total.relative() as f32)];
        for (to, value) in parts {
            if let Some(to) = to {
                to[at] = value;
            }
        }
    }

    /// Writes what is wanted of the normaliser of the bag whose heads are `at`.
    fn write_normaliser(&mut self, at: Range<usize>, normaliser: &Normaliser) {
        if let Some(to) = &mut self.lse {
            to[at.clone()].iter_mut().zip(normaliser.lse()).for_each(|(to, lse)| *to = lse);
        }
        for (to, from) in [(&mut self.max, &normaliser.m), (&mut self.sum, &normaliser.l)] {
            if let Some(to) = to {
                to[at.clone()].copy_from_slice(from);
            }
        }
    }
}

pub(super) fn run<E: Element>(
    packed: &PackedAttention,
    order: Order,
    keys: Rows<'_, E>,
    values: Option<Rows<'_, E>>,
    bags: &Bags<'_>,
    mut outputs: Outputs<'_>,
) {
    let (heads, activations) = (packed.shape().heads, packed.activations());
    let dim = values.map_or(packed.shape().dim, |values| values.dim());
    let job = |group: Range<usize>| {
        let (rows, bag_heads) = (bags.rows_of(&group).len(), group.len() * heads);
        (group, outputs.take(bag_heads * dim, rows * heads, bag_heads, rows * activations))
    };
    let jobs: Vec<_> = groups(bags).into_iter().map(job).collect();
    with_multiply!(packed, |m, scorer| {
        let workspaces = Workspaces::new(Staging::new(m, scorer, packed.projection()));
        match order {
            Order::Rounding => {
                let pool = Pool { m, workspaces, keys, values, bags, heads, dim, activations };
                for_each(jobs, &|(group, outputs)| pool.run(group, outputs));
            }
            Order::Exact => {
                let pool = exact::attention_pool::Pool { m, workspaces, keys, values, bags, heads, dim, activations };
                for_each(jobs, &|(group, outputs)| pool.run(group, outputs));
            }
        }
    });
}

/// Rows of a bag, pooled: z = Σ exp(s − m)·x of each head, `[K, D]`.
struct Partial {
    normaliser: Normaliser,
    z: Vec<f32>,
}

impl Partial {
    fn new(heads: usize, dim: usize) -> Self {
        Partial { normaliser: Normaliser::new(heads), z: vec![0.0; heads * dim] }
    }

    fn merge(mut self, other: Partial) -> Partial {
        let dim = self.z.len() / self.normaliser.m.len();
        self.normaliser.merge(&other.normaliser, |k, mine, theirs| {
            let theirs_z = &other.z[k * dim..(k + 1) * dim];
            // A factor of 0 drops its side: 0·∞ must not arise.
            for (z, &other) in self.z[k * dim..(k + 1) * dim].iter_mut().zip(theirs_z) {
                let kept = if mine == 0.0 { 0.0 } else { *z * mine };
                *z = if theirs == 0.0 { kept } else { kept + other * theirs };
            }
        });
        self
    }

    /// z ← z / l. False where a feature came out NaN or infinite although the scores are neither: a row
    /// of weight 0 may have had a share in it, through an exponential that was not 0 before it was
    /// divided.
    fn finish(&mut self) -> bool {
        let dim = self.z.len() / self.normaliser.m.len();
        let mut sound = true;
        for (z, &l) in self.z.chunks_mut(dim).zip(&self.normaliser.l) {
            for z in z {
                *z = if l == 0.0 { 0.0 } else { *z / l };
                sound &= z.is_finite() || l.is_nan();
            }
        }
        sound
    }
}

/// A chunk of a long bag, and where its scores and activations are kept.
struct Chunk<'a> {
    rows: Range<usize>,
    kept: Option<&'a mut [f32]>,
    activations: Option<Output<'a>>,
}

struct Pool<'a, M: Multiply, E> {
    m: M,
    workspaces: Workspaces<'a, M>,
    keys: Rows<'a, E>,
    values: Option<Rows<'a, E>>,
    bags: &'a Bags<'a>,
    heads: usize,
    dim: usize,
    /// Of an instance.
    activations: usize,
}

impl<M: Multiply, E: Element> Pool<'_, M, E> {
    fn run(&self, bags: Range<usize>, outputs: Outputs<'_>) {
        if self.bags.rows_of(&bags).len() <= TILE_ROWS {
            self.tile(bags, outputs)
        } else {
            self.long_bag(bags.start, outputs)
        }
    }

    /// Bags that fill at most one tile together.
    fn tile(&self, group: Range<usize>, mut outputs: Outputs<'_>) {
        let rows = self.bags.rows_of(&group);
        let mut scores = vec![0.0; rows.len() * self.heads];
        let mut p = vec![0.0; rows.len() * self.heads];
        let mut partial = Partial::new(self.heads, self.dim);
        self.workspaces.with(|work| {
            self.score(work, rows.clone(), &mut scores, outputs.activations.as_mut());
            if let Some(to) = &mut outputs.scores {
                to.copy_from_slice(&scores);
            }
            for (i, b) in group.enumerate() {
                let bag = self.bags.range(b);
                let in_tile = bag.start - rows.start..bag.end - rows.start;
                let scores = &mut scores[in_tile.start * self.heads..in_tile.end * self.heads];
                let p = &mut p[..scores.len()];
                self.pool_scored(work, in_tile.clone(), bag.start, scores, p, &mut partial);
                let sound = partial.finish();
                if !sound || outputs.weights.is_some() {
                    self.weigh(scores, &partial.normaliser);
                }
                if !sound {
                    self.sum(work, in_tile.clone(), bag.start, scores, &mut partial.z);
                }
                outputs.pooled.write(i * partial.z.len()..(i + 1) * partial.z.len(), &partial.z);
                if let Some(weights) = &mut outputs.weights {
                    weights[in_tile.start * self.heads..in_tile.end * self.heads].copy_from_slice(scores);
                }
                outputs.write_normaliser(i * self.heads..(i + 1) * self.heads, &partial.normaliser);
            }
        });
    }

    /// One bag in chunks.
    fn long_bag(&self, b: usize, mut outputs: Outputs<'_>) {
        let bag = self.bags.range(b);
        let chunk_len = TILE_ROWS * self.heads;

        // Scores are kept where either output wants them, and become weights below.
        let kept = outputs.scores.as_deref_mut().or(outputs.weights.as_deref_mut());
        let mut kept = kept.map(|kept| kept.chunks_mut(chunk_len));
        let activations = &mut outputs.activations;
        let item = |rows: Range<usize>| {
            let activations = activations.as_mut().map(|to| to.take(rows.len() * self.activations));
            Chunk { rows, kept: kept.as_mut().and_then(Iterator::next), activations }
        };
        let mut items: Vec<_> = chunks(bag.clone()).map(item).collect();
        let leaf = |chunk: &mut Chunk<'_>| self.chunk(chunk);
        let merge = |a: Partial, b: Partial| a.merge(b);
        let Some(mut partial) = reduce(&mut items, &leaf, &merge) else { return };

        if !partial.finish() {
            let leaf = |rows: &mut Range<usize>| self.weighted_chunk(rows.clone(), &partial.normaliser);
            partial.z = reduce(&mut chunks(bag).collect::<Vec<_>>(), &leaf, &add).unwrap_or_default();
        }
        outputs.pooled.write(0..partial.z.len(), &partial.z);
        outputs.write_normaliser(0..self.heads, &partial.normaliser);
        if let Some(weights) = outputs.weights {
            if let Some(scores) = outputs.scores {
                weights.copy_from_slice(scores);
            }
            for_each(weights.chunks_mut(chunk_len).collect(), &|scores| self.weigh(scores, &partial.normaliser));
        }
    }

    fn chunk(&self, Chunk { rows, kept, activations }: &mut Chunk<'_>) -> Partial {
        let mut scores = vec![0.0; rows.len() * self.heads];
        let mut p = scores.clone();
        let mut partial = Partial::new(self.heads, self.dim);
        self.workspaces.with(|work| {
            self.score(work, rows.clone(), &mut scores, activations.as_mut());
            self.pool_scored(work, 0..rows.len(), rows.start, &scores, &mut p, &mut partial);
        });
        if let Some(kept) = kept {
            kept.copy_from_slice(&scores);
        }
        partial
    }

    /// The weighted sum of a chunk of a bag whose normaliser is known.
    fn weighted_chunk(&self, rows: Range<usize>, normaliser: &Normaliser) -> Vec<f32> {
        let mut weights = vec![0.0; rows.len() * self.heads];
        let mut z = vec![0.0; self.heads * self.dim];
        self.workspaces.with(|work| {
            self.score(work, rows.clone(), &mut weights, None);
            self.weigh(&mut weights, normaliser);
            self.sum(work, 0..rows.len(), rows.start, &weights, &mut z);
        });
        z
    }

    fn score(
        &self,
        work: &mut Workspace<'_, M>,
        rows: Range<usize>,
        scores: &mut [f32],
        activations: Option<&mut Output<'_>>,
    ) {
        work.score(self.keys, rows, self.bags.mask(), scores, activations);
    }

    /// m, l and z of the rows `in_tile` of the staged tile, the first of which is instance `first`.
    fn pool_scored(
        &self,
        work: &Workspace<'_, M>,
        in_tile: Range<usize>,
        first: usize,
        scores: &[f32],
        p: &mut [f32],
        partial: &mut Partial,
    ) {
        partial.normaliser.of_scores(self.m.simd(), scores, p);
        self.sum(work, in_tile, first, p, &mut partial.z);
    }

    /// z = Σ p·x over the rows `in_tile` of the staged tile, the first of which is instance `first`.
    fn sum(&self, work: &Workspace<'_, M>, in_tile: Range<usize>, first: usize, p: &[f32], z: &mut [f32]) {
        let simd = self.m.simd();
        for (head, z) in z.chunks_mut(self.dim).enumerate() {
            match self.values {
                None => {
                    let rows = TileRows { tile: work.tile(), first: in_tile.start };
                    sum_rows(simd, p, self.heads, head, rows, z);
                }
                Some(rows) => {
                    let columns = Columns { rows, first, start: 0, dim: self.dim };
                    sum_rows(simd, p, self.heads, head, columns, z);
                }
            }
        }
    }

    fn weigh(&self, scores: &mut [f32], normaliser: &Normaliser) {
        normaliser.scores_to_weights(self.m.simd(), scores);
    }
}
