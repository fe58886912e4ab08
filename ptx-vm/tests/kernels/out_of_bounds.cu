// Accesses that miss their buffer or variable by one. Compiled with -DBUG=n; 0 is clean, 1 to 6 each spoil one kernel.
// All kernels: blocks of 64 threads.

constexpr int THREADS = 64;

// out[i] = in[i + 1] - in[i], and 0 for the last. in, out: [n]; a grid that covers n.
extern "C" __global__ void differences(const float* in, float* out, int n) {
    const int i = blockIdx.x * THREADS + threadIdx.x;
    if (i >= n) return;
    const int next = BUG == 1 ? i + 1 : min(i + 1, n - 1);
    const float after = in[next];  // BUG 1
    out[i] = after - in[i];
}

// out[i] = in[i]. in, out: [n]; a grid that covers n.
extern "C" __global__ void copy(const float* in, float* out, int n) {
    const int i = blockIdx.x * THREADS + threadIdx.x;
    if (i >= n) return;
    const float value = in[i];
    out[i - (BUG == 2)] = value;  // BUG 2
}

// out[t] = in[t] + 2 in[63 - t] through two shared variables. in, out: [64]; one block.
extern "C" __global__ void neighbours(const float* in, float* out) {
    __shared__ float left[THREADS];
    __shared__ float right[THREADS];
    const int t = threadIdx.x;
    const float value = in[t];
    left[t + (BUG == 3)] = value;  // BUG 3
    right[t] = 2 * value;
    __syncthreads();
    out[t] = left[t] + right[THREADS - 1 - t];
}

// out[t] = in[63 - t]. in, out: [64]; one block with 256 bytes of dynamic shared memory.
extern "C" __global__ void reverse(const float* in, float* out) {
    extern __shared__ float stage[];
    const int t = threadIdx.x;
    const float value = in[t];
    stage[t + (BUG == 4)] = value;  // BUG 4
    __syncthreads();
    out[t] = stage[THREADS - 1 - t];
}

// out[t] = how often the most frequent number of row t occurs. in: [64, n], numbers 0 to 7, among them a 7;
// out: [64]; one block.
extern "C" __global__ void most_frequent(const int* in, int* out, int n) {
    int count[8] = {};
    for (int i = 0; i < n; i++) {
        const int number = in[threadIdx.x * n + i];
        count[number + (BUG == 5)]++;  // BUG 5
    }
    int most = 0;
    for (int number = 0; number < 8; number++) most = max(most, count[number]);
    out[threadIdx.x] = most;
}

// out[i] = in[2i], in[2i + 1], swapped. in: [2n + 1], so that the pair after the last is half within it; out: [2n];
// a grid that covers n and one more.
extern "C" __global__ void swap_pairs(const float* in, float2* out, int n) {
    const int i = blockIdx.x * THREADS + threadIdx.x;
    if (i >= n + (BUG == 6)) return;
    const float2 pair = reinterpret_cast<const float2*>(in)[i];  // BUG 6
    out[i] = make_float2(pair.y, pair.x);
}
