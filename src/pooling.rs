//! The front door: one type for the four fusions.

mod cpu;
#[cfg(feature = "cuda")]
mod cuda;

use std::borrow::Cow;

use crate::attention::{AttentionParams, AttentionShape};
use crate::bags::{Bags, present};
use crate::cpu::{AttentionOutputs, MaxMeanOutputs};
use crate::element::Element;
use crate::error::{Error, Result};
use crate::features::{Features, Unit};
use crate::order::Order;
use crate::rows::Rows;
use crate::state::{PoolState, position_second};

/// How the instances of a bag become one embedding.
#[derive(Debug, Clone, PartialEq)]
#[expect(clippy::large_enum_variant, reason = "there is one per pooler, and a box would be in every caller's way")]
pub enum Pooling {
    /// The mean of each feature.
    Mean,
    /// The maximum of each feature.
    Max,
    /// Both, in one read of the features.
    MaxMean,
    /// Attention, gated where the parameters have a U.
    Attention(AttentionParams),
}

/// Where the pooling runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Device {
    /// The CPU backend, on the threads of the current rayon pool.
    Cpu,
    /// The CUDA device of this number, counted from 0. Features are copied there, results back.
    #[cfg(feature = "cuda")]
    Cuda(usize),
}

/// A dense row-major array.
#[derive(Debug, Clone, PartialEq)]
pub struct Tensor<T> {
    /// The elements; as many as the product of `shape`.
    pub data: Vec<T>,
    /// The sizes, outermost first.
    pub shape: Vec<usize>,
}

/// What [`Pooler::pool`] returns.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Pooled {
    /// The embeddings: `[B, D]` for mean and max, `[B, 2, D]` for both (the maxima, then the means),
    /// `[B, K, D]` for attention. Token axes are as in [`Features`].
    pub embeddings: Tensor<f32>,
    /// For max alone: the row that each maximum came from, shaped like the embeddings; −1 where the
    /// bag is empty. Rows are images, except that [`Features::all_tokens`] has `N·T` of them.
    pub argmax: Option<Tensor<i64>>,
    /// For attention: the weights, `[N, K]`, or `[N, T, K]` where tokens have weights. Those of a bag
    /// and head add up to 1.
    pub weights: Option<Tensor<f32>>,
    /// For attention: the scores before the softmax, shaped like the weights.
    pub scores: Option<Tensor<f32>>,
}

/// A pooling, ready to run on a device.
///
/// ```
/// use mivc::{AttentionParams, Bags, Device, Features, Pooler, Pooling};
///
/// let params = AttentionParams::load("examples/data/attention_gated.safetensors")?;
/// let pooler = Pooler::new(Pooling::Attention(params), Device::Cpu)?;
///
/// let images = vec![0.5_f32; 5 * 128];
/// let out = pooler.pool(&Features::new(&images, 128)?, &Bags::from_lengths(&[2, 3])?)?;
/// assert_eq!(out.embeddings.shape, [2, 1, 128]);
/// assert_eq!(out.weights.unwrap().data[..2], [0.5, 0.5]);
/// # Ok::<(), mivc::Error>(())
/// ```
#[derive(Debug)]
pub struct Pooler {
    pooling: Pooling,
    backend: Backend,
}

impl Pooler {
    /// Prepares a pooling for a device.
    ///
    /// # Errors
    /// None for [`Device::Cpu`]. For a CUDA device, where it is not there or cannot run the kernels.
    pub fn new(pooling: Pooling, device: Device) -> Result<Self> {
        let backend = match device {
            Device::Cpu => Backend::Cpu(cpu::Cpu::new()),
            #[cfg(feature = "cuda")]
            Device::Cuda(ordinal) => Backend::Cuda(cuda::Cuda::new(ordinal)?),
        };
        Ok(Pooler { pooling, backend })
    }

    /// Applies the projection (Linear+ReLU) that the parameters hold in front of the attention: the
    /// features are then those that go into it, and the embeddings are of what comes out. Of
    /// [`Features::per_image`] it applies to the keys alone.
    ///
    /// # Errors
    /// Where this is no attention, or its parameters hold no projection; and on a CUDA device, which has no kernel
    /// for it yet.
    pub fn project(mut self) -> Result<Self> {
        let projection = match &self.pooling {
            Pooling::Attention(params) => params.projection(),
            _ => None,
        };
        if projection.is_none() {
            return Err(Error::argument("pooling", "attention parameters with a projection (Linear+ReLU)", "none"));
        }
        self.backend.project()?;
        Ok(self)
    }

