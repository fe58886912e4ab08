//! What each operation does on a GPU, and how long it should take on an H200: an expectation, not a measurement.
//!
//! A launch takes as long as the slowest of what it uses, as if all else hid behind that; an operation takes as long
//! as its launches together. So the time is one that kernels like these could reach, not one that they must. What the
//! launches do is read off `kernels/` and `src/launch/`.

#[allow(dead_code, unreachable_pub, clippy::all, reason = "made by bindgen; a part of it is used")]
#[path = "../../src/launch/abi.rs"]
mod abi;

use std::fmt;

use mivc::Dtype;

use super::Shape;

/// Rates of one H200. Measured: the copy; and the product of bf16 by wgmma, 790 TFLOP/s, of which mma.sync reaches
/// perhaps 490. Assumed: everything else.
struct Device {
    /// Bytes per second read and written.
    copy: f64,
    /// Bytes per second from the second-level cache.
    cache: f64,
    /// FLOP/s of the matrix units through mma.sync, f16 and bf16.
    product: f64,
    /// Of them where f32 is split into two TF32: half the rate, and three products for one.
    split_product: f64,
    /// Instructions of single lanes per second: half of 67 TFLOP/s of multiply-adds.
    instructions: f64,
    multiprocessors: usize,
    /// Seconds from one launch to the next, beside what they do.
    launch: f64,
    /// Seconds until what was asked of memory is there.
    memory_latency: f64,
    /// Seconds until what was asked of the second-level cache is there.
    cache_latency: f64,
}

const H200: Device = Device {
    copy: 4.3e12,
    cache: 5.5e12,
    product: 490e12,
    split_product: 490e12 / 6.0,
    instructions: 33.5e12,
    multiprocessors: 132,
    launch: 2e-6,
    memory_latency: 0.7e-6,
    cache_latency: 0.3e-6,
};

/// Instructions for tanh(x)·σ(y) and for tanh(x), as ptxas makes them for sm_90; those of the special function unit
/// (four and two), which has an eighth of the rate, count eightfold where they take longer than the rest.
const GATE_INSTRUCTIONS: usize = 32;
const TANH_INSTRUCTIONS: usize = 20;

/// Blocks of a multiprocessor, as registers on sm_90 allow: of max and mean, of the weighted sum for one head and for
/// several, and of the softmax.
const MAX_MEAN_BLOCKS: usize = 4;
const WEIGHTED_SUM_BLOCKS: usize = 5;
const WEIGHTED_SUM_HEADS_BLOCKS: usize = 4;
const SOFTMAX_BLOCKS: usize = 10;

/// Loads that a loop has under way where the source does not say: as often as nvcc unrolls.
const UNROLLED: usize = 4;

const THREADS: usize = abi::MIVC_THREADS as usize;
const WARPS: usize = THREADS / 32;
const F32: usize = size_of::<f32>();

/// What takes the longest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bound {
    /// Bytes of memory.
    Memory,
    /// Bytes of the second-level cache.
    Cache,
    /// The matrix units.
    Product,
    /// Everything else that is computed.
    Instructions,
    /// Loads that wait for others.
    Latency,
    /// The launches themselves.
    Launches,
}

impl fmt::Display for Bound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Bound::Memory => "memory",
            Bound::Cache => "cache",
            Bound::Product => "product",
            Bound::Instructions => "instructions",
            Bound::Latency => "latency",
            Bound::Launches => "launches",
        })
    }
}

/// What a launch does. A default one clears a few bytes.
#[derive(Debug, Clone, Copy, Default)]
struct Launch {
    /// Read from memory, and written, once each.
    bytes: usize,
    /// Read from the second-level cache.
    cache_bytes: usize,
    /// Of the matrix units, padding included.
    flops: usize,
    /// Whether they multiply TF32.
    is_split: bool,
    /// Outside the product, of single lanes.
    instructions: usize,
    /// Seconds in which a block, and those after it in its place, wait for loads.
    latency: f64,
    /// How many times as long multiprocessors take as if blocks could be divided among them; 0 is 1.
    unevenness: f64,
    /// Whether a multiprocessor has a single block, so that its instructions wait for its product.
    is_alone: bool,
}

impl Launch {
    /// Seconds, beside those of every launch, and of what.
    fn time(&self) -> (Bound, f64) {
        let unevenness = self.unevenness.max(1.0);
        let instructions = self.instructions as f64 / H200.instructions;
        let before_them = if self.is_alone { instructions } else { 0.0 };
        let rate = if self.is_split { H200.split_product } else { H200.product };
        let candidates = [
            (Bound::Memory, self.bytes as f64 / H200.copy),
            (Bound::Cache, self.cache_bytes as f64 / H200.cache * unevenness + before_them),
            (Bound::Product, self.flops as f64 / rate * unevenness + before_them),
            (Bound::Instructions, instructions),
            (Bound::Latency, self.latency),
        ];
        candidates.into_iter().max_by(|a, b| a.1.total_cmp(&b.1)).unwrap()
    }
}

