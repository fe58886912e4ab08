// Atomics of compute_80. All kernels: 2 blocks of 64 threads, thread i = 64 block + t of 128.

#include <cuda_fp16.h>

// cells: [12], filled by the caller; in, before: [128]
//   0 add  1 sub  2 min  3 max  4 and  5 or  6 xor  of in
//   7 inc up to 9  8 dec from 9  9 exch of in  10 add by compare-and-swap  11 add of 1, whose results go to before
extern "C" __global__ void on_u32(const unsigned* in, unsigned* cells, unsigned* before) {
    const int i = blockIdx.x * blockDim.x + threadIdx.x;
    const unsigned value = in[i];
    atomicAdd(&cells[0], value);
    atomicSub(&cells[1], value);
    atomicMin(&cells[2], value);
    atomicMax(&cells[3], value);
    atomicAnd(&cells[4], value);
    atomicOr(&cells[5], value);
    atomicXor(&cells[6], value);
    atomicInc(&cells[7], 9);
    atomicDec(&cells[8], 9);
    atomicExch(&cells[9], value);
    unsigned old = atomicAdd(&cells[10], 0), seen;
    do {
        seen = old;
        old = atomicCAS(&cells[10], seen, seen + value);
    } while (old != seen);
    before[i] = atomicAdd(&cells[11], 1);
}

// cells: [3]: add, min, max of in; old: [128], the cell of the maximum before each.
extern "C" __global__ void on_i32(const int* in, int* cells, int* old) {
    const int i = blockIdx.x * blockDim.x + threadIdx.x;
    atomicAdd(&cells[0], in[i]);
    atomicMin(&cells[1], in[i]);
    old[i] = atomicMax(&cells[2], in[i]);
}

// cells: [9]: add, min, max, and, or, xor, exch, add by compare-and-swap; the minimum as i64.
extern "C" __global__ void on_u64(const unsigned long long* in, unsigned long long* cells) {
    const int i = blockIdx.x * blockDim.x + threadIdx.x;
    const unsigned long long value = in[i];
    atomicAdd(&cells[0], value);
    atomicMin(&cells[1], value);
    atomicMax(&cells[2], value);
    atomicAnd(&cells[3], value);
    atomicOr(&cells[4], value);
    atomicXor(&cells[5], value);
    atomicExch(&cells[6], value);
    unsigned long long old = atomicAdd(&cells[7], 0), seen;
    do {
        seen = old;
        old = atomicCAS(&cells[7], seen, seen + value);
    } while (old != seen);
    atomicMin(reinterpret_cast<long long*>(&cells[8]), (long long)value);
}

// Adds in to every cell: f32, f64, f16 and a pair of f16 (in to the first, 1 to the second). in: [128], small whole
// numbers, so that the order does not matter; exchanged: [1], one of in. For bf16 compute_80 has none: the loop that
// cuda_bf16.h has instead begins with a plain read, which is a race.
extern "C" __global__ void on_floats(const float* in, float* f, double* d, __half* h, __half2* h2, float* exchanged) {
    const float value = in[blockIdx.x * blockDim.x + threadIdx.x];
    atomicAdd(f, value);
    atomicAdd(d, double(value));
    atomicAdd(h, __float2half(value));
    atomicAdd(h2, __floats2half2_rn(value, 1));
    atomicExch(exchanged, value);
}

// cells: [3], 0 before: 128 by device scope; 128 by system scope; 64 twice per block in shared memory, block scope,
// then 256 in all. halves: [128] u16, compare-and-swap of 16 bits: i where it was 0.
extern "C" __global__ void scopes(unsigned* cells, unsigned short* halves) {
    __shared__ unsigned total;
    const int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (threadIdx.x == 0) total = 0;
    __syncthreads();
    atomicAdd(&cells[0], 1);
    atomicAdd_system(&cells[1], 1);
    atomicAdd_block(&total, 1);
    atomicAdd(&total, 1);
    __syncthreads();
    if (threadIdx.x == 0) atomicAdd(&cells[2], total);
    atomicCAS(&halves[i], (unsigned short)0, (unsigned short)i);
}

// counts[v] = how many of in are v: lanes that hit the same and different cells of shared memory. in: [128], 0 to 15;
// counts: [16], 0 before.
extern "C" __global__ void histogram(const int* in, int* counts) {
    __shared__ int of_block[16];
    const int t = threadIdx.x;
    if (t < 16) of_block[t] = 0;
    __syncthreads();
    atomicAdd(&of_block[in[blockIdx.x * blockDim.x + t]], 1);
    __syncthreads();
    if (t < 16 && of_block[t] > 0) atomicAdd(&counts[t], of_block[t]);
}
