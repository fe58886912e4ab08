//! Which way attention pool goes.

use super::one_pass::Tile;
use super::sm90::Sm90Tile;
use crate::element::Dtype;
use crate::launch::abi;
use crate::launch::hardware::Hardware;
use crate::launch::pack::Pack;
use crate::launch::vector_elements;

/// How attention pool is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Path {
    /// Scores, softmax and weighted sum by launches of their own: features are read twice.
    TwoPasses,
    /// By one launch that keeps the rows of a tile in shared memory: features are read once.
    OnePass(Tile),
    /// The same by what sm_90a alone has, which asks for rows that begin at multiples of 16 bytes: others take two
    /// passes.
    Sm90(Sm90Tile),
}

/// Rates of a device, per second of all of it.
struct Rates {
    memory_bytes: f64,
    /// Of the second-level cache.
    cache_bytes: f64,
    shared_bytes: f64,
    /// FLOPs by mma.sync, of f16 and bf16; of f32, as three products of TF32, a sixth.
    product: f64,
    /// By wgmma.
    warpgroup_product: f64,
    /// Of lanes.
    instructions: f64,
    multiprocessors: f64,
}

/// The copy and the products of bf16 were measured by others on such a card; the rest is assumed. For all that have as
/// much shared memory.
const H200: Rates = Rates {
    memory_bytes: 4.3e12,
    cache_bytes: 5.5e12,
    shared_bytes: 29e12,
    product: 490e12,
    warpgroup_product: 790e12,
    instructions: 33.5e12,
    multiprocessors: 132.0,
};

/// Nine tenths of what its maker says of memory, eight of products; the rest is assumed. For all that have less shared
/// memory: boards for desktops differ, but they too have less memory bandwidth beside their cache.
const A100: Rates = Rates {
    memory_bytes: 1.8e12,
    cache_bytes: 4.0e12,
    shared_bytes: 19.5e12,
    product: 250e12,
    warpgroup_product: 0.0,
    instructions: 9.7e12,
    multiprocessors: 108.0,
};

/// Seconds that a block that keeps its rows waits for its item, for the first of its rows, and for the softmax; nothing
/// hides them where it has a multiprocessor to itself.
const WAIT: f64 = 0.8e-6;

impl Path {
    /// The faster one by a model of bytes and FLOPs, of dimension, columns, heads, type and device alone: a bag's bits
    /// must not depend on what else is in a call.
    ///
    /// The second read is saved where a tile of rows fits shared memory. But the packed columns come from the cache once
    /// for each tile, and a tile that must be resident has fewer rows than one that need not: half of them cost as
    /// much, from as many columns on, as reading the features again. And where one tile fills a multiprocessor, its
    /// weighted sum waits for its product, which that of a launch of its own does not: several heads then cost more than
    /// another read.
    pub fn of(pack: &Pack, hardware: Hardware) -> Self {
        let model = Model::of(pack, hardware);
        let sm90 = Sm90Tile::of(pack, hardware).map(|tile| {
            let product = model.rates.warpgroup_product;
            (model.one_pass(tile.rows(), 1, tile.cluster(), product), Path::Sm90(tile))
        });
        let portable = Tile::of(pack, hardware).map(|tile| {
            let blocks = tile.blocks() / hardware.multiprocessors;
            (model.one_pass(tile.rows(), blocks, 1, model.product()), Path::OnePass(tile))
        });
        let candidates = [sm90, portable].into_iter().flatten().chain([(model.two_passes(), Path::TwoPasses)]);
        candidates.min_by(|a, b| a.0.total_cmp(&b.0)).map_or(Path::TwoPasses, |(_, path)| path)
    }
}

/// Of seconds per row.
struct Model<'a> {
    pack: &'a Pack,
    rates: Rates,
}

impl<'a> Model<'a> {
    fn of(pack: &'a Pack, hardware: Hardware) -> Self {
        let is_large = hardware.has_sm90 || hardware.shared_bytes >= Hardware::H200.shared_bytes;
        let rates = if is_large { H200 } else { A100 };
        Model { pack, rates }
    }

    /// Where a multiprocessor has so many blocks, and so many tiles share a read of the columns.
    fn one_pass(&self, rows: usize, blocks: usize, sharing: usize, product: f64) -> f64 {
        let row = self.row_bytes();
        let columns = self.pack.columns_in_passes_of(abi::MIVC_POOL_COLUMNS as usize) as f64;
        let from_cache = row * (1.0 + columns / (rows * sharing) as f64);
        let sum = (row / self.rates.shared_bytes).max(self.sum(abi::MIVC_POOL_SUM_HEADS));
        let scores = self.scores(columns, from_cache, product);
        match blocks {
            1 => scores + sum + WAIT / self.rates.multiprocessors / rows as f64,
            _ => scores.max(sum),
        }
    }

    /// Scores, and a weighted sum that reads the rows again.
    fn two_passes(&self) -> f64 {
        let row = self.row_bytes();
        let [rows, tile_columns] = self.pack.tile();
        let columns = self.pack.columns_in_passes_of(tile_columns) as f64;
        let from_cache = row * (columns / tile_columns as f64 + columns / rows as f64);
        let reads = self.reads(abi::MIVC_WEIGHTED_SUM_HEADS);
        let sum = (row * reads / self.rates.memory_bytes).max(self.sum(abi::MIVC_WEIGHTED_SUM_HEADS));
        self.scores(columns, from_cache, self.product()) + sum
    }

