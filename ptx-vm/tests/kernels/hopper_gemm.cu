// c = a b^T, bf16 to f32, as Hopper wants it: tiles of 128 x 128 x 64, one warp that copies boxes with a swizzle of 128
// bytes into a ring of 3, two warpgroups that multiply. Two blocks, one below the other, share the columns: each copies
// half of B to both.
// Blocks of 384 threads, clusters of (1, 2), a grid of (ceil(n / 128), 2 ceil(m / 256)), SHARED_BYTES (99328) bytes of
// dynamic shared memory. Compiled with -DBUG=n; 0 is clean. Of each fault all sides are marked.
//
// a: [m, k], b: [n, k], boxes of 64 rows of 64; c: [m, n].

#include "hopper.cuh"

constexpr int TILE = 128, DEPTH = 64, STAGES = 3, BLOCKS = 2, CONSUMERS = 256, THREADS = 384;
constexpr int BOX_BYTES = 64 * DEPTH * 2, BYTES = 4 * BOX_BYTES;

struct Stage {
    unsigned char a[2][BOX_BYTES];
    unsigned char b[2][BOX_BYTES];
};

struct Shared {
    Stage stages[STAGES];
    uint64_t full[STAGES], empty[STAGES];
};
constexpr int SHARED_BYTES = 99328;
static_assert(sizeof(Shared) <= SHARED_BYTES);

// The `k`th 16 columns of 64 rows of 128 bytes.
__device__ __forceinline__ uint64_t box_descriptor(const unsigned char* box, int k) {
    return matrix_descriptor(box + k * 32, 16, 1024, 1);
}

extern "C" __global__ void __cluster_dims__(1, 2, 1) __launch_bounds__(THREADS)
gemm(const __grid_constant__ TensorMap map_a, const __grid_constant__ TensorMap map_b, float* c, int m, int n, int k) {
    extern __shared__ __align__(1024) unsigned char dynamic[];
    Shared& shared = *reinterpret_cast<Shared*>(dynamic);
    const int t = threadIdx.x, warp = t / 32, lane = t % 32;
    const uint32_t rank = cluster_rank();
    const int tile_row = blockIdx.y * TILE, tile_column = blockIdx.x * TILE;
    const int steps = (k + DEPTH - 1) / DEPTH;

    if (t == 0) {
        for (int s = 0; s < STAGES; s++) {
            mbarrier_init(&shared.full[s], 1);
            // One warp arrives for its warpgroup, in both blocks.
            mbarrier_init(&shared.empty[s], CONSUMERS / 128 * (BUG == 10 ? 1 : BLOCKS));
        }
        fence_mbarrier_init();
    }
    if (BUG == 7) __syncthreads();
    else cluster_sync();

    if (warp >= CONSUMERS / 32) {
        release_registers<40>();
        if (warp == CONSUMERS / 32 && elect_one()) {
            for (int step = 0; step < steps; step++) {
                const int s = step % STAGES, round = step / STAGES;
                if (round > 0 && BUG != 2) mbarrier_wait_cluster(&shared.empty[s], (round - 1) % 2);  // BUG 3, 6, 8
                Stage& stage = shared.stages[s];
                mbarrier_arrive_expect(&shared.full[s], BUG == 3 ? BYTES + BOX_BYTES : BYTES);  // BUG 2
                for (int half = 0; half < 2; half++) {
                    const int row = tile_row + half * 64;
                    tensor_load_2d(stage.a[half], &map_a, step * DEPTH, row, &shared.full[s]);  // BUG 1, 2, 4, 8
                }
                const uint16_t blocks = BUG == 6 ? 1 << rank : 3;
                tensor_load_2d_multicast(stage.b[rank], &map_b, step * DEPTH, tile_column + rank * 64, &shared.full[s],  // BUG 1, 2, 4, 7, 8, 10
                                         blocks);
            }
        }
    } else {
        claim_registers<232>();
        const int group = warp / 4;
        float d[64];
        for (int step = 0; step < steps; step++) {
            const int s = step % STAGES, round = step / STAGES;
            const int parity = BUG == 8 ? (round + 1) % 2 : round % 2;
            if (BUG != 1) mbarrier_wait_cluster(&shared.full[s], parity);  // BUG 3, 6, 8
            const Stage& stage = shared.stages[s];
            if (BUG != 9) wgmma_fence();
            for (int inner = 0; inner < DEPTH / 16; inner++) {
                const uint64_t of_a = box_descriptor(stage.a[group], inner), of_b = box_descriptor(stage.b[0], inner);
                wgmma_m64n128k16_bf16(d, of_a, of_b, step + inner > 0);  // BUG 1, 2, 4, 5, 8, 9, 10
            }
            wgmma_commit();
            if (BUG == 5 && step == steps - 1) wgmma_wait<1>();
            else if (BUG != 4) wgmma_wait<0>();
            // Both blocks have written to this stage. Products of a warpgroup are over together.
            if (warp % 4 == 0 && lane < BLOCKS && (BUG != 10 || lane == rank)) mbarrier_arrive_remote(&shared.empty[s], lane);  // BUG 11
            if (BUG == 4) wgmma_wait<0>();
        }
        keep_here(d);
        for (int i = 0; i < 64; i++) {
            const int row = tile_row + group * 64 + warp % 4 * 16 + lane / 4 + i / 2 % 2 * 8;
            const int column = tile_column + i / 4 * 8 + lane % 4 * 2 + i % 2;
            if (row < m && column < n) c[size_t(row) * n + column] = d[i];  // BUG 5
        }
    }
    // The other block may still arrive at the barriers here.
    if (BUG != 11) cluster_sync();  // BUG 3, 6, 8
}  // BUG 11
