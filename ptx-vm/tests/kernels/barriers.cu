// Barriers that are used as they should be. All kernels: one block.

#include "ptx.cuh"

enum Barrier { FULL = 1, EMPTY = 3 };  // one per stage

// out[i][t] = 2 in[i][31 - t]: the first warp hands tiles to the second, two stages deep. in, out: [tiles, 32];
// a block of 64.
extern "C" __global__ void produce_and_consume(const int* in, int* out, int tiles) {
    __shared__ int stage[2][32];
    const int lane = threadIdx.x % 32;
    if (threadIdx.x < 32) {
        for (int tile = 0; tile < tiles; tile++) {
            barrier_sync(EMPTY + tile % 2, 64);
            stage[tile % 2][lane] = 2 * in[tile * 32 + lane];
            barrier_arrive(FULL + tile % 2, 64);
        }
    } else {
        for (int tile = 0; tile < min(tiles, 2); tile++) barrier_arrive(EMPTY + tile, 64);
        for (int tile = 0; tile < tiles; tile++) {
            barrier_sync(FULL + tile % 2, 64);
            out[tile * 32 + lane] = stage[tile % 2][31 - lane];
            if (tile + 2 < tiles) barrier_arrive(EMPTY + tile % 2, 64);
        }
    }
}

// out: [3, 96]: how many of in are positive, whether all are, whether any is. in: [96]; a block of 96.
extern "C" __global__ void count_all_any(const int* in, int* out) {
    const int t = threadIdx.x;
    const bool is_positive = in[t] > 0;
    out[t] = __syncthreads_count(is_positive);
    out[96 + t] = __syncthreads_and(is_positive);
    out[192 + t] = __syncthreads_or(is_positive);
}

// out[t] = in[t ^ 1] + in[t ^ 32]: pairs of warps exchange at a barrier of their own while the others go on.
// in, out: [128]; a block of 128.
extern "C" __global__ void pairs_of_warps(const int* in, int* out) {
    __shared__ int x[128];
    const int t = threadIdx.x;
    x[t] = in[t];
    barrier_sync(1 + t / 64, 64);
    out[t] = x[t ^ 1] + x[t ^ 32];
}

// out[x][y][z] = in[z][y][x]: a block of (4, 8, 3), of which the last warp is whole but rows are not. in, out: [96].
extern "C" __global__ void transpose(const int* in, int* out) {
    __shared__ int x[96];
    const int t = threadIdx.x + 4 * (threadIdx.y + 8 * threadIdx.z);
    x[t] = in[t];
    __syncthreads();
    out[(threadIdx.x * 8 + threadIdx.y) * 3 + threadIdx.z] = x[t];
}

// out[t] = in[n - 1 - t] for a block of n threads, n no multiple of 32. in, out: [n], n up to 128.
extern "C" __global__ void partial_warp(const int* in, int* out) {
    __shared__ int x[128];
    x[threadIdx.x] = in[threadIdx.x];
    __syncthreads();
    out[threadIdx.x] = x[blockDim.x - 1 - threadIdx.x];
}
