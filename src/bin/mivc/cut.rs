//! A bag that does not fit the memory, pooled piece by piece.

use mivc::{Bags, Element, Features, Order, PoolState, Pooled, Pooler, Tensor};

use crate::arguments::PoolingKind;
use crate::{Result, ranking};

/// What the pieces of one bag, given in the order of their rows, have come to.
pub(crate) struct CutBag<'a> {
    pooler: &'a Pooler,
    /// `D` of the features.
    dim: usize,
    /// Rows seen, those masked out included.
    rows: usize,
    running: Running,
    /// What no instances are pooled to, which has the shapes of the results.
    nothing: Pooled,
}

enum Running {
    Attention {
        state: PoolState,
        scores: Vec<f32>,
    },
    MaxMean {
        pooling: PoolingKind,
        columns: Columns,
        /// In [`Order::Exact`], where there is a mean.
        mean: Option<PoolState>,
    },
}

impl<'a> CutBag<'a> {
    pub(crate) fn new<E: Element>(pooler: &'a Pooler, pooling: PoolingKind, dim: usize) -> Result<Self> {
        let no_images = Features::<E>::new(&[], dim)?;
        let running = match pooling.is_attention() {
            true => Running::Attention { state: pooler.empty_state(&no_images, 1)?, scores: Vec::new() },
            false => {
                let is_exact = pooler.order() == Order::Exact && pooling != PoolingKind::Max;
                let mean = is_exact.then(|| pooler.empty_state(&no_images, 1)).transpose()?;
                Running::MaxMean { pooling, columns: Columns::new(dim), mean }
            }
        };
        let nothing = pooler.pool(&no_images, &Bags::from_lengths(&[0])?)?;
        Ok(CutBag { pooler, dim, rows: 0, running, nothing })
    }

    /// Takes in the next rows of the bag.
    pub(crate) fn add<E: Element>(&mut self, features: &[E], mask: Option<&[u8]>) -> Result<()> {
        let features = Features::new(features, self.dim)?;
        let rows = features.images();
        let mut piece = Bags::from_lengths(&[rows as i64])?;
        if let Some(mask) = mask {
            piece = piece.with_mask(mask)?;
        }
        match &mut self.running {
            Running::Attention { state, scores } => {
                scores.extend(self.pooler.pool_onto(state, &features, &piece)?.data);
            }
            Running::MaxMean { pooling, columns, mean } => {
                if let Some(mean) = mean {
                    self.pooler.pool_onto(mean, &features, &piece)?;
                }
                let count = mask.map_or(rows, |mask| mask.iter().filter(|&&present| present != 0).count());
                columns.add(*pooling, &self.pooler.pool(&features, &piece)?, count, self.rows);
            }
        }
        self.rows += rows;
        Ok(())
    }

    /// As the pooler gives it for one bag.
    pub(crate) fn finish(self) -> Result<Pooled> {
        let mut pooled = self.nothing;
        match self.running {
            Running::Attention { state, scores } => {
                let mut weights = vec![0.0; scores.len()];
                // What is masked has kept the score −∞, so the weights need no mask.
                state.weights(&scores, &Bags::from_lengths(&[self.rows as i64])?, &mut weights)?;
                let shape = vec![self.rows, state.heads()];
                pooled.embeddings.data = state.pooled().to_vec();
                pooled.weights = Some(Tensor { data: weights, shape: shape.clone() });
                pooled.scores = Some(Tensor { data: scores, shape });
            }
            Running::MaxMean { pooling, columns, mean } => {
                let mean = mean.map_or_else(|| columns.mean(), |mean| mean.pooled().to_vec());
                pooled.embeddings.data = match pooling {
                    PoolingKind::Max => columns.max,
                    PoolingKind::MaxMean => [columns.max, mean].concat(),
                    _ => mean,
                };
                if let Some(argmax) = &mut pooled.argmax {
                    argmax.data = columns.argmax;
                }
            }
        }
        Ok(pooled)
    }
}

/// The heads of attention whose embedding of the bag is not finite although their weights are, each with a mask of the
/// rows whose weight is not 0.
pub(crate) fn rows_with_a_share(pooled: &Pooled) -> Vec<(usize, Vec<u8>)> {
    let Some(weights) = &pooled.weights else {
        return Vec::new();
    };
    let heads = ranking::heads(weights);
    let of_head = |head| weights.data.iter().skip(head).step_by(heads);
    let dim = pooled.embeddings.data.len() / heads;
    let broken = pooled
        .embeddings
        .data
        .chunks_exact(dim)
        .enumerate()
        .filter(|(head, z)| !z.iter().all(|z| z.is_finite()) && of_head(*head).all(|weight| weight.is_finite()));
    broken.map(|(head, _)| (head, of_head(head).map(|&weight| u8::from(weight != 0.0)).collect())).collect()
}

/// Takes the embedding of one head of the bag from `other`.
pub(crate) fn replace_head(pooled: &mut Pooled, head: usize, other: &Pooled) {
    let dim = pooled.embeddings.data.len() / pooled.weights.as_ref().map_or(1, ranking::heads);
    let of_head = head * dim..(head + 1) * dim;
    pooled.embeddings.data[of_head.clone()].copy_from_slice(&other.embeddings.data[of_head]);
}

/// Max and mean of each feature.
struct Columns {
    /// Rows seen, without those masked out.
    count: usize,
    max: Vec<f32>,
    /// Counted from the first row of the bag.
    argmax: Vec<i64>,
    /// In f64: beside the sum of all pieces, the mean of one would otherwise lose digits.
    sum: Vec<f64>,
}

impl Columns {
    fn new(dim: usize) -> Self {
        Columns { count: 0, max: vec![0.0; dim], argmax: vec![-1; dim], sum: vec![0.0; dim] }
    }

    /// Takes in a piece of `count` rows that are there, the first of its rows being number `first` of the bag.
    fn add(&mut self, pooling: PoolingKind, piece: &Pooled, count: usize, first: usize) {
        if count == 0 {
            return;
        }
        let (data, dim) = (&piece.embeddings.data, self.max.len());
        let (max, mean) = match pooling {
            PoolingKind::Max => (Some(&data[..]), None),
            PoolingKind::MaxMean => (Some(&data[..dim]), Some(&data[dim..])),
            _ => (None, Some(&data[..])),
        };
        let is_first = self.count == 0;
        for (i, &x) in max.unwrap_or_default().iter().enumerate() {
            if is_first || exceeds(x, self.max[i]) {
                self.max[i] = x;
                self.argmax[i] = piece.argmax.as_ref().map_or(-1, |argmax| argmax.data[i] + first as i64);
            } else if x == 0.0 && self.max[i] == 0.0 {
                // +0 where either is, from the earlier row: they tie.
                self.max[i] += x;
            }
        }
        for (sum, &mean) in self.sum.iter_mut().zip(mean.unwrap_or_default()) {
            *sum += f64::from(mean) * count as f64;
        }
        self.count += count;
    }

    fn mean(&self) -> Vec<f32> {
        self.sum.iter().map(|sum| (sum / self.count.max(1) as f64) as f32).collect()
    }
}

/// Whether x takes the place of a maximum of earlier rows: the first NaN does.
fn exceeds(x: f32, max: f32) -> bool {
    x > max || (x.is_nan() && !max.is_nan())
}
