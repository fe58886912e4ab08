//! What each operation does on a GPU, and how long it should take on an H200: an expectation, not a measurement.
//!
//! A launch takes as long as the slowest of what it uses, as if all else hid behind that, or as long as its blocks take
//! one after the other, each of which has phases that wait for each other; an operation takes as long as its launches
//! together. So the time is one that kernels like these could reach, not one that they must. What the launches do is
//! read off `kernels/` and `src/launch/`.

#[allow(dead_code, unreachable_pub, clippy::all, reason = "made by bindgen; a part of it is used")]
#[path = "../../src/launch/abi.rs"]
mod abi;
pub mod backward;

use std::fmt;

use mivc::launch::Hardware;
use mivc::launch::attention_pool;
use mivc::launch::pack::{self, F32Product, Pack};
use mivc::{AttentionShape, Dtype};

use super::{Attention, Shape};

/// Rates of one H200, per second of all multiprocessors. Measured: the copy; and the product of bf16 by wgmma, 790
/// TFLOP/s, of which mma.sync reaches perhaps 490. Assumed: everything else.
struct Device {
    /// Bytes read and written.
    copy: f64,
    /// Bytes from the second-level cache.
    cache: f64,
    /// Bytes that multiprocessors can take in, from wherever: 64 per clock of 1.755 GHz each.
    intake: f64,
    /// Bytes from and to shared memory: 128 per clock and multiprocessor.
    shared: f64,
    /// FLOPs of the matrix units through mma.sync, f16 and bf16.
    product: f64,
    /// Of them where f32 is split into two TF32: half the rate, and three products for one.
    split_product: f64,
    /// Of them through wgmma.
    warpgroup_product: f64,
    /// Instructions of single lanes: half of 67 TFLOP/s of multiply-adds, 128 lanes per clock and multiprocessor.
    instructions: f64,
    multiprocessors: f64,
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
    intake: 14.8e12,
    shared: 29e12,
    product: 490e12,
    split_product: 490e12 / 6.0,
    warpgroup_product: 790e12,
    instructions: 33.5e12,
    multiprocessors: 132.0,
    launch: 2e-6,
    memory_latency: 0.7e-6,
    cache_latency: 0.3e-6,
};

/// Instructions for tanh(x)·σ(y) and for tanh(x), as ptxas makes them for sm_90; those of the special function unit
/// (four and two), which has an eighth of the rate, count eightfold where they take longer than the rest.
const GATE_INSTRUCTIONS: usize = 32;
const TANH_INSTRUCTIONS: usize = 20;

/// Seconds that a block needs to exchange parts of scores between its warps, twice waiting for all of them.
const EXCHANGE: f64 = 0.15e-6;
/// Seconds that a warp needs for m, l and the weights of a head of a bag in shared memory: two reductions of its lanes.
const WEIGH: f64 = 0.2e-6;
/// Seconds that a thread of `prepare` needs for a bag, each of the three times that it visits it, and a warp for a store
/// of its items: 64-bit instructions that wait for each other.
const VISIT: f64 = 0.06e-6;
const STORE: f64 = 0.02e-6;

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
const POOL_WARPS: usize = abi::MIVC_POOL_THREADS as usize / 32;
const POOL_COLUMNS: usize = abi::MIVC_POOL_COLUMNS as usize;
const RADIX: usize = abi::MIVC_MERGE_RADIX as usize;
const CHUNK_ROWS: usize = abi::MIVC_CHUNK_ROWS as usize;
const STEP_BYTES: usize = abi::MIVC_TILE_DEPTH_BYTES as usize;
const F32: usize = size_of::<f32>();
const I64: usize = size_of::<i64>();

/// What takes the longest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bound {
    /// Bytes of memory.
    Memory,
    /// Bytes of the second-level cache.
    Cache,
    /// Bytes of shared memory.
    Shared,
    /// The matrix units.
    Product,
    /// Everything else that is computed.
    Instructions,
    /// What a block does one after the other, waiting for loads included.
    Phases,
    /// The launches themselves.
    Launches,
}