/// What an operation does, launch by launch.
#[derive(Debug, Clone)]
pub struct Work(Vec<Launch>);

impl Work {
    /// Read from memory and written, by all launches together. What a launch has left in the cache for the next
    /// counts all the same.
    pub fn bytes(&self) -> u64 {
        self.0.iter().map(|launch| launch.bytes as u64).sum()
    }

    /// Of the matrix units, padding included; 0 where there is no product. Those of three TF32 for one f32 count once.
    pub fn flops(&self) -> u64 {
        self.0.iter().map(|launch| launch.flops as u64).sum()
    }

    /// Expected of one H200.
    pub fn seconds(&self) -> f64 {
        self.0.iter().map(|launch| H200.launch + launch.time().1).sum()
    }

    /// What most of the time goes to.
    pub fn bound(&self) -> Bound {
        let mut largest = (Bound::Launches, H200.launch * self.0.len() as f64);
        for bound in self.0.iter().map(|launch| launch.time().0) {
            let of_bound = self.0.iter().map(Launch::time).filter(|time| time.0 == bound).map(|time| time.1).sum();
            if of_bound > largest.1 {
                largest = (bound, of_bound);
            }
        }
        largest.0
    }
}

/// Features are read once per tile of columns, all but once from the cache; so is the packed matrix, once per tile of
/// rows.
pub fn scores(shape: &Shape, gated: bool, heads: usize, dtype: Dtype) -> Work {
    Work(vec![scores_launch(shape, gated, heads, dtype)])
}

/// Scores, the work list, m and l of each bag, and the weighted sum. Features come from memory twice; the scores are
/// written once and read twice. No weight is written.
pub fn attention_pool(shape: &Shape, gated: bool, heads: usize, dtype: Dtype) -> Work {
    let [clear, prepare] = work_list(shape);
    let scores = scores_launch(shape, gated, heads, dtype);
    Work(vec![scores, clear, prepare, normalise(shape, heads), weighted_sum_launch(shape, heads, dtype, true)])
}

/// Scores are read once for m and l, and once for the weights.
pub fn softmax(shape: &Shape, heads: usize) -> Work {
    let [clear, prepare] = work_list(shape);
    let normalise = normalise(shape, heads);
    let scores = shape.instances() * heads;
    let weights =
        Launch { bytes: 2 * scores * F32 + shape.bags * (heads + 1) * 2 * F32, instructions: 20 * scores, ..normalise };
    Work(vec![clear, prepare, normalise, weights])
}

/// One head or several over shared values; what is pooled is f32.
pub fn weighted_sum(shape: &Shape, heads: usize, dtype: Dtype) -> Work {
    let [clear, prepare] = work_list(shape);
    Work(vec![clear, prepare, weighted_sum_launch(shape, heads, dtype, false)])
}

/// Max and mean in one read; both are f32.
pub fn max_mean(shape: &Shape, dtype: Dtype) -> Work {
    let [clear, prepare] = work_list(shape);
    let features = shape.instances() * shape.dim;
    let across = shape.dim.div_ceil(abi::MIVC_MAX_MEAN_THREADS as usize * vector_elements(dtype));
    // Ranges, then rows, eight at a time.
    let loads = 1 + shape.chunk_rows().div_ceil(8);
    let pool = Launch {
        bytes: features * dtype.size() + 2 * shape.bags * shape.dim * F32,
        instructions: 3 * features + 12 * shape.bags * shape.dim,
        latency: in_turns(shape.chunks() * across, MAX_MEAN_BLOCKS, loads) + merge(shape),
        ..Launch::default()
    };
    Work(vec![clear, prepare, pool])
}

/// Two arrays read and one written.
pub fn gate(shape: &Shape, dtype: Dtype) -> Work {
    let elements = shape.instances() * shape.hidden;
    Work(vec![Launch {
        bytes: 3 * elements * dtype.size(),
        instructions: GATE_INSTRUCTIONS * elements,
        ..Launch::default()
    }])
}

