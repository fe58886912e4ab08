//! Attention pool by `kernels/attention_pool.cu`, or by the one for sm_90a: features are read once.

use super::sm90::Sm90Tile;
use super::{Addresses, Shape};
use crate::attention::AttentionShape;
use crate::element::Dtype;
use crate::error::Result;
use crate::launch::abi::{self, MivcAttentionPool};
use crate::launch::hardware::Hardware;
use crate::launch::pack::{F32Product, Pack};
use crate::launch::scores::parameters_of_features;
use crate::launch::scratch::{Layout, Part};
use crate::launch::work_list::{Capacity, WorkList, too_large};
use crate::launch::{Launch, Parameters, Step, are_aligned, vector_elements, wrapping_bytes};

/// Elements of what is pooled of a bag at most: sums of chunks are written and read once for each chunk.
const MOST_POOLED: usize = 16 << 10;

/// Whether there are too many heads, or too much of all, for one pass.
pub(super) fn pools_too_much(pack: &Pack) -> bool {
    let AttentionShape { heads, dim, .. } = pack.shape().attention;
    heads > abi::MIVC_POOL_HEADS as usize || heads * dim > MOST_POOLED
}

/// The least that a multiprocessor keeps of its shared memory for each block.
pub(super) const SHARED_OF_BLOCK: usize = 1 << 10;

/// Blocks of a multiprocessor at most, as registers allow.
fn most_blocks(pack: &Pack) -> usize {
    let shape = pack.shape();
    let is_split = shape.features == Dtype::F32 && shape.f32_product == F32Product::Split;
    if is_split { 1 } else { 2 }
}

/// The rows that lie in shared memory at once, and the blocks that take turns at such tiles.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tile {
    rows: usize,
    blocks: usize,
    shared_bytes: usize,
}

impl Tile {
    /// The largest that fits the device; nothing where none does, or too much is pooled.
    pub fn of(pack: &Pack, hardware: Hardware) -> Option<Self> {
        if pools_too_much(pack) {
            return None;
        }
        // Of f32 no smaller one: the product takes so long that another read costs less than the blocks' waits.
        let sizes: &[u32] = match pack.shape().features {
            Dtype::F32 => &[abi::MIVC_POOL_ROWS_HALF],
            Dtype::F16 | Dtype::Bf16 => &[abi::MIVC_POOL_ROWS, abi::MIVC_POOL_ROWS_HALF],
        };
        sizes.iter().find_map(|&rows| {
            let shared_bytes = shared_bytes(pack, rows as usize)?;
            if shared_bytes > hardware.dynamic_shared_bytes() {
                return None;
            }
            let of_multiprocessor = (hardware.shared_bytes + SHARED_OF_BLOCK) / (shared_bytes + SHARED_OF_BLOCK);
            let blocks = hardware.multiprocessors * of_multiprocessor.min(most_blocks(pack));
            Some(Tile { rows: rows as usize, blocks, shared_bytes })
        })
    }

    /// Rows of a tile, and so of the chunks that long bags are cut into.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Blocks that take turns, at most.
    pub fn blocks(&self) -> usize {
        self.blocks
    }

    /// Shared memory of a block.
    pub fn shared_bytes(&self) -> usize {
        self.shared_bytes
    }

    fn launch(&self, pack: &Pack, parameters: MivcAttentionPool, most_items: usize) -> Launch {
        Launch {
            image: "attention_pool",
            kernel: self.kernel(pack),
            grid: [self.blocks.min(most_items) as u32, 1, 1],
            block: [abi::MIVC_POOL_THREADS, 1, 1],
            shared_bytes: self.shared_bytes as u32,
            tensor_maps: None,
            parameters: Parameters::AttentionPool(parameters),
        }
    }

    fn kernel(&self, pack: &Pack) -> &'static str {
        let shape = pack.shape();
        let is_full = self.rows == abi::MIVC_POOL_ROWS as usize;
        match (shape.features, shape.f32_product, is_full) {
            (Dtype::F32, F32Product::Plain, _) => "mivc_attention_pool_f32_64",
            (Dtype::F32, F32Product::Split, _) => "mivc_attention_pool_f32_split_64",
            (Dtype::F16, _, true) => "mivc_attention_pool_f16_128",
            (Dtype::F16, _, false) => "mivc_attention_pool_f16_64",
            (Dtype::Bf16, _, true) => "mivc_attention_pool_bf16_128",
            (Dtype::Bf16, _, false) => "mivc_attention_pool_bf16_64",
        }
    }
}

/// Warps of a block that share rows, each with its own columns.
const WARPS_ACROSS: usize = 4;

