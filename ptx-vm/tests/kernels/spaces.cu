// State spaces: constants, global variables, local arrays, structs by value, generic pointers.
// All kernels: blocks of 64 threads.

constexpr int THREADS = 64;

__constant__ float polynomial[4] = {1, -2, 0.5, 0.25};
__device__ int table[8] = {3, 1, 4, 1, 5, 9, 2, 6};
__device__ unsigned visits = 5;

// out[i] = polynomial(x[i]), coefficients by rising power. x, out: [n]; a grid that covers n.
extern "C" __global__ void evaluate(const float* x, float* out, int n) {
    const int i = blockIdx.x * THREADS + threadIdx.x;
    if (i >= n) return;
    float value = 0;
    for (int power = 3; power >= 0; power--) value = value * x[i] + polynomial[power];
    out[i] = value;
}

// out[i] = polynomial[which[i]]: constants at an address that differs between lanes. which, out: [64]; one block.
extern "C" __global__ void pick_constant(const int* which, float* out) {
    out[threadIdx.x] = polynomial[which[threadIdx.x]];
}

// out[t] = table[t % 8]; then table[t] *= 2 for t < 8, and visits goes up by 64 per block. out[64] = visits before.
// out: [65]; one block.
extern "C" __global__ void use_variables(int* out) {
    const int t = threadIdx.x;
    out[t] = table[t % 8];
    if (t == 0) out[THREADS] = visits;
    __syncthreads();
    if (t < 8) table[t] *= 2;
    atomicAdd(&visits, 1);
}

// out[t][i] = in[t][order[t][i]] for 8 values, sorted in local memory. in, out: [64, 8]; one block.
extern "C" __global__ void sort_rows(const int* in, int* out) {
    int row[8];
    for (int i = 0; i < 8; i++) row[i] = in[threadIdx.x * 8 + i];
#pragma unroll 1
    for (int i = 1; i < 8; i++) {
        const int value = row[i];
        int to = i;
#pragma unroll 1
        for (; to > 0 && row[to - 1] > value; to--) row[to] = row[to - 1];
        row[to] = value;
    }
    for (int i = 0; i < 8; i++) out[threadIdx.x * 8 + i] = row[i];
}

// By value, with an array that is indexed at run time and holes that no one reads.
struct Layers {
    const float* in;
    signed char sign;
    float scale[5];
    double bias;
    float* out;
    unsigned short count;
};

// out[i] = sign * scale[i % count] * in[i] + bias. in, out: [n]; a grid that covers n.
extern "C" __global__ void scale_by_layer(Layers layers, int n) {
    const int i = blockIdx.x * THREADS + threadIdx.x;
    if (i >= n) return;
    layers.out[i] = float(layers.sign * layers.scale[i % layers.count] * layers.in[i] + layers.bias);
}

// out[t] = the sum of 4 numbers from global memory where t % 3 is 0, shared where it is 1, local where it is 2:
// in[t..t + 4], 2 in[t..t + 4] and 3 in[t..t + 4]. in: [67], out: [64]; one block.
extern "C" __global__ void generic_sums(const int* in, int* out) {
    __shared__ int shared[THREADS + 3];
    const int t = threadIdx.x;
    shared[t] = 2 * in[t];
    if (t < 3) shared[THREADS + t] = 2 * in[THREADS + t];
    int local[4];
    for (int i = 0; i < 4; i++) local[i] = 3 * in[t + i];
    __syncthreads();
    const int* from = t % 3 == 0 ? in + t : t % 3 == 1 ? shared + t : local;
    int sum = 0;
#pragma unroll 1
    for (int i = 0; i < 4; i++) sum += from[i];
    out[t] = sum;
}
