//! The fusion that the options ask for, and running it over the bags.

use std::fs;
use std::hint::black_box;
use std::ops::Range;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use mivc::{AttentionParams, Bags, Device, Element, Features, Pooled, Pooler, Pooling, Tensor};

use crate::arguments::{PoolArguments, PoolingKind};
use crate::input::{FeatureRows, Input, elements};
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
    pub(crate) fn pooler(self, device: Device) -> Result<Pooler> {
        let pooler = Pooler::new(self.pooling, device)?;
        Ok(if self.project { pooler.project()? } else { pooler })
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

/// Pools run after run of whole bags, so that a bar can tell how far it is. A bag's result does not
/// depend on what else is in the call.
pub(crate) fn pool(pooler: &Pooler, input: &Input<'_>) -> Result<Pooled> {
    let bar = progress(input.features.bytes())?;
    let pooled = match &input.features {
        FeatureRows::F32(rows) => pool_runs(pooler, rows, input.dim, &input.bags, RUN, &bar),
        FeatureRows::F16(rows) => pool_runs(pooler, rows, input.dim, &input.bags, RUN, &bar),
        FeatureRows::Bf16(rows) => pool_runs(pooler, rows, input.dim, &input.bags, RUN, &bar),
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

fn pool_runs<E: Element>(
    pooler: &Pooler,
    features: &[E],
    dim: usize,
    bags: &Bags<'_>,
    run_bytes: usize,
    bar: &ProgressBar,
) -> Result<Pooled> {
    let row_bytes = dim * size_of::<E>();
    let mut pooled = None;
    for run in runs(bags, run_bytes / row_bytes) {
        let rows = bags.offsets()[run.start] as usize..bags.offsets()[run.end] as usize;
        let features = Features::new(&features[elements(rows.clone(), dim)], dim)?;
        let part = pooler.pool(&features, &slice(bags, run)?)?;
        append(&mut pooled, part, rows.start);
        bar.inc((rows.len() * row_bytes) as u64);
    }
    pooled.ok_or_else(|| "no bags were pooled".into())
}

/// Bags in runs of at least `rows` rows, the last excepted; one run of no bags where there are none.
fn runs(bags: &Bags<'_>, rows: usize) -> Vec<Range<usize>> {
    let mut runs = Vec::new();
    let mut start = 0;
    for (bag, range) in bags.ranges().enumerate() {
        if range.end - bags.range(start).start >= rows.max(1) {
            runs.push(start..bag + 1);
            start = bag + 1;
        }
    }
    if start < bags.len() || runs.is_empty() {
        runs.push(start..bags.len());
    }
    runs
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
        let bounds = |bags, rows| runs(bags, rows).iter().map(|run| (run.start, run.end)).collect::<Vec<_>>();
        assert_eq!(bounds(&bags, 3), [(0, 3), (3, 6)]);
        assert_eq!(bounds(&bags, 0), [(0, 1), (1, 3), (3, 4), (4, 6)]);
        assert_eq!(bounds(&bags, 100), [(0, 6)]);
        assert_eq!(bounds(&Bags::from_lengths(&[]).unwrap(), 3), [(0, 0)]);
    }

    #[test]
    fn runs_change_no_result() {
        let (features, bags) = example();
        for pooling in [Pooling::Max, Pooling::Mean, Pooling::MaxMean, Pooling::Attention(parameters())] {
            let pooler = Pooler::new(pooling, Device::Cpu).unwrap();
            let whole = pooler.pool(&Features::new(&features, 2).unwrap(), &bags).unwrap();
            for run_bytes in [0, 24, 1000] {
                let bar = ProgressBar::hidden();
                assert_eq!(pool_runs(&pooler, &features, 2, &bags, run_bytes, &bar).unwrap(), whole);
                assert_eq!(bar.position(), 80, "the bar counts all bytes");
            }
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
