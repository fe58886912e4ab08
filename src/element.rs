//! The element types that features may have.

use std::fmt;

use half::{bf16, f16};

use crate::cpu::Kernels;

#[cfg(feature = "cuda")]
use cudarc::driver::DeviceRepr as DeviceElement;

/// What elements in the memory of a device must be; without a device, nothing.
#[cfg(not(feature = "cuda"))]
pub trait DeviceElement {}
#[cfg(not(feature = "cuda"))]
impl<T> DeviceElement for T {}

/// Name of an [`Element`] type, for errors, files and dispatch at run time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Dtype {
    /// IEEE 754 binary32.
    F32,
    /// IEEE 754 binary16.
    F16,
    /// The upper half of a binary32: 8 exponent bits, 7 fraction bits.
    Bf16,
}

impl Dtype {
    /// Bytes of an element.
    pub const fn size(self) -> usize {
        match self {
            Dtype::F32 => 4,
            Dtype::F16 | Dtype::Bf16 => 2,
        }
    }
}

impl fmt::Display for Dtype {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Dtype::F32 => "f32",
            Dtype::F16 => "f16",
            Dtype::Bf16 => "bf16",
        })
    }
}

/// A feature element: `f32`, [`f16`](struct@f16) or [`bf16`].
///
/// It is sealed: the backends know these three. Sums are always taken in f32; an element type only decides how features are stored and, where a
/// caller asks for it, how a pooled embedding is rounded on its way out.
pub trait Element: Kernels + DeviceElement + Copy + Default + PartialEq + fmt::Debug + Send + Sync + 'static {
    /// The type's name.
    const DTYPE: Dtype;

    /// The exact value in f32.
    fn to_f32(self) -> f32;

    /// The nearest value of this type, ties to even; too large becomes infinite, NaN stays NaN.
    fn from_f32(value: f32) -> Self;
}

impl Element for f32 {
    const DTYPE: Dtype = Dtype::F32;

    #[inline(always)]
    fn to_f32(self) -> f32 {
        self
    }

    #[inline(always)]
    fn from_f32(value: f32) -> Self {
        value
    }
}

impl Element for f16 {
    const DTYPE: Dtype = Dtype::F16;

    #[inline(always)]
    fn to_f32(self) -> f32 {
        f16::to_f32(self)
    }

    #[inline(always)]
    fn from_f32(value: f32) -> Self {
        f16::from_f32(value)
    }
}

impl Element for bf16 {
    const DTYPE: Dtype = Dtype::Bf16;

    #[inline(always)]
    fn to_f32(self) -> f32 {
        bf16::to_f32(self)
    }

    /// Without branches, so that compilers make vectors of it; half's own has some.
    #[inline(always)]
    fn from_f32(value: f32) -> Self {
        let bits = value.to_bits();
        let nearest = bits.wrapping_add(0x7fff + (bits >> 16 & 1)) >> 16;
        let quiet = bits >> 16 | 0x40;
        bf16::from_bits(if value.is_nan() { quiet } else { nearest } as u16)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bf16_rounds_as_half_does() {
        // Every sign, exponent and leading fraction bit, before and behind each tie.
        for upper in 0..=u32::from(u16::MAX) {
            for lower in [0, 1, 0x7fff, 0x8000, 0x8001, 0xffff] {
                let x = f32::from_bits(upper << 16 | lower);
                assert_eq!(<bf16 as Element>::from_f32(x).to_bits(), bf16::from_f32(x).to_bits(), "{x:e}");
            }
        }
    }
}
