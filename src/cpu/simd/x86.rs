//! AVX2 with FMA, and AVX-512, as thin rows of intrinsics.

use std::arch::x86_64::*;

use half::{bf16, f16};

use super::{LIMB_ZEROS, Simd};

/// AVX2, FMA and F16C; exists only where the processor has them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::cpu) struct Avx2(());

/// AVX-512 F, BW, DQ and VL; exists only where the processor has them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::cpu) struct Avx512(());

impl Avx2 {
    pub(in crate::cpu) fn detect() -> Option<Self> {
        let found =
            is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") && is_x86_feature_detected!("f16c");
        found.then_some(Avx2(()))
    }
}

impl Avx512 {
    pub(in crate::cpu) fn detect() -> Option<Self> {
        let found = is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512dq")
            && is_x86_feature_detected!("avx512vl");
        found.then_some(Avx512(()))
    }
}

impl Simd for Avx2 {
    type Vector = __m256;
    type Mask = __m256;
    type Ints = __m256i;
    const LANES: usize = 8;
    const STRIP: usize = 6;

    #[inline(always)]
    fn vectorize<R>(self, f: impl FnOnce() -> R) -> R {
        #[target_feature(enable = "avx2,fma,f16c")]
        fn run<R>(f: impl FnOnce() -> R) -> R {
            f()
        }
        // SAFETY: `self` exists only where the processor has these features.
        unsafe { run(f) }
    }

    #[inline(always)]
    fn splat(self, x: f32) -> __m256 {
        // SAFETY: `self` exists only where the processor has AVX2; the same holds below.
        unsafe { _mm256_set1_ps(x) }
    }

    #[inline(always)]
    unsafe fn load_f32(self, from: *const f32) -> __m256 {
        // SAFETY: as in `splat`, and the caller vouches for 8 elements.
        unsafe { _mm256_loadu_ps(from) }
    }

    #[inline(always)]
    unsafe fn load_f16(self, from: *const f16) -> __m256 {
        // SAFETY: F16C as in `splat`, and the caller vouches for 8 elements of 2 bytes.
        unsafe { _mm256_cvtph_ps(_mm_loadu_si128(from.cast())) }
    }

    #[inline(always)]
    unsafe fn load_bf16(self, from: *const bf16) -> __m256 {
        // SAFETY: as in `splat`, and the caller vouches for 8 elements of 2 bytes.
        unsafe {
            let halves = _mm256_cvtepu16_epi32(_mm_loadu_si128(from.cast()));
            _mm256_castsi256_ps(_mm256_slli_epi32::<16>(halves))
        }
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut f32, x: __m256) {
        // SAFETY: as in `splat`, and the caller vouches for 8 elements.
        unsafe { _mm256_storeu_ps(to, x) }
    }

    #[inline(always)]
    fn add(self, a: __m256, b: __m256) -> __m256 {
        // SAFETY: as in `splat`.
        unsafe { _mm256_add_ps(a, b) }
    }

    #[inline(always)]
    fn sub(self, a: __m256, b: __m256) -> __m256 {
        // SAFETY: as in `splat`.
        unsafe { _mm256_sub_ps(a, b) }
    }

    #[inline(always)]
    fn mul(self, a: __m256, b: __m256) -> __m256 {
        // SAFETY: as in `splat`.
        unsafe { _mm256_mul_ps(a, b) }
    }

    #[inline(always)]
    fn div(self, a: __m256, b: __m256) -> __m256 {
        // SAFETY: as in `splat`.
        unsafe { _mm256_div_ps(a, b) }
    }

    #[inline(always)]
    fn mul_add(self, a: __m256, b: __m256, c: __m256) -> __m256 {
        // SAFETY: FMA as in `splat`.
        unsafe { _mm256_fmadd_ps(a, b, c) }
    }

    #[inline(always)]
    fn clamp(self, x: __m256, lo: f32, hi: f32) -> __m256 {
        // SAFETY: as in `splat`. Of a NaN, min and max return their second operand, here x.
        unsafe { _mm256_min_ps(_mm256_set1_ps(hi), _mm256_max_ps(_mm256_set1_ps(lo), x)) }
    }

