//! What the backward of each operation does, where all gradients are asked for.

use mivc::Dtype;

use super::{
    Attention, CHUNK_ROWS, F32, GATE_INSTRUCTIONS, Launch, Product, Shape, Work, abi, columns, normalise,
    scores_launch, weighted_sum_launch, work_list,
};

/// Instructions for what tanh and σ pass on, given their values.
const SLOPE_INSTRUCTIONS: usize = 12;

/// Bytes of gradients of columns that a slice of rows has, and what its rows are a multiple of, as
/// `src/launch/backward/scores.rs` has them.
const SLICE_BYTES: usize = 32 << 20;
const LEAST_SLICE_ROWS: usize = 1024;
const MATRICES_BLOCKS: usize = 264;
const MOST_SPLITS: usize = 32;

const TILE_ROWS: usize = abi::MIVC_MEDIUM_F32_TILE_ROWS as usize;
const TILE_COLUMNS: usize = abi::MIVC_MEDIUM_F32_TILE_COLUMNS as usize;
const TILE_UNITS: usize = abi::MIVC_MATRICES_TILE_UNITS as usize;
const TILE_FEATURES: usize = abi::MIVC_MATRICES_TILE_FEATURES as usize;

/// How attention pool is trained: a name, whether activations were kept, and whether the features have a gradient, which
/// those behind a frozen encoder have not.
pub const MODES: [(&str, bool, bool); 3] =
    [("backward", true, true), ("backward-recomputed", false, true), ("backward-frozen", true, false)];

/// Three arrays read and two written.
pub fn gate(shape: &Shape, dtype: Dtype) -> Work {
    let elements = shape.instances() * shape.hidden;
    Work(vec![Launch {
        bytes: 5 * elements * dtype.size(),
        instructions: (GATE_INSTRUCTIONS + SLOPE_INSTRUCTIONS) * elements,
        ..Launch::default()
    }])
}

/// Weights and their gradients are read for a bag's mean, and for the gradients of its scores again, which of a bag of
/// several chunks is another launch.
pub fn softmax(shape: &Shape, heads: usize) -> Work {
    let scores = shape.instances() * heads * F32;
    let of_bag = normalise(shape, heads);
    let [clear, prepare] = work_list(shape, CHUNK_ROWS);
    if is_long(shape) {
        let mean = Launch { bytes: 2 * scores, ..of_bag };
        let write = Launch { bytes: 3 * scores, instructions: of_bag.instructions, ..Launch::default() };
        return Work(vec![clear, prepare, mean, write]);
    }
    Work(vec![clear, prepare, Launch { bytes: 3 * scores, ..of_bag }])
}

/// Values are read for the gradient of the weights, and their own is written.
pub fn weighted_sum(shape: &Shape, heads: usize, dtype: Dtype) -> Work {
    let [clear, prepare] = work_list(shape, CHUNK_ROWS);
    Work(vec![clear, prepare, d_weights(shape, heads, dtype), d_values(shape, heads, dtype)])
}

/// Features are read for the maximum and how many share it, and once more where that is only known later; their
/// gradient is written.
pub fn max_mean(shape: &Shape, dtype: Dtype) -> Work {
    let [clear, prepare] = work_list(shape, CHUNK_ROWS);
    let features = shape.instances() * shape.dim;
    let of_bag = Launch {
        bytes: features * dtype.size() + 2 * shape.bags * shape.dim * F32,
        instructions: 6 * features,
        ..Launch::default()
    };
    let write = Launch { bytes: 2 * features * dtype.size(), instructions: 4 * features, ..Launch::default() };
    if is_long(shape) {
        return Work(vec![clear, prepare, of_bag, write]);
    }
    Work(vec![clear, prepare, Launch { bytes: of_bag.bytes + features * dtype.size(), ..of_bag }])
}

/// Slice after slice: tanh and σ, computed again where they were not kept, the gradients of what went into them, and the
/// products of those with V and U and with the features. Without the gradient of the features there is no product with V
/// and U.
pub fn scores(shape: &Shape, attention: &Attention, dtype: Dtype, keeps: bool, wants_features: bool) -> Work {
    let slice_rows = SLICE_BYTES / F32 / columns(shape, attention) / LEAST_SLICE_ROWS * LEAST_SLICE_ROWS;
    let mut launches = Vec::new();
    for first in (0..shape.instances()).step_by(slice_rows) {
        let rows = slice_rows.min(shape.instances() - first);
        let slice = Slice { shape: Shape { bags: 1, length: rows, ..*shape }, attention, dtype };
        if !keeps {
            let scores = scores_launch(&slice.shape, attention, dtype);
            launches.push(Launch { bytes: scores.bytes + rows * columns(shape, attention) * F32, ..scores });
        }
        launches.extend([slice.d_w(keeps), slice.d_columns(keeps)]);
        if wants_features {
            launches.push(slice.d_features());
        }
        launches.push(slice.d_matrices());
    }
    let tiles = columns(shape, attention).div_ceil(TILE_UNITS) * shape.dim.div_ceil(TILE_FEATURES);
    let splits = (MATRICES_BLOCKS / tiles).clamp(1, MOST_SPLITS);
    launches.push(Launch { bytes: (splits + 1) * columns(shape, attention) * shape.dim * F32, ..Launch::default() });
    Work(launches)
}

