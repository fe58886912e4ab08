//! The parameters of attention, laid out for the kernels that score: once per parameters and device.

use super::abi::{self, MivcPack, MivcPacked};
use super::scratch::{Layout, Part};
use super::{Launch, Parameters, Step};
use crate::attention::AttentionShape;
use crate::element::Dtype;
use crate::error::{Error, Result};

/// Blocks of the launch at most; they take turns.
pub(super) const MAX_BLOCKS: usize = 4096;

/// How f32 features are multiplied with V and U. f16 and bf16 always go to the matrix units, which sum them in f32.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum F32Product {
    /// By multiply-adds: one chain over D for each sum.
    Plain,
    /// By the matrix units, each factor split into two TF32 (3xTF32), 8 features at a time added up in f32.
    Split,
}

impl F32Product {
    /// The faster one. Three TF32 products outrun f32 where the matrix units are those of a data centre: sm_80, sm_90
    /// and sm_100 have 8 TF32 operations or more for each in f32, sm_86, sm_89 and sm_120 no more than 4.
    pub fn of_capability(major: i32, minor: i32) -> Self {
        match (major, minor) {
            (8, 0) | (9..=11, _) => F32Product::Split,
            _ => F32Product::Plain,
        }
    }
}

/// A tile of rows and columns that a block multiplies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Tile {
    pub(super) size: Size,
    pub(super) rows: usize,
    pub(super) columns: usize,
    /// Warps side by side.
    across: u32,
    pub(super) threads: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Size {
    Small,
    Medium,
    Large,
}

const SMALL: Tile = Tile {
    size: Size::Small,
    rows: abi::MIVC_SMALL_TILE_ROWS as usize,
    columns: abi::MIVC_SMALL_TILE_COLUMNS as usize,
    across: abi::MIVC_SMALL_TILE_ACROSS,
    threads: abi::MIVC_SMALL_TILE_THREADS,
};
pub(super) const MEDIUM_F32: Tile = Tile {
    size: Size::Medium,
    rows: abi::MIVC_MEDIUM_F32_TILE_ROWS as usize,
    columns: abi::MIVC_MEDIUM_F32_TILE_COLUMNS as usize,
    across: abi::MIVC_MEDIUM_F32_TILE_ACROSS,
    threads: abi::MIVC_MEDIUM_F32_TILE_THREADS,
};
const MEDIUM: Tile = Tile {
    size: Size::Medium,
    rows: abi::MIVC_MEDIUM_TILE_ROWS as usize,
    columns: abi::MIVC_MEDIUM_TILE_COLUMNS as usize,
    across: abi::MIVC_MEDIUM_TILE_ACROSS,
    threads: abi::MIVC_MEDIUM_TILE_THREADS,
};
const LARGE: Tile = Tile {
    size: Size::Large,
    rows: abi::MIVC_LARGE_TILE_ROWS as usize,
    columns: abi::MIVC_LARGE_TILE_COLUMNS as usize,
    across: abi::MIVC_LARGE_TILE_ACROSS,
    threads: abi::MIVC_LARGE_TILE_THREADS,
};

impl Tile {
    /// For the columns of a group: a wide tile reads the features less often, but not where it holds more padding. It
    /// depends on nothing that changes from call to call, and so a row's bits do not either.
    fn of(columns: usize, features: Dtype) -> Self {
        if columns <= SMALL.columns {
            return SMALL;
        }
        if features == Dtype::F32 {
            return MEDIUM_F32;
        }
        let tiles = |tile: Tile| columns.div_ceil(tile.columns) * tile.columns;
        if columns > MEDIUM.columns && tiles(LARGE) <= tiles(MEDIUM) { LARGE } else { MEDIUM }
    }

    /// Bytes of the stages, and of what warps exchange.
    pub(super) fn shared_bytes(&self) -> u32 {
        let stage = (self.rows + self.columns) as u32 * abi::MIVC_TILE_DEPTH_BYTES;
        let parts = abi::MIVC_SCORES_HEADS_AT_ONCE * self.across * self.rows as u32;
        stage * abi::MIVC_TILE_STAGES + parts * size_of::<f32>() as u32
    }
}

