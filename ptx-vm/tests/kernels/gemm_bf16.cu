// c = a b^T, bf16 to f32: tiles of 64 x 64 x 32, 4 warps, two stages of cp.async, ldmatrix, mma m16n8k16.
// Blocks of 128 threads, a grid of (ceil(n / 64), ceil(m / 64)), SHARED_BYTES (20480) bytes of dynamic shared memory.
// Compiled with -DBUG=n; 0 is clean. Of races both sides are marked.
//
// a: [m, k], b: [n, k] bf16; c: [m, n]; m and n are any, k is a multiple of 32.

#include <cuda_bf16.h>

#include "ptx.cuh"

constexpr int THREADS = 128, TILE = 64, DEPTH = 32, STAGES = 2;

// Rows of 80 bytes: the 8 rows of an ldmatrix lie in different banks.
struct Stage {
    __nv_bfloat16 a[TILE][DEPTH + 8];
    __nv_bfloat16 b[TILE][DEPTH + 8];
};
constexpr int SHARED_BYTES = STAGES * sizeof(Stage);
static_assert(SHARED_BYTES == 20480);

extern "C" __global__ void __launch_bounds__(THREADS)
gemm_bf16(const __nv_bfloat16* __restrict__ a, const __nv_bfloat16* __restrict__ b, float* __restrict__ c,
          int m, int n, int k) {
    extern __shared__ __align__(16) unsigned char shared[];
    Stage* stages = reinterpret_cast<Stage*>(shared);
    const int t = threadIdx.x, warp = t / 32, lane = t % 32;
    const int tile_row = blockIdx.y * TILE, tile_column = blockIdx.x * TILE;
    const int warp_row = warp / 2 * 32, warp_column = warp % 2 * 32;

    auto fetch = [&](int step) {
        Stage& stage = stages[step % STAGES];
        for (int chunk = t; chunk < TILE * DEPTH / 8; chunk += THREADS) {
            const int row = chunk / (DEPTH / 8), column = chunk % (DEPTH / 8) * 8;
            const bool in_a = tile_row + row < m, in_b = tile_column + row < n;
            const __nv_bfloat16* from_a = a + size_t(in_a ? tile_row + row : 0) * k + step * DEPTH + column;
            const __nv_bfloat16* from_b = b + size_t(in_b ? tile_column + row : 0) * k + step * DEPTH + column;
            cp_async16(&stage.a[row][column], from_a, in_a);  // BUG 2, 3, 6
            cp_async16(&stage.b[row][column], from_b, in_b);  // BUG 2, 3, 6
        }
        cp_async_commit();
    };

    float sum[2][4][4] = {};
    const int steps = k / DEPTH;
    fetch(0);
    for (int step = 0; step < steps; step++) {
        const bool is_last = step + 1 == steps;
        if (!is_last) fetch(step + 1);
        if (is_last) cp_async_wait<0>();
        else cp_async_wait<(BUG == 6 ? 2 : 1)>();
        if (BUG != 2) __syncthreads();

        const Stage& stage = stages[step % STAGES];
        for (int inner = 0; inner < DEPTH; inner += 16) {
            uint32_t fragment_a[2][4], fragment_b[4][2];
            for (int i = 0; i < 2; i++) {
                const int row = warp_row + i * 16 + lane % 16;
                ldmatrix_x4(fragment_a[i], &stage.a[row][inner + lane / 16 * 8]);  // BUG 2, 3, 6
            }
            for (int j = 0; j < 4; j++) {
                const int row = warp_column + j * 8 + lane % 8;
                ldmatrix_x2(fragment_b[j], &stage.b[row][inner + lane / 8 % 2 * 8]);  // BUG 2, 3, 6
            }
            for (int i = 0; i < 2; i++) {
                for (int j = 0; j < 4; j++) mma_m16n8k16_bf16(sum[i][j], fragment_a[i], fragment_b[j]);
            }
        }
        if (BUG != 3) __syncthreads();
    }

    for (int i = 0; i < 2; i++) {
        for (int j = 0; j < 4; j++) {
            for (int q = 0; q < 4; q++) {
                const int row = tile_row + warp_row + i * 16 + q / 2 * 8 + lane / 4;
                const int column = tile_column + warp_column + j * 8 + lane % 4 * 2 + q % 2;
                const bool is_in = (BUG == 1 ? row <= m : row < m) && column < n;
                if (is_in) c[size_t(row) * n + column] = sum[i][j][q];  // BUG 1
            }
        }
    }
}
