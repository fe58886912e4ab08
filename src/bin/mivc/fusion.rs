//! The fusion that the options ask for, and running it over the bags.

use std::fs;
use std::hint::black_box;
use std::ops::Range;
use std::time::Duration;

use bytemuck::Pod;
use indicatif::{ProgressBar, ProgressStyle};
use mivc::{
    AttentionParams, AttentionTensors, Bags, Device, Element, Features, Order, Pooled, Pooler, Pooling, Projection,
    Tensor,
};

use crate::arguments::{PoolArguments, PoolingKind};
use crate::cut::{self, CutBag};
use crate::input::{Elements, FeatureRows, Input, elements};
use crate::{Result, about};

/// Features above this many bytes take long enough for a progress bar.
const LONG_WORK: usize = 256 << 20;

/// Bytes of features per call: enough to keep every core busy, little enough for the bar to move.
const RUN: usize = 64 << 20;

/// A pooling whose parameters fit the features.
pub(crate) struct Fusion {
    pooling: Pooling,
    project: bool,
    /// Embeddings per bag: `K`, or 2 for max and mean.
    embeddings: usize,
    /// Features of an embedding.
    dim: usize,
    pub(crate) notes: Vec<String>,
}

/// Checks the parameters against the options and the `D` of the features.
pub(crate) fn load(arguments: &PoolArguments, dim: usize) -> Result<Fusion> {
    let plain = |pooling, embeddings| Fusion { pooling, project: false, embeddings, dim, notes: Vec::new() };
    match (arguments.pooling, &arguments.params) {
        (PoolingKind::Mean, _) => Ok(plain(Pooling::Mean, 1)),
        (PoolingKind::Max, _) => Ok(plain(Pooling::Max, 1)),
        (PoolingKind::MaxMean, _) => Ok(plain(Pooling::MaxMean, 2)),
        (PoolingKind::Attention | PoolingKind::GatedAttention, None) => Err("--params: expected a checkpoint".into()),
        (PoolingKind::Attention | PoolingKind::GatedAttention, Some(path)) => {
            let bytes = fs::read(path).map_err(about(path))?;
            let params = AttentionParams::from_safetensors(&bytes).map_err(about(path))?;
            attention(arguments, params, dim).map_err(about(path))
        }
    }
}

fn attention(arguments: &PoolArguments, params: AttentionParams, dim: usize) -> Result<Fusion> {
    let (asked, held) = (arguments.pooling, kind(&params));
    if asked != held {
        return Err(format!("--pooling {asked}: the checkpoint holds parameters of {held}").into());
    }
    let shape = params.shape();
    let projection = params.projection().map(|projection| (projection.input(), projection.output()));
    let mut notes = Vec::new();
    let expected = match (arguments.project, projection) {
        (true, None) => return Err("--project: the checkpoint holds no projection".into()),
        (true, Some((input, _))) => input,
        (false, None) => shape.dim,
        (false, Some((input, output))) => {
            if dim == input && dim != shape.dim {
                return Err(format!(
                    "features: expected D = {}, the input of the attention, got {dim}, the input of the checkpoint's \
                     projection; --project applies it",
                    shape.dim
                )
                .into());
            }
            notes.push(format!(
                "the checkpoint holds a projection (Linear + ReLU, {input} to {output}) that is not used; --project \
                 applies it"
            ));
            shape.dim
        }
    };
    if dim != expected {
        let what = if arguments.project { "projection" } else { "attention" };
        return Err(format!("features: expected D = {expected}, the input of the {what}, got {dim}").into());
    }
    let embeddings = shape.heads;
    Ok(Fusion { pooling: Pooling::Attention(params), project: arguments.project, embeddings, dim: shape.dim, notes })
}

fn kind(params: &AttentionParams) -> PoolingKind {
    if params.is_gated() { PoolingKind::GatedAttention } else { PoolingKind::Attention }
}

impl Fusion {
    pub(crate) fn pooler(self, device: Device, order: Order) -> Result<Pooler> {
        let pooler = Pooler::new(self.pooling, device)?.with_order(order);
        Ok(if self.project { pooler.project()? } else { pooler })
    }