    /// The same, in the given [`Order`]: of [`Order::Exact`], permuting the images of a bag changes no bit of an
    /// embedding.
    ///
    /// ```
    /// use mivc::{AttentionParams, Bags, Device, Features, Order, Pooler, Pooling};
    ///
    /// let params = AttentionParams::load("examples/data/attention_gated.safetensors")?;
    /// let pooler = Pooler::new(Pooling::Attention(params), Device::Cpu)?.with_order(Order::Exact);
    ///
    /// let images: Vec<f32> = (0..500 * 128).map(|i| (i as f32).sin()).collect();
    /// let reversed: Vec<f32> = images.rchunks(128).flatten().copied().collect();
    /// let bag = Bags::from_lengths(&[500])?;
    /// let one = pooler.pool(&Features::new(&images, 128)?, &bag)?;
    /// let other = pooler.pool(&Features::new(&reversed, 128)?, &bag)?;
    /// assert_eq!(one.embeddings, other.embeddings);
    /// # Ok::<(), mivc::Error>(())
    /// ```
    ///
    pub fn with_order(mut self, order: Order) -> Self {
        match &mut self.backend {
            Backend::Cpu(cpu) => cpu.set_order(order),
            #[cfg(feature = "cuda")]
            Backend::Cuda(cuda) => cuda.set_order(order),
        }
        self
    }

    /// What the order of a bag's images may change.
    pub fn order(&self) -> Order {
        self.backend.order()
    }

    /// Pools every bag; the bags count images.
    ///
    /// # Errors
    /// [`Error::Bags`] where the bags do not cover the features, [`Error::Argument`] where the
    /// features are not of the dimension that the parameters have.
    pub fn pool<E: Element>(&self, features: &Features<'_, E>, bags: &Bags<'_>) -> Result<Pooled> {
        bags.expect_instances(features.images())?;
        match &self.pooling {
            Pooling::Attention(params) => self.attention(params, features, bags),
            Pooling::Mean => self.max_mean(features, bags, &[Half::Mean]),
            Pooling::Max => self.max_mean(features, bags, &[Half::Max]),
            Pooling::MaxMean => self.max_mean(features, bags, &[Half::Max, Half::Mean]),
        }
    }

    /// The state of `bags` bags of which nothing has been seen, for [`pool_onto`](Self::pool_onto) and features of this
    /// kind, however many.
    ///
    /// # Errors
    /// Where this is the maximum, which has none.
    pub fn empty_state<E: Element>(&self, features: &Features<'_, E>, bags: usize) -> Result<PoolState> {
        let [heads, dim] = self.state_row(features)?;
        PoolState::empty_in(self.backend.order(), bags, heads, dim)
    }

