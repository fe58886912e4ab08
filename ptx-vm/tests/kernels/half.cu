// Arithmetic of f16 and bf16, by pairs. All kernels: a grid that covers n.

#include <cuda_bf16.h>
#include <cuda_fp16.h>

// out: [10, n] pairs of a, b, c: [n] pairs
//   0 a + b   1 a - b   2 a * b   3 a * b + c   4 -a   5 |a|   6 min(a, b)   7 max(a, b)   8 max(a * b + c, 0)
//   9 1 where a > b, 0 elsewhere
template <typename Pair>
__device__ __forceinline__ void arithmetic(const Pair* a, const Pair* b, const Pair* c, Pair* out, int n) {
    const int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n) return;
    out[0 * n + i] = __hadd2(a[i], b[i]);
    out[1 * n + i] = __hsub2(a[i], b[i]);
    out[2 * n + i] = __hmul2(a[i], b[i]);
    out[3 * n + i] = __hfma2(a[i], b[i], c[i]);
    out[4 * n + i] = __hneg2(a[i]);
    out[5 * n + i] = __habs2(a[i]);
    out[6 * n + i] = __hmin2(a[i], b[i]);
    out[7 * n + i] = __hmax2(a[i], b[i]);
    out[8 * n + i] = __hfma2_relu(a[i], b[i], c[i]);
    out[9 * n + i] = __hgt2(a[i], b[i]);
}

extern "C" __global__ void arithmetic_f16(const __half2* a, const __half2* b, const __half2* c, __half2* out, int n) {
    arithmetic(a, b, c, out, n);
}

extern "C" __global__ void arithmetic_bf16(const __nv_bfloat162* a, const __nv_bfloat162* b, const __nv_bfloat162* c,
                                           __nv_bfloat162* out, int n) {
    arithmetic(a, b, c, out, n);
}

// Conversions. x: [n] f32; f16: [3, n], rounded to nearest, towards 0 and upwards; bf16: [2, n], to nearest and towards
// 0; sums: [n], the f16 of row 0 and the bf16 of row 0 added as f32; whole: [n], the f16 of row 0 to the nearest i32.
extern "C" __global__ void conversions(const float* x, __half* f16, __nv_bfloat16* bf16, float* sums, int* whole,
                                       int n) {
    const int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n) return;
    const __half h = __float2half_rn(x[i]);
    const __nv_bfloat16 b = __float2bfloat16_rn(x[i]);
    f16[0 * n + i] = h;
    f16[1 * n + i] = __float2half_rz(x[i]);
    f16[2 * n + i] = __float2half_ru(x[i]);
    bf16[0 * n + i] = b;
    bf16[1 * n + i] = __float2bfloat16_rz(x[i]);
    sums[i] = __half2float(h) + __bfloat162float(b);
    whole[i] = __half2int_rn(h);
}

// out[i] = a + b and a * a - b, in the low half and the high. a, b: [n] f16; out: [n] pairs.
extern "C" __global__ void scalars_f16(const __half* a, const __half* b, __half2* out, int n) {
    const int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n) return;
    out[i] = __halves2half2(__hadd(a[i], b[i]), __hfma(a[i], a[i], __hneg(b[i])));
}