    #[inline(always)]
    fn round(self, x: __m256) -> __m256 {
        // SAFETY: as in `splat`.
        unsafe { _mm256_round_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(x) }
    }

    #[inline(always)]
    fn scale(self, x: __m256, n: __m256) -> __m256 {
        // 2ⁿ need not be a float where the product is one, hence two factors.
        // SAFETY: as in `splat`.
        unsafe {
            let n = _mm256_cvtps_epi32(n);
            let half = _mm256_srai_epi32::<1>(n);
            let power = |n| _mm256_castsi256_ps(_mm256_slli_epi32::<23>(_mm256_add_epi32(n, _mm256_set1_epi32(127))));
            _mm256_mul_ps(_mm256_mul_ps(x, power(half)), power(_mm256_sub_epi32(n, half)))
        }
    }

    #[inline(always)]
    fn keep(self, mask: __m256, x: __m256) -> __m256 {
        // SAFETY: as in `splat`.
        unsafe { _mm256_and_ps(mask, x) }
    }

    #[inline(always)]
    fn first(self, n: usize) -> __m256 {
        // SAFETY: as in `splat`.
        unsafe {
            let lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
            _mm256_castsi256_ps(_mm256_cmpgt_epi32(_mm256_set1_epi32(n.min(8) as i32), lane))
        }
    }

    #[inline(always)]
    fn maximum(self, a: __m256, b: __m256) -> __m256 {
        // SAFETY: as in `splat`. Either order of equals returns its second operand; they differ at
        // most in the sign of zero, and AND keeps +.
        unsafe {
            let max = _mm256_and_ps(_mm256_max_ps(a, b), _mm256_max_ps(b, a));
            _mm256_blendv_ps(max, _mm256_set1_ps(f32::NAN), _mm256_cmp_ps::<_CMP_UNORD_Q>(a, b))
        }
    }

    #[inline(always)]
    fn exceeds(self, x: __m256, than: __m256) -> __m256 {
        // SAFETY: as in `splat`. Not ≤ is above or unordered; a `than` that is NaN keeps its place.
        unsafe {
            let not_below = _mm256_cmp_ps::<_CMP_NLE_UQ>(x, than);
            _mm256_and_ps(not_below, _mm256_cmp_ps::<_CMP_ORD_Q>(than, than))
        }
    }

    #[inline(always)]
    fn select(self, mask: __m256, a: __m256, b: __m256) -> __m256 {
        // SAFETY: as in `splat`.
        unsafe { _mm256_blendv_ps(b, a, mask) }
    }

    #[inline(always)]
    fn sum(self, x: __m256) -> f32 {
        // SAFETY: as in `splat`.
        unsafe {
            let x = _mm_add_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps::<1>(x));
            let x = _mm_add_ps(x, _mm_movehl_ps(x, x));
            _mm_cvtss_f32(_mm_add_ss(x, _mm_shuffle_ps::<1>(x, x)))
        }
    }

    #[inline(always)]
    fn splat_int(self, x: i32) -> __m256i {
        // SAFETY: as in `splat`.
        unsafe { _mm256_set1_epi32(x) }
    }

    #[inline(always)]
    fn add_ints(self, a: __m256i, b: __m256i) -> __m256i {
        // SAFETY: as in `splat`.
        unsafe { _mm256_add_epi32(a, b) }
    }

    #[inline(always)]
    fn greatest_int(self, x: __m256i) -> i32 {
        // SAFETY: as in `splat`.
        unsafe {
            let x = _mm_max_epi32(_mm256_castsi256_si128(x), _mm256_extracti128_si256::<1>(x));
            let x = _mm_max_epi32(x, _mm_shuffle_epi32::<0b01_00_11_10>(x));
            _mm_cvtsi128_si32(_mm_max_epi32(x, _mm_shuffle_epi32::<0b10_11_00_01>(x)))
        }
    }

    #[inline(always)]
    fn greater_magnitude(self, x: __m256, than: __m256i) -> __m256i {
        // SAFETY: as in `splat`.
        unsafe {
            let magnitude = _mm256_and_si256(_mm256_castps_si256(x), _mm256_set1_epi32(0x7fff_ffff));
            _mm256_max_epi32(magnitude, than)
        }
    }

    #[inline(always)]
    fn limbs(self, p: __m256, x: __m256) -> [__m256i; 2] {
        // SAFETY: as in `splat`.
        unsafe {
            let high = _mm256_fmadd_ps(p, x, _mm256_set1_ps(LIMB_ZEROS[0]));
            // 3 − i, of so few bits that nothing is rounded.
            let rest = _mm256_sub_ps(_mm256_set1_ps(LIMB_ZEROS[0] + LIMB_ZEROS[1]), high);
            [_mm256_castps_si256(high), _mm256_castps_si256(_mm256_fmadd_ps(p, x, rest))]
        }
    }

    #[inline(always)]
    unsafe fn store_ints(self, to: *mut i32, x: __m256i) {
        // SAFETY: as in `splat`, and the caller vouches for 8 elements.
        unsafe { _mm256_storeu_si256(to.cast(), x) }
    }
}