/// Which parameters are packed, and for what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    /// All sizes.
    pub attention: AttentionShape,
    /// Whether there is a U.
    pub gated: bool,
    /// Of the features that will be scored: V and U are rounded to it.
    pub features: Dtype,
    /// Of no account for f16 and bf16.
    pub f32_product: F32Product,
}

/// Where the parameters are: device addresses of f32, 0 where one is left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Addresses {
    /// V, `[G, L, D]`.
    pub v: u64,
    /// `[G, L]`.
    pub v_bias: u64,
    /// U, `[G, L, D]`, where and only where it was planned.
    pub u: u64,
    /// `[G, L]`.
    pub u_bias: u64,
    /// w, `[K, L]`.
    pub w: u64,
    /// `[K]`.
    pub w_bias: u64,
    /// [`Pack::bytes`], at a multiple of [`SCRATCH_ALIGN`](super::SCRATCH_ALIGN).
    pub packed: u64,
}

/// Packing of certain shapes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pack {
    shape: Shape,
    pub(super) tile: Tile,
    /// Columns of a group, L or where gated 2 L; and padding included.
    columns: usize,
    group_columns: usize,
    padded_dim: usize,
    matrix: Part,
    column_bias: Part,
    column_weights: Part,
    score_bias: Part,
    bytes: usize,
}

impl Pack {
    /// Fixes the layout of the packed parameters.
    ///
    /// # Errors
    /// [`Error::Argument`] where a size is 0, `groups` does not divide `heads`, or the address space has no room.
    pub fn plan(shape: Shape) -> Result<Self> {
        shape.attention.expect()?;
        Self::place(shape).ok_or_else(|| {
            Error::argument("shape", "parameters that fit the address space", format!("{:?}", shape.attention))
        })
    }

    fn place(shape: Shape) -> Option<Self> {
        let AttentionShape { dim, hidden, heads, groups } = shape.attention;
        let columns = hidden.checked_mul(if shape.gated { 2 } else { 1 })?;
        let tile = Tile::of(columns, shape.features);
        // Whole tiles of `scores` and of `attention_pool`.
        let group_columns = columns.checked_next_multiple_of(tile.columns.max(abi::MIVC_POOL_COLUMNS as usize))?;
        let padded_dim = dim.checked_next_multiple_of(abi::MIVC_TILE_DEPTH_BYTES as usize / shape.features.size())?;
        let all_columns = group_columns.checked_mul(groups)?;
        let mut layout = Layout::default();
        Some(Pack {
            shape,
            tile,
            columns,
            group_columns,
            padded_dim,
            matrix: layout.part(all_columns.checked_mul(padded_dim)?, shape.features.size())?,
            column_bias: layout.part(all_columns, size_of::<f32>())?,
            column_weights: layout.part(heads.checked_mul(group_columns)?, size_of::<f32>())?,
            score_bias: layout.part(heads, size_of::<f32>())?,
            bytes: layout.bytes(),
        })
    }

    /// What was planned for.
    pub fn shape(&self) -> Shape {
        self.shape
    }

    /// Rows and columns that a block of the scores multiplies at once; columns are those of V and, where gated, U.
    pub fn tile(&self) -> [usize; 2] {
        [self.tile.rows, self.tile.columns]
    }

    /// Bytes of the packed parameters.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// What packs.
    ///
    /// # Errors
    /// [`Error::Argument`] where there is a U and none was planned, or the other way round.
    pub fn steps(&self, addresses: Addresses) -> Result<[Step; 1]> {
        self.expect_u(addresses.u)?;
        let Addresses { v, v_bias, u, u_bias, w, w_bias, packed } = addresses;
        let elements = self.shape.attention.groups * self.group_columns * self.padded_dim;
        Ok([Step::Launch(Launch {
            image: "pack",
            kernel: match self.shape.features {
                Dtype::F32 => "mivc_pack_f32",
                Dtype::F16 => "mivc_pack_f16",
                Dtype::Bf16 => "mivc_pack_bf16",
            },
            grid: [elements.div_ceil(abi::MIVC_THREADS as usize).min(MAX_BLOCKS) as u32, 1, 1],
            block: [abi::MIVC_THREADS, 1, 1],
            shared_bytes: 0,
            tensor_maps: None,
            parameters: Parameters::Pack(MivcPack { packed: self.parameters(packed), v, v_bias, u, u_bias, w, w_bias }),
        })])
    }

