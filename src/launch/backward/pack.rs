//! The parameters of attention, laid out for the backward of the scores: once per parameters and device.

use super::super::abi::{self, MivcPackBackward, MivcPacked};
use super::super::pack::{self, Addresses, MAX_BLOCKS, Pack, Shape};
use super::super::scratch::{Layout, Part};
use super::super::{Launch, Parameters, Step};
use crate::element::Dtype;
use crate::error::{Error, Result};

/// Packing of certain shapes: as for the forward, and V and U by feature.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PackBackward {
    forward: Pack,
    /// Units of a group, padded to whole vectors.
    group_stride: usize,
    /// Units of all groups of all matrices, and padded to whole steps of a product.
    depth: usize,
    padded_depth: usize,
    /// Features, padded to whole tiles.
    padded_dim: usize,
    by_feature: Part,
    bytes: usize,
}

impl PackBackward {
    /// Fixes the layout of the packed parameters.
    ///
    /// # Errors
    /// As of [`Pack::plan`].
    pub fn plan(shape: Shape) -> Result<Self> {
        let forward = Pack::plan(shape)?;
        Self::place(forward).ok_or_else(|| {
            Error::argument("shape", "parameters that fit the address space", format!("{:?}", shape.attention))
        })
    }

    fn place(forward: Pack) -> Option<Self> {
        let attention = forward.shape().attention;
        let group_stride = attention.hidden.checked_next_multiple_of(VECTOR)?;
        let depth = group_stride.checked_mul(attention.groups)?.checked_mul(forward.matrices())?;
        let padded_depth = depth.checked_next_multiple_of(abi::MIVC_TILE_DEPTH_BYTES as usize / size_of::<f32>())?;
        let padded_dim = attention.dim.checked_next_multiple_of(pack::MEDIUM_F32.columns)?;
        let mut layout = Layout::default();
        // The forward's come first.
        layout.part(forward.bytes(), 1)?;
        let by_feature = layout.part(padded_dim.checked_mul(padded_depth)?, size_of::<f32>())?;
        let bytes = layout.bytes();
        Some(PackBackward { forward, group_stride, depth, padded_depth, padded_dim, by_feature, bytes })
    }

    /// The part that the forward has, at the beginning.
    pub fn forward(&self) -> Pack {
        self.forward
    }

    /// Bytes of the packed parameters.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// What packs.
    ///
    /// # Errors
    /// As of [`Pack::steps`].
    pub fn steps(&self, addresses: Addresses) -> Result<[Step; 2]> {
        let [forward] = self.forward.steps(addresses)?;
        let attention = self.forward.shape().attention;
        let parameters = MivcPackBackward {
            by_feature: self.by_feature.at(addresses.packed),
            v: addresses.v,
            u: addresses.u,
            dim: attention.dim as i64,
            padded_dim: self.padded_dim as i64,
            padded_depth: self.padded_depth as i64,
            groups: attention.groups as i64,
            hidden: attention.hidden as i64,
            group_stride: self.group_stride as i64,
        };
        let blocks = (self.padded_dim * self.padded_depth).div_ceil(abi::MIVC_THREADS as usize).min(MAX_BLOCKS);
        let backward = Step::Launch(Launch {
            image: "pack_backward",
            kernel: match self.forward.shape().features {
                Dtype::F32 => "mivc_pack_backward_f32",
                Dtype::F16 => "mivc_pack_backward_f16",
                Dtype::Bf16 => "mivc_pack_backward_bf16",
            },
            grid: [blocks as u32, 1, 1],
            block: [abi::MIVC_THREADS, 1, 1],
            shared_bytes: 0,
            tensor_maps: None,
            parameters: Parameters::PackBackward(parameters),
        });
        Ok([forward, backward])
    }

    pub(super) fn group_stride(&self) -> usize {
        self.group_stride
    }

    pub(super) fn depth(&self) -> usize {
        self.depth
    }

    /// What kernels get to know of V and U by feature: as if features were columns, and units features.
    pub(super) fn parameters(&self, packed: u64) -> MivcPacked {
        MivcPacked {
            matrix: self.by_feature.at(packed),
            column_bias: 0,
            column_weights: 0,
            score_bias: 0,
            dim: self.depth as i64,
            padded_dim: self.padded_depth as i64,
            columns: self.forward.shape().attention.dim as i64,
            group_columns: self.padded_dim as i64,
            heads: 0,
            groups: 1,
            is_gated: 0,
            unused: 0,
        }
    }
}

/// Elements of f32.
const VECTOR: usize = abi::MIVC_VECTOR_BYTES as usize / size_of::<f32>();

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attention::AttentionShape;
    use crate::launch::pack::F32Product;

    #[test]
    fn units_are_padded_to_vectors_and_features_to_tiles() {
        let attention = AttentionShape { dim: 100, hidden: 5, heads: 6, groups: 3 };
        let shape = Shape { attention, gated: true, features: Dtype::Bf16, f32_product: F32Product::Plain };
        let pack = PackBackward::plan(shape).unwrap();
        assert_eq!((pack.group_stride, pack.depth, pack.padded_depth, pack.padded_dim), (8, 48, 48, 128));
        assert_eq!(pack.bytes(), pack.forward().bytes().next_multiple_of(256) + 48 * 128 * 4);
        let unbounded = AttentionShape { hidden: usize::MAX, ..attention };
        assert!(PackBackward::plan(Shape { attention: unbounded, ..shape }).is_err());
    }
}
