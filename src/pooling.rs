//! The front door: one type for the four fusions.

mod cpu;
#[cfg(feature = "cuda")]
mod cuda;

use crate::attention::{AttentionParams, AttentionShape};
use crate::bags::Bags;
use crate::cpu::{AttentionOutputs, MaxMeanOutputs};
use crate::element::Element;
use crate::error::{Error, Result};
use crate::features::{Features, Unit};
use crate::rows::Rows;

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

    fn attention<E: Element>(
        &self,
        params: &AttentionParams,
        features: &Features<'_, E>,
        bags: &Bags<'_>,
    ) -> Result<Pooled> {
        let AttentionShape { dim, heads, .. } = params.shape();
        let call = Call { keys: features.rows, values: None, positions: 1, bags };
        let (count, images) = (bags.len(), features.images());
        let (pooled, embeddings, weights) = match features.unit {
            Unit::Image => (self.backend.attention(params, call)?, vec![count, heads, dim], vec![images, heads]),
            Unit::ImageOf { values, tokens } => {
                let pooled = self.backend.attention(params, Call { values: Some(values), ..call })?;
                (pooled, vec![count, heads, tokens, values.dim() / tokens], vec![images, heads])
            }
            Unit::Token { tokens } => {
                let bags = &bags.of_tokens(tokens)?;
                let pooled = self.backend.attention(params, Call { bags, ..call })?;
                (pooled, vec![count, heads, dim], vec![images, tokens, heads])
            }
            Unit::Position { tokens } => {
                let mut pooled = self.backend.attention(params, Call { positions: tokens, ..call })?;
                pooled.embeddings = position_second(&pooled.embeddings, tokens, heads * dim);
                pooled.weights = position_second(&pooled.weights, tokens, heads);
                pooled.scores = position_second(&pooled.scores, tokens, heads);
                (pooled, vec![count, tokens, heads, dim], vec![images, tokens, heads])
            }
        };
        Ok(Pooled {
            embeddings: Tensor { data: pooled.embeddings, shape: embeddings },
            argmax: None,
            weights: Some(Tensor { data: pooled.weights, shape: weights.clone() }),
            scores: Some(Tensor { data: pooled.scores, shape: weights }),
        })
    }

    /// Max, mean or both, side by side in the embeddings in the order of `halves`.
    fn max_mean<E: Element>(&self, features: &Features<'_, E>, bags: &Bags<'_>, halves: &[Half]) -> Result<Pooled> {
        // Each feature is pooled by itself, so that token positions are just more columns.
        let (rows, tokens) = match features.unit {
            Unit::Image | Unit::Token { .. } => (features.rows, None),
            Unit::ImageOf { values, tokens } => (values, Some(tokens)),
            Unit::Position { tokens } => (features.rows.joined(tokens), Some(tokens)),
        };
        let bags = match features.unit {
            Unit::Token { tokens } => &bags.of_tokens(tokens)?,
            _ => bags,
        };
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

    /// The backend packs the parameters on first use: they are the same in every call.
    fn attention<E: Element>(&self, params: &AttentionParams, call: Call<'_, E>) -> Result<Attention> {
        match self {
            Backend::Cpu(cpu) => cpu.attention(params, call),
            #[cfg(feature = "cuda")]
            Backend::Cuda(cuda) => cuda.attention(params, call),
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

/// `[T, rows, width]` → `[rows, T, width]`.
fn position_second(data: &[f32], tokens: usize, width: usize) -> Vec<f32> {
    let rows = data.len() / (tokens * width);
    let mut turned = Vec::with_capacity(data.len());
    for row in 0..rows {
        for token in 0..tokens {
            turned.extend_from_slice(&data[(token * rows + row) * width..][..width]);
        }
    }
    turned
}

#[cfg(test)]
mod tests {
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

    #[test]
    fn projecting_needs_a_projection() {
        let error = Pooler::new(Pooling::Mean, Device::Cpu).unwrap().project().unwrap_err();
        assert!(error.to_string().starts_with("pooling: expected attention parameters with a projection"));
    }
}
