//! Attention pool by `kernels/sm90/attention_pool.cu`: in one pass, by what sm_90a alone has.

use crate::element::Dtype;
use crate::launch::abi::{self, MivcAttentionPool, MivcAttentionPoolSm90, MivcTensorMap};
use crate::launch::hardware::Hardware;
use crate::launch::pack::Pack;
use crate::launch::{Launch, Parameters, Swizzle, TensorMap};

use super::one_pass::{SHARED_OF_BLOCK, pools_too_much};

/// The rows that lie in shared memory at once, and the stages of columns beside them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sm90Tile {
    rows: usize,
    stages: usize,
    blocks: usize,
    shared_bytes: usize,
}

/// Stages at least: with fewer the copies would not keep up.
const LEAST_STAGES: usize = 3;

impl Sm90Tile {
    /// The largest that fits the device; nothing where none does, or features are f32.
    pub fn of(pack: &Pack, hardware: Hardware) -> Option<Self> {
        let shape = pack.shape();
        let heads = shape.attention.heads;
        if shape.features == Dtype::F32 || pools_too_much(pack) {
            return None;
        }
        let slab_bytes = abi::MIVC_POOL_SM90_SLAB_BYTES as usize;
        let slabs = (pack.padded_dim() * shape.features.size()).div_ceil(slab_bytes);
        if slabs > abi::MIVC_POOL_SM90_MOST_SLABS as usize {
            return None;
        }
        let stage_bytes = abi::MIVC_POOL_SM90_STAGE_BYTES as usize;
        let room = hardware.shared_bytes.checked_sub(abi::MIVC_POOL_SM90_STATIC_BYTES as usize)?;
        [abi::MIVC_POOL_ROWS, abi::MIVC_POOL_ROWS_HALF].into_iter().find_map(|rows| {
            let rows = rows as usize;
            // Parts of the scores, from either warpgroup, and factors of a node's children.
            let floats = (2 * rows + abi::MIVC_MERGE_RADIX as usize) * heads;
            let fixed = slabs * rows * slab_bytes + floats * size_of::<f32>();
            let stages = (room.checked_sub(fixed)? / stage_bytes).min(abi::MIVC_POOL_SM90_MOST_STAGES as usize);
            let cluster = cluster(rows);
            let blocks = hardware.multiprocessors / cluster * cluster;
            let shared_bytes = fixed + stages * stage_bytes;
            (stages >= LEAST_STAGES).then_some(Sm90Tile { rows, stages, blocks: blocks.max(cluster), shared_bytes })
        })
    }

    /// Rows of a tile, and so of the chunks that long bags are cut into.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Blocks that share what they read of the packed columns.
    pub fn cluster(&self) -> usize {
        cluster(self.rows)
    }

    /// Stages of columns.
    pub fn stages(&self) -> usize {
        self.stages
    }

    /// Shared memory of a block, what is not asked for at launch and what a multiprocessor keeps included.
    pub fn shared_bytes(&self) -> usize {
        self.shared_bytes + abi::MIVC_POOL_SM90_STATIC_BYTES as usize + SHARED_OF_BLOCK
    }

    /// Whether the copy engine can read such rows: of a call with instances, and not more than it counts.
    pub(super) fn can_read(instances: usize, is_aligned: bool) -> bool {
        is_aligned && (1..=i32::MAX as usize).contains(&instances)
    }

    pub(super) fn launch(&self, pack: &Pack, pool: MivcAttentionPool, most_items: usize) -> Launch {
        let shape = pack.shape();
        let cluster = self.cluster();
        let bytes = shape.features.size();
        let map = |address, dims: [i64; 2], row_bytes, block, swizzle| TensorMap {
            elements: shape.features,
            address,
            dims: dims.map(|size| size as u64),
            row_bytes,
            block,
            swizzle,
        };
        let (packed, features) = (pool.packed, pool.features);
        let columns = abi::MIVC_POOL_COLUMNS / cluster as u32;
        let (of_slab, of_stage) =
            (abi::MIVC_POOL_SM90_SLAB_BYTES / bytes as u32, abi::MIVC_TILE_DEPTH_BYTES / bytes as u32);
        let maps = [
            map(
                features.rows,
                [packed.dim, features.instances],
                (features.row_stride as u64).wrapping_mul(bytes as u64),
                [of_slab, 64],
                Swizzle::B128,
            ),
            map(
                packed.matrix,
                [packed.padded_dim, packed.groups * packed.group_columns],
                packed.padded_dim as u64 * bytes as u64,
                [of_stage, columns],
                Swizzle::B64,
            ),
        ];
        let empty = MivcTensorMap { words: [0; 16] };
        Launch {
            image: "attention_pool_sm90",
            kernel: self.kernel(shape.features),
            grid: [self.blocks.min(most_items.next_multiple_of(cluster)) as u32, 1, 1],
            block: [abi::MIVC_POOL_SM90_THREADS, 1, 1],
            shared_bytes: self.shared_bytes as u32,
            tensor_maps: Some(maps),
            parameters: Parameters::AttentionPoolSm90(MivcAttentionPoolSm90 {
                features: empty,
                matrix: empty,
                pool,
                stages: self.stages as u64,
                unused: [0; 2],
            }),
        }
    }

    fn kernel(&self, features: Dtype) -> &'static str {
        match (features, self.rows == abi::MIVC_POOL_ROWS as usize) {
            (Dtype::Bf16, true) => "mivc_attention_pool_sm90_bf16_128",
            (Dtype::Bf16, false) => "mivc_attention_pool_sm90_bf16_64",
            (_, true) => "mivc_attention_pool_sm90_f16_128",
            (_, false) => "mivc_attention_pool_sm90_f16_64",
        }
    }
}

fn cluster(rows: usize) -> usize {
    match rows == abi::MIVC_POOL_ROWS as usize {
        true => abi::MIVC_POOL_SM90_CLUSTER as usize,
        false => abi::MIVC_POOL_SM90_CLUSTER_HALF as usize,
    }
}