    /// Pools further images of the bags whose `state` this is, and merges them into it; `bags` holds as many bags as
    /// the state, of the images of this call alone. A bag of which there are none is as it was. Returns the scores,
    /// shaped as those of [`pool`](Self::pool).
    ///
    /// So bags larger than the memory are pooled in pieces. [`PoolState::pooled`] is what [`pool`](Self::pool) would
    /// make of all images, to within rounding (in [`Order::Exact`] to the last bit), and laid out like it. [`PoolState::weights`] turns scores into
    /// weights once all images have been seen; of [`Features::all_tokens`] it takes the bags
    /// [`of_tokens`](Bags::of_tokens).
    ///
    /// | features | the state's B, K, D |
    /// | --- | --- |
    /// | [`Features::new`], [`Features::all_tokens`] | B, K, D |
    /// | [`Features::per_image`] | B, K, T·D |
    /// | [`Features::per_position`] | B, T·K, D: the heads of each position |
    ///
    /// The mean has a state as well, B, 1 and the features of an image: that of an attention whose scores are all 0. Of
    /// [`Pooling::MaxMean`] it is the state of the mean.
    ///
    /// ```
    /// use mivc::{AttentionParams, Bags, Device, Features, Pooler, Pooling};
    ///
    /// let params = AttentionParams::load("examples/data/attention_gated.safetensors")?;
    /// let pooler = Pooler::new(Pooling::Attention(params), Device::Cpu)?;
    ///
    /// // One bag of 50 images, of which 20 fit at a time.
    /// let images = vec![0.5_f32; 50 * 128];
    /// let mut state = pooler.empty_state(&Features::<f32>::new(&[], 128)?, 1)?;
    /// let mut scores = Vec::new();
    /// for piece in images.chunks(20 * 128) {
    ///     let features = Features::new(piece, 128)?;
    ///     let bags = Bags::from_lengths(&[features.images() as i64])?;
    ///     scores.extend(pooler.pool_onto(&mut state, &features, &bags)?.data);
    /// }
    /// let mut weights = vec![0.0; 50];
    /// state.weights(&scores, &Bags::from_lengths(&[50])?, &mut weights)?;
    /// assert!(weights.iter().all(|weight| (weight - 0.02).abs() < 1e-6));
    /// # Ok::<(), mivc::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`pool`](Self::pool); where this is the maximum, or the state is not of the shape above or of another order. The
    /// state is then as it was.
    pub fn pool_onto<E: Element>(
        &self,
        state: &mut PoolState,
        features: &Features<'_, E>,
        bags: &Bags<'_>,
    ) -> Result<Tensor<f32>> {
        bags.expect_instances(features.images())?;
        let [heads, dim] = self.state_row(features)?;
        state.expect_shape("state", bags.len(), heads, dim)?;
        state.expect_order("state", self.backend.order())?;
        let instances = instances(features, bags)?;
        let Pooling::Attention(params) = &self.pooling else {
            let (rows, _) = columns(features);
            self.backend.mean_onto(rows, &instances, state)?;
            return Ok(scores_of_mean(&instances));
        };
        let (piece, scores) = self.backend.attention_state(params, call(features, &instances))?;
        match features.unit {
            Unit::Position { tokens } => state.merge(&piece.position_second(tokens))?,
            _ => state.merge(&piece)?,
        }
        Ok(per_image(features, params.shape().heads, scores))
    }

    /// K and D of the state of such features.
    fn state_row<E: Element>(&self, features: &Features<'_, E>) -> Result<[usize; 2]> {
        match &self.pooling {
            Pooling::Attention(params) => Ok(state_row(params, features)),
            Pooling::Mean | Pooling::MaxMean => Ok([1, columns(features).0.dim()]),
            Pooling::Max => Err(Error::argument("pooling", "attention or mean, which have a state", "max")),
        }
    }

    fn attention<E: Element>(
        &self,
        params: &AttentionParams,
        features: &Features<'_, E>,
        bags: &Bags<'_>,
    ) -> Result<Pooled> {
        let AttentionShape { dim, heads, .. } = params.shape();
        let instances = instances(features, bags)?;
        let Attention { mut embeddings, weights, scores } =
            self.backend.attention(params, call(features, &instances))?;
        let shape = match features.unit {
            Unit::Image | Unit::Token { .. } => vec![bags.len(), heads, dim],
            Unit::ImageOf { values, tokens } => vec![bags.len(), heads, tokens, values.dim() / tokens],
            Unit::Position { tokens } => {
                embeddings = position_second(&embeddings, tokens, heads * dim);
                vec![bags.len(), tokens, heads, dim]
            }
        };
        Ok(Pooled {
            embeddings: Tensor { data: embeddings, shape },
            argmax: None,
            weights: Some(per_image(features, heads, weights)),
            scores: Some(per_image(features, heads, scores)),
        })
    }

    /// Max, mean or both, side by side in the embeddings in the order of `halves`.
    fn max_mean<E: Element>(&self, features: &Features<'_, E>, bags: &Bags<'_>, halves: &[Half]) -> Result<Pooled> {
        let (rows, tokens) = columns(features);
        let bags = &*instances(features, bags)?;
        let dim = rows.dim();
        let mut shape = vec![bags.len()];
        shape.extend((halves.len() > 1).then_some(halves.len()));
        shape.extend(tokens);
        shape.push(dim / tokens.unwrap_or(1));

        let mut pooled: Vec<_> = halves.iter().map(|_| vec![0.0_f32; bags.len() * dim]).collect();
        let mut argmax = (halves == [Half::Max]).then(|| vec![0; bags.len() * dim]);
        let mut outputs = MaxMeanOutputs { argmax: argmax.as_deref_mut(), ..Default::default() };
        for (half, pooled) in halves.iter().zip(&mut pooled) {
            match half {
                Half::Max => outputs.max = Some(pooled),
                Half::Mean => outputs.mean = Some(pooled),
            }
        }
        self.backend.max_mean(rows, bags, outputs)?;
        let embeddings = match &pooled[..] {
            [max, mean] => max.chunks(dim).zip(mean.chunks(dim)).flat_map(|(a, b)| [a, b].concat()).collect(),
            _ => pooled.concat(),
        };
        Ok(Pooled {
            embeddings: Tensor { data: embeddings, shape: shape.clone() },
            argmax: argmax.map(|data| Tensor { data, shape }),
            weights: None,
            scores: None,
        })
    }
}