impl Simd for Avx512 {
    type Vector = __m512;
    type Mask = __mmask16;
    type Ints = __m512i;
    const LANES: usize = 16;
    const STRIP: usize = 14;

    #[inline(always)]
    fn vectorize<R>(self, f: impl FnOnce() -> R) -> R {
        #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
        fn run<R>(f: impl FnOnce() -> R) -> R {
            f()
        }
        // SAFETY: `self` exists only where the processor has these features.
        unsafe { run(f) }
    }

    #[inline(always)]
    fn splat(self, x: f32) -> __m512 {
        // SAFETY: `self` exists only where the processor has AVX-512; the same holds below.
        unsafe { _mm512_set1_ps(x) }
    }

    #[inline(always)]
    unsafe fn load_f32(self, from: *const f32) -> __m512 {
        // SAFETY: as in `splat`, and the caller vouches for 16 elements.
        unsafe { _mm512_loadu_ps(from) }
    }

    #[inline(always)]
    unsafe fn load_f16(self, from: *const f16) -> __m512 {
        // SAFETY: as in `splat`, and the caller vouches for 16 elements of 2 bytes.
        unsafe { _mm512_cvtph_ps(_mm256_loadu_si256(from.cast())) }
    }

    #[inline(always)]
    unsafe fn load_bf16(self, from: *const bf16) -> __m512 {
        // SAFETY: as in `splat`, and the caller vouches for 16 elements of 2 bytes.
        unsafe {
            let halves = _mm512_cvtepu16_epi32(_mm256_loadu_si256(from.cast()));
            _mm512_castsi512_ps(_mm512_slli_epi32::<16>(halves))
        }
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut f32, x: __m512) {
        // SAFETY: as in `splat`, and the caller vouches for 16 elements.
        unsafe { _mm512_storeu_ps(to, x) }
    }

    #[inline(always)]
    fn add(self, a: __m512, b: __m512) -> __m512 {
        // SAFETY: as in `splat`.
        unsafe { _mm512_add_ps(a, b) }
    }

    #[inline(always)]
    fn sub(self, a: __m512, b: __m512) -> __m512 {
        // SAFETY: as in `splat`.
        unsafe { _mm512_sub_ps(a, b) }
    }

    #[inline(always)]
    fn mul(self, a: __m512, b: __m512) -> __m512 {
        // SAFETY: as in `splat`.
        unsafe { _mm512_mul_ps(a, b) }
    }

    #[inline(always)]
    fn div(self, a: __m512, b: __m512) -> __m512 {
        // SAFETY: as in `splat`.
        unsafe { _mm512_div_ps(a, b) }
    }

    #[inline(always)]
    fn mul_add(self, a: __m512, b: __m512, c: __m512) -> __m512 {
        // SAFETY: as in `splat`.
        unsafe { _mm512_fmadd_ps(a, b, c) }
    }

    #[inline(always)]
    fn clamp(self, x: __m512, lo: f32, hi: f32) -> __m512 {
        // SAFETY: as in `splat`. Of a NaN, min and max return their second operand, here x.
        unsafe { _mm512_min_ps(_mm512_set1_ps(hi), _mm512_max_ps(_mm512_set1_ps(lo), x)) }
    }

