// Asynchronous matrix products. Compiled with -DBUG=n; 0 is clean. Of each fault all sides are marked.

#include "hopper.cuh"

// c = a b^T + a2 b2^T: [64, 16] and [8, 16] bf16, two to a word; c: [64, 8] f32. The first A is in shared memory, the
// second in registers. One block of 128 threads.
extern "C" __global__ void products(const uint32_t* a, const uint32_t* b, const uint32_t* a2, const uint32_t* b2, float* c) {
    // Core matrices of 8 rows of 16 bytes, those of K side by side.
    __shared__ alignas(128) uint32_t shared_a[64 * 8], shared_b[2][8 * 8];
    const int t = threadIdx.x, warp = t / 32, lane = t % 32;
    auto place = [](int row, int word) { return row / 8 * 64 + word / 4 * 32 + row % 8 * 4 + word % 4; };
    for (int i = t; i < 64 * 8; i += 128) shared_a[place(i / 8, i % 8)] = a[i];  // BUG 1, 2, 6
    if (t < 64) {
        shared_b[0][place(t / 8, t % 8)] = b[t];  // BUG 1, 2
        shared_b[1][place(t / 8, t % 8)] = b2[t];  // BUG 1, 2
    }
    if (BUG != 1) fence_proxy_async();
    if (BUG != 2) __syncthreads();
    if (BUG == 10 && warp == 3) return;  // BUG 10

    float d[4];
    for (int i = 0; i < 4; i++) d[i] = BUG == 3 ? float(t) : 0;
    uint32_t row_of_a[4];
    for (int i = 0; i < 4; i++) {
        const int row = warp * 16 + lane / 4 + i % 2 * 8;
        row_of_a[i] = a2[row * 8 + i / 2 * 4 + lane % 4];
    }
    keep_here(d);
    if (BUG != 3) wgmma_fence();
    const uint64_t of_a = matrix_descriptor(shared_a, 128, BUG == 7 ? 2048 : 256, 0);
    wgmma_m64n8k16_bf16(d, of_a, matrix_descriptor(shared_b[0], 128, 256, 0), BUG == 3);  // BUG 1, 2, 3, 6, 7, 8, 9
    wgmma_commit();
    if (BUG == 8) d[0] += 1;  // BUG 8
    wgmma_m64n8k16_bf16(d, row_of_a, matrix_descriptor(shared_b[BUG != 11 || warp < 3], 128, 256, 0), true);  // BUG 4, 5, 8, 10, 11
    wgmma_commit();
    if (BUG == 6) shared_a[place(t / 2, t % 2)] = 0;  // BUG 6
    if (BUG == 9 && t == 0) shared_a[0] = 1;  // BUG 9
    if (BUG == 4) wgmma_wait<1>();
    else if (BUG != 5) wgmma_wait<0>();  // BUG 10
    keep_here(d);
    for (int i = 0; i < 4; i++) {
        c[(warp * 16 + lane / 4 + i / 2 * 8) * 8 + lane % 4 * 2 + i % 2] = d[i];  // BUG 4, 5
    }
}  // BUG 10, 11