/// What a device becomes.
#[derive(Debug)]
#[allow(clippy::large_enum_variant, reason = "there is one per pooler")]
enum Backend {
    Cpu(cpu::Cpu),
    #[cfg(feature = "cuda")]
    Cuda(cuda::Cuda),
}

impl Backend {
    fn order(&self) -> Order {
        match self {
            Backend::Cpu(cpu) => cpu.operations.order(),
            #[cfg(feature = "cuda")]
            Backend::Cuda(cuda) => cuda.order(),
        }
    }

    /// Puts the projection of the parameters, which hold one, in front.
    fn project(&mut self) -> Result<()> {
        match self {
            Backend::Cpu(cpu) => cpu.project(),
            #[cfg(feature = "cuda")]
            Backend::Cuda(cuda) => cuda.project()?,
        }
        Ok(())
    }

    fn max_mean<E: Element>(&self, rows: Rows<'_, E>, bags: &Bags<'_>, outputs: MaxMeanOutputs<'_, f32>) -> Result<()> {
        match self {
            Backend::Cpu(cpu) => cpu.max_mean(rows, bags, outputs),
            #[cfg(feature = "cuda")]
            Backend::Cuda(cuda) => cuda.max_mean(rows, bags, outputs),
        }
    }

    fn mean_onto<E: Element>(&self, rows: Rows<'_, E>, bags: &Bags<'_>, state: &mut PoolState) -> Result<()> {
        match self {
            Backend::Cpu(cpu) => cpu.operations.mean_onto(rows, bags, state),
            #[cfg(feature = "cuda")]
            Backend::Cuda(cuda) => cuda.mean_onto(rows, bags, state),
        }
    }

    /// The backend packs the parameters on first use: they are the same in every call.
    fn attention<E: Element>(&self, params: &AttentionParams, call: Call<'_, E>) -> Result<Attention> {
        match self {
            Backend::Cpu(cpu) => cpu.attention(params, call),
            #[cfg(feature = "cuda")]
            Backend::Cuda(cuda) => cuda.attention(params, call),
        }
    }

    /// The state of these instances alone, `[P·B, K, D]`, those of the first position first, and their scores
    /// `[P, N, K]`.
    fn attention_state<E: Element>(
        &self,
        params: &AttentionParams,
        call: Call<'_, E>,
    ) -> Result<(PoolState, Vec<f32>)> {
        match self {
            Backend::Cpu(cpu) => cpu.attention_state(params, call),
            #[cfg(feature = "cuda")]
            Backend::Cuda(cuda) => cuda.attention_state(params, call),
        }
    }
}

/// What max and mean can give.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Half {
    Max,
    Mean,
}

/// What attention reads.
#[derive(Clone, Copy)]
struct Call<'a, E> {
    /// `[N, D']`, contiguous; `[N·P, D']` where there are `P` positions.
    keys: Rows<'a, E>,
    /// `[N, D]`, contiguous. Without them, as always where there are positions, the keys are pooled.
    values: Option<Rows<'a, E>>,
    /// `P`: each position is pooled over the images by itself.
    positions: usize,
    /// Of `N` instances.
    bags: &'a Bags<'a>,
}

/// What max and mean pool, and the tokens of a row: each feature by itself, so that token positions are just more columns.
fn columns<'a, E: Element>(features: &Features<'a, E>) -> (Rows<'a, E>, Option<usize>) {
    match features.unit {
        Unit::Image | Unit::Token { .. } => (features.rows, None),
        Unit::ImageOf { values, tokens } => (values, Some(tokens)),
        Unit::Position { tokens } => (features.rows.joined(tokens), Some(tokens)),
    }
}

/// 0 for every instance that is there, `[N, 1]`.
fn scores_of_mean(bags: &Bags<'_>) -> Tensor<f32> {
    let score = |n| if present(bags.mask(), n) { 0.0 } else { f32::NEG_INFINITY };
    Tensor { data: (0..bags.instances()).map(score).collect(), shape: vec![bags.instances(), 1] }
}