/// As `Shared` in the kernel: stages of columns, what warps exchange, scores of the rows, and the rows in slices.
fn shared_bytes(pack: &Pack, rows: usize) -> Option<usize> {
    let depth_bytes = abi::MIVC_TILE_DEPTH_BYTES as usize;
    let shape = pack.shape();
    let columns = (abi::MIVC_TILE_STAGES * abi::MIVC_POOL_COLUMNS) as usize * depth_bytes;
    let exchange = abi::MIVC_POOL_HEADS_AT_ONCE as usize * WARPS_ACROSS * rows * size_of::<f32>();
    let scores = rows * shape.attention.heads * size_of::<f32>();
    let slice = rows * depth_bytes + abi::MIVC_POOL_SLICE_GAP as usize;
    let steps = pack.padded_dim() * shape.features.size() / depth_bytes;
    steps.checked_mul(slice)?.checked_add(columns + exchange + scores)
}

/// By which kernel.
#[derive(Debug, Clone, Copy)]
pub(super) enum Kernel {
    Portable(Tile),
    Sm90(Sm90Tile),
}

impl Kernel {
    fn rows(&self) -> usize {
        match self {
            Kernel::Portable(tile) => tile.rows,
            Kernel::Sm90(tile) => tile.rows(),
        }
    }
}

/// Where things lie in the scratch memory.
#[derive(Debug, Clone, Copy)]
pub(super) struct OnePass {
    shape: Shape,
    kernel: Kernel,
    list: WorkList,
    scores: Part,
    max: Part,
    sum: Part,
    partial_max: Part,
    partial_sum: Part,
    partial_pooled: Part,
}

impl OnePass {
    pub(super) fn place(shape: Shape, kernel: Kernel, capacity: Capacity, layout: &mut Layout) -> Result<Self> {
        let list = WorkList::plan_packed(capacity, kernel.rows(), layout)?;
        let heads = shape.pack.shape().attention.heads;
        let mut part = |rows: usize, columns: usize| {
            let elements = rows.checked_mul(heads)?.checked_mul(columns)?;
            layout.part(elements, size_of::<f32>())
        };
        let mut place = || {
            Some(OnePass {
                shape,
                kernel,
                list,
                scores: part(capacity.instances, 1)?,
                max: part(capacity.bags, 1)?,
                sum: part(capacity.bags, 1)?,
                partial_max: part(list.nodes(), 1)?,
                partial_sum: part(list.nodes(), 1)?,
                partial_pooled: part(list.nodes(), shape.pack.padded_dim())?,
            })
        };
        place().ok_or_else(|| too_large(capacity))
    }

    pub(super) fn steps(&self, call: Capacity, addresses: Addresses) -> Result<Vec<Step>> {
        self.list.expect(call)?;
        if call.bags == 0 {
            return Ok(Vec::new());
        }
        let parameters = self.parameters(call, addresses);
        let most_items = self.list.most_items(call);
        let pool = match self.kernel {
            Kernel::Portable(tile) => tile.launch(&self.shape.pack, parameters, most_items),
            Kernel::Sm90(tile) => tile.launch(&self.shape.pack, parameters, most_items),
        };
        let mut steps = Vec::from(self.list.steps(parameters.list, call, addresses.offsets));
        steps.push(Step::Launch(pool));
        if addresses.weights != 0 {
            steps.push(Step::Launch(Launch {
                image: "attention_pool",
                kernel: "mivc_attention_pool_weights",
                block: [abi::MIVC_POOL_THREADS, 1, 1],
                shared_bytes: 0,
                tensor_maps: None,
                parameters: Parameters::AttentionPool(parameters),
                ..pool
            }));
        }
        Ok(steps)
    }

    /// Whether the kernel can read the keys of a call.
    pub(super) fn can_read(&self, call: Capacity, addresses: &Addresses) -> bool {
        let row_bytes = wrapping_bytes(addresses.key_stride, self.shape.pack.shape().features);
        match self.kernel {
            Kernel::Portable(_) => true,
            Kernel::Sm90(_) => Sm90Tile::can_read(call.instances, are_aligned(&[addresses.keys, row_bytes])),
        }
    }

    fn parameters(&self, call: Capacity, addresses: Addresses) -> MivcAttentionPool {
        let Shape { pack, outputs, .. } = self.shape;
        let Addresses { packed, keys, key_stride, mask, pooled, scores, weights, lse, max, sum, scratch, .. } =
            addresses;
        let or = |address, part: Part| if address == 0 { part.at(scratch) } else { address };
        let is_whole = pack.shape().attention.dim.is_multiple_of(vector_elements(pack.shape().features));
        MivcAttentionPool {
            packed: pack.parameters(packed),
            features: parameters_of_features(pack, keys, key_stride, mask, call.instances),
            list: self.list.parameters(call.bags, 1, scratch),
            scores: or(scores, self.scores),
            weights,
            lse,
            max: or(max, self.max),
            sum: or(sum, self.sum),
            pooled,
            partial_max: self.partial_max.at(scratch),
            partial_sum: self.partial_sum.at(scratch),
            partial_pooled: self.partial_pooled.at(scratch),
            keeps_scores: u32::from(scores != 0 || weights != 0),
            outputs_are_f32: u32::from(outputs == Dtype::F32),
            has_vectors: u32::from(is_whole && are_aligned(&[pooled])),
            unused: 0,
        }
    }
}
