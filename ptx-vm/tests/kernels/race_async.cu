// Asynchronous copies that are not waited for. Compiled with -DBUG=n; 0 is clean. Of each fault both sides are marked.
// All kernels: one block of 64 threads, each of which copies 16 bytes at a time.

#include "ptx.cuh"

constexpr int THREADS = 64, STAGES = 3;

// out[i][t] = in[i][63 - t], three stages deep. in, out: [tiles, 64] of 4 f32.
extern "C" __global__ void reverse_tiles(const float4* in, float4* out, int tiles) {
    __shared__ float4 stage[STAGES][THREADS];
    const int t = threadIdx.x;

    // An empty group where there is no tile, so that waits count right to the end.
    auto fetch = [&](int tile) {
        if (tile < tiles) cp_async16(&stage[tile % STAGES][t], &in[tile * THREADS + t]);  // BUG 1, 2, 3, 4
        cp_async_commit();
    };

    // With bug 4 the copies are one stage further ahead than there is room for.
    constexpr int AHEAD = BUG == 4 ? STAGES : STAGES - 1;
    constexpr int UNDER_WAY = BUG == 2 ? AHEAD : AHEAD - 1;
    for (int tile = 0; tile < AHEAD; tile++) fetch(tile);
    for (int tile = 0; tile < tiles; tile++) {
        if (BUG != 1) cp_async_wait<UNDER_WAY>();
        if (BUG != 3) __syncthreads();
        fetch(tile + AHEAD);
        out[tile * THREADS + t] = stage[tile % STAGES][THREADS - 1 - t];  // BUG 1, 2, 3, 4
    }
}

// out[t] = in[t]: no barrier, since each thread reads what it copied itself. in, out: [64] of 4 f32.
extern "C" __global__ void copy(const float4* in, float4* out) {
    __shared__ float4 stage[THREADS];
    const int t = threadIdx.x;
    cp_async16(&stage[t], &in[t]);  // BUG 5
    cp_async_commit();
    if (BUG != 5) cp_async_wait<0>();
    out[t] = stage[t];  // BUG 5
}

// out[t] = in[63 - t] where 63 - t < n, 0 elsewhere. in, out: [64] of 4 f32.
extern "C" __global__ void zero_tail(const float4* in, float4* out, int n) {
    __shared__ float4 stage[THREADS];
    const int t = threadIdx.x;
    cp_async16(&stage[t], &in[t]);  // BUG 6
    cp_async_commit();
    if (BUG != 6) cp_async_wait<0>();
    if (t >= n) stage[t] = make_float4(0, 0, 0, 0);  // BUG 6
    if (BUG == 6) cp_async_wait<0>();
    __syncthreads();
    out[t] = stage[THREADS - 1 - t];
}

// out[t] = in[t] + in[63 - t], 4 bytes at a time: no group, wait_all. in, out: [64] f32.
extern "C" __global__ void fold(const float* in, float* out) {
    __shared__ float stage[THREADS];
    const int t = threadIdx.x;
    cp_async4(&stage[t], &in[t]);  // BUG 7
    if (BUG == 7) cp_async_wait<0>();  // waits for no copy: none was committed
    else cp_async_wait_all();
    __syncthreads();
    out[t] = stage[t] + stage[THREADS - 1 - t];  // BUG 7
}
