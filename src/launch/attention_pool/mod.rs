//! Attention pool: scores, softmax over instances and weighted sum as one operation.
//!
//! `path.rs` chooses between one pass over the features and two; each has its file.

mod one_pass;
mod path;
mod sm90;
mod two_passes;

use super::pack::Pack;
use super::scratch::Layout;
use super::work_list::{Capacity, Offsets};
use super::{Step, expect_no_exact};
use crate::element::Dtype;
use crate::error::Result;
use one_pass::{Kernel, OnePass};
use two_passes::TwoPasses;

pub use one_pass::Tile;
pub use path::Path;
pub use sm90::Sm90Tile;

/// What does not change from call to call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    /// How the parameters are packed; it gives the dimension and type of the keys.
    pub pack: Pack,
    /// D of the values, of the type of the keys. Where the keys are pooled, theirs.
    pub value_dim: usize,
    /// Of what is pooled: f32, or as the features.
    pub outputs: Dtype,
    /// How keys that are pooled themselves are; others take two passes.
    pub path: Path,
}

/// Where a call finds its arguments: device addresses, 0 where one is left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Addresses {
    /// As [`Pack`] has made it.
    pub packed: u64,
    /// `[N, D']`, rows [`key_stride`](Self::key_stride) elements apart: what is scored.
    pub keys: u64,
    /// Elements from row to row.
    pub key_stride: usize,
    /// `[N, D]`, rows [`value_stride`](Self::value_stride) elements apart: what is pooled. It may be the keys.
    pub values: u64,
    /// Elements from row to row.
    pub value_stride: usize,
    /// `[B + 1]`, any values.
    pub offsets: Offsets,
    /// u8 `[N]`, 0 = not there.
    pub mask: u64,
    /// `[B, K, D]`.
    pub pooled: u64,
    /// f32 `[N, K]`, of the instances in bags.
    pub scores: u64,
    /// f32 `[N, K]`, of the instances in bags.
    pub weights: u64,
    /// f32 `[B, K]`.
    pub lse: u64,
    /// As of [`scores::Addresses`](super::scores::Addresses::activations); where they are kept, two passes are taken.
    pub activations: u64,
    /// f32 `[B, K]`: the greatest score m of a bag.
    pub max: u64,
    /// f32 `[B, K]`: l, the sum of exp(s − m).
    pub sum: u64,
    /// i64, as [`ExactSums`](super::exact::state::ExactSums) has it: what the others are made of, in
    /// [`Order::Exact`](crate::Order::Exact) alone.
    pub exact: u64,
    /// [`AttentionPool::scratch_bytes`], at a multiple of [`SCRATCH_ALIGN`](super::SCRATCH_ALIGN).
    pub scratch: u64,
}

/// Attention pool of certain shapes.
#[derive(Debug, Clone, Copy)]
pub struct AttentionPool {
    shape: Shape,
    two_passes: TwoPasses,
    one_pass: Option<OnePass>,
    scratch_bytes: usize,
}

impl AttentionPool {
    /// Fixes the layout of the scratch memory.
    ///
    /// # Errors
    /// [`Error::Argument`](crate::Error::Argument) where `outputs` is neither f32 nor the type of the features, or a
    /// size is 0 or beyond what a launch can have.
    pub fn plan(shape: Shape, capacity: Capacity) -> Result<Self> {
        let mut of_two = Layout::default();
        let two_passes = TwoPasses::place(shape, capacity, &mut of_two)?;
        let mut of_one = Layout::default();
        let kernel = match shape.path {
            Path::TwoPasses => None,
            Path::OnePass(tile) => Some(Kernel::Portable(tile)),
            Path::Sm90(tile) => Some(Kernel::Sm90(tile)),
        };
        let one_pass = kernel.map(|kernel| OnePass::place(shape, kernel, capacity, &mut of_one)).transpose()?;
        Ok(AttentionPool { shape, two_passes, one_pass, scratch_bytes: of_one.bytes().max(of_two.bytes()) })
    }

    /// What was planned for.
    pub fn shape(&self) -> Shape {
        self.shape
    }

    /// Bytes of scratch memory that every call needs, whatever its size.
    pub fn scratch_bytes(&self) -> usize {
        self.scratch_bytes
    }

