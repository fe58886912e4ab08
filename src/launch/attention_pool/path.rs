//! Which way attention pool goes.

use super::one_pass::Tile;
use super::sm90::Sm90Tile;
use crate::element::Dtype;
use crate::launch::abi;
use crate::launch::hardware::Hardware;
use crate::launch::pack::Pack;

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

/// Time per byte or FLOP, in bytes read from memory meanwhile. Of an H200, by which alone they were found: 4.3 TB/s of
/// memory and 5.5 of the second-level cache, 490 TFLOP/s of 16-bit products by mma.sync, a sixth of them for f32, 790 by
/// wgmma, and 128 bytes per clock and multiprocessor from shared memory.
const CACHE_BYTE: f64 = 4.3 / 5.5;
const PRODUCT_FLOP: f64 = 4.3 / 490.0;
const WGMMA_FLOP: f64 = 4.3 / 790.0;
const F32_PRODUCT_FLOP: f64 = 6.0 * PRODUCT_FLOP;
const SHARED_BYTE: f64 = 4.3 / 29.0;

impl Path {
    /// The faster one by a model of bytes and FLOPs, of dimension, columns, heads, type and device alone: a bag's bits
    /// must not depend on what else is in a call.
    ///
    /// The second read is saved where a tile of rows fits shared memory. But the packed columns come from the cache once
    /// for each tile, and a tile that must be resident has fewer rows than one that need not: half of them cost as
    /// much, from as many columns on, as reading the features again.
    pub fn of(pack: &Pack, hardware: Hardware) -> Self {
        let sm90 = Sm90Tile::of(pack, hardware)
            .map(|tile| (one_pass(pack, tile.rows() * tile.cluster(), WGMMA_FLOP), Path::Sm90(tile)));
        let portable =
            Tile::of(pack, hardware).map(|tile| (one_pass(pack, tile.rows(), product_flop(pack)), Path::OnePass(tile)));
        let candidates = [sm90, portable].into_iter().flatten().chain([(two_passes(pack), Path::TwoPasses)]);
        candidates.min_by(|a, b| a.0.total_cmp(&b.0)).map_or(Path::TwoPasses, |(_, path)| path)
    }
}

/// Time per row, where so many rows share a read of the columns, and the weighted sum waits for the product.
fn one_pass(pack: &Pack, sharing_rows: usize, flop: f64) -> f64 {
    let row = row_bytes(pack);
    let columns = pack.columns_in_passes_of(abi::MIVC_POOL_COLUMNS as usize) as f64;
    let cache = row * (1.0 + columns / sharing_rows as f64) * CACHE_BYTE;
    row.max(cache).max(flops(pack, columns) * flop) + row * SHARED_BYTE
}

/// Time per row: scores, and another read.
fn two_passes(pack: &Pack) -> f64 {
    let row = row_bytes(pack);
    let [rows, tile_columns] = pack.tile();
    let columns = pack.columns_in_passes_of(tile_columns) as f64;
    let cache = row * (columns / tile_columns as f64 + columns / rows as f64) * CACHE_BYTE;
    row.max(cache).max(flops(pack, columns) * product_flop(pack)) + row
}

fn row_bytes(pack: &Pack) -> f64 {
    (pack.padded_dim() * pack.shape().features.size()) as f64
}

fn flops(pack: &Pack, columns: f64) -> f64 {
    2.0 * pack.padded_dim() as f64 * columns
}

fn product_flop(pack: &Pack) -> f64 {
    if pack.shape().features == Dtype::F32 { F32_PRODUCT_FLOP } else { PRODUCT_FLOP }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attention::AttentionShape;
    use crate::launch::pack::{F32Product, Shape};

    /// Rows of the tile, where it is one pass.
    fn rows(features: Dtype, dim: usize, columns: usize, heads: usize, hardware: Hardware) -> Option<usize> {
        let attention = AttentionShape { dim, hidden: columns, heads, groups: 1 };
        let shape = Shape { attention, gated: false, features, f32_product: F32Product::Split };
        match Path::of(&Pack::plan(shape).unwrap(), hardware) {
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
        // Half a tile reads the columns twice as often.
        assert_eq!([128, 512, 1024].map(|columns| on_h200(Bf16, 1024, columns)), [Some(64), None, None]);
        assert_eq!(on_h200(Bf16, 2560, 128), None);
    }

    #[test]
    fn two_passes_where_it_does_not() {
        let small = Hardware { shared_bytes: 99 << 10, multiprocessors: 84, has_sm90: false };
        assert_eq!([128, 256].map(|columns| rows(Dtype::Bf16, 768, columns, 1, Hardware::A100)), [Some(64), None]);
        assert_eq!(rows(Dtype::Bf16, 768, 256, 1, small), None);
        assert_eq!(rows(Dtype::Bf16, 256, 256, 1, small), Some(128));
    }

    #[test]
    fn hopper_has_its_own_where_it_is_asked_for() {
        let hardware = Hardware { has_sm90: true, ..Hardware::H200 };
        let path = |features, dim, columns| {
            let attention = AttentionShape { dim, hidden: columns, heads: 1, groups: 1 };
            let shape = Shape { attention, gated: false, features, f32_product: F32Product::Split };
            Path::of(&Pack::plan(shape).unwrap(), hardware)
        };
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
        assert_eq!(rows(Dtype::Bf16, 256, 256, 64, Hardware::H200), Some(128));
        assert_eq!(rows(Dtype::Bf16, 256, 256, 65, Hardware::H200), None);
        assert_eq!(rows(Dtype::Bf16, 768, 256, 22, Hardware::H200), None);
    }
}
