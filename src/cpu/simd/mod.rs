//! One generic algorithm per operation, and what it needs of an instruction set.
//!
//! [`Simd`] is a vector of f32 lanes. A value of a type that implements it exists only where the
//! processor has the instructions, so that its methods are safe to call. [`math`] builds exp, tanh
//! and the gate on it. [`Multiply`] is the inner step of the matrix product, apart because bf16 has
//! an instruction of its own for it.

pub(super) mod math;
mod multiply;
mod portable;
#[cfg(target_arch = "x86_64")]
mod x86;

pub(super) use multiply::{Fma, Multiply};
pub(super) use portable::Portable;
#[cfg(target_arch = "x86_64")]
pub(super) use {
    multiply::Bf16Dot,
    x86::{Avx2, Avx512},
};

use half::{bf16, f16};

use crate::element::{Dtype, Element};

/// Vectors of `LANES` f32 in one instruction set.
///
/// Implementors are tokens: holding one proves that the processor has the instructions.
/// Every method is `#[inline(always)]` and compiles to its instruction only inside
/// [`vectorize`](Simd::vectorize): what stands between the two must be inlined whatever the optimiser
/// thinks, which closures handed to `array::map` or `fold` are not. Loops are.
pub(super) trait Simd: Copy + Send + Sync {
    /// `LANES` f32.
    type Vector: Copy;
    /// One truth value per lane.
    type Mask: Copy;
    /// `LANES` i32.
    type Ints: Copy;
    /// At most [`MAX_LANES`].
    const LANES: usize;
    /// Rows of the product's register tile: as many as leave registers for two vectors of columns and
    /// one broadcast. A divisor of [`TILE_ROWS`](super::tile::TILE_ROWS).
    const STRIP: usize;

    /// Runs `f` compiled for this instruction set.
    fn vectorize<R>(self, f: impl FnOnce() -> R) -> R;

    fn splat(self, x: f32) -> Self::Vector;
    /// # Safety
    /// `LANES` elements are readable at `from`; no alignment is needed. Likewise below.
    unsafe fn load_f32(self, from: *const f32) -> Self::Vector;
    /// # Safety
    /// As for [`load_f32`](Simd::load_f32).
    unsafe fn load_f16(self, from: *const f16) -> Self::Vector;
    /// # Safety
    /// As for [`load_f32`](Simd::load_f32).
    unsafe fn load_bf16(self, from: *const bf16) -> Self::Vector;
    /// # Safety
    /// `LANES` elements are writable at `to`; no alignment is needed.
    unsafe fn store(self, to: *mut f32, x: Self::Vector);

    fn add(self, a: Self::Vector, b: Self::Vector) -> Self::Vector;
    fn sub(self, a: Self::Vector, b: Self::Vector) -> Self::Vector;
    fn mul(self, a: Self::Vector, b: Self::Vector) -> Self::Vector;
    fn div(self, a: Self::Vector, b: Self::Vector) -> Self::Vector;
    /// a·b + c, fused where the instruction set can.
    fn mul_add(self, a: Self::Vector, b: Self::Vector, c: Self::Vector) -> Self::Vector;
    /// Into `[lo, hi]`; NaN stays NaN.
    fn clamp(self, x: Self::Vector, lo: f32, hi: f32) -> Self::Vector;
    /// To the nearest integer, ties to even.
    fn round(self, x: Self::Vector) -> Self::Vector;
    /// x·2ⁿ for an integral n in −200..=200, over- and underflowing like one multiplication.
    fn scale(self, x: Self::Vector, n: Self::Vector) -> Self::Vector;
    /// Lanes of `x` where `mask` is set, 0 elsewhere.
    fn keep(self, mask: Self::Mask, x: Self::Vector) -> Self::Vector;
    /// The first `n` lanes.
    fn first(self, n: usize) -> Self::Mask;

