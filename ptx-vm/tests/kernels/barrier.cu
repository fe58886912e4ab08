// Threads that wait for threads which do not come. Compiled with -DBUG=n; 0 is clean. Wherever some of them wait is
// marked. All kernels: one block of 64 threads; in, out: [64]; in has positive and negative values in both warps.

#include "ptx.cuh"

constexpr int THREADS = 64;

// out[t] = in[63 - t]: a barrier of which some lanes of a warp come to one call and some to another.
extern "C" __global__ void divergent_warp(const float* in, float* out) {
    __shared__ float x[THREADS];
    const int t = threadIdx.x;
    const float value = in[t];
    x[t] = value;
    if (BUG != 1 || value > 0) __syncthreads();  // BUG 1
    __syncthreads();                             // BUG 1
    out[t] = x[THREADS - 1 - t];
}

// out[t] = in[63 - t]: the second warp skips the barrier where the first waits.
extern "C" __global__ void half_the_warps(const float* in, float* out) {
    __shared__ float x[THREADS];
    const int t = threadIdx.x;
    x[t] = in[t];
    if (BUG != 2 || t < 32) __syncthreads();  // BUG 2
    barrier_sync(1, THREADS);                 // BUG 2
    out[t] = x[THREADS - 1 - t];
}

// out[t] = in[63 - t]: a named barrier for more threads than there are.
extern "C" __global__ void wrong_count(const float* in, float* out) {
    __shared__ float x[THREADS];
    const int t = threadIdx.x;
    x[t] = in[t];
    barrier_sync(1, BUG == 3 ? 96 : THREADS);  // BUG 3
    out[t] = x[THREADS - 1 - t];
}

// out[t] = in[63 - t]: each warp waits at a barrier of its own.
extern "C" __global__ void different_ids(const float* in, float* out) {
    __shared__ float x[THREADS];
    const int t = threadIdx.x;
    x[t] = in[t];
    barrier_sync(BUG == 4 ? 1 + t / 32 : 1, THREADS);  // BUG 4
    out[t] = x[THREADS - 1 - t];
}

// out[t] = in[63 - t]: the warps do not agree for how many threads the barrier is.
extern "C" __global__ void different_counts(const float* in, float* out) {
    __shared__ float x[THREADS];
    const int t = threadIdx.x;
    x[t] = in[t];
    barrier_sync(1, BUG == 5 && t >= 32 ? 96 : THREADS);  // BUG 5
    out[t] = x[THREADS - 1 - t];
}

// out[t] = in[63 - t] by an early return that is no bug: who has exited is not waited for.
extern "C" __global__ void early_exit(const float* in, float* out) {
    __shared__ float x[THREADS];
    const int t = threadIdx.x;
    x[t] = in[t];
    __syncthreads();
    out[t] = x[THREADS - 1 - t];
    if (t % 3 == 0) return;
    __syncthreads();
}