    #[inline(always)]
    fn round(self, x: __m512) -> __m512 {
        // SAFETY: as in `splat`. Immediate 0: no fraction bits, nearest even.
        unsafe { _mm512_roundscale_ps::<0>(x) }
    }

    #[inline(always)]
    fn scale(self, x: __m512, n: __m512) -> __m512 {
        // SAFETY: as in `splat`.
        unsafe { _mm512_scalef_ps(x, n) }
    }

    #[inline(always)]
    fn keep(self, mask: __mmask16, x: __m512) -> __m512 {
        // SAFETY: as in `splat`.
        unsafe { _mm512_maskz_mov_ps(mask, x) }
    }

    #[inline(always)]
    fn first(self, n: usize) -> __mmask16 {
        ((1_u32 << n.min(16)) - 1) as __mmask16
    }

    #[inline(always)]
    fn maximum(self, a: __m512, b: __m512) -> __m512 {
        // SAFETY: as in `splat`. Immediate 5: the larger of the two, by sign too; of a NaN, the other.
        unsafe {
            let max = _mm512_range_ps::<5>(a, b);
            _mm512_mask_mov_ps(max, _mm512_cmp_ps_mask::<_CMP_UNORD_Q>(a, b), _mm512_set1_ps(f32::NAN))
        }
    }

    #[inline(always)]
    fn exceeds(self, x: __m512, than: __m512) -> __mmask16 {
        // SAFETY: as in `splat`. Not ≤ is above or unordered; a `than` that is NaN keeps its place.
        unsafe {
            let place = _mm512_cmp_ps_mask::<_CMP_ORD_Q>(than, than);
            _mm512_mask_cmp_ps_mask::<_CMP_NLE_UQ>(place, x, than)
        }
    }

    #[inline(always)]
    fn select(self, mask: __mmask16, a: __m512, b: __m512) -> __m512 {
        // SAFETY: as in `splat`.
        unsafe { _mm512_mask_mov_ps(b, mask, a) }
    }

    #[inline(always)]
    fn sum(self, x: __m512) -> f32 {
        // SAFETY: as in `splat`. LLVM reduces by halves, whatever the optimisation level.
        unsafe { _mm512_reduce_add_ps(x) }
    }

    #[inline(always)]
    fn splat_int(self, x: i32) -> __m512i {
        // SAFETY: as in `splat`.
        unsafe { _mm512_set1_epi32(x) }
    }

    #[inline(always)]
    fn add_ints(self, a: __m512i, b: __m512i) -> __m512i {
        // SAFETY: as in `splat`.
        unsafe { _mm512_add_epi32(a, b) }
    }

    #[inline(always)]
    fn greatest_int(self, x: __m512i) -> i32 {
        // SAFETY: as in `splat`.
        unsafe { _mm512_reduce_max_epi32(x) }
    }

    #[inline(always)]
    fn greater_magnitude(self, x: __m512, than: __m512i) -> __m512i {
        // SAFETY: as in `splat`.
        unsafe {
            let magnitude = _mm512_and_si512(_mm512_castps_si512(x), _mm512_set1_epi32(0x7fff_ffff));
            _mm512_max_epi32(magnitude, than)
        }
    }

    #[inline(always)]
    fn limbs(self, p: __m512, x: __m512) -> [__m512i; 2] {
        // SAFETY: as in `splat`.
        unsafe {
            let high = _mm512_fmadd_ps(p, x, _mm512_set1_ps(LIMB_ZEROS[0]));
            // 3 − i, of so few bits that nothing is rounded.
            let rest = _mm512_sub_ps(_mm512_set1_ps(LIMB_ZEROS[0] + LIMB_ZEROS[1]), high);
            [_mm512_castps_si512(high), _mm512_castps_si512(_mm512_fmadd_ps(p, x, rest))]
        }
    }

    #[inline(always)]
    unsafe fn store_ints(self, to: *mut i32, x: __m512i) {
        // SAFETY: as in `splat`, and the caller vouches for 16 elements.
        unsafe { _mm512_storeu_si512(to.cast(), x) }
    }
}