impl fmt::Display for Bound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Bound::Memory => "memory",
            Bound::Cache => "cache",
            Bound::Shared => "shared memory",
            Bound::Product => "product",
            Bound::Instructions => "instructions",
            Bound::Phases => "phases",
            Bound::Launches => "launches",
        })
    }
}

/// What the matrix units multiply.
#[derive(Debug, Clone, Copy, Default)]
enum Product {
    /// f16 or bf16 through mma.sync.
    #[default]
    Direct,
    /// f32, split into two TF32.
    Split,
    /// f32, split into two TF32, with what is TF32 as it is.
    HalfSplit,
    /// f16 or bf16 through wgmma.
    Warpgroup,
}

impl Product {
    fn of(dtype: Dtype) -> Self {
        match dtype {
            Dtype::F32 => Product::Split,
            Dtype::F16 | Dtype::Bf16 => Product::Direct,
        }
    }

    fn rate(self) -> f64 {
        match self {
            Product::Direct => H200.product,
            Product::Split => H200.split_product,
            Product::HalfSplit => H200.split_product * 1.5,
            Product::Warpgroup => H200.warpgroup_product,
        }
    }
}

/// What a launch does. A default one clears a few bytes.
#[derive(Debug, Clone, Copy, Default)]
struct Launch {
    /// Read from memory, and written, once each.
    bytes: usize,
    /// Read from the second-level cache.
    cache_bytes: usize,
    /// Written to shared memory, and read.
    shared_bytes: usize,
    /// Of the matrix units, padding included.
    flops: usize,
    product: Product,
    /// Outside the product, of single lanes.
    instructions: usize,
    /// Seconds of a block, and those after it in its place.
    phases: f64,
    /// How many times as long multiprocessors take as if blocks could be divided among them; 0 is 1.
    unevenness: f64,
}