    /// Loads and product, which hide behind each other.
    fn scores(&self, columns: f64, from_cache: f64, product: f64) -> f64 {
        let flops = 2.0 * self.pack.padded_dim() as f64 * columns;
        let Rates { memory_bytes, cache_bytes, .. } = self.rates;
        (self.row_bytes() / memory_bytes).max(from_cache / cache_bytes).max(flops / product)
    }

    /// The instructions of the weighted sum: a conversion for some heads at once and a multiply-add for each, and what
    /// there is beside them for each vector of 16 bytes.
    fn sum(&self, heads_at_once: u32) -> f64 {
        let shape = self.pack.shape();
        let (heads, vector) = (shape.attention.heads as f64, vector_elements(shape.features) as f64);
        let reads = self.reads(heads_at_once);
        let per_feature = reads + heads + (8.0 * reads + 3.0 * heads) / vector;
        self.pack.padded_dim() as f64 * per_feature / self.rates.instructions
    }

    /// How often the weighted sum goes through a row.
    fn reads(&self, heads_at_once: u32) -> f64 {
        self.pack.shape().attention.heads.div_ceil(heads_at_once as usize) as f64
    }

    fn product(&self) -> f64 {
        if self.pack.shape().features == Dtype::F32 { self.rates.product / 6.0 } else { self.rates.product }
    }

    fn row_bytes(&self) -> f64 {
        (self.pack.padded_dim() * self.pack.shape().features.size()) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attention::AttentionShape;
    use crate::launch::pack::{F32Product, Shape};

    fn plan(features: Dtype, dim: usize, columns: usize, heads: usize) -> Pack {
        let attention = AttentionShape { dim, hidden: columns, heads, groups: 1 };
        Pack::plan(Shape { attention, gated: false, features, f32_product: F32Product::Split }).unwrap()
    }

    /// Rows of the tile, where it is one pass.
    fn rows(features: Dtype, dim: usize, columns: usize, heads: usize, hardware: Hardware) -> Option<usize> {
        match Path::of(&plan(features, dim, columns, heads), hardware) {
            Path::TwoPasses => None,
            Path::OnePass(tile) => Some(tile.rows()),
            Path::Sm90(_) => panic!("that was not asked for"),
        }
    }

    #[test]
    fn one_pass_where_a_tile_fits() {
        use Dtype::{Bf16, F32};
        let on_h200 = |features, dim, columns| rows(features, dim, columns, 1, Hardware::H200);
        assert_eq!([128, 256, 512].map(|columns| on_h200(Bf16, 768, columns)), [Some(128); 3]);
        assert_eq!([128, 256].map(|columns| on_h200(F32, 512, columns)), [Some(64); 2]);
        // Half a tile reads the columns twice as often, which an A100 has more of a cache for.
        assert_eq!([128, 512, 1024].map(|columns| on_h200(Bf16, 1024, columns)), [None; 3]);
        assert_eq!([128, 256, 512].map(|columns| rows(Bf16, 768, columns, 1, Hardware::A100)), [Some(64); 3]);
    }

    #[test]
    fn two_passes_where_it_does_not() {
        let small = Hardware { shared_bytes: 99 << 10, multiprocessors: 84, has_sm90: false };
        assert_eq!(rows(Dtype::Bf16, 2560, 128, 1, Hardware::H200), None);
        assert_eq!(rows(Dtype::F32, 1024, 128, 1, Hardware::H200), None);
        assert_eq!(rows(Dtype::Bf16, 768, 256, 1, small), None);
        assert_eq!(rows(Dtype::Bf16, 256, 256, 1, small), Some(128));
    }

    #[test]
    fn hopper_has_its_own_where_it_is_asked_for() {
        let hardware = Hardware { has_sm90: true, ..Hardware::H200 };
        let path = |features, dim, columns| Path::of(&plan(features, dim, columns, 1), hardware);
        let tile = |dim, columns| match path(Dtype::Bf16, dim, columns) {
            Path::Sm90(tile) => Some((tile.rows(), tile.cluster(), tile.stages())),
            _ => None,
        };
        assert_eq!([512, 768].map(|dim| tile(dim, 256)), [Some((128, 2, 8)), Some((128, 2, 4))]);
        assert_eq!([1024, 1536].map(|dim| tile(dim, 256)), [Some((64, 4, 8)), Some((64, 4, 4))]);
        assert_eq!([128, 512, 1024].map(|columns| tile(768, columns)), [Some((128, 2, 4)); 3]);
        assert_eq!(path(Dtype::Bf16, 2560, 256), Path::TwoPasses);
        assert!(matches!(path(Dtype::F32, 512, 256), Path::OnePass(_)));
    }

    #[test]
    fn what_is_pooled_has_an_end() {
        let fits = |dim, heads| Tile::of(&plan(Dtype::Bf16, dim, 256, heads), Hardware::H200).is_some();
        assert!(fits(256, 64));
        assert!(!fits(256, 65));
        assert!(!fits(768, 22));
    }

    #[test]
    fn two_passes_for_several_heads() {
        let of_heads = |dim| [1, 2, 8].map(|heads| rows(Dtype::Bf16, dim, 256, heads, Hardware::H200));
        assert_eq!(of_heads(768), [Some(128), Some(128), None]);
        // Two tiles fit a multiprocessor, and one works while the other waits.
        assert_eq!(of_heads(256), [Some(128); 3]);
    }
}
