// Races between blocks, and the ways to order them. Compiled with -DBUG=n; 0 is clean. Of each race both sides are
// marked.

#include "ptx.cuh"

constexpr int THREADS = 64;

// out[b] = in[64 b]. Blocks of 64. in: [64 blocks], out: [blocks].
extern "C" __global__ void firsts(const float* in, float* out) {
    if (threadIdx.x > 0) return;
    const float first = in[blockIdx.x * THREADS];
    out[BUG == 1 ? blockIdx.x / 2 : blockIdx.x] = first;  // BUG 1
}

// out[c] = the sum of column c. Blocks of 64; each sums its rows, the last block to finish adds the sums up.
// in: [rows, 64], partial: [blocks, 64], uninitialised; ticket: [1], 0; out: [64].
extern "C" __global__ void column_sums(const float* in, int rows, float* partial, unsigned* ticket, float* out) {
    __shared__ bool is_last;
    const int t = threadIdx.x;
    float sum = 0;
    for (int row = blockIdx.x; row < rows; row += gridDim.x) sum += in[row * THREADS + t];
    partial[blockIdx.x * THREADS + t] = sum;  // BUG 2, 3, 4, 5
    if (BUG != 3) __syncthreads();
    if (t == 0) {
        if (BUG == 5) __threadfence_block();
        else if (BUG != 2) __threadfence();
        is_last = atomicAdd(ticket, 1) == gridDim.x - 1;
        if (BUG != 4) __threadfence();
    }
    __syncthreads();
    if (!is_last) return;
    float total = 0;
    for (int block = 0; block < gridDim.x; block++) total += partial[block * THREADS + t];  // BUG 2, 3, 4, 5
    out[t] = total;
}

// The same, with one acquire-release addition for the fences.
extern "C" __global__ void column_sums_acq_rel(const float* in, int rows, float* partial, unsigned* ticket,
                                               float* out) {
    __shared__ bool is_last;
    const int t = threadIdx.x;
    float sum = 0;
    for (int row = blockIdx.x; row < rows; row += gridDim.x) sum += in[row * THREADS + t];
    partial[blockIdx.x * THREADS + t] = sum;  // BUG 6
    __syncthreads();
    if (t == 0) {
        const unsigned before = BUG == 6 ? add_relaxed(ticket, 1) : add_acquire_release(ticket, 1);
        is_last = before == gridDim.x - 1;
    }
    __syncthreads();
    if (!is_last) return;
    float total = 0;
    for (int block = 0; block < gridDim.x; block++) total += partial[block * THREADS + t];  // BUG 6
    out[t] = total;
}

// out[b] = in[0] + ... + in[b], handed from block to block. Blocks of 1 thread, which number themselves as they come,
// so that the one waited for has started. in, out: [blocks]; next: [1], 0; ready: [blocks], 0.
extern "C" __global__ void running_sum(const int* in, int* out, unsigned* next, unsigned* ready) {
    const unsigned b = atomicAdd(next, 1);
    int sum = in[b];
    if (b > 0) {
        if (BUG == 7) while (load_relaxed(&ready[b - 1]) == 0) {}
        else while (load_acquire(&ready[b - 1]) == 0) {}
        sum += out[b - 1];  // BUG 7, 8
    }
    out[b] = sum;  // BUG 7, 8
    if (BUG == 8) store_relaxed(&ready[b], 1);
    else store_release(&ready[b], 1);
}

// out[0] = how many of in are positive. Blocks of 64. in: [64 blocks]; out: [1], 0.
extern "C" __global__ void count_positive(const float* in, int* out) {
    if (in[blockIdx.x * THREADS + threadIdx.x] <= 0) return;
    if (BUG == 9) atomicAdd_block(out, 1);  // BUG 9
    else if (BUG == 10) out[0] += 1;        // BUG 10
    else atomicAdd(out, 1);
}

// out[0] += the sum of in, under a lock. Blocks of 64, of which the first thread works. in: [blocks]; lock: [1], 0;
// out: [1].
extern "C" __global__ void locked_sum(const int* in, int* lock, int* out) {
    if (threadIdx.x > 0) return;
    while (atomicCAS(lock, 0, 1) != 0) {}
    __threadfence();
    out[0] += in[blockIdx.x];  // BUG 11
    if (BUG != 11) __threadfence();
    atomicExch(lock, 0);
}