    /// How many rows of features may be in memory beside the parameters, all where there is no bound in bytes.
    pub(crate) fn rows_that_fit(&self, input: &Input<'_>, bound: Option<usize>) -> Result<usize> {
        let Some(bound) = bound else {
            return Ok(usize::MAX);
        };
        let row = input.dim.saturating_mul(input.features.element_bytes());
        let parameters = self.parameter_bytes();
        match bound.saturating_sub(parameters) / row {
            0 => {
                let least = parameters.saturating_add(row);
                Err(format!(
                    "--memory: expected at least {least} bytes, for a row of features and the parameters, got {bound}"
                )
                .into())
            }
            rows => Ok(rows),
        }
    }

    /// Of the parameters twice: as they were read, and packed.
    fn parameter_bytes(&self) -> usize {
        let Pooling::Attention(params) = &self.pooling else {
            return 0;
        };
        let AttentionTensors { v, v_bias, u, u_bias, w, w_bias } = params.tensors();
        let projection = params.projection().filter(|_| self.project);
        let tensors = [Some(v), v_bias, u, u_bias, Some(w), w_bias];
        let of_projection = [projection.map(Projection::weight), projection.and_then(Projection::bias)];
        let floats: usize = tensors.iter().chain(&of_projection).flatten().map(|tensor| tensor.len()).sum();
        2 * size_of::<f32>() * floats
    }

    /// Whether the results can be had at all: a small file can ask for very many (empty bags, wide rows).
    pub(crate) fn expect_memory(&self, input: &Input<'_>) -> Result<()> {
        let embeddings = [input.bags.len(), self.embeddings, self.dim];
        let weights_and_scores = [2, input.instances(), self.embeddings];
        for sizes in [embeddings, weights_and_scores] {
            let count = sizes.iter().try_fold(1_usize, |count, &size| count.checked_mul(size));
            if !count.is_some_and(fits_memory) {
                return Err(format!("expected results that fit the memory, got {sizes:?} numbers in f32").into());
            }
        }
        Ok(())
    }
}

/// Whether the system would lend this many f32, which costs nothing until they are written.
fn fits_memory(count: usize) -> bool {
    let mut numbers = Vec::<f32>::new();
    let fits = numbers.try_reserve_exact(count).is_ok();
    // An allocation that nobody sees may be optimised away, and then it always succeeds.
    black_box(numbers);
    fits
}

/// Pools run after run of whole bags, so that a bar can tell how far it is, and bags of more than `rows_that_fit` rows
/// piece by piece. A bag's result does not depend on what else is in the call.
pub(crate) fn pool(pooler: &Pooler, pooling: PoolingKind, input: &Input<'_>, rows_that_fit: usize) -> Result<Pooled> {
    let bar = progress(input.features.bytes())?;
    let runs = Runs { pooler, pooling, dim: input.dim, bags: &input.bags, bytes: RUN, rows_that_fit, bar: &bar };
    let pooled = match &input.features {
        FeatureRows::F32(elements) => runs.pool(elements),
        FeatureRows::F16(elements) => runs.pool(elements),
        FeatureRows::Bf16(elements) => runs.pool(elements),
    };
    bar.finish_and_clear();
    pooled
}

/// Silent on short work and, by itself, where stderr is no terminal.
fn progress(bytes: usize) -> Result<ProgressBar> {
    if bytes < LONG_WORK {
        return Ok(ProgressBar::hidden());
    }
    let style = "pooling {bar:40} {bytes} of {total_bytes}, {eta} left";
    let bar = ProgressBar::new(bytes as u64).with_style(ProgressStyle::with_template(style)?);
    bar.enable_steady_tick(Duration::from_millis(500));
    Ok(bar)
}

struct Runs<'a> {
    pooler: &'a Pooler,
    pooling: PoolingKind,
    /// `D` of the features.
    dim: usize,
    bags: &'a Bags<'a>,
    /// Bytes of features that a run should have.
    bytes: usize,
    /// Rows that a run may have at most.
    rows_that_fit: usize,
    bar: &'a ProgressBar,
}