    /// IEEE 754-2019 `maximum`: NaN if either is, and +0 above −0.
    fn maximum(self, a: Self::Vector, b: Self::Vector) -> Self::Vector;
    /// Where `x` takes the place of the maximum `than`: above it, or the first NaN.
    fn exceeds(self, x: Self::Vector, than: Self::Vector) -> Self::Mask;
    /// `a` where the mask is set, `b` elsewhere.
    fn select(self, mask: Self::Mask, a: Self::Vector, b: Self::Vector) -> Self::Vector;

    /// Sum of the lanes, in one fixed order.
    fn sum(self, x: Self::Vector) -> f32;

    fn splat_int(self, x: i32) -> Self::Ints;
    /// Wraps around.
    fn add_ints(self, a: Self::Ints, b: Self::Ints) -> Self::Ints;
    /// The greatest lane.
    fn greatest_int(self, x: Self::Ints) -> i32;
    /// The greater of `than` and the bits of |x|: infinities are above all numbers, NaNs above them.
    fn greater_magnitude(self, x: Self::Vector, than: Self::Ints) -> Self::Ints;
    /// p·x, below 2²² in magnitude, in two parts: the nearest integer i, and the multiple of 2⁻²² nearest to p·x − i. They
    /// come as the bits of 1.5·2²³ + i and of 3 plus the multiple, so that what they have above [`LIMB_ZEROS`] is i and
    /// the multiple times 2²².
    fn limbs(self, p: Self::Vector, x: Self::Vector) -> [Self::Ints; 2];
    /// # Safety
    /// `LANES` elements are writable at `to`; no alignment is needed.
    unsafe fn store_ints(self, to: *mut i32, x: Self::Ints);

    /// `LANES` elements of any type, as f32.
    ///
    /// # Safety
    /// As for [`load_f32`](Simd::load_f32).
    #[inline(always)]
    unsafe fn load<E: Element>(self, from: *const E) -> Self::Vector {
        // SAFETY: `Element` is sealed, and DTYPE names the type that E is; the rest is the caller's.
        unsafe {
            match E::DTYPE {
                Dtype::F32 => self.load_f32(from.cast()),
                Dtype::F16 => self.load_f16(from.cast()),
                Dtype::Bf16 => self.load_bf16(from.cast()),
            }
        }
    }

    /// Up to `LANES` elements, the missing ones 0.
    #[inline(always)]
    fn load_slice<E: Element>(self, from: &[E]) -> Self::Vector {
        if from.len() >= Self::LANES {
            // SAFETY: the slice has LANES elements.
            return unsafe { self.load(from.as_ptr()) };
        }
        let mut padded = [E::default(); MAX_LANES];
        padded[..from.len()].copy_from_slice(from);
        // SAFETY: `padded` has MAX_LANES elements, and LANES is at most that.
        unsafe { self.load(padded.as_ptr()) }
    }

    /// Rounds and writes up to `LANES` elements, as many as `to` has.
    #[inline(always)]
    fn store_slice<E: Element>(self, to: &mut [E], x: Self::Vector) {
        if E::DTYPE == Dtype::F32 && to.len() >= Self::LANES {
            // SAFETY: E is f32, and the slice has LANES of them.
            return unsafe { self.store(to.as_mut_ptr().cast(), x) };
        }
        let mut lanes = [0.0; MAX_LANES];
        // SAFETY: `lanes` has MAX_LANES elements, and LANES is at most that.
        unsafe { self.store(lanes.as_mut_ptr(), x) };
        for (to, &lane) in to.iter_mut().zip(&lanes[..Self::LANES]) {
            *to = E::from_f32(lane);
        }
    }
}

/// The two numbers that [`Simd::limbs`] adds: in the binade of either, the last place of an f32 is what is kept.
pub(super) const LIMB_ZEROS: [f32; 2] = [1.5 * (1 << 23) as f32, 3.0];

/// The widest vector of any instruction set here.
pub(super) const MAX_LANES: usize = 16;

/// Asks the memory for the cache line at `from`, which need not be a valid address.
#[inline(always)]
pub(super) fn prefetch<E>(from: *const E) {
    // SAFETY: a prefetch is a hint and reads nothing that the program can see; it faults at no address.
    #[cfg(target_arch = "x86_64")]
    unsafe {
        std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T0 }>(from.cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = from;
}
