//! Plain Rust: four lanes, which compilers turn into the vectors that every 64-bit processor has.

use half::{bf16, f16};

use super::{LIMB_ZEROS, Simd};

/// The instruction set that is always there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::cpu) struct Portable;

const LANES: usize = 4;

#[inline(always)]
fn map(f: impl Fn(usize) -> f32) -> [f32; LANES] {
    std::array::from_fn(f)
}

impl Simd for Portable {
    type Vector = [f32; LANES];
    type Mask = [bool; LANES];
    type Ints = [i32; LANES];
    const LANES: usize = LANES;
    const STRIP: usize = 6;

    #[inline(always)]
    fn vectorize<R>(self, f: impl FnOnce() -> R) -> R {
        f()
    }

    #[inline(always)]
    fn splat(self, x: f32) -> Self::Vector {
        [x; LANES]
    }

    #[inline(always)]
    unsafe fn load_f32(self, from: *const f32) -> Self::Vector {
        // SAFETY: the caller vouches for LANES elements.
        unsafe { from.cast::<[f32; LANES]>().read_unaligned() }
    }

    #[inline(always)]
    unsafe fn load_f16(self, from: *const f16) -> Self::Vector {
        // SAFETY: the caller vouches for LANES elements.
        let halves = unsafe { from.cast::<[f16; LANES]>().read_unaligned() };
        halves.map(f16::to_f32)
    }

    #[inline(always)]
    unsafe fn load_bf16(self, from: *const bf16) -> Self::Vector {
        // SAFETY: the caller vouches for LANES elements.
        let halves = unsafe { from.cast::<[bf16; LANES]>().read_unaligned() };
        halves.map(|half| f32::from_bits(u32::from(half.to_bits()) << 16))
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut f32, x: Self::Vector) {
        // SAFETY: the caller vouches for LANES elements.
        unsafe { to.cast::<[f32; LANES]>().write_unaligned(x) }
    }

    #[inline(always)]
    fn add(self, a: Self::Vector, b: Self::Vector) -> Self::Vector {
        map(|i| a[i] + b[i])
    }

    #[inline(always)]
    fn sub(self, a: Self::Vector, b: Self::Vector) -> Self::Vector {
        map(|i| a[i] - b[i])
    }

    #[inline(always)]
    fn mul(self, a: Self::Vector, b: Self::Vector) -> Self::Vector {
        map(|i| a[i] * b[i])
    }

    #[inline(always)]
    fn div(self, a: Self::Vector, b: Self::Vector) -> Self::Vector {
        map(|i| a[i] / b[i])
    }

    #[inline(always)]
    fn mul_add(self, a: Self::Vector, b: Self::Vector, c: Self::Vector) -> Self::Vector {
        // A fused multiply-add that the target lacks would become a slow library call.
        if cfg!(any(target_arch = "aarch64", target_feature = "fma")) {
            map(|i| a[i].mul_add(b[i], c[i]))
        } else {
            map(|i| a[i] * b[i] + c[i])
        }
    }

    #[inline(always)]
    fn clamp(self, x: Self::Vector, lo: f32, hi: f32) -> Self::Vector {
        map(|i| x[i].clamp(lo, hi))
    }

    #[inline(always)]
    fn round(self, x: Self::Vector) -> Self::Vector {
        // Adding 1.5·2²³ leaves no fraction bits; the callers' values are far below 2²².
        const MAGIC: f32 = 12_582_912.0;
        map(|i| (x[i] + MAGIC) - MAGIC)
    }

    #[inline(always)]
    fn scale(self, x: Self::Vector, n: Self::Vector) -> Self::Vector {
        map(|i| {
            let half = (n[i] as i32) >> 1;
            let power = |n: i32| f32::from_bits(((n + 127) << 23) as u32);
            x[i] * power(half) * power(n[i] as i32 - half)
        })
    }

    #[inline(always)]
    fn keep(self, mask: Self::Mask, x: Self::Vector) -> Self::Vector {
        map(|i| if mask[i] { x[i] } else { 0.0 })
    }

    #[inline(always)]
    fn first(self, n: usize) -> Self::Mask {
        std::array::from_fn(|i| i < n)
    }

    #[inline(always)]
    fn maximum(self, a: Self::Vector, b: Self::Vector) -> Self::Vector {
        map(|i| {
            if a[i].is_nan() || b[i].is_nan() {
                f32::NAN
            } else if a[i] == b[i] {
                // Equal but for the sign of zero, where + wins.
                f32::from_bits(a[i].to_bits() & b[i].to_bits())
            } else {
                a[i].max(b[i])
            }
        })
    }

    #[inline(always)]
    fn exceeds(self, x: Self::Vector, than: Self::Vector) -> Self::Mask {
        std::array::from_fn(|i| x[i] > than[i] || (x[i].is_nan() && !than[i].is_nan()))
    }

    #[inline(always)]
    fn select(self, mask: Self::Mask, a: Self::Vector, b: Self::Vector) -> Self::Vector {
        map(|i| if mask[i] { a[i] } else { b[i] })
    }

    #[inline(always)]
    fn sum(self, x: Self::Vector) -> f32 {
        (x[0] + x[2]) + (x[1] + x[3])
    }

    #[inline(always)]
    fn splat_int(self, x: i32) -> Self::Ints {
        [x; LANES]
    }

    #[inline(always)]
    fn add_ints(self, a: Self::Ints, b: Self::Ints) -> Self::Ints {
        std::array::from_fn(|i| a[i].wrapping_add(b[i]))
    }

    #[inline(always)]
    fn greatest_int(self, x: Self::Ints) -> i32 {
        x[0].max(x[1]).max(x[2].max(x[3]))
    }

    #[inline(always)]
    fn greater_magnitude(self, x: Self::Vector, than: Self::Ints) -> Self::Ints {
        std::array::from_fn(|i| than[i].max((x[i].to_bits() & 0x7fff_ffff) as i32))
    }

    #[inline(always)]
    fn limbs(self, p: Self::Vector, x: Self::Vector) -> [Self::Ints; 2] {
        // What a fused multiply-add rounds once, f64 holds whole: 48 bits.
        let product: [f64; LANES] = std::array::from_fn(|i| f64::from(p[i]) * f64::from(x[i]));
        let integer = product.map(f64::round_ties_even);
        let high = std::array::from_fn(|i| LIMB_ZEROS[0].to_bits() as i32 + integer[i] as i32);
        let low = std::array::from_fn(|i| {
            let multiple = ((product[i] - integer[i]) * (1 << 22) as f64).round_ties_even();
            LIMB_ZEROS[1].to_bits() as i32 + multiple as i32
        });
        [high, low]
    }

    #[inline(always)]
    unsafe fn store_ints(self, to: *mut i32, x: Self::Ints) {
        // SAFETY: the caller vouches for LANES elements.
        unsafe { to.cast::<[i32; LANES]>().write_unaligned(x) }
    }
}
