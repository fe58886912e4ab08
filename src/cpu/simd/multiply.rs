//! The inner step of the matrix product.

#[cfg(target_arch = "x86_64")]
use super::Avx512;
use super::Simd;
use crate::element::Element;

/// acc += a · b, for one scalar of a row against a vector of columns.
///
/// A scalar is `WIDTH` neighbouring elements of a row that one instruction multiplies at once, and a
/// vector holds as many elements for each of `LANES` columns.
pub(in crate::cpu) trait Multiply: Copy + Send + Sync {
    /// The instruction set of everything around the product.
    type Simd: Simd;
    /// What the staged features and the packed parameters are made of.
    type Staged: Element;
    /// `WIDTH` elements in every lane.
    type Scalar: Copy;
    /// `WIDTH` elements of each of `LANES` columns.
    type Columns: Copy;
    /// Elements of a row per scalar.
    const WIDTH: usize;

    fn simd(self) -> Self::Simd;

    /// Runs `f` compiled for everything this step needs.
    fn vectorize<R>(self, f: impl FnOnce() -> R) -> R;

    /// # Safety
    /// `WIDTH` elements are readable at `from`.
    unsafe fn scalar(self, from: *const Self::Staged) -> Self::Scalar;

    /// # Safety
    /// `WIDTH · LANES` elements are readable at `from`.
    unsafe fn columns(self, from: *const Self::Staged) -> Self::Columns;

    fn multiply_add(
        self,
        scalar: Self::Scalar,
        columns: Self::Columns,
        acc: <Self::Simd as Simd>::Vector,
    ) -> <Self::Simd as Simd>::Vector;
}

/// One f32 at a time: any instruction set, any feature type.
#[derive(Debug, Clone, Copy)]
pub(in crate::cpu) struct Fma<S>(pub(in crate::cpu) S);

impl<S: Simd> Multiply for Fma<S> {
    type Simd = S;
    type Staged = f32;
    type Scalar = S::Vector;
    type Columns = S::Vector;
    const WIDTH: usize = 1;

    #[inline(always)]
    fn simd(self) -> S {
        self.0
    }

    #[inline(always)]
    fn vectorize<R>(self, f: impl FnOnce() -> R) -> R {
        self.0.vectorize(f)
    }

    #[inline(always)]
    unsafe fn scalar(self, from: *const f32) -> S::Vector {
        // SAFETY: the caller vouches for one element.
        self.0.splat(unsafe { *from })
    }

    #[inline(always)]
    unsafe fn columns(self, from: *const f32) -> S::Vector {
        // SAFETY: the caller vouches for LANES elements.
        unsafe { self.0.load_f32(from) }
    }

    #[inline(always)]
    fn multiply_add(self, scalar: S::Vector, columns: S::Vector, acc: S::Vector) -> S::Vector {
        self.0.mul_add(scalar, columns, acc)
    }
}

#[cfg(target_arch = "x86_64")]
pub(in crate::cpu) use bf16_dot::Bf16Dot;

#[cfg(target_arch = "x86_64")]
mod bf16_dot {
    use std::arch::x86_64::*;

    use half::bf16;

    use super::*;

    /// Two bf16 at a time with `vdpbf16ps`; exists only where the processor has it.
    ///
    /// Each of the two products is added to the f32 sum by itself, rounded to nearest, subnormals
    /// taken as 0.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub(in crate::cpu) struct Bf16Dot(Avx512);

    impl Bf16Dot {
        pub(in crate::cpu) fn detect() -> Option<Self> {
            is_x86_feature_detected!("avx512bf16").then(Avx512::detect).flatten().map(Bf16Dot)
        }
    }

    impl Multiply for Bf16Dot {
        type Simd = Avx512;
        type Staged = bf16;
        type Scalar = __m512i;
        type Columns = __m512i;
        const WIDTH: usize = 2;

        #[inline(always)]
        fn simd(self) -> Avx512 {
            self.0
        }

        #[inline(always)]
        fn vectorize<R>(self, f: impl FnOnce() -> R) -> R {
            #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16")]
            fn run<R>(f: impl FnOnce() -> R) -> R {
                f()
            }
            // SAFETY: `self` exists only where the processor has these features.
            unsafe { run(f) }
        }

        #[inline(always)]
        unsafe fn scalar(self, from: *const bf16) -> __m512i {
            // SAFETY: AVX-512 by `self`, and the caller vouches for two elements, 4 bytes.
            unsafe { _mm512_set1_epi32(from.cast::<i32>().read_unaligned()) }
        }

        #[inline(always)]
        unsafe fn columns(self, from: *const bf16) -> __m512i {
            // SAFETY: AVX-512 by `self`, and the caller vouches for 32 elements, 64 bytes.
            unsafe { _mm512_loadu_si512(from.cast()) }
        }

        #[inline(always)]
        fn multiply_add(self, scalar: __m512i, columns: __m512i, acc: __m512) -> __m512 {
            // SAFETY: avx512bf16 by `self`; both operands are 64 bytes of bf16, any bits are valid.
            unsafe {
                let [scalar, columns] = [scalar, columns].map(|v| std::mem::transmute::<__m512i, __m512bh>(v));
                _mm512_dpbf16_ps(acc, scalar, columns)
            }
        }
    }
}