/// Of keys that are pooled themselves, with an upstream of what is pooled alone: their gradient as values is added where
/// the other is written.
pub fn attention_pool(shape: &Shape, attention: &Attention, dtype: Dtype, keeps: bool, wants_features: bool) -> Work {
    let [clear, prepare] = work_list(shape, CHUNK_ROWS);
    let Work(of_softmax) = softmax(shape, attention.heads);
    let Work(of_scores) = scores(shape, attention, dtype, keeps, wants_features);
    Work([vec![clear, prepare, d_weights(shape, attention.heads, dtype)], of_softmax, of_scores].concat())
}

fn is_long(shape: &Shape) -> bool {
    shape.length > CHUNK_ROWS
}

fn d_weights(shape: &Shape, heads: usize, dtype: Dtype) -> Launch {
    weighted_sum_launch(shape, heads, dtype, false)
}

fn d_values(shape: &Shape, heads: usize, dtype: Dtype) -> Launch {
    let features = shape.instances() * shape.dim;
    Launch {
        bytes: shape.instances() * heads * F32 + shape.bags * heads * shape.dim * F32 + features * dtype.size(),
        instructions: features * (heads + 1),
        ..Launch::default()
    }
}

/// Rows that are taken at once.
struct Slice<'a> {
    shape: Shape,
    attention: &'a Attention,
    dtype: Dtype,
}

impl Slice<'_> {
    fn rows(&self) -> usize {
        self.shape.instances()
    }

    /// V and, where gated, U, of one row.
    fn columns(&self) -> usize {
        columns(&self.shape, self.attention)
    }

    fn activation_bytes(&self, keeps: bool) -> usize {
        self.rows() * self.columns() * if keeps { self.dtype.size() } else { F32 }
    }

    fn d_w(&self, keeps: bool) -> Launch {
        let instructions = self.rows() * self.columns() * (2 + self.attention.heads);
        Launch { bytes: self.activation_bytes(keeps), instructions, ..Launch::default() }
    }

    fn d_columns(&self, keeps: bool) -> Launch {
        let columns = self.rows() * self.columns();
        Launch {
            bytes: self.activation_bytes(keeps) + columns * F32,
            instructions: columns * (SLOPE_INSTRUCTIONS + 2 * self.attention.heads),
            ..Launch::default()
        }
    }

    /// Of f16 and bf16 features two products of TF32 do, as the other factor is one as it is.
    fn product(&self) -> Product {
        if self.dtype == Dtype::F32 { Product::Split } else { Product::HalfSplit }
    }

    /// V and U come from the cache for each tile of rows, and the gradients of columns for each tile of features.
    fn d_features(&self) -> Launch {
        let (rows, depth) = (self.rows(), self.columns());
        let dim = self.shape.dim.next_multiple_of(TILE_COLUMNS);
        let lines = rows.div_ceil(TILE_ROWS) * dim + rows * (dim / TILE_COLUMNS);
        Launch {
            bytes: rows * depth * F32 + rows * self.shape.dim * self.dtype.size(),
            cache_bytes: lines * depth * F32,
            flops: 2 * rows.next_multiple_of(TILE_ROWS) * dim * depth,
            product: self.product(),
            ..Launch::default()
        }
    }

    /// Rows come from the cache for each tile of units and of features.
    fn d_matrices(&self) -> Launch {
        let (rows, units) = (self.rows(), self.columns().next_multiple_of(TILE_UNITS));
        let dim = self.shape.dim.next_multiple_of(TILE_FEATURES);
        let row_bytes = self.shape.dim * self.dtype.size();
        Launch {
            bytes: rows * (self.columns() * F32 + row_bytes),
            cache_bytes: rows * (units * F32 * (dim / TILE_FEATURES) + row_bytes * (units / TILE_UNITS)),
            flops: 2 * rows * units * dim,
            product: self.product(),
            ..Launch::default()
        }
    }
}
