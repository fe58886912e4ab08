// Softmax pooling of bags of rows of x: p = softmax(x w) over a bag's rows, out = sum of p times the rows.
// One block of 256 threads per bag. Compiled with -DBUG=n; 0 is clean. Of races both sides are marked.
//
// x: [rows, d]; w: [d]; offsets: [bags + 1], bags of 1 to 64 rows; out: [bags, d]; rows_seen: [1], goes up by rows.

#include <cstdint>

constexpr int THREADS = 256, WARPS = THREADS / 32, MAX_ROWS = 64;

__device__ __forceinline__ float warp_sum(float value) {
    for (int distance = 16; distance > 0; distance /= 2) value += __shfl_xor_sync(0xffffffff, value, distance);
    return value;
}

__device__ __forceinline__ float warp_max(float value) {
    for (int distance = 16; distance > 0; distance /= 2) {
        value = fmaxf(value, __shfl_xor_sync(0xffffffff, value, distance));
    }
    return value;
}

extern "C" __global__ void __launch_bounds__(THREADS)
ragged_pool(const float* __restrict__ x, const float* __restrict__ w, const int* __restrict__ offsets,
            float* __restrict__ out, unsigned* __restrict__ rows_seen, int d) {
    __shared__ float score[MAX_ROWS];
    __shared__ float partial[WARPS];
    const int t = threadIdx.x, warp = t / 32, lane = t % 32;
    const int begin = offsets[blockIdx.x], len = offsets[blockIdx.x + 1] - begin;
    const float* rows = x + size_t(begin) * d;

    // Scores, a warp per row.
    for (int row = warp; row < len; row += WARPS) {
        float dot = 0;
        for (int i = lane; i < d; i += 32) dot += rows[size_t(row) * d + i] * w[i];
        dot = warp_sum(dot);
        if (lane == 0) score[BUG == 3 ? row + MAX_ROWS : row] = dot;  // BUG 2, 3
    }
    if (BUG != 2) __syncthreads();

    float greatest = -INFINITY;
    if (t < len) greatest = score[t];  // BUG 2
    greatest = warp_max(greatest);
    if (lane == 0) partial[warp] = greatest;
    __syncthreads();
    for (int i = 0; i < WARPS; i++) greatest = fmaxf(greatest, partial[i]);  // BUG 6
    if (BUG != 6) __syncthreads();

    float e = 0;
    if (t < len) {
        e = __expf(score[t] - greatest);
        score[t] = e;
    }
    float sum = warp_sum(e);
    if (lane == 0) partial[warp] = sum;  // BUG 6
    __syncthreads();
    sum = 0;
    for (int i = 0; i < WARPS; i++) sum += partial[i];

    const float scale = 1 / sum;
    const bool is_last = blockIdx.x == gridDim.x - 1;
    for (int i = t; i < d; i += THREADS) {
        float pooled = 0;
        for (int row = 0; row < len; row++) pooled += score[row] * rows[size_t(row) * d + i];
        float* to = out + size_t(blockIdx.x) * d + i;
        to[BUG == 1 && is_last] = pooled * scale;  // BUG 1
    }

    if (BUG == 4) {  // lanes that exchange through shared memory without __syncwarp
        __shared__ float exchange[THREADS];
        exchange[t] = scale;                         // BUG 4
        const float other = exchange[t ^ 1];         // BUG 4
        if (t == 0 && other != scale) out[size_t(blockIdx.x) * d] = other;
    }
    if (BUG == 7) {  // a barrier that some warps, and some lanes of a warp, skip
        if (t < 100) __syncthreads();  // BUG 7
        __syncthreads();               // BUG 7
    }
    if (t == 0) {
        if (BUG == 5) *rows_seen += len;  // BUG 5
        else atomicAdd(rows_seen, unsigned(len));
    }
}