/// The bags of what has a weight of its own: images, or all tokens of them.
fn instances<'a, E: Element>(features: &Features<'_, E>, bags: &'a Bags<'a>) -> Result<Cow<'a, Bags<'a>>> {
    Ok(match features.unit {
        Unit::Token { tokens } => Cow::Owned(bags.of_tokens(tokens)?),
        _ => Cow::Borrowed(bags),
    })
}

fn call<'a, E: Element>(features: &Features<'a, E>, bags: &'a Bags<'a>) -> Call<'a, E> {
    let (values, positions) = match features.unit {
        Unit::Image | Unit::Token { .. } => (None, 1),
        Unit::ImageOf { values, .. } => (Some(values), 1),
        Unit::Position { tokens } => (None, tokens),
    };
    Call { keys: features.rows, values, positions, bags }
}

/// `K` and `D` of a state. Each position has heads of its own, so that all of a bag lies together.
fn state_row<E: Element>(params: &AttentionParams, features: &Features<'_, E>) -> [usize; 2] {
    let AttentionShape { heads, dim, .. } = params.shape();
    match features.unit {
        Unit::Image | Unit::Token { .. } => [heads, dim],
        Unit::ImageOf { values, .. } => [heads, values.dim()],
        Unit::Position { tokens } => [tokens * heads, dim],
    }
}

/// Weights or scores, those of the first position first, as `[N, K]` or `[N, T, K]`.
fn per_image<E: Element>(features: &Features<'_, E>, heads: usize, data: Vec<f32>) -> Tensor<f32> {
    let images = features.images();
    match features.unit {
        Unit::Image | Unit::ImageOf { .. } => Tensor { data, shape: vec![images, heads] },
        Unit::Token { tokens } => Tensor { data, shape: vec![images, tokens, heads] },
        Unit::Position { tokens } => {
            Tensor { data: position_second(&data, tokens, heads), shape: vec![images, tokens, heads] }
        }
    }
}

/// What attention gives, those of the first position first.
struct Attention {
    /// `[P, B, K, D]`.
    embeddings: Vec<f32>,
    /// `[P, N, K]`.
    weights: Vec<f32>,
    /// `[P, N, K]`.
    scores: Vec<f32>,
}

impl Attention {
    /// Room for it.
    fn new<E: Element>(shape: AttentionShape, call: &Call<'_, E>) -> Self {
        let heads = call.positions * shape.heads;
        let dim = call.values.map_or(shape.dim, |values| values.dim());
        let weights = vec![0.0; call.bags.instances() * heads];
        Attention { embeddings: vec![0.0; call.bags.len() * heads * dim], scores: weights.clone(), weights }
    }