    /// Elements that the activations of an instance have: `G·L`, and twice that where the attention is gated.
    pub fn activations(&self) -> usize {
        self.shape.attention.groups * self.columns
    }

    /// V, and where there is one, U.
    pub(super) fn matrices(&self) -> usize {
        if self.shape.gated { 2 } else { 1 }
    }

    /// D, padded to whole steps.
    pub(super) fn padded_dim(&self) -> usize {
        self.padded_dim
    }

    /// There is a U exactly where one was planned.
    fn expect_u(&self, u: u64) -> Result<()> {
        if (u != 0) == self.shape.gated {
            return Ok(());
        }
        let expected = if self.shape.gated { "given, as planned" } else { "left out, as planned" };
        Err(Error::argument("u", expected, format!("{u:#x}")))
    }

    /// What kernels get to know of the packed parameters.
    pub(super) fn parameters(&self, packed: u64) -> MivcPacked {
        let AttentionShape { dim, heads, groups, .. } = self.shape.attention;
        MivcPacked {
            matrix: self.matrix.at(packed),
            column_bias: self.column_bias.at(packed),
            column_weights: self.column_weights.at(packed),
            score_bias: self.score_bias.at(packed),
            dim: dim as i64,
            padded_dim: self.padded_dim as i64,
            columns: self.columns as i64,
            group_columns: self.group_columns as i64,
            heads: heads as i64,
            groups: groups as i64,
            is_gated: u32::from(self.shape.gated),
            unused: 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tile(columns: usize, features: Dtype) -> Size {
        Tile::of(columns, features).size
    }

    #[test]
    fn tiles_are_as_wide_as_padding_allows() {
        let sizes = [1, 32, 33, 128, 129, 256, 257, 384, 512].map(|columns| tile(columns, Dtype::Bf16));
        use Size::{Large, Medium, Small};
        assert_eq!(sizes, [Small, Small, Medium, Medium, Large, Large, Medium, Medium, Large]);
        assert_eq!(tile(512, Dtype::F32), Medium);
    }

    #[test]
    fn every_tile_fits_the_smallest_shared_memory() {
        // sm_86, sm_89 and sm_120 have 99 KiB for a block.
        for tile in [SMALL, MEDIUM_F32, MEDIUM, LARGE] {
            assert!(tile.shared_bytes() <= 99 << 10, "{tile:?}");
        }
    }

    #[test]
    fn padding_is_whole_tiles() {
        let attention = AttentionShape { dim: 100, hidden: 5, heads: 6, groups: 3 };
        let shape = Shape { attention, gated: true, features: Dtype::Bf16, f32_product: F32Product::Plain };
        let pack = Pack::plan(shape).unwrap();
        assert_eq!((pack.group_columns, pack.padded_dim), (128, 128));
        assert!(pack.bytes() >= 3 * 128 * 128 * 2);
    }

    #[test]
    fn what_does_not_fit() {
        let attention = AttentionShape { dim: 8, hidden: 4, heads: 2, groups: 1 };
        let shape = Shape { attention, gated: false, features: Dtype::F32, f32_product: F32Product::Split };
        let argument = |error: Error| error.to_string().split(':').next().unwrap().to_owned();
        let plan = |attention| argument(Pack::plan(Shape { attention, ..shape }).unwrap_err());
        assert_eq!(plan(AttentionShape { hidden: 0, ..attention }), "hidden");
        assert_eq!(plan(AttentionShape { groups: 3, ..attention }), "groups");
        assert_eq!(plan(AttentionShape { hidden: usize::MAX / 4, ..attention }), "shape");
        let addresses = Addresses { v: 64, v_bias: 0, u: 64, u_bias: 0, w: 64, w_bias: 0, packed: 256 };
        assert_eq!(argument(Pack::plan(shape).unwrap().steps(addresses).unwrap_err()), "u");
    }
}
