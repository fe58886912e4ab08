//! Which way attention pool goes.

use super::one_pass::Tile;
use super::sm90::Sm90Tile;
use crate::launch::hardware::{Hardware, OnePass};
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

impl Path {
    /// The one that was asked for where a tile of rows fits shared memory, and two passes where none does. It depends on
    /// the sizes of the parameters, the type and the device alone: a bag's bits must not depend on what else is in a call.
    ///
    /// Two passes are what is taken where nothing was asked for: on an H200 they were the faster ones in 41 of 42 rows,
    /// by up to 2.1 times (`benches/results/h200/2026-11-26-notes.md`). One pass saves a read of the features, but its
    /// tile has a multiprocessor to itself, where nothing hides what it waits for.
    pub fn of(pack: &Pack, hardware: Hardware) -> Self {
        let in_one_pass = match hardware.one_pass {
            None => None,
            Some(OnePass::Portable) => Tile::of(pack, hardware).map(Path::OnePass),
            Some(OnePass::Sm90) => Sm90Tile::of(pack, hardware).map(Path::Sm90),
        };
        in_one_pass.unwrap_or(Path::TwoPasses)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attention::AttentionShape;
    use crate::element::Dtype;
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

    const ON_H200: Hardware = Hardware { one_pass: Some(OnePass::Portable), ..Hardware::H200 };

    #[test]
    fn two_passes_where_nothing_was_asked_for() {
        use Dtype::{Bf16, F16, F32};
        assert_eq!([F32, F16, Bf16].map(|features| rows(features, 512, 128, 1, Hardware::H200)), [None; 3]);
    }

    #[test]
    fn one_pass_where_a_tile_fits() {
        use Dtype::{Bf16, F32};
        let on_a100 = Hardware { one_pass: Some(OnePass::Portable), ..Hardware::A100 };
        assert_eq!([128, 512].map(|columns| rows(Bf16, 768, columns, 1, ON_H200)), [Some(128); 2]);
        assert_eq!([128, 512].map(|columns| rows(Bf16, 768, columns, 1, on_a100)), [Some(64); 2]);
        assert_eq!([512, 768].map(|dim| rows(F32, dim, 128, 1, ON_H200)), [Some(64); 2]);
    }

    #[test]
    fn two_passes_where_it_does_not() {
        let small = Hardware { shared_bytes: 99 << 10, multiprocessors: 84, ..ON_H200 };
        assert_eq!(rows(Dtype::Bf16, 2560, 128, 1, ON_H200), None);
        assert_eq!(rows(Dtype::F32, 1024, 128, 1, ON_H200), None);
        assert_eq!(rows(Dtype::Bf16, 768, 256, 1, small), None);
        assert_eq!(rows(Dtype::Bf16, 256, 256, 1, small), Some(128));
    }

    #[test]
    fn hopper_has_its_own_where_it_is_asked_for() {
        let hardware = Hardware { one_pass: Some(OnePass::Sm90), ..Hardware::H200 };
        let path = |features, dim, columns| Path::of(&plan(features, dim, columns, 1), hardware);
        let tile = |dim, columns| match path(Dtype::Bf16, dim, columns) {
            Path::Sm90(tile) => Some((tile.rows(), tile.cluster(), tile.stages())),
            _ => None,
        };
        assert_eq!([512, 768].map(|dim| tile(dim, 256)), [Some((128, 2, 8)), Some((128, 2, 4))]);
        assert_eq!([1024, 1536].map(|dim| tile(dim, 256)), [Some((64, 4, 8)), Some((64, 4, 4))]);
        assert_eq!([128, 512, 1024].map(|columns| tile(768, columns)), [Some((128, 2, 4)); 3]);
        assert_eq!(path(Dtype::Bf16, 2560, 256), Path::TwoPasses);
        assert_eq!(path(Dtype::F32, 512, 256), Path::TwoPasses);
    }

    #[test]
    fn what_is_pooled_has_an_end() {
        let of_heads = |dim, heads| rows(Dtype::Bf16, dim, 256, heads, ON_H200);
        assert_eq!(of_heads(256, 64), Some(128));
        assert_eq!(of_heads(256, 65), None);
        assert_eq!(of_heads(768, 22), None);
    }
}