impl Launch {
    /// Seconds, beside those of every launch, and of what.
    fn time(&self) -> (Bound, f64) {
        let unevenness = self.unevenness.max(1.0);
        let candidates = [
            (Bound::Memory, self.bytes as f64 / H200.copy),
            (Bound::Cache, self.cache_bytes as f64 / H200.cache * unevenness),
            (Bound::Shared, self.shared_bytes as f64 / H200.shared * unevenness),
            (Bound::Product, self.flops as f64 / self.product.rate() * unevenness),
            (Bound::Instructions, self.instructions as f64 / H200.instructions * unevenness),
            (Bound::Phases, self.phases),
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

/// Features are read once per pass of columns, all but once from the cache, as if it held those of all blocks; so is
/// the packed matrix, once per tile of rows.
pub fn scores(shape: &Shape, attention: &Attention, dtype: Dtype) -> Work {
    Work(vec![scores_launch(shape, attention, dtype)])
}

/// Scores, the work list, m and l of each bag, and the weighted sum. Features come from memory twice; the scores are
/// written once and read twice. No weight is written.
pub fn in_two_passes(shape: &Shape, attention: &Attention, dtype: Dtype) -> Work {
    let [clear, prepare] = work_list(shape, CHUNK_ROWS);
    let scores = scores_launch(shape, attention, dtype);
    let sum = weighted_sum_launch(shape, attention.heads, dtype, true);
    Work(vec![scores, clear, prepare, normalise(shape, attention.heads), sum])
}

/// The work list, and all else in one launch. Nothing where no tile fits.
pub fn in_one_pass(shape: &Shape, attention: &Attention, dtype: Dtype) -> Option<Work> {
    let tile = attention_pool::Tile::of(&packed(shape, attention, dtype), Hardware::H200)?;
    let [clear, prepare] = work_list(shape, tile.rows());
    let pool = one_pass_launch(shape, attention, dtype, tile);
    Some(Work(vec![clear, prepare, pool]))
}

/// One pass by TMA and wgmma, as `kernels/sm90/attention_pool.cu` does: 128 rows, 64 where D is above 768. A warp copies, columns for a
/// cluster of blocks at once, and two warpgroups take turns at passes, so that what one does with its sums hides behind
/// the product of the other. Nothing for f32, nor where no tile fits.
pub fn by_warpgroups(shape: &Shape, attention: &Attention, dtype: Dtype) -> Option<Work> {
    let depth_bytes = depth_bytes(shape, dtype);
    let (rows, cluster) = if shape.dim <= 768 { (128, 2) } else { (64, 4) };
    let least_stages = 4 * POOL_COLUMNS * STEP_BYTES;
    if dtype == Dtype::F32 || rows * depth_bytes + least_stages > Hardware::H200.shared_bytes {
        return None;
    }
    let [clear, prepare] = work_list(shape, rows);
    Some(Work(vec![clear, prepare, warpgroups_launch(shape, attention, dtype, rows, cluster)]))
}

/// Scores are read once for m and l, and once for the weights.
pub fn softmax(shape: &Shape, heads: usize) -> Work {
    let [clear, prepare] = work_list(shape, CHUNK_ROWS);
    let normalise = normalise(shape, heads);
    let scores = shape.instances() * heads;
    let weights =
        Launch { bytes: 2 * scores * F32 + shape.bags * (heads + 1) * 2 * F32, instructions: 20 * scores, ..normalise };
    Work(vec![clear, prepare, normalise, weights])
}

/// One head or several over shared values; what is pooled is f32.
pub fn weighted_sum(shape: &Shape, heads: usize, dtype: Dtype) -> Work {
    let [clear, prepare] = work_list(shape, CHUNK_ROWS);
    Work(vec![clear, prepare, weighted_sum_launch(shape, heads, dtype, false)])
}

/// Max and mean in one read; both are f32.
pub fn max_mean(shape: &Shape, dtype: Dtype) -> Work {
    let [clear, prepare] = work_list(shape, CHUNK_ROWS);
    let features = shape.instances() * shape.dim;
    let across = shape.dim.div_ceil(abi::MIVC_MAX_MEAN_THREADS as usize * vector_elements(dtype));
    // Ranges, then rows, eight at a time.
    let loads = 1 + shape.chunk_rows().div_ceil(8);
    let pool = Launch {
        bytes: features * dtype.size() + 2 * shape.bags * shape.dim * F32,
        instructions: 3 * features + 12 * shape.bags * shape.dim,
        phases: in_turns(shape.chunks() * across, MAX_MEAN_BLOCKS, loads) + merge(shape, CHUNK_ROWS),
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

fn packed(shape: &Shape, attention: &Attention, dtype: Dtype) -> Pack {
    let sizes = AttentionShape { dim: shape.dim, hidden: shape.hidden, heads: attention.heads, groups: 1 };
    let shape = pack::Shape {
        attention: sizes,
        gated: attention.gated,
        features: dtype,
        f32_product: F32Product::of_capability(9, 0),
    };
    Pack::plan(shape).unwrap()
}

/// Bytes of a row as it is multiplied, in whole steps.
fn depth_bytes(shape: &Shape, dtype: Dtype) -> usize {
    (shape.dim * dtype.size()).next_multiple_of(STEP_BYTES)
}

/// Rows and columns that a block multiplies, the parts of them that a warp does, and the blocks of a multiprocessor.
#[derive(Debug)]
struct Tile {
    rows: usize,
    columns: usize,
    warp_rows: usize,
    warp_columns: usize,
    blocks: usize,
}

impl Tile {
    /// Of `scores`, and of `attention_pool`, as there.
    fn of_scores([rows, columns]: [usize; 2]) -> Self {
        let (warp_rows, warp_columns, blocks) = match (rows, columns) {
            (64, 32) => (16, 32, 4),
            (64, 128) => (32, 64, 2),
            (128, 128) => (64, 64, 2),
            (128, 256) => (64, 64, 1),
            other => panic!("no tile of {other:?}"),
        };
        Tile { rows, columns, warp_rows, warp_columns, blocks }
    }

    fn of_pool(tile: attention_pool::Tile) -> Self {
        let (warp_rows, warp_columns) = match tile.rows() {
            64 => (32, 32),
            128 => (64, 32),
            other => panic!("no tile of {other} rows"),
        };
        let blocks = tile.blocks() / H200.multiprocessors as usize;
        Tile { rows: tile.rows(), columns: POOL_COLUMNS, warp_rows, warp_columns, blocks }
    }

    /// Lines that warps read from shared memory in a step.
    fn lines_of_warps(&self) -> usize {
        let warps = self.rows / self.warp_rows * (self.columns / self.warp_columns);
        warps * (self.warp_rows + self.warp_columns)
    }
}

/// Scores of tiles of rows.
struct Scoring {
    tile: Tile,
    tiles: usize,
    /// Of columns, for each of which a tile goes through all of its depth.
    passes: usize,
    steps: usize,
    product: Product,
    /// Of a pass of a tile, outside the product.
    instructions: usize,
    heads: usize,
    heads_at_once: usize,
    /// Whether the passes but the first find the rows in shared memory.
    keeps_rows: bool,
}

/// What a block uses in a pass, or in a step.
#[derive(Clone, Copy)]
struct Use {
    cache_bytes: usize,
    shared_bytes: usize,
    flops: usize,
}

impl Scoring {
    fn of(shape: &Shape, attention: &Attention, dtype: Dtype, tile: Tile, tiles: usize) -> Self {
        let columns = columns(shape, attention);
        let units_of_pass = if attention.gated { tile.columns / 2 } else { tile.columns };
        // Biases, tanh and gate, then one multiply-add per column and head.
        let per_unit = if attention.gated { GATE_INSTRUCTIONS + 2 } else { TANH_INSTRUCTIONS + 1 };
        Scoring {
            tiles,
            passes: columns.div_ceil(tile.columns),
            steps: depth_bytes(shape, dtype) / STEP_BYTES,
            product: Product::of(dtype),
            instructions: tile.rows * (units_of_pass * per_unit + tile.columns * attention.heads),
            heads: attention.heads,
            heads_at_once: abi::MIVC_SCORES_HEADS_AT_ONCE as usize,
            keeps_rows: false,
            tile,
        }
    }

    fn step(&self, fetches_rows: bool) -> Use {
        let Tile { rows, columns, .. } = self.tile;
        let fetched = columns + if fetches_rows { rows } else { 0 };
        let element_bytes = if matches!(self.product, Product::Split) { F32 } else { 2 };
        Use {
            cache_bytes: fetched * STEP_BYTES,
            shared_bytes: (fetched + self.tile.lines_of_warps()) * STEP_BYTES,
            flops: 2 * rows * columns * STEP_BYTES / element_bytes,
        }
    }

    /// Seconds of a block that has a multiprocessor to itself, or shares it with some that are in other phases, where a
    /// step takes `wait` at least.
    fn pass_seconds(&self, step: Use, wait: f64) -> f64 {
        let of_one = |amount: usize, rate: f64| amount as f64 * H200.multiprocessors / rate;
        let slowest = of_one(step.cache_bytes, H200.cache)
            .max(of_one(step.shared_bytes, H200.shared))
            .max(of_one(step.flops, self.product.rate()))
            .max(wait);
        self.steps as f64 * slowest
    }

    /// Of a block, from its first load to its last score.
    fn block_seconds(&self) -> f64 {
        let after_pass =
            instruction_seconds(self.instructions, 1.0) + self.heads.div_ceil(self.heads_at_once) as f64 * EXCHANGE;
        // Copies begin all stages but one before their step. Rows that are kept have a place each, and begin earlier.
        let stages_ahead = (abi::MIVC_TILE_STAGES - 1) as f64;
        let later_wait = H200.cache_latency / stages_ahead;
        let first_wait = if self.keeps_rows {
            let bytes_ahead = abi::MIVC_POOL_ROW_BYTES_AHEAD as usize;
            later_wait.max(H200.memory_latency / (bytes_ahead / (self.tile.rows * STEP_BYTES)) as f64)
        } else {
            H200.memory_latency / stages_ahead
        };
        H200.memory_latency
            + self.pass_seconds(self.step(true), first_wait)
            + (self.passes - 1) as f64 * self.pass_seconds(self.step(!self.keeps_rows), later_wait)
            + self.passes as f64 * after_pass
    }

    /// What all blocks use, but for bytes of memory. They take turns, and some have one turn more than others.
    fn launch(&self) -> Launch {
        let (first, other) = (self.step(true), self.step(!self.keeps_rows));
        let all = |of: fn(&Use) -> usize| self.tiles * self.steps * (of(&first) + (self.passes - 1) * of(&other));
        let turns = self.tiles as f64 / (H200.multiprocessors * self.tile.blocks as f64);
        Launch {
            cache_bytes: all(|step| step.cache_bytes),
            shared_bytes: all(|step| step.shared_bytes),
            flops: all(|step| step.flops),
            product: self.product,
            instructions: self.tiles * self.passes * self.instructions,
            phases: turns.ceil() * self.block_seconds(),
            unevenness: turns.ceil() / turns,
            ..Launch::default()
        }
    }
}

/// Seconds of one multiprocessor, of which a part has something to do.
fn instruction_seconds(instructions: usize, part: f64) -> f64 {
    instructions as f64 * H200.multiprocessors / (H200.instructions * part)
}

fn columns(shape: &Shape, attention: &Attention) -> usize {
    if attention.gated { 2 * shape.hidden } else { shape.hidden }
}

fn scores_launch(shape: &Shape, attention: &Attention, dtype: Dtype) -> Launch {
    let tile = Tile::of_scores(packed(shape, attention, dtype).tile());
    let (instances, width) = (shape.instances(), tile.columns);
    let tiles = instances.div_ceil(tile.rows);
    let scoring = Scoring::of(shape, attention, dtype, tile, tiles);
    Launch {
        bytes: instances * (shape.dim * dtype.size() + attention.heads * F32)
            + scoring.passes * width * depth_bytes(shape, dtype),
        ..scoring.launch()
    }
}

/// Items of the work list: chunks of long bags; and of short ones, as many neighbours as fit a chunk, of those that a
/// thread of `prepare` takes.
struct Items {
    count: usize,
    /// Of an item, on average.
    bags: f64,
    rows: f64,
    are_chunks: bool,
}

impl Items {
    fn of(shape: &Shape, chunk_rows: usize) -> Self {
        let are_chunks = shape.length > chunk_rows;
        let count = if are_chunks {
            shape.bags * shape.length.div_ceil(chunk_rows)
        } else {
            let most = chunk_rows / shape.length;
            let of_thread = bags_per_thread(shape);
            shape.bags / of_thread * of_thread.div_ceil(most) + (shape.bags % of_thread).div_ceil(most)
        };
        let per_item = |all: usize| all as f64 / count as f64;
        Items { count, bags: per_item(shape.bags).max(1.0), rows: per_item(shape.instances()), are_chunks }
    }
}

/// Bytes of attention pool in one pass: features once; ranges, items and m and l; scores of long bags alone, and m, l and z of
/// each node of their trees, written and read; what is pooled; and the packed columns.
fn one_pass_bytes(shape: &Shape, attention: &Attention, dtype: Dtype, chunk_rows: usize, items: &Items) -> usize {
    let (heads, depth_bytes) = (attention.heads, depth_bytes(shape, dtype));
    let nodes = if items.are_chunks { shape.bags * nodes_of(shape.length.div_ceil(chunk_rows)) } else { 0 };
    let scores = if items.are_chunks { shape.instances() * heads * F32 } else { 0 };
    shape.instances() * shape.dim * dtype.size()
        + shape.bags * I64
        + items.count * size_of::<abi::MivcItem>()
        + scores
        + 2 * nodes * heads * (depth_bytes / dtype.size() + 2) * F32
        + shape.bags * heads * (shape.dim + 2) * F32
        + columns(shape, attention).next_multiple_of(POOL_COLUMNS) * depth_bytes
}

/// What follows the scores of an item, none of which hides behind its product.
struct Summing {
    shared_bytes: f64,
    instructions: f64,
    seconds: f64,
}

impl Summing {
    fn of(shape: &Shape, attention: &Attention, dtype: Dtype, items: &Items) -> Self {
        let heads = attention.heads;
        let at_once = if heads == 1 { 1 } else { abi::MIVC_POOL_SUM_HEADS as usize };
        let down = heads.div_ceil(at_once) as f64;
        let (vector, features) = (vector_elements(dtype), items.rows * shape.dim as f64);
        let shared_bytes = features * down * dtype.size() as f64;
        let instructions =
            features * (down + heads as f64) + features / vector as f64 * (8.0 * down + 3.0 * heads as f64);
        // A thread takes a vector of columns of a bag; a single bag has few.
        let threads = items.bags * shape.dim.div_ceil(vector) as f64 * down;
        let issued = instruction_seconds(instructions as usize, (threads / 128.0).min(1.0));
        let sum = issued.max(shared_bytes * H200.multiprocessors / H200.shared);
        let weigh = (items.bags * heads as f64 / POOL_WARPS as f64).ceil() * WEIGH;
        // What is stored becomes visible, then a ticket; and of one block in so many, the children are merged.
        let ticket = 2.0 * H200.cache_latency;
        let merge = (2 + RADIX / UNROLLED) as f64 * H200.cache_latency / RADIX as f64;
        let climb = if items.are_chunks { ticket + merge } else { 0.0 };
        Summing { shared_bytes, instructions, seconds: weigh + sum + climb }
    }
}

/// Item and range, one of which waits for the other.
const ITEM: f64 = 2.0 * H200.cache_latency;

fn one_pass_launch(shape: &Shape, attention: &Attention, dtype: Dtype, tile: attention_pool::Tile) -> Launch {
    let items = Items::of(shape, tile.rows());
    let scoring = Scoring {
        heads_at_once: abi::MIVC_POOL_HEADS_AT_ONCE as usize,
        keeps_rows: true,
        ..Scoring::of(shape, attention, dtype, Tile::of_pool(tile), items.count)
    };
    let summing = Summing::of(shape, attention, dtype, &items);
    let turns = items.count.div_ceil(tile.blocks()) as f64;
    let launch = scoring.launch();
    let seconds = ITEM + scoring.block_seconds() + summing.seconds;
    Launch {
        bytes: one_pass_bytes(shape, attention, dtype, tile.rows(), &items),
        shared_bytes: launch.shared_bytes + (items.count as f64 * summing.shared_bytes) as usize,
        instructions: launch.instructions + (items.count as f64 * summing.instructions) as usize,
        phases: turns * seconds + merge(shape, tile.rows()),
        ..launch
    }
}

fn warpgroups_launch(shape: &Shape, attention: &Attention, dtype: Dtype, rows: usize, cluster: usize) -> Launch {
    let items = Items::of(shape, rows);
    // Of a pass: a warpgroup multiplies 64 rows at once, and reads columns as often.
    let tile = Tile { rows, columns: POOL_COLUMNS, warp_rows: 64, warp_columns: POOL_COLUMNS, blocks: 1 };
    let scoring = Scoring {
        product: Product::Warpgroup,
        keeps_rows: true,
        ..Scoring::of(shape, attention, dtype, tile, items.count)
    };
    let pass = scoring.step(false);
    let pass = Use { cache_bytes: pass.cache_bytes / cluster, ..pass };
    // Rows have their place from the start, so all of them are under way at once, and so are stages of columns.
    let product = scoring.pass_seconds(pass, 0.0);
    let row_bytes = items.rows * depth_bytes(shape, dtype) as f64;
    let load = H200.memory_latency + row_bytes * H200.multiprocessors / H200.intake;
    let after_pass = instruction_seconds(scoring.instructions, 1.0)
        + scoring.heads.div_ceil(scoring.heads_at_once) as f64 * EXCHANGE;
    let passes = scoring.passes;
    // One behind the other, or, where that takes longer, as fast as a warpgroup does both.
    let hidden = passes as f64 * product + after_pass;
    let in_turns = passes.div_ceil(2) as f64 * (product + after_pass);
    let scores = hidden.max(in_turns) + (load - product).max(0.0);
    let summing = Summing::of(shape, attention, dtype, &items);
    let turns = (items.count as f64 / H200.multiprocessors).ceil();
    let launch = scoring.launch();
    let columns = items.count * passes * scoring.steps * pass.cache_bytes;
    Launch {
        bytes: one_pass_bytes(shape, attention, dtype, rows, &items),
        cache_bytes: columns + (items.count as f64 * row_bytes) as usize,
        shared_bytes: launch.shared_bytes + (items.count as f64 * summing.shared_bytes) as usize,
        instructions: launch.instructions + (items.count as f64 * summing.instructions) as usize,
        phases: turns * (ITEM + scores + summing.seconds) + merge(shape, rows),
        ..launch
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
        phases: in_turns(blocks, SOFTMAX_BLOCKS, loads) + merge(shape, CHUNK_ROWS),
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
        phases: in_turns(shape.chunks() * across * down, blocks, loads) + merge(shape, CHUNK_ROWS),
        ..Launch::default()
    }
}

/// Neighbouring bags that a thread of `prepare` takes, as `src/launch/work_list.rs` has it.
fn bags_per_thread(shape: &Shape) -> usize {
    let [least, most] = [abi::MIVC_PREPARE_LEAST_BAGS_PER_THREAD, abi::MIVC_PREPARE_MOST_BAGS_PER_THREAD];
    shape.bags.div_ceil(abi::MIVC_PREPARE_THREADS as usize).clamp(least as usize, most as usize)
}

/// Counters cleared, and what `prepare` does. Each block reads all offsets before its own, eight at a time and from the
/// cache, the last block most; then a thread visits its bags, and a warp lists the chunks of those that are long.
fn work_list(shape: &Shape, chunk_rows: usize) -> [Launch; 2] {
    const READ_AT_ONCE: usize = 8;
    let threads = abi::MIVC_PREPARE_THREADS as usize;
    let of_thread = bags_per_thread(shape);
    let blocks = shape.bags.div_ceil(threads * of_thread);
    let before = (blocks - 1) * of_thread;
    let chunks = shape.length.div_ceil(chunk_rows);
    let long_bags = if chunks > 1 { shape.bags.min(32 * of_thread) } else { 0 };
    let prepare = Launch {
        bytes: 2 * (shape.bags + 1) * I64,
        phases: H200.memory_latency
            + before.div_ceil(READ_AT_ONCE) as f64 * H200.cache_latency
            + 3.0 * of_thread as f64 * VISIT
            + (long_bags * (1 + chunks.div_ceil(32))) as f64 * STORE,
        ..Launch::default()
    };
    [Launch::default(), prepare]
}

/// Seconds for so many blocks that take the places of a multiprocessor in turns, each with so many loads of which one
/// waits for the other.
fn in_turns(blocks: usize, places: usize, loads: usize) -> f64 {
    let turns = blocks as f64 / (H200.multiprocessors * places as f64);
    turns.max(1.0) * loads as f64 * H200.memory_latency
}

/// Seconds to merge the chunks of the longest bag: per level a ticket, and the partial results of its children.
fn merge(shape: &Shape, chunk_rows: usize) -> f64 {
    let (mut nodes, mut loads) = (shape.length.div_ceil(chunk_rows), 0);
    while nodes > 1 {
        loads += 2 + nodes.min(RADIX).div_ceil(UNROLLED);
        nodes = nodes.div_ceil(RADIX);
    }
    loads as f64 * H200.cache_latency
}

/// Of the tree over so many chunks, which are among them.
fn nodes_of(chunks: usize) -> usize {
    let (mut level, mut nodes) = (chunks, chunks);
    while level > 1 {
        level = level.div_ceil(RADIX);
        nodes += level;
    }
    nodes
}

fn vector_elements(dtype: Dtype) -> usize {
    abi::MIVC_VECTOR_BYTES as usize / dtype.size()
}

impl Shape {
    /// Of all bags.
    fn chunks(&self) -> usize {
        self.bags * self.length.div_ceil(CHUNK_ROWS)
    }

    /// Of the longest chunk.
    fn chunk_rows(&self) -> usize {
        self.length.min(CHUNK_ROWS)
    }
}

/// Panics where the model contradicts what can be known without a GPU.
pub fn check() {
    let near = |a: f64, b: f64| assert!((a / b - 1.0).abs() < 0.02, "{a} is not {b}");
    let shape = Shape { bags: 1000, length: 100, dim: 512, hidden: 128 };
    let gated = Attention { name: "gated", gated: true, heads: 1 };
    let ungated = Attention { name: "ungated", gated: false, heads: 1 };

    // Bytes and FLOPs by hand; a product that fits its tiles has no padding.
    near(max_mean(&shape, Dtype::F32).bytes() as f64, (4 * 512 * (100_000 + 2 * 1000)) as f64);
    near(in_two_passes(&shape, &gated, Dtype::Bf16).bytes() as f64, 100_000.0 * (2.0 * 1024.0 + 12.0) + 2.1e6);
    near(in_one_pass(&shape, &gated, Dtype::Bf16).unwrap().bytes() as f64, 100_000.0 * 1024.0 + 2.3e6);
    near(scores(&shape, &gated, Dtype::Bf16).flops() as f64, shape.score_flops(true) as f64);
    // One column more than fits a tile takes one more tile, of which most is padding.
    let wider = Shape { hidden: 129, ..shape };
    let of_f32 = |shape| scores(shape, &ungated, Dtype::F32).flops();
    assert_eq!(of_f32(&wider), 2 * of_f32(&shape));

    // A bag of 100 rows has a tile of 128 to itself, and its 28 others are multiplied too.
    let padded = in_one_pass(&shape, &gated, Dtype::Bf16).unwrap().flops() as f64;
    near(padded, 1.28 * shape.score_flops(true) as f64);
    // A thread of `prepare` has 64 bags of 7 rows, of which a tile of 128 rows holds 18; the last thread has 32.
    let many = Shape { bags: 100_000, length: 7, ..shape };
    assert_eq!(Items::of(&many, 128).count, 1562 * 4 + 2);
    assert_eq!(Items::of(&Shape { bags: 3, length: 129, ..shape }, 128).count, 6);

    // Nothing is faster than its parts, and what has more to do takes longer.
    let whole = in_two_passes(&shape, &gated, Dtype::Bf16).seconds();
    assert!(whole > scores(&shape, &gated, Dtype::Bf16).seconds());
    for in_passes in [in_two_passes, |shape: &_, attention: &_, dtype| in_one_pass(shape, attention, dtype).unwrap()] {
        let seconds = |attention, dtype| in_passes(&shape, attention, dtype).seconds();
        assert!(seconds(&gated, Dtype::Bf16) > seconds(&ungated, Dtype::Bf16));
        assert!(seconds(&gated, Dtype::Bf16) < seconds(&gated, Dtype::F32));
    }
    let tiny = Shape { bags: 1, length: 1, dim: 8, hidden: 4 };
    assert_eq!(gate(&tiny, Dtype::F32).bound(), Bound::Launches);
    assert_eq!(scores(&shape, &gated, Dtype::F32).bound(), Bound::Product);
    assert!(by_warpgroups(&shape, &gated, Dtype::F32).is_none());

    // A backward multiplies twice what its forward does, and has more to do in f32; a frozen encoder halves it.
    let backward = |dtype, keeps, wants| backward::attention_pool(&shape, &gated, dtype, keeps, wants);
    near(backward(Dtype::Bf16, true, true).flops() as f64, 2.0 * shape.score_flops(true) as f64);
    near(backward(Dtype::Bf16, false, true).flops() as f64, 3.0 * shape.score_flops(true) as f64);
    near(backward(Dtype::Bf16, true, false).flops() as f64, shape.score_flops(true) as f64);
    assert!(backward(Dtype::F32, true, true).seconds() > backward(Dtype::Bf16, true, true).seconds());
}