    /// What a call on `call` instances and bags does, in order; nothing where there is no bag.
    ///
    /// # Errors
    /// [`Error::Argument`](crate::Error::Argument) where the call is larger than the plan, or exact sums are asked for.
    pub fn steps(&self, call: Capacity, addresses: Addresses) -> Result<Vec<Step>> {
        expect_no_exact(addresses.exact)?;
        let pools_keys = addresses.values == addresses.keys && addresses.value_stride == addresses.key_stride;
        match &self.one_pass {
            Some(one_pass) if pools_keys && addresses.activations == 0 && one_pass.can_read(call, &addresses) => {
                one_pass.steps(call, addresses)
            }
            _ => self.two_passes.steps(call, addresses),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attention::AttentionShape;
    use crate::launch::Launch;
    use crate::launch::hardware::{Hardware, OnePass};
    use crate::launch::pack::{self, F32Product};

    const CALL: Capacity = Capacity { instances: 1000, bags: 10 };
    const ADDRESSES: Addresses = Addresses {
        packed: 0x1000,
        keys: 0x2000,
        key_stride: 768,
        values: 0x2000,
        value_stride: 768,
        offsets: Offsets::I64(0x3000),
        mask: 0,
        pooled: 0x4000,
        scores: 0,
        weights: 0,
        lse: 0,
        activations: 0,
        max: 0,
        sum: 0,
        exact: 0,
        scratch: 0x10000,
    };

    fn plan(outputs: Dtype) -> Result<AttentionPool> {
        let attention = AttentionShape { dim: 768, hidden: 128, heads: 2, groups: 1 };
        let shape = pack::Shape { attention, gated: true, features: Dtype::Bf16, f32_product: F32Product::Split };
        let pack = Pack::plan(shape)?;
        let path = Path::of(&pack, Hardware { one_pass: Some(OnePass::Portable), ..Hardware::H200 });
        AttentionPool::plan(Shape { pack, value_dim: 768, outputs, path }, CALL)
    }

    fn launches(call: Capacity, addresses: Addresses) -> Vec<Launch> {
        let steps = plan(Dtype::F32).unwrap().steps(call, addresses).unwrap();
        steps.iter().filter_map(Step::as_launch).copied().collect()
    }

    fn kernels(addresses: Addresses) -> Vec<&'static str> {
        launches(CALL, addresses).iter().map(|launch| launch.kernel).collect()
    }

    #[test]
    fn keys_are_pooled_by_one_launch_beside_the_work_list() {
        assert_eq!(kernels(ADDRESSES), ["mivc_prepare", "mivc_attention_pool_bf16_128"]);
        let weighed = kernels(Addresses { weights: 0x5000, ..ADDRESSES });
        assert_eq!(weighed[2..], ["mivc_attention_pool_weights"]);
    }

    #[test]
    fn other_values_and_kept_activations_take_four() {
        let expected =
            ["mivc_scores_bf16_large", "mivc_prepare", "mivc_softmax", "mivc_weighted_sum_heads_bf16_vector"];
        assert_eq!(kernels(Addresses { values: 0x8000, ..ADDRESSES }), expected);
        assert_eq!(kernels(Addresses { activations: 0x8000, ..ADDRESSES }), expected);
    }

    #[test]
    fn blocks_take_turns() {
        let pool = |instances, bags| launches(Capacity { instances, bags }, ADDRESSES)[1];
        assert_eq!(pool(1000, 10).grid, [17, 1, 1]);
        let plan = plan(Dtype::F32).unwrap();
        let many = Capacity { instances: 1 << 20, bags: 10 };
        let Step::Launch(launch) = AttentionPool::plan(plan.shape(), many).unwrap().steps(many, ADDRESSES).unwrap()[2]
        else {
            panic!()
        };
        assert_eq!(launch.grid, [132, 1, 1]);
        assert!(launch.shared_bytes as usize <= Hardware::H200.shared_bytes);
    }

    #[test]
    fn without_bags_there_is_nothing() {
        assert_eq!(launches(Capacity { bags: 0, ..CALL }, ADDRESSES).len(), 0);
        assert_eq!(launches(Capacity { instances: 0, ..CALL }, ADDRESSES).len(), 2);
    }

    #[test]
    fn what_does_not_fit() {
        assert!(plan(Dtype::F16).unwrap_err().to_string().starts_with("outputs: "));
        let error = plan(Dtype::F32).unwrap().steps(Capacity { bags: 11, ..CALL }, ADDRESSES).unwrap_err();
        assert!(error.to_string().starts_with("bags: "), "{error}");
    }
}
