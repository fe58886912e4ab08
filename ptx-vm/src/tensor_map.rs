//! Tensor maps: what the copy engine has to know of a tensor in global memory.
//!
//! The driver encodes them in a form that only the device knows; this is a form of its own, with the driver's rules.

use crate::error::{Error, Result};

/// How rows of a box are spread over the banks of shared memory: 16-byte units change places, as the bits of their
/// address say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Swizzle {
    #[default]
    None,
    /// Within 32 bytes: bit 4 of the address is XORed with bit 7.
    B32,
    /// Within 64 bytes: bits 4 and 5 with bits 7 and 8.
    B64,
    /// Within 128 bytes: bits 4 to 6 with bits 7 to 9.
    B128,
}

impl Swizzle {
    /// Bytes within which units change places.
    pub fn span(self) -> usize {
        match self {
            Swizzle::None => 16,
            Swizzle::B32 => 32,
            Swizzle::B64 => 64,
            Swizzle::B128 => 128,
        }
    }

    /// Where a byte of shared memory comes to lie.
    #[inline(always)]
    pub(crate) fn apply(self, address: usize) -> usize {
        let units = self.span() / 16 - 1;
        address ^ (address >> 7 & units) << 4
    }
}

/// A tensor in global memory and the boxes that `cp.async.bulk.tensor` copies of it. Elements outside of the tensor
/// become 0.
///
/// ```
/// use ptx_vm::{Swizzle, TensorMap};
/// // Boxes of 64 rows of 64 of a bf16 matrix of 1000 rows of 768, at some address.
/// let map = TensorMap {
///     element_bytes: 2,
///     address: 0x1000_0000_0000,
///     dims: vec![768, 1000],
///     strides: vec![1536],
///     block: vec![64, 64],
///     swizzle: Swizzle::B128,
/// };
/// assert_eq!(map.encode()?.len(), 128);
/// # Ok::<(), ptx_vm::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct TensorMap {
    /// 1, 2 or 4.
    pub element_bytes: u32,
    /// Of the first element, a multiple of 16.
    pub address: u64,
    /// Elements, innermost first: one to five dimensions.
    pub dims: Vec<u64>,
    /// Bytes from one element to the next, of all dimensions but the first; multiples of 16.
    pub strides: Vec<u64>,
    /// Elements of a box, innermost first.
    pub block: Vec<u32>,
    pub swizzle: Swizzle,
}

const MAGIC: [u8; 4] = *b"tmap";
const MAX_RANK: usize = 5;
const MAX_BOX: u32 = 256;
const UNIT: u64 = 16;

impl TensorMap {
    /// The 128 bytes that a kernel gets.
    ///
    /// # Errors
    /// [`Error::Argument`] where `cuTensorMapEncodeTiled` would refuse it.
    pub fn encode(&self) -> Result<[u8; 128]> {
        self.check()?;
        let mut bytes = [0; 128];
        bytes[..4].copy_from_slice(&MAGIC);
        bytes[4] = self.element_bytes as u8;
        bytes[5] = self.dims.len() as u8;
        bytes[6] = [Swizzle::None, Swizzle::B32, Swizzle::B64, Swizzle::B128]
            .iter()
            .position(|&swizzle| swizzle == self.swizzle)
            .unwrap_or(0) as u8;
        bytes[8..16].copy_from_slice(&self.address.to_le_bytes());
        for (i, dim) in self.dims.iter().enumerate() {
            bytes[16 + 4 * i..][..4].copy_from_slice(&((dim - 1) as u32).to_le_bytes());
        }
        for (i, stride) in self.strides.iter().enumerate() {
            bytes[40 + 8 * i..][..8].copy_from_slice(&stride.to_le_bytes());
        }
        for (i, block) in self.block.iter().enumerate() {
            bytes[72 + i] = (block - 1) as u8;
        }
        Ok(bytes)
    }

