// Clusters of two blocks. Compiled with -DBUG=n; 0 is clean. Of each fault all sides are marked.

#include <cooperative_groups.h>

#include "hopper.cuh"

constexpr int THREADS = 64;

// Each block gets what the other holds, and both add to a counter of the first. in, out: [blocks, 64] u32,
// sums: [clusters] u32.
extern "C" __global__ void __cluster_dims__(2, 1, 1) exchange(const uint32_t* in, uint32_t* out, uint32_t* sums) {
    __shared__ uint32_t mine[THREADS];
    __shared__ uint32_t sum;
    const int t = threadIdx.x;
    const uint32_t rank = cluster_rank(), other = rank ^ 1;
    mine[t] = in[blockIdx.x * THREADS + t];  // BUG 1, 3
    if (t == 0) sum = 0;
    if (BUG == 3) { cluster_arrive_relaxed(); cluster_wait(); }
    else if (BUG != 1) cluster_sync();
    out[blockIdx.x * THREADS + t] = load_remote(map_shared(&mine[t], other));  // BUG 1, 2, 3, 4
    add_remote(map_shared(&sum, 0), mine[t]);  // BUG 2
    if (BUG == 4) store_remote(map_shared(&mine[t ^ 1], other), 0);  // BUG 4
    if (BUG != 2) cluster_sync();
    if (rank == 0 && t == 0) sums[cluster_number()] = sum;  // BUG 2
}  // BUG 2

// The first block copies a tile of 256 bytes to both. in: [clusters, 64], out: [blocks, 64] u32.
extern "C" __global__ void __cluster_dims__(2, 1, 1) multicast(const uint32_t* in, uint32_t* out) {
    __shared__ alignas(128) uint32_t stage[THREADS];
    __shared__ uint64_t barrier;
    const int t = threadIdx.x;
    if (t == 0) {
        mbarrier_init(&barrier, 1);
        fence_mbarrier_init();
        mbarrier_arrive_expect(&barrier, 256);
    }
    // The fence has released the barrier's initialisation.
    if (BUG != 13) {
        cluster_arrive_relaxed();
        cluster_wait();
    }
    if (cluster_rank() == 0 && t == 0) {
        const uint16_t blocks = BUG == 11 ? 1 : BUG == 12 ? 7 : 3;
        bulk_load_multicast(stage, in + cluster_number() * THREADS, 256, &barrier, blocks);  // BUG 12, 13, 14
    }
    if (BUG == 13) __syncthreads();
    if (BUG != 14 || cluster_rank() == 0) mbarrier_wait_cluster(&barrier, 0);  // BUG 11
    out[blockIdx.x * THREADS + t] = stage[t];  // BUG 14
}

// The second block writes to the first and says so at its barrier. in: [64], out: [64] u32. One cluster.
extern "C" __global__ void __cluster_dims__(2, 1, 1) signal(const uint32_t* in, uint32_t* out) {
    __shared__ uint32_t stage[THREADS];
    __shared__ uint64_t barrier;
    const int t = threadIdx.x;
    if (t == 0) {
        mbarrier_init(&barrier, BUG == 23 ? THREADS + 1 : THREADS);
        fence_mbarrier_init();
    }
    cluster_sync();
    if (cluster_rank() == 1) {
        if (BUG == 21) mbarrier_arrive_remote(&barrier, 0);
        store_remote(map_shared(&stage[t], 0), in[t]);  // BUG 21, 22
        if (BUG != 21) mbarrier_arrive_remote(&barrier, 0);
    } else {
        if (BUG != 22) mbarrier_wait_cluster(&barrier, 0);  // BUG 23
        out[t] = stage[THREADS - 1 - t];  // BUG 21, 22
    }
    cluster_sync();  // BUG 23
}

// exchange as C++ has it, through generic addresses. in, out: [2, 64] u32. One cluster.
extern "C" __global__ void __cluster_dims__(2, 1, 1) through_groups(const uint32_t* in, uint32_t* out) {
    __shared__ uint32_t mine[THREADS];
    const int t = threadIdx.x;
    auto cluster = cooperative_groups::this_cluster();
    mine[t] = in[blockIdx.x * THREADS + t];
    cluster.sync();
    const uint32_t* theirs = cluster.map_shared_rank(mine, cluster.block_rank() ^ 1);
    out[blockIdx.x * THREADS + t] = theirs[t];  // BUG 31
    if (BUG != 31) cluster.sync();
}  // BUG 31
