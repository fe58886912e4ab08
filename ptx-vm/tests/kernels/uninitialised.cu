// Reads of what nobody has written. Compiled with -DBUG=n; 0 is clean.
// All kernels: one block of 64 threads.

constexpr int THREADS = 64;

// out[t] = in[63 - t] where 63 - t < n, 0 elsewhere. in: [n], n < 64; out: [64].
extern "C" __global__ void pad(const float* in, float* out, int n) {
    __shared__ float stage[THREADS];
    const int t = threadIdx.x;
    if (t < n) stage[t] = in[t];
    else if (BUG != 1) stage[t] = 0;
    __syncthreads();
    out[t] = stage[THREADS - 1 - t];  // BUG 1
}

// out[t] = (which[t] + 1) * in[t]. in, out: [64]; which: [64], 0 to 7, among them a 0.
extern "C" __global__ void multiple(const float* in, const int* which, float* out) {
    float multiples[8];
    const float value = in[threadIdx.x];
    for (int i = BUG == 2; i < 8; i++) multiples[i] = (i + 1) * value;
    const int i = which[threadIdx.x];
    out[threadIdx.x] = multiples[i];  // BUG 2
}

// out[t] = 2 in[63 - t] through scratch. in, out, scratch: [64]; scratch is uninitialised.
extern "C" __global__ void through_scratch(const float* in, float* scratch, float* out) {
    const int t = threadIdx.x;
    if (BUG != 3 || t != 5) scratch[t] = 2 * in[t];
    __syncthreads();
    out[t] = scratch[THREADS - 1 - t];  // BUG 3
}

// out[t] = in[t] as 4 bytes, of which the bug leaves the highest unwritten. in, out: [64], below 2^24.
extern "C" __global__ void assemble(const unsigned* in, unsigned* out) {
    __shared__ unsigned words[THREADS];
    const unsigned word = in[threadIdx.x];
    volatile unsigned char* bytes = reinterpret_cast<unsigned char*>(&words[threadIdx.x]);
    for (int i = 0; i < (BUG == 4 ? 3 : 4); i++) bytes[i] = word >> 8 * i;
    __syncthreads();
    out[threadIdx.x] = words[threadIdx.x];  // BUG 4
}
