//! Attention scores.

use super::abi::{MivcActivations, MivcFeatures, MivcScores};
use super::pack::{F32Product, Pack, Size};
use super::{Launch, MAX_GRID_X, Parameters, Step, are_aligned, wrapping_bytes};
use crate::element::Dtype;
use crate::error::{Error, Result};

/// Where a call finds its arguments: device addresses, 0 where one is left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Addresses {
    /// As [`Pack`] has made it.
    pub packed: u64,
    /// `[N, D]`, rows [`row_stride`](Self::row_stride) elements apart.
    pub features: u64,
    /// Elements from row to row.
    pub row_stride: usize,
    /// u8 `[N]`, 0 = not there.
    pub mask: u64,
    /// f32 `[N, K]`.
    pub scores: u64,
    /// `[N, G, L]`, or `[N, 2, G, L]` where gated, of the type of the features: what a backward need not compute again.
    pub activations: u64,
}

/// Scores by parameters of certain shapes.
#[derive(Debug, Clone, Copy)]
pub struct Scores {
    pack: Pack,
}

impl Scores {
    /// By parameters that are packed so.
    pub fn plan(pack: Pack) -> Self {
        Scores { pack }
    }

    /// How the parameters are packed.
    pub fn pack(&self) -> Pack {
        self.pack
    }

    /// What a call on so many instances does; nothing where there is none.
    ///
    /// # Errors
    /// [`Error::Argument`] where there are more instances than a launch can have.
    pub fn steps(&self, instances: usize, addresses: Addresses) -> Result<Option<[Step; 1]>> {
        self.steps_keeping(instances, addresses, kept(self.pack, addresses.activations))
    }

    /// The same, with activations that lie elsewhere.
    pub(super) fn steps_keeping(
        &self,
        instances: usize,
        addresses: Addresses,
        activations: MivcActivations,
    ) -> Result<Option<[Step; 1]>> {
        let tile = self.pack.tile;
        let blocks = instances.div_ceil(tile.rows);
        if blocks > MAX_GRID_X {
            return Err(Error::argument("instances", format!("at most {MAX_GRID_X} * {}", tile.rows), instances));
        }
        if blocks == 0 {
            return Ok(None);
        }
        let Addresses { packed, features, row_stride, mask, scores, .. } = addresses;
        Ok(Some([Step::Launch(Launch {
            image: "scores",
            kernel: self.kernel(),
            grid: [blocks as u32, 1, 1],
            block: [tile.threads, 1, 1],
            shared_bytes: tile.shared_bytes(),
            tensor_maps: None,
            parameters: Parameters::Scores(MivcScores {
                packed: self.pack.parameters(packed),
                features: parameters_of_features(self.pack, features, row_stride, mask, instances),
                scores,
                activations,
            }),
        })]))
    }

    fn kernel(&self) -> &'static str {
        let shape = self.pack.shape();
        match (shape.features, shape.f32_product, self.pack.tile.size) {
            (Dtype::F32, F32Product::Plain, Size::Small) => "mivc_scores_f32_small",
            (Dtype::F32, F32Product::Plain, _) => "mivc_scores_f32_medium",
            (Dtype::F32, F32Product::Split, Size::Small) => "mivc_scores_f32_split_small",
            (Dtype::F32, F32Product::Split, _) => "mivc_scores_f32_split_medium",
            (Dtype::F16, _, Size::Small) => "mivc_scores_f16_small",
            (Dtype::F16, _, Size::Medium) => "mivc_scores_f16_medium",
            (Dtype::F16, _, Size::Large) => "mivc_scores_f16_large",
            (Dtype::Bf16, _, Size::Small) => "mivc_scores_bf16_small",
            (Dtype::Bf16, _, Size::Medium) => "mivc_scores_bf16_medium",
            (Dtype::Bf16, _, Size::Large) => "mivc_scores_bf16_large",
        }
    }
}

/// Activations as callers keep them.
pub(super) fn kept(pack: Pack, at: u64) -> MivcActivations {
    let shape = pack.shape();
    MivcActivations {
        at,
        row_stride: pack.activations() as i64,
        group_stride: shape.attention.hidden as i64,
        are_f32: u32::from(shape.features == Dtype::F32),
        unused: 0,
    }
}

/// What kernels get to know of the features that they score.
pub(super) fn parameters_of_features(
    pack: Pack,
    rows: u64,
    row_stride: usize,
    mask: u64,
    instances: usize,
) -> MivcFeatures {
    let row_bytes = wrapping_bytes(row_stride, pack.shape().features);
    MivcFeatures {
        rows,
        mask,
        instances: instances as i64,
        row_stride: row_stride as i64,
        is_aligned: u32::from(are_aligned(&[rows, row_bytes])),
        unused: 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attention::AttentionShape;
    use crate::launch::pack::Shape;

    const ADDRESSES: Addresses =
        Addresses { packed: 0x10000, features: 0x1000, row_stride: 768, mask: 0, scores: 0x2000, activations: 0 };

    fn launch(features: Dtype, f32_product: F32Product, hidden: usize, instances: usize) -> Option<Launch> {
        let attention = AttentionShape { dim: 768, hidden, heads: 1, groups: 1 };
        let pack = Pack::plan(Shape { attention, gated: true, features, f32_product }).unwrap();
        match Scores::plan(pack).steps(instances, ADDRESSES).unwrap() {
            Some([Step::Launch(launch)]) => Some(launch),
            None => None,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_block_has_a_tile_of_rows() {
        let large = launch(Dtype::Bf16, F32Product::Split, 128, 1000).unwrap();
        assert_eq!((large.kernel, large.grid, large.block), ("mivc_scores_bf16_large", [8, 1, 1], [256, 1, 1]));
        assert_eq!(large.shared_bytes, 3 * (128 + 256) * 64 + 8 * 4 * 128 * 4);
        assert_eq!(launch(Dtype::F32, F32Product::Split, 128, 65).unwrap().grid, [2, 1, 1]);
        assert!(launch(Dtype::F32, F32Product::Split, 128, 0).is_none());
    }

    #[test]
    fn the_kernel_depends_on_nothing_of_the_call() {
        for (features, product, hidden, kernel) in [
            (Dtype::F32, F32Product::Plain, 16, "mivc_scores_f32_small"),
            (Dtype::F32, F32Product::Plain, 128, "mivc_scores_f32_medium"),
            (Dtype::F32, F32Product::Split, 16, "mivc_scores_f32_split_small"),
            (Dtype::F16, F32Product::Plain, 64, "mivc_scores_f16_medium"),
        ] {
            for instances in [1, 100_000] {
                assert_eq!(launch(features, product, hidden, instances).unwrap().kernel, kernel);
            }
        }
    }

    #[test]
    fn what_does_not_fit() {
        let attention = AttentionShape { dim: 8, hidden: 8, heads: 1, groups: 1 };
        let shape = Shape { attention, gated: false, features: Dtype::F32, f32_product: F32Product::Plain };
        let error = Scores::plan(Pack::plan(shape).unwrap()).steps(usize::MAX, ADDRESSES).unwrap_err();
        assert!(error.to_string().starts_with("instances: "), "{error}");
    }
}
