// Numbers wider than a register: carry chains, high halves of products. All kernels: a grid that covers n.

#include "ptx.cuh"

using u64 = unsigned long long;
using u128 = unsigned __int128;

__device__ __forceinline__ u128 join(ulonglong2 halves) {
    return u128(halves.y) << 64 | halves.x;
}

__device__ __forceinline__ ulonglong2 split(u128 value) {
    return {u64(value), u64(value >> 64)};
}

// out: [5, n]: a + b, a - b, a * b, a >> 37, a << 70, of 128 bits, low halves first. a, b: [n].
extern "C" __global__ void on_u128(const ulonglong2* a, const ulonglong2* b, ulonglong2* out, int n) {
    const int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n) return;
    const u128 x = join(a[i]), y = join(b[i]);
    out[0 * n + i] = split(x + y);
    out[1 * n + i] = split(x - y);
    out[2 * n + i] = split(x * y);
    out[3 * n + i] = split(x >> 37);
    out[4 * n + i] = split(x << 70);
}

// out: [6, n]: high halves of a * b as u64 and i64; of their low words as u32 and i32; of 24-bit products, the low word
// of mul24 and umul24. a, b: [n] u64.
extern "C" __global__ void high_halves(const u64* a, const u64* b, u64* out, int n) {
    const int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n) return;
    const unsigned x = a[i], y = b[i];
    out[0 * n + i] = __umul64hi(a[i], b[i]);
    out[1 * n + i] = __mul64hi(a[i], b[i]);
    out[2 * n + i] = __umulhi(x, y);
    out[3 * n + i] = unsigned(__mulhi(int(x), int(y)));
    out[4 * n + i] = unsigned(__mul24(int(x), int(y)));
    out[5 * n + i] = __umul24(x, y);
}

// out: [2, n] of 3 words: a + b, a - b of 96 bits. a, b: [n] of 3 words, lowest first.
extern "C" __global__ void on_u96(const uint32_t* a, const uint32_t* b, uint32_t* out, int n) {
    const int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n) return;
    uint32_t x[3], y[3], sum[3], difference[3];
    for (int word = 0; word < 3; word++) {
        x[word] = a[3 * i + word];
        y[word] = b[3 * i + word];
    }
    add96(sum, x, y);
    sub96(difference, x, y);
    for (int word = 0; word < 3; word++) {
        out[3 * i + word] = sum[word];
        out[3 * (n + i) + word] = difference[word];
    }
}

// out[i] = c[i] + a[i] * b[i]. a, b: [n] u32; c, out: [n] u64.
extern "C" __global__ void multiply_add(const uint32_t* a, const uint32_t* b, const uint2* c, uint2* out, int n) {
    const int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n) return;
    const uint32_t addend[2] = {c[i].x, c[i].y};
    uint32_t sum[2];
    multiply_add64(sum, a[i], b[i], addend);
    out[i] = make_uint2(sum[0], sum[1]);
}
