// Races between the threads of a block. Compiled with -DBUG=n; 0 is clean. Of each race both sides are marked.
// All kernels: one block of 128 threads, unless it says otherwise.

constexpr int THREADS = 128;

// `steps` times x[t] = (x[t - 1] + x[t + 1]) / 2 around a ring. in, out: [128].
extern "C" __global__ void ring(const float* in, float* out, int steps) {
    __shared__ float x[THREADS];
    const int t = threadIdx.x;
    x[t] = in[t];
    __syncthreads();
    for (int step = 0; step < steps; step++) {
        const float sum = x[(t + 1) % THREADS] + x[(t + THREADS - 1) % THREADS];  // BUG 1, 2
        if (BUG != 1) __syncthreads();
        x[t] = sum / 2;  // BUG 1, 2
        if (BUG != 2) __syncthreads();
    }
    out[t] = x[t];
}

// out[t] = in[t ^ 1]. in, out: [128].
extern "C" __global__ void swap_in_pairs(const float* in, float* out) {
    __shared__ float x[THREADS];
    const int t = threadIdx.x;
    x[t] = in[t];  // BUG 3
    if (BUG != 3) __syncwarp();
    out[t] = x[t ^ 1];  // BUG 3
}

// out[0] = how many of in are positive. in: [128].
extern "C" __global__ void count_positive(const float* in, int* out) {
    __shared__ int total;
    if (threadIdx.x == 0) total = 0;
    __syncthreads();
    if (in[threadIdx.x] > 0) {
        if (BUG == 4) total += 1;  // BUG 4
        else atomicAdd(&total, 1);
    }
    __syncthreads();
    if (threadIdx.x == 0) out[0] = total;
}

// out[i] = in[2i]. in: [128], out: [64].
extern "C" __global__ void every_other(const float* in, float* out) {
    __shared__ float x[THREADS / 2];
    const int t = threadIdx.x;
    if (BUG == 5 || t % 2 == 0) x[t / 2] = in[t];  // BUG 5
    __syncthreads();
    if (t < THREADS / 2) out[t] = x[t];
}

// out[t] = in[t] + in[0], through global memory alone. in, out, scratch: [128].
extern "C" __global__ void add_first(const float* in, float* scratch, float* out) {
    const int t = threadIdx.x;
    scratch[t] = in[t];  // BUG 6
    if (BUG != 6) __syncthreads();
    out[t] = in[t] + scratch[0];  // BUG 6
}

// out[w] = whether a lane of warp w has a positive value: several lanes store the same. in: [128], out: [4].
extern "C" __global__ void any_positive(const float* in, int* out) {
    __shared__ int any[THREADS / 32];
    const int t = threadIdx.x, warp = t / 32;
    if (t % 32 == 0) any[warp] = 0;
    __syncwarp();
    if (in[t] > 0) any[warp] = 1;
    __syncwarp();
    if (t % 32 == 0) out[warp] = any[warp];
}

// out[t] = in[t] of one byte: bytes next to each other, of different warps, in the same word. in, out: [131] of which
// 3 and on are copied.
extern "C" __global__ void copy_bytes(const unsigned char* in, unsigned char* out) {
    __shared__ unsigned char bytes[THREADS + 3];
    const int t = threadIdx.x + 3;
    bytes[t] = in[t];
    out[t] = bytes[t];
}

// out[0] = the sum of in: a tree whose last steps need only the first warp. in: [128].
extern "C" __global__ void tree_sum(const int* in, int* out) {
    __shared__ int x[THREADS];
    const int t = threadIdx.x;
    x[t] = in[t];
    for (int half = THREADS / 2; half >= 32; half /= 2) {
        __syncthreads();
        if (t < half) x[t] += x[t + half];  // BUG 7
    }
    if (t >= 32) return;
    int sum = x[t];
    for (int half = 16; half > 0; half /= 2) {
        if (BUG == 7) {
            x[t] = sum;                          // BUG 7
            if (t < half) sum += x[t + half];    // BUG 7
        } else {
            sum += __shfl_down_sync(0xffffffff, sum, half);
        }
    }
    if (t == 0) out[0] = sum;
}