    fn outputs(&mut self) -> AttentionOutputs<'_, f32> {
        AttentionOutputs {
            pooled: &mut self.embeddings,
            scores: Some(&mut self.scores),
            weights: Some(&mut self.weights),
            lse: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::ops::Range;

    use super::*;

    /// Two bags of two and one images of two tokens of two features; values tell image, token and feature.
    const TOKENS: [f32; 12] = [0.0, 1.0, 10.0, 11.0, 100.0, 101.0, 110.0, 111.0, 200.0, 201.0, 210.0, 211.0];

    fn pool(pooling: Pooling, features: Features<'_, f32>) -> Pooled {
        let bags = Bags::from_lengths(&[2, 1]).unwrap();
        Pooler::new(pooling, Device::Cpu).unwrap().pool(&features, &bags).unwrap()
    }

    #[test]
    fn max_and_mean_of_each_position_lie_side_by_side() {
        let pooled = pool(Pooling::MaxMean, Features::per_position(&TOKENS, 2, 2).unwrap());
        assert_eq!(pooled.embeddings.shape, [2, 2, 2, 2]);
        let max_of_two = [100.0, 101.0, 110.0, 111.0];
        let mean_of_two = [50.0, 51.0, 60.0, 61.0];
        let only = [200.0, 201.0, 210.0, 211.0];
        assert_eq!(pooled.embeddings.data, [max_of_two, mean_of_two, only, only].concat());
        assert_eq!(pooled.argmax, None);
    }

    #[test]
    fn argmax_counts_images_or_tokens() {
        let by_position = pool(Pooling::Max, Features::per_position(&TOKENS, 2, 2).unwrap());
        let argmax = by_position.argmax.unwrap();
        assert_eq!((argmax.shape, argmax.data), (vec![2, 2, 2], vec![1, 1, 1, 1, 2, 2, 2, 2]));

        let over_all = pool(Pooling::Max, Features::all_tokens(&TOKENS, 2, 2).unwrap());
        assert_eq!(over_all.embeddings.data, [110.0, 111.0, 210.0, 211.0]);
        let argmax = over_all.argmax.unwrap();
        assert_eq!((argmax.shape, argmax.data), (vec![2, 2], vec![3, 3, 5, 5]));
    }

    fn attention() -> Pooler {
        let shape = AttentionShape { dim: 2, hidden: 1, heads: 2, groups: 1 };
        let tensors = crate::AttentionTensors { v: &[0.01, -0.02], w: &[1.0, -2.0], ..Default::default() };
        Pooler::new(Pooling::Attention(AttentionParams::new(shape, tensors).unwrap()), Device::Cpu).unwrap()
    }

    /// Features of a kind, of some of three images.
    type Kind = fn(Range<usize>) -> Result<Features<'static, f32>>;

    #[test]
    fn pieces_of_every_kind_of_features_are_laid_out_as_the_whole() {
        static DATA: [f32; 12] = TOKENS;
        let kinds: [Kind; 4] = [
            |images| Features::new(&DATA[2 * images.start..2 * images.end], 2),
            |images| {
                let (keys, values) = (&DATA[2 * images.start..2 * images.end], &DATA[4 * images.start..4 * images.end]);
                Features::per_image(keys, 2, values, 2, 2)
            },
            |images| Features::per_position(&DATA[4 * images.start..4 * images.end], 2, 2),
            |images| Features::all_tokens(&DATA[4 * images.start..4 * images.end], 2, 2),
        ];
        let (pooler, close) = (attention(), |(a, b): (&f32, &f32)| (a - b).abs() <= 1e-5 * (1.0 + b.abs()));
        for kind in kinds {
            let (features, bags) = (kind(0..3).unwrap(), Bags::from_lengths(&[2, 1]).unwrap());
            let whole = pooler.pool(&features, &bags).unwrap();

            let mut state = pooler.empty_state(&features, 2).unwrap();
            let mut scores = Vec::new();
            for (images, lengths) in [(0..1, [1, 0]), (1..3, [1, 1])] {
                let bags = Bags::from_lengths(&lengths).unwrap();
                let piece = pooler.pool_onto(&mut state, &kind(images).unwrap(), &bags).unwrap();
                assert_eq!(piece.shape[1..], whole.scores.as_ref().unwrap().shape[1..]);
                scores.extend(piece.data);
            }
            assert_eq!(state.pooled().len(), whole.embeddings.data.len());
            assert!(state.pooled().iter().zip(&whole.embeddings.data).all(close), "{state:?} {whole:?}");
            assert_eq!(scores, whole.scores.unwrap().data);

            let mut weights = vec![0.0; scores.len()];
            state.weights(&scores, &instances(&features, &bags).unwrap(), &mut weights).unwrap();
            assert!(weights.iter().zip(&whole.weights.unwrap().data).all(close));
        }
    }

    #[test]
    fn states_that_do_not_fit() {
        let features = Features::new(&TOKENS, 2).unwrap();
        let bags = Bags::from_lengths(&[6]).unwrap();
        let says = |error: Error, start: &str| assert!(error.to_string().starts_with(start), "{error}");
        let max = Pooler::new(Pooling::Max, Device::Cpu).unwrap();
        says(max.empty_state(&features, 1).unwrap_err(), "pooling: expected attention");
        for (bags_of_state, heads, dim) in [(2, 2, 2), (1, 1, 2), (1, 2, 3)] {
            let mut state = PoolState::empty(bags_of_state, heads, dim).unwrap();
            says(max.pool_onto(&mut state, &features, &bags).unwrap_err(), "pooling: expected attention");
            let error = attention().pool_onto(&mut state, &features, &bags).unwrap_err();
            says(error, "state: expected a state [B, K, D] = [1, 2, 2], got");
            assert_eq!(state, PoolState::empty(bags_of_state, heads, dim).unwrap());
        }
    }

    #[test]
    fn projecting_needs_a_projection() {
        let error = Pooler::new(Pooling::Mean, Device::Cpu).unwrap().project().unwrap_err();
        assert!(error.to_string().starts_with("pooling: expected attention parameters with a projection"));
    }
}