    /// The reverse of [`encode`](Self::encode).
    pub(crate) fn decode(bytes: &[u8; 128]) -> Option<Self> {
        let rank = (bytes[..4] == MAGIC).then_some(bytes[5] as usize)?;
        let number = |at: usize, len: usize| {
            bytes[at..at + len].iter().rev().fold(0_u64, |number, &byte| number << 8 | byte as u64)
        };
        let map = TensorMap {
            element_bytes: bytes[4].into(),
            address: number(8, 8),
            dims: (0..rank.min(MAX_RANK)).map(|i| number(16 + 4 * i, 4) + 1).collect(),
            strides: (1..rank.min(MAX_RANK)).map(|i| number(32 + 8 * i, 8)).collect(),
            block: (0..rank.min(MAX_RANK)).map(|i| bytes[72 + i] as u32 + 1).collect(),
            swizzle: *[Swizzle::None, Swizzle::B32, Swizzle::B64, Swizzle::B128].get(bytes[6] as usize)?,
        };
        map.check().is_ok().then_some(map)
    }

    fn check(&self) -> Result<()> {
        let TensorMap { element_bytes, address, dims, strides, block, swizzle } = self;
        let expect = |is_right: bool, argument, expected: &str, got: String| {
            if is_right { Ok(()) } else { Err(Error::argument(argument, expected, got)) }
        };
        expect(matches!(element_bytes, 1 | 2 | 4), "element_bytes", "1, 2 or 4", element_bytes.to_string())?;
        expect(address.is_multiple_of(UNIT), "address", "a multiple of 16", format!("{address:#x}"))?;
        expect((1..=MAX_RANK).contains(&dims.len()), "dims", "1 to 5 dimensions", format!("{dims:?}"))?;
        let is_dim = |dim: &u64| (1..=1 << 32).contains(dim);
        expect(dims.iter().all(is_dim), "dims", "1 to 2³² elements", format!("{dims:?}"))?;
        let is_stride = |stride: &u64| stride.is_multiple_of(UNIT) && *stride < 1 << 40;
        let expected = "one less than dimensions, multiples of 16 below 2⁴⁰";
        let are_strides = strides.len() + 1 == dims.len() && strides.iter().all(is_stride);
        expect(are_strides, "strides", expected, format!("{strides:?}"))?;
        let are_sides = block.len() == dims.len() && block.iter().all(|side| (1..=MAX_BOX).contains(side));
        expect(are_sides, "block", "one for each dimension, 1 to 256", format!("{block:?}"))?;
        let row = block[0] as u64 * *element_bytes as u64;
        expect(row.is_multiple_of(UNIT), "block", "rows of a multiple of 16 bytes", format!("{row} bytes"))?;
        let fits = *swizzle == Swizzle::None || row <= swizzle.span() as u64;
        expect(fits, "block", "rows no longer than the swizzle's span", format!("{row} bytes"))
    }

    /// Bytes of a box in shared memory.
    pub(crate) fn box_bytes(&self) -> usize {
        self.element_bytes as usize * self.block.iter().map(|&side| side as usize).product::<usize>()
    }