impl Runs<'_> {
    fn pool<E: Element + Pod>(&self, features: &Elements<'_, E>) -> Result<Pooled> {
        let row_bytes = self.dim * size_of::<E>();
        let (mut pooled, mut buffer) = (None, Vec::new());
        for run in runs(self.bags, self.bytes / row_bytes, self.rows_that_fit) {
            let rows = self.bags.offsets()[run.start] as usize..self.bags.offsets()[run.end] as usize;
            let part = if rows.len() <= self.rows_that_fit {
                let elements = features.get(elements(rows.clone(), self.dim), &mut buffer)?;
                let part = self.pooler.pool(&Features::new(elements, self.dim)?, &slice(self.bags, run)?)?;
                self.bar.inc((rows.len() * row_bytes) as u64);
                part
            } else {
                self.cut_bag(features, &rows, &mut buffer)?
            };
            append(&mut pooled, part, rows.start);
        }
        pooled.ok_or_else(|| "no bags were pooled".into())
    }

    /// A bag in pieces.
    fn cut_bag<E: Element + Pod>(
        &self,
        features: &Elements<'_, E>,
        rows: &Range<usize>,
        buffer: &mut Vec<E>,
    ) -> Result<Pooled> {
        let mask = self.bags.mask().map(|mask| &mask[rows.clone()]);
        let mut pooled = self.cut_and_masked(features, rows, mask, buffer)?;
        // An infinite feature of a row that has weighed something in its piece stays in the sum, though its final
        // weight may be 0. Such rows have no share: once more without them.
        for (head, mask) in cut::rows_with_a_share(&pooled) {
            self.bar.inc_length((rows.len() * self.dim * size_of::<E>()) as u64);
            let again = self.cut_and_masked(features, rows, Some(&mask), buffer)?;
            cut::replace_head(&mut pooled, head, &again);
        }
        Ok(pooled)
    }

    fn cut_and_masked<E: Element + Pod>(
        &self,
        features: &Elements<'_, E>,
        rows: &Range<usize>,
        mask: Option<&[u8]>,
        buffer: &mut Vec<E>,
    ) -> Result<Pooled> {
        let mut bag = CutBag::new::<E>(self.pooler, self.pooling, self.dim)?;
        let row_bytes = self.dim * size_of::<E>();
        let length = (self.bytes / row_bytes).clamp(1, self.rows_that_fit);
        for piece in pieces(rows.clone(), length) {
            let mask = mask.map(|mask| &mask[piece.start - rows.start..piece.end - rows.start]);
            bag.add(features.get(elements(piece.clone(), self.dim), buffer)?, mask)?;
            self.bar.inc((piece.len() * row_bytes) as u64);
        }
        bag.finish()
    }
}

/// Bags in runs of about `rows` rows, and at most `most` except where a single bag has more; one run of no bags where
/// there are none.
fn runs(bags: &Bags<'_>, rows: usize, most: usize) -> Vec<Range<usize>> {
    let mut runs = Vec::new();
    let (mut start, mut held) = (0, 0);
    for (bag, range) in bags.ranges().enumerate() {
        if start < bag && held + range.len() > most {
            runs.push(start..bag);
            (start, held) = (bag, 0);
        }
        held += range.len();
        if held >= rows.max(1) {
            runs.push(start..bag + 1);
            (start, held) = (bag + 1, 0);
        }
    }
    if start < bags.len() || runs.is_empty() {
        runs.push(start..bags.len());
    }
    runs
}

/// Rows in pieces of `length`, the last excepted.
fn pieces(rows: Range<usize>, length: usize) -> impl Iterator<Item = Range<usize>> {
    rows.clone().step_by(length).map(move |start| start..rows.end.min(start + length))
}

