//! Tensors that the copy engine of sm_90 reads in boxes.

use crate::element::Dtype;

/// Bytes of a map, as the driver encodes it.
pub const TENSOR_MAP_BYTES: usize = 128;

/// A matrix, and the boxes of it that are copied. What a box has beyond the matrix is 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TensorMap {
    /// f16 or bf16.
    pub elements: Dtype,
    /// Of the first element, a multiple of 16.
    pub address: u64,
    /// Elements of a row, and rows: at least 1 of each.
    pub dims: [u64; 2],
    /// From row to row, a multiple of 16.
    pub row_bytes: u64,
    /// Elements of a row, and rows, of a box: a row is as long as the swizzle.
    pub block: [u32; 2],
    /// Where in its row each 16 bytes go.
    pub swizzle: Swizzle,
}

/// Rows of so many bytes, in which the number of 16 bytes is changed by the number of the row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "bytes of a row")]
pub enum Swizzle {
    B64,
    B128,
}
