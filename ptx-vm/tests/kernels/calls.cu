// Device functions that are not inlined: structs and pointers as parameters and results, calls under divergence.

struct Range {
    int begin, end;
};

struct Moments {
    float mean, variance;
};

__device__ __noinline__ Moments moments(const float* x, Range range) {
    float sum = 0, squares = 0;
    for (int i = range.begin; i < range.end; i++) {
        sum += x[i];
        squares += x[i] * x[i];
    }
    const float count = range.end - range.begin, mean = sum / count;
    return {mean, squares / count - mean * mean};
}

// Through pointers, of which `m` is to local memory.
__device__ __noinline__ void centre(const float* x, float* out, Range range, const Moments* m) {
    for (int i = range.begin; i < range.end; i++) out[i] = x[i] - m->mean;
}

// out[row] = x[row] - its mean, variances[row] = its variance; one thread per row.
// offsets: [rows + 1], no row empty; x, out: [offsets[rows]]; a grid that covers rows.
extern "C" __global__ void centre_rows(const float* x, const int* offsets, float* out, float* variances, int rows) {
    const int row = blockIdx.x * blockDim.x + threadIdx.x;
    if (row >= rows) return;
    const Range range{offsets[row], offsets[row + 1]};
    Moments both[2] = {moments(x, range), {0, 0}};
    both[1].mean = 2 * both[0].mean;
    centre(x, out, range, &both[row < 0]);
    variances[row] = both[row < 0].variance;
}

__device__ __noinline__ unsigned greatest_common_divisor(unsigned a, unsigned b) {
    while (b != 0) {
        const unsigned rest = a % b;
        a = b;
        b = rest;
    }
    return a;
}

__device__ __noinline__ unsigned least_common_multiple(unsigned a, unsigned b) {
    return a / greatest_common_divisor(a, b) * b;
}

// out[i] = gcd(a, b) where i is even and lcm(a, b) where it is odd, a = in[2i], b = in[2i + 1]: lanes that call
// different functions, one of which calls the other. in: [2n], positive; out: [n]; a grid that covers n.
extern "C" __global__ void divisors(const unsigned* in, unsigned* out, int n) {
    const int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n) return;
    const unsigned a = in[2 * i], b = in[2 * i + 1];
    out[i] = i % 2 == 0 ? greatest_common_divisor(a, b) : least_common_multiple(a, b);
}
