// ldmatrix and mma.sync, a matrix at a time. All kernels: one block of 32 threads; matrices row-major.

#include "ptx.cuh"

// A lane's place in a fragment: rows lane / 4 and columns lane % 4.
struct Place {
    int row, column;
};

__device__ __forceinline__ Place place() {
    return {int(threadIdx.x) / 4, int(threadIdx.x) % 4};
}

// Two 16-bit elements that lie side by side.
__device__ __forceinline__ uint32_t pair(const uint16_t* matrix, int width, int row, int column) {
    return *reinterpret_cast<const uint32_t*>(matrix + row * width + column);
}

// The 16 x 16 matrix in as four 8 x 8 ones: 0 top left, 1 bottom left, 2 top right, 3 bottom right.
// out: [3, 4, 32]: registers 0 to 3 of each lane after ldmatrix x4, after x4.trans; those of x2, that of x1, and 0.
// in: [16, 16] of 16 bits.
extern "C" __global__ void load_fragments(const uint4* in, uint32_t* out) {
    __shared__ __align__(16) uint16_t matrix[16][24];
    const int t = threadIdx.x;
    *reinterpret_cast<uint4*>(&matrix[t / 2][t % 2 * 8]) = in[t];
    __syncwarp();
    uint32_t plain[4], transposed[4], two[2], one;
    const uint16_t* row = &matrix[t % 16][t / 16 * 8];
    ldmatrix_x4(plain, row);
    ldmatrix_x4_trans(transposed, row);
    ldmatrix_x2(two, row);
    ldmatrix_x1(one, row);
    const uint32_t rest[4] = {two[0], two[1], one, 0};
    for (int i = 0; i < 4; i++) {
        out[(0 * 4 + i) * 32 + t] = plain[i];
        out[(1 * 4 + i) * 32 + t] = transposed[i];
        out[(2 * 4 + i) * 32 + t] = rest[i];
    }
}

__device__ __forceinline__ void load_a(uint32_t (&r)[4], const uint16_t* a) {
    const auto [row, column] = place();
    for (int i = 0; i < 4; i++) r[i] = pair(a, 16, row + i % 2 * 8, 2 * column + i / 2 * 8);
}

__device__ __forceinline__ void load_b(uint32_t (&r)[2], const uint16_t* b) {
    const auto [row, column] = place();
    for (int i = 0; i < 2; i++) r[i] = pair(b, 16, row, 2 * column + i * 8);
}

__device__ __forceinline__ void load_c(float (&r)[4], const float* c) {
    const auto [row, column] = place();
    for (int i = 0; i < 4; i++) r[i] = c[(row + i / 2 * 8) * 8 + 2 * column + i % 2];
}

__device__ __forceinline__ void store_d(float* d, const float (&r)[4]) {
    const auto [row, column] = place();
    for (int i = 0; i < 4; i++) d[(row + i / 2 * 8) * 8 + 2 * column + i % 2] = r[i];
}

// d = a b^T + c. a: [16, 16], b: [8, 16] f16; c, d: [16, 8] f32.
extern "C" __global__ void multiply_f16(const uint16_t* a, const uint16_t* b, const float* c, float* d) {
    uint32_t of_a[4], of_b[2];
    float sum[4];
    load_a(of_a, a);
    load_b(of_b, b);
    load_c(sum, c);
    mma_m16n8k16_f16(sum, of_a, of_b);
    store_d(d, sum);
}

// The same of bf16.
extern "C" __global__ void multiply_bf16(const uint16_t* a, const uint16_t* b, const float* c, float* d) {
    uint32_t of_a[4], of_b[2];
    float sum[4];
    load_a(of_a, a);
    load_b(of_b, b);
    load_c(sum, c);
    mma_m16n8k16_bf16(sum, of_a, of_b);
    store_d(d, sum);
}

// The same of f16, with c and d of f16 too.
extern "C" __global__ void multiply_f16_f16(const uint16_t* a, const uint16_t* b, const uint16_t* c, uint16_t* d) {
    const auto [row, column] = place();
    uint32_t of_a[4], of_b[2], sum[2];
    load_a(of_a, a);
    load_b(of_b, b);
    for (int i = 0; i < 2; i++) sum[i] = pair(c, 8, row + i * 8, 2 * column);
    mma_m16n8k16_f16_f16(sum, of_a, of_b);
    for (int i = 0; i < 2; i++) *reinterpret_cast<uint32_t*>(d + (row + i * 8) * 8 + 2 * column) = sum[i];
}

// d = a b^T + c. a: [16, 8], b: [8, 8] f32, rounded to TF32; c, d: [16, 8] f32.
extern "C" __global__ void multiply_tf32(const float* a, const float* b, const float* c, float* d) {
    const auto [row, column] = place();
    uint32_t of_a[4], of_b[2];
    for (int i = 0; i < 4; i++) of_a[i] = to_tf32(a[(row + i % 2 * 8) * 8 + column + i / 2 * 4]);
    for (int i = 0; i < 2; i++) of_b[i] = to_tf32(b[row * 8 + column + i * 4]);
    float sum[4];
    load_c(sum, c);
    mma_m16n8k8_tf32(sum, of_a, of_b);
    store_d(d, sum);
}
