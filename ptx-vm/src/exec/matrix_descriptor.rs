//! Matrices in shared memory, as `wgmma` is told of them.
//!
//! The layouts are those of the PTX ISA, "Shared Memory Matrix Layout".

use crate::tensor_map::Swizzle;

/// Bytes that lie side by side in every layout.
pub const UNIT: usize = 16;
/// Rows, or columns of K, of one 128-byte core matrix.
const CORE: usize = 8;

/// Where a matrix lies in shared memory.
#[derive(Debug, Clone, Copy)]
pub struct Descriptor {
    start: usize,
    leading: usize,
    stride: usize,
    swizzle: Swizzle,
}

impl Descriptor {
    /// The error says what is not possible.
    pub fn new(bits: u64) -> Result<Self, String> {
        let field = |at: u32| ((bits >> at & 0x3fff) << 4) as usize;
        let swizzle = [Swizzle::None, Swizzle::B128, Swizzle::B64, Swizzle::B32][(bits >> 62) as usize];
        let descriptor = Descriptor { start: field(0), leading: field(16), stride: field(32), swizzle };
        let units = swizzle.span() / UNIT;
        match () {
            () if bits >> 49 & 7 != 0 => Err("a matrix descriptor with a base offset is not supported".to_owned()),
            () if descriptor.start >> 7 & (units - 1) != 0 => Err(format!(
                "a matrix that begins at {:#x}, within the {} bytes after which its swizzle repeats",
                descriptor.start,
                units * 128
            )),
            () => Ok(descriptor),
        }
    }

    /// The 16 bytes of a row of which K lies side by side.
    pub fn along_k(&self, row: usize, unit: usize) -> usize {
        let Descriptor { start, leading, stride, swizzle } = *self;
        let group = start + row / CORE * stride;
        match swizzle {
            Swizzle::None => group + row % CORE * UNIT + unit * leading,
            _ => swizzle.apply(group + row % CORE * swizzle.span() + unit * UNIT),
        }
    }

    /// The 16 bytes at one K of which rows (or columns of B) lie side by side.
    pub fn along_rows(&self, unit: usize, k: usize) -> usize {
        let Descriptor { start, leading, stride, swizzle } = *self;
        let units = swizzle.span() / UNIT;
        match swizzle {
            Swizzle::None => start + unit * stride + k % CORE * UNIT + k / CORE * leading,
            _ => {
                let group = start + unit / units * leading + k / CORE * stride;
                swizzle.apply(group + k % CORE * swizzle.span() + unit % units * UNIT)
            }
        }
    }
}