/// Some of the bags, their rows counted from the first of them.
fn slice(bags: &Bags<'_>, run: Range<usize>) -> Result<Bags<'static>> {
    let offsets = &bags.offsets()[run.start..=run.end];
    let first = offsets[0];
    let slice = Bags::from_offsets(offsets.iter().map(|offset| offset - first).collect::<Vec<_>>())?;
    let rows = first as usize..offsets[offsets.len() - 1] as usize;
    Ok(match bags.mask() {
        Some(mask) => slice.with_mask(mask[rows].to_vec())?,
        None => slice,
    })
}

fn append(pooled: &mut Option<Pooled>, mut part: Pooled, first_row: usize) {
    for row in part.argmax.iter_mut().flat_map(|argmax| &mut argmax.data).filter(|row| **row >= 0) {
        *row += first_row as i64;
    }
    let Some(pooled) = pooled else {
        *pooled = Some(part);
        return;
    };
    extend(&mut pooled.embeddings, part.embeddings);
    extend_optional(&mut pooled.argmax, part.argmax);
    extend_optional(&mut pooled.weights, part.weights);
    extend_optional(&mut pooled.scores, part.scores);
}

fn extend_optional<T>(tensor: &mut Option<Tensor<T>>, part: Option<Tensor<T>>) {
    if let (Some(tensor), Some(part)) = (tensor, part) {
        extend(tensor, part);
    }
}

/// Concatenates along the outermost axis.
fn extend<T>(tensor: &mut Tensor<T>, part: Tensor<T>) {
    tensor.shape[0] += part.shape[0];
    tensor.data.extend(part.data);
}

#[cfg(test)]
mod tests {
    use mivc::{AttentionShape, AttentionTensors};

    use super::*;

    /// Bags of 2, 0, 3, 1, 0 and 4 rows of two features; row 4 is masked.
    fn example() -> (Vec<f32>, Bags<'static>) {
        let features = (0..20_u8).map(|i| f32::from(i * 7 % 11) - 5.0).collect();
        let mask: Vec<u8> = (0..10).map(|row| u8::from(row != 4)).collect();
        (features, Bags::from_lengths(&[2, 0, 3, 1, 0, 4]).and_then(|bags| bags.with_mask(mask)).unwrap())
    }

    #[test]
    fn runs_cover_every_bag_once() {
        let (_, bags) = example();
        let bounds = |bags: &Bags<'_>, rows, most| {
            runs(bags, rows, most).iter().map(|run| (run.start, run.end)).collect::<Vec<_>>()
        };
        let none = usize::MAX;
        assert_eq!(bounds(&bags, 3, none), [(0, 3), (3, 6)]);
        assert_eq!(bounds(&bags, 0, none), [(0, 1), (1, 3), (3, 4), (4, 6)]);
        assert_eq!(bounds(&bags, 100, none), [(0, 6)]);
        assert_eq!(bounds(&Bags::from_lengths(&[]).unwrap(), 3, none), [(0, 0)]);

        assert_eq!(bounds(&bags, 100, 4), [(0, 2), (2, 5), (5, 6)]);
        assert_eq!(bounds(&bags, 3, 3), [(0, 2), (2, 3), (3, 5), (5, 6)]);
        assert_eq!(bounds(&bags, 100, 1), [(0, 1), (1, 2), (2, 3), (3, 5), (5, 6)]);
    }

    const POOLINGS: [PoolingKind; 4] =
        [PoolingKind::Max, PoolingKind::Mean, PoolingKind::MaxMean, PoolingKind::Attention];

    fn pooler(pooling: PoolingKind) -> Pooler {
        let pooling = match pooling {
            PoolingKind::Max => Pooling::Max,
            PoolingKind::Mean => Pooling::Mean,
            PoolingKind::MaxMean => Pooling::MaxMean,
            _ => Pooling::Attention(parameters()),
        };
        Pooler::new(pooling, Device::Cpu).unwrap()
    }

    /// In runs of that many bytes, of at most so many rows.
    fn pool_in_runs(pooling: PoolingKind, features: &[f32], bags: &Bags<'_>, bytes: usize, most: usize) -> Pooled {
        let (pooler, bar) = (pooler(pooling), ProgressBar::hidden());
        let runs = Runs { pooler: &pooler, pooling, dim: 2, bags, bytes, rows_that_fit: most, bar: &bar };
        let pooled = runs.pool(&Elements::Here(features.into())).unwrap();
        assert_eq!(bar.position(), size_of_val(features) as u64, "the bar counts all bytes");
        pooled
    }

    #[test]
    fn runs_change_no_result() {
        let (features, bags) = example();
        for pooling in POOLINGS {
            let whole = pooler(pooling).pool(&Features::new(&features, 2).unwrap(), &bags).unwrap();
            for bytes in [0, 24, 1000] {
                for most in [4, 5, 100] {
                    assert_eq!(pool_in_runs(pooling, &features, &bags, bytes, most), whole);
                }
            }
        }
    }

    #[test]
    fn cut_bags_come_to_the_same() {
        let (features, bags) = example();
        for pooling in POOLINGS {
            let whole = pooler(pooling).pool(&Features::new(&features, 2).unwrap(), &bags).unwrap();
            for most in 1..4 {
                let cut = pool_in_runs(pooling, &features, &bags, 1000, most);
                assert_eq!((&cut.argmax, &cut.scores), (&whole.argmax, &whole.scores));
                assert_eq!(cut.embeddings.shape, whole.embeddings.shape);
                let parts =
                    [(Some(&cut.embeddings), Some(&whole.embeddings)), (cut.weights.as_ref(), whole.weights.as_ref())];
                for (cut, whole) in parts.into_iter().filter_map(|(cut, whole)| cut.zip(whole)) {
                    assert_eq!(cut.shape, whole.shape);
                    let close = |(x, y): (&f32, &f32)| (x - y).abs() <= 1e-6 * (1.0 + y.abs());
                    assert!(cut.data.iter().zip(&whole.data).all(close), "{pooling} {most}: {cut:?} {whole:?}");
                }
            }
        }
    }

    #[test]
    fn cut_bags_keep_the_edge_cases_of_max() {
        let nan = f32::NAN;
        // The first NaN; +0 of zeros of either sign; the lowest row of equals; nothing of masked rows.
        let columns: [(&[f32], f32, i64); 6] = [
            (&[1.0, nan, 9.0, nan, 2.0], nan, 1),
            (&[-0.0, 0.0, -0.0, -1.0, -0.0], 0.0, 0),
            (&[0.0, -0.0, -0.0, -1.0, -0.0], 0.0, 0),
            (&[-0.0, -0.0, -0.0, -1.0, -0.0], -0.0, 0),
            (&[-7.0, 3.0, 3.0, 2.0, 3.0], 3.0, 1),
            (&[-7.0, -8.0, -9.0, -5.0, -6.0], -5.0, 3),
        ];
        for (column, max, argmax) in columns {
            // A second column, and a masked row in front and behind.
            let features: Vec<f32> = [&[99.0], column, &[99.0]].concat().iter().flat_map(|&x| [x, 1.0]).collect();
            let bags = Bags::from_lengths(&[7]).and_then(|bags| bags.with_mask(vec![0, 1, 1, 1, 1, 1, 0])).unwrap();
            for most in 1..8 {
                let pooled = pool_in_runs(PoolingKind::Max, &features, &bags, 1000, most);
                let (x, row) = (pooled.embeddings.data[0], pooled.argmax.unwrap().data[0]);
                assert!(x.to_bits() == max.to_bits() || x.is_nan() && max.is_nan(), "{column:?} {most}: {x}");
                assert_eq!(row, argmax + 1, "{column:?} {most}");
            }
        }
    }

    #[test]
    fn an_infinite_feature_of_a_row_without_weight_has_no_share() {
        // Scores of −200, −120 and −40: the first has weight 0, but counts beside the second as long as there is no third.
        let shape = AttentionShape { dim: 2, hidden: 1, heads: 1, groups: 1 };
        let tensors = AttentionTensors { v: &[1.0, 0.0], w: &[200.0], ..Default::default() };
        let params = AttentionParams::new(shape, tensors).unwrap();
        let pooler = &Pooler::new(Pooling::Attention(params), Device::Cpu).unwrap();
        let (features, bags) = ([f32::NEG_INFINITY, 1.0, -0.693, 2.0, -0.203, 3.0], &Bags::from_lengths(&[3]).unwrap());
        let (pooling, bar) = (PoolingKind::Attention, &ProgressBar::hidden());
        for rows_that_fit in [1, 2, 3] {
            let runs = Runs { pooler, pooling, dim: 2, bags, bytes: RUN, rows_that_fit, bar };
            let pooled = runs.pool(&Elements::Here((&features).into())).unwrap();
            assert_eq!(pooled.embeddings.data, [-0.203, 3.0], "{rows_that_fit} rows");
        }
    }

    fn parameters() -> AttentionParams {
        let shape = AttentionShape { dim: 2, hidden: 1, heads: 2, groups: 1 };
        AttentionParams::new(shape, AttentionTensors { v: &[0.3, -0.2], w: &[1.0, -2.0], ..Default::default() })
            .unwrap()
    }

    #[test]
    fn memory_that_no_machine_has_is_refused() {
        assert!(fits_memory(1000));
        assert!(!fits_memory(usize::MAX / 4));
        assert!(!fits_memory(1 << 60));
    }
}