fn scores_launch(shape: &Shape, gated: bool, heads: usize, dtype: Dtype) -> Launch {
    let units = shape.hidden;
    let columns = if gated { 2 * units } else { units };
    let Tile { rows, columns: width, blocks } = Tile::of(columns, dtype);
    let instances = shape.instances();
    let (down, across) = (instances.div_ceil(rows), columns.div_ceil(width));
    let depth_bytes = (shape.dim * dtype.size()).next_multiple_of(abi::MIVC_TILE_DEPTH_BYTES as usize);
    let depth = depth_bytes / dtype.size();
    // Biases, tanh and gate, then one multiply-add per column and head.
    let per_unit = if gated { GATE_INSTRUCTIONS + 2 } else { TANH_INSTRUCTIONS + 1 };
    let of_places = down as f64 / (H200.multiprocessors * blocks) as f64;
    Launch {
        bytes: instances * (shape.dim * dtype.size() + heads * F32) + across * width * depth_bytes,
        cache_bytes: down * across * (rows + width) * depth_bytes,
        flops: 2 * down * rows * across * width * depth,
        is_split: dtype == Dtype::F32,
        instructions: down * rows * (units * per_unit + across * width * heads),
        unevenness: of_places.ceil() / of_places,
        is_alone: blocks == 1,
        ..Launch::default()
    }
}

/// A tile of `scores`, and how many of its blocks a multiprocessor has.
#[derive(Debug, PartialEq, Eq)]
struct Tile {
    rows: usize,
    columns: usize,
    blocks: usize,
}

impl Tile {
    /// As `src/launch/pack.rs` chooses it.
    fn of(columns: usize, dtype: Dtype) -> Self {
        let tile = |rows: u32, columns: u32, blocks| Tile { rows: rows as usize, columns: columns as usize, blocks };
        let small = tile(abi::MIVC_SMALL_TILE_ROWS, abi::MIVC_SMALL_TILE_COLUMNS, 4);
        let medium = if dtype == Dtype::F32 {
            tile(abi::MIVC_MEDIUM_F32_TILE_ROWS, abi::MIVC_MEDIUM_F32_TILE_COLUMNS, 2)
        } else {
            tile(abi::MIVC_MEDIUM_TILE_ROWS, abi::MIVC_MEDIUM_TILE_COLUMNS, 2)
        };
        let large = tile(abi::MIVC_LARGE_TILE_ROWS, abi::MIVC_LARGE_TILE_COLUMNS, 1);
        let padded = |tile: &Tile| columns.next_multiple_of(tile.columns);
        if columns <= small.columns {
            small
        } else if dtype != Dtype::F32 && columns > medium.columns && padded(&large) <= padded(&medium) {
            large
        } else {
            medium
        }
    }
}

/// m and l of each bag: the scores read twice, the second time from the cache nearby.
fn normalise(shape: &Shape, heads: usize) -> Launch {
    let scores = shape.instances() * heads;
    let rows_of_warp = 32 / heads.next_power_of_two().min(32);
    let loads = 1 + shape.chunk_rows().div_ceil(rows_of_warp * UNROLLED);
    let blocks = shape.chunks().div_ceil(WARPS) * heads.div_ceil(32);
    Launch {
        bytes: scores * F32 + shape.bags * (heads + 1) * 2 * F32,
        instructions: 30 * scores,
        latency: in_turns(blocks, SOFTMAX_BLOCKS, loads) + merge(shape),
        ..Launch::default()
    }
}

fn weighted_sum_launch(shape: &Shape, heads: usize, dtype: Dtype, is_of_scores: bool) -> Launch {
    let (instances, features) = (shape.instances(), shape.instances() * shape.dim);
    let at_once = if heads == 1 { 1 } else { abi::MIVC_WEIGHTED_SUM_HEADS as usize };
    let blocks = if heads == 1 { WEIGHTED_SUM_BLOCKS } else { WEIGHTED_SUM_HEADS_BLOCKS };
    let across = shape.dim.div_ceil(THREADS * vector_elements(dtype));
    let down = heads.div_ceil(at_once);
    // Ranges, weights (or m, l and scores, side by side), then rows, several at a time.
    let rows_at_once = if heads == 1 { 8 } else { 4 };
    let loads =
        1 + (shape.chunk_rows() * at_once).div_ceil(THREADS * UNROLLED) + shape.chunk_rows().div_ceil(rows_at_once);
    let normalisers = if is_of_scores { shape.bags * heads * 2 * F32 } else { 0 };
    Launch {
        bytes: down * features * dtype.size()
            + instances * heads * F32
            + normalisers
            + shape.bags * heads * shape.dim * F32,
        // A conversion, a multiply-add for each head, and what each vector of a row and each weight cost.
        instructions: features * (down + heads)
            + features / vector_elements(dtype) * (8 * down + 3 * heads)
            + 20 * instances * heads * across,
        latency: in_turns(shape.chunks() * across * down, blocks, loads) + merge(shape),
        ..Launch::default()
    }
}

