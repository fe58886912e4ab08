// Vectors at addresses that are no multiple of their size. Compiled with -DBUG=n; 0 is clean.
// All kernels: one block of 64 threads.

constexpr int THREADS = 64;

// out[t] = in[4t] + in[4t + 1] + in[4t + 2] + in[4t + 3]. in: [260], out: [64].
extern "C" __global__ void sum_quads(const float* in, float* out) {
    const float* quad = in + 4 * threadIdx.x + (BUG == 1);
    const float4 v = *reinterpret_cast<const float4*>(quad);  // BUG 1
    out[threadIdx.x] = (v.x + v.y) + (v.z + v.w);
}

// out[t] = in[2u] - in[2u + 1] where u = 63 - t. in: [128], out: [64].
extern "C" __global__ void differences_of_pairs(const float* in, float* out) {
    __shared__ __align__(8) float stage[2 * THREADS + 2];
    const int t = threadIdx.x;
    stage[t] = in[t];
    stage[t + THREADS] = in[t + THREADS];
    __syncthreads();
    const float* pair = stage + 2 * (THREADS - 1 - t) + (BUG == 2);
    const float2 v = *reinterpret_cast<const float2*>(pair);  // BUG 2
    out[t] = v.x - v.y;
}

// bytes[4t..4t + 4] = word t. words: [64], bytes: [260].
extern "C" __global__ void split_words(const unsigned* words, unsigned char* bytes) {
    const unsigned word = words[threadIdx.x];
    unsigned char* to = bytes + 4 * threadIdx.x + (BUG == 3 ? 2 : 0);
    *reinterpret_cast<unsigned*>(to) = word;  // BUG 3
}