    /// What is inside the tensor of each row of the box at some coordinates: its address, its bytes, and their place
    /// in the box.
    pub(crate) fn rows(&self, coordinates: &[i64]) -> impl Iterator<Item = (u64, usize, usize)> {
        let element = self.element_bytes as i64;
        let row_bytes = self.block[0] as usize * self.element_bytes as usize;
        let first = (-coordinates[0]).clamp(0, self.block[0] as i64);
        let end = (self.dims[0] as i64 - coordinates[0]).clamp(first, self.block[0] as i64);
        let rows: usize = self.block[1..].iter().map(|&side| side as usize).product();
        (0..rows)
            .filter_map(move |row| {
                let mut address = self.address as i64 + (coordinates[0] + first) * element;
                let mut rest = row;
                for (i, stride) in self.strides.iter().enumerate() {
                    let at = coordinates[i + 1] + (rest % self.block[i + 1] as usize) as i64;
                    rest /= self.block[i + 1] as usize;
                    if !(0..self.dims[i + 1] as i64).contains(&at) {
                        return None;
                    }
                    // No address is that far; a wrong one leads nowhere.
                    address = address.wrapping_add(at.wrapping_mul(*stride as i64));
                }
                let bytes = ((end - first) * element) as usize;
                (bytes > 0).then_some((address as u64, bytes, row * row_bytes + (first * element) as usize))
            })
            .collect::<Vec<_>>()
            .into_iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matrix() -> TensorMap {
        TensorMap {
            element_bytes: 2,
            address: 0x1000,
            dims: vec![100, 50],
            strides: vec![208],
            block: vec![64, 8],
            swizzle: Swizzle::B128,
        }
    }

    #[test]
    fn what_is_encoded_is_decoded() {
        let cube = TensorMap {
            dims: vec![1 << 32, 3, 4],
            strides: vec![16, (1 << 40) - 16],
            block: vec![8, 1, 256],
            ..matrix()
        };
        for map in [matrix(), cube] {
            assert_eq!(TensorMap::decode(&map.encode().unwrap()), Some(map));
        }
        assert_eq!(TensorMap::decode(&[0; 128]), None);
    }

    #[test]
    fn what_the_driver_refuses() {
        let refused = |map: TensorMap| match map.encode() {
            Err(Error::Argument { argument, .. }) => argument,
            other => panic!("{other:?}"),
        };
        assert_eq!(refused(TensorMap { element_bytes: 3, ..matrix() }), "element_bytes");
        assert_eq!(refused(TensorMap { address: 0x1008, ..matrix() }), "address");
        assert_eq!(refused(TensorMap { dims: vec![], ..matrix() }), "dims");
        assert_eq!(refused(TensorMap { dims: vec![0, 50], ..matrix() }), "dims");
        assert_eq!(refused(TensorMap { dims: vec![(1 << 32) + 1, 50], ..matrix() }), "dims");
        assert_eq!(refused(TensorMap { strides: vec![200], ..matrix() }), "strides");
        assert_eq!(refused(TensorMap { strides: vec![1 << 40], ..matrix() }), "strides");
        assert_eq!(refused(TensorMap { strides: vec![], ..matrix() }), "strides");
        assert_eq!(refused(TensorMap { block: vec![64, 257], ..matrix() }), "block");
        assert_eq!(refused(TensorMap { block: vec![64, 0], ..matrix() }), "block");
        assert_eq!(refused(TensorMap { block: vec![4, 8], ..matrix() }), "block");
        assert_eq!(refused(TensorMap { block: vec![72, 8], ..matrix() }), "block");
        assert_eq!(refused(TensorMap { swizzle: Swizzle::B64, ..matrix() }), "block");
    }

    #[test]
    fn rows_inside_the_tensor() {
        let rows = |x, y| matrix().rows(&[x, y]).collect::<Vec<_>>();
        assert_eq!(rows(0, 0).len(), 8);
        assert_eq!(rows(64, 48), [(0x1000 + 128 + 48 * 208, 72, 0), (0x1000 + 128 + 49 * 208, 72, 128)]);
        assert_eq!(rows(-60, -7), [(0x1000, 8, 7 * 128 + 120)]);
        assert!(rows(100, 0).is_empty() && rows(-64, 0).is_empty());
    }

    #[test]
    fn swizzles() {
        assert_eq!([0, 0x80, 0x100, 0x380, 0x3f0].map(|at| Swizzle::B128.apply(at)), [0, 0x90, 0x120, 0x3f0, 0x380]);
        assert_eq!([0, 0x80, 0x180, 0x200].map(|at| Swizzle::B64.apply(at)), [0, 0x90, 0x1b0, 0x200]);
        assert_eq!([0, 0x80, 0x90, 0x100].map(|at| Swizzle::B32.apply(at)), [0, 0x90, 0x80, 0x100]);
        assert_eq!(Swizzle::None.apply(0x3f0), 0x3f0);
    }
}