/// Counters cleared, and what `prepare` does. Its last block reads all offsets, from the cache.
fn work_list(shape: &Shape) -> [Launch; 2] {
    let threads = abi::MIVC_PREPARE_THREADS as usize;
    let loads = shape.bags.div_ceil(threads * UNROLLED);
    let prepare = Launch {
        bytes: 2 * (shape.bags + 1) * size_of::<i64>(),
        latency: H200.memory_latency + loads as f64 * H200.cache_latency,
        ..Launch::default()
    };
    [Launch::default(), prepare]
}

/// Seconds for so many blocks that take the places of a multiprocessor in turns, each with so many loads of which one
/// waits for the other.
fn in_turns(blocks: usize, places: usize, loads: usize) -> f64 {
    let turns = blocks as f64 / (H200.multiprocessors * places) as f64;
    turns.max(1.0) * loads as f64 * H200.memory_latency
}

/// Seconds to merge the chunks of the longest bag: per level a ticket, and the partial results of its children.
fn merge(shape: &Shape) -> f64 {
    let radix = abi::MIVC_MERGE_RADIX as usize;
    let (mut nodes, mut loads) = (shape.length.div_ceil(abi::MIVC_CHUNK_ROWS as usize), 0);
    while nodes > 1 {
        loads += 2 + nodes.min(radix).div_ceil(UNROLLED);
        nodes = nodes.div_ceil(radix);
    }
    loads as f64 * H200.cache_latency
}

fn vector_elements(dtype: Dtype) -> usize {
    abi::MIVC_VECTOR_BYTES as usize / dtype.size()
}

impl Shape {
    /// Of all bags.
    fn chunks(&self) -> usize {
        self.bags * self.length.div_ceil(abi::MIVC_CHUNK_ROWS as usize)
    }

    /// Of the longest chunk.
    fn chunk_rows(&self) -> usize {
        self.length.min(abi::MIVC_CHUNK_ROWS as usize)
    }
}

/// Panics where the model contradicts what can be known without a GPU.
pub fn check() {
    let near = |a: f64, b: f64| assert!((a / b - 1.0).abs() < 0.02, "{a} is not {b}");
    let shape = Shape { bags: 1000, length: 100, dim: 512, hidden: 128 };

    // Bytes and FLOPs by hand; a product that fits its tiles has no padding.
    near(max_mean(&shape, Dtype::F32).bytes() as f64, (4 * 512 * (100_000 + 2 * 1000)) as f64);
    near(attention_pool(&shape, true, 1, Dtype::Bf16).bytes() as f64, 100_000.0 * (2.0 * 1024.0 + 12.0) + 2.1e6);
    near(scores(&shape, true, 1, Dtype::Bf16).flops() as f64, shape.score_flops(true) as f64);
    // One column more than fits a tile takes one more tile, of which most is padding.
    let wider = Shape { hidden: 129, ..shape };
    assert_eq!(scores(&wider, false, 1, Dtype::F32).flops(), 2 * scores(&shape, false, 1, Dtype::F32).flops());

    // Nothing is faster than its parts, and what has more to do takes longer.
    let whole = attention_pool(&shape, true, 1, Dtype::Bf16).seconds();
    assert!(whole > scores(&shape, true, 1, Dtype::Bf16).seconds());
    assert!(whole > attention_pool(&shape, false, 1, Dtype::Bf16).seconds());
    assert!(whole < attention_pool(&shape, true, 1, Dtype::F32).seconds());
    let tiny = Shape { bags: 1, length: 1, dim: 8, hidden: 4 };
    assert_eq!(gate(&tiny, Dtype::F32).bound(), Bound::Launches);
    assert_eq!(scores(&shape, true, 1, Dtype::F32).bound(), Bound::Product);

    #[cfg(feature = "cuda")]
    check_tiles();
}

/// The tiles are those of the library.
#[cfg(feature = "cuda")]
fn check_tiles() {
    use mivc::AttentionShape;
    use mivc::launch::pack::{F32Product, Pack, Shape};

    for hidden in 1..600 {
        for features in [Dtype::F32, Dtype::F16, Dtype::Bf16] {
            let attention = AttentionShape { dim: 8, hidden, heads: 1, groups: 1 };
            let shape = Shape { attention, gated: false, features, f32_product: F32Product::Split };
            let Tile { rows, columns, .. } = Tile::of(hidden, features);
            assert_eq!(Pack::plan(shape).unwrap().tile(), [rows, columns], "{hidden} columns of {features}");
        }
    }
}
