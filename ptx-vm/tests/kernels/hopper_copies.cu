// Bulk copies and the mbarriers that they arrive at. Compiled with -DBUG=n; 0 is clean. Of each fault all sides are
// marked.

#include "hopper.cuh"

constexpr int TILE = 256, STAGES = 2, CONSUMERS = 64;
constexpr uint32_t TILE_BYTES = TILE * sizeof(float);

// out = 2 in, tile by tile, through a ring: warp 2 copies, warps 0 and 1 compute. in, out: [tiles, 256] f32.
// One block of 96 threads.
extern "C" __global__ void ring(const float* in, float* out, int tiles) {
    __shared__ alignas(128) float stage[STAGES][TILE];
    __shared__ uint64_t full[STAGES], empty[STAGES];
    const int t = threadIdx.x;
    if (t == 0) {
        for (int s = 0; s < STAGES; s++) {
            mbarrier_init(&full[s], 1);  // BUG 6, 7
            mbarrier_init(&empty[s], CONSUMERS);  // BUG 6
        }
        if (BUG != 7) fence_mbarrier_init();
    }
    if (BUG != 6) __syncthreads();

    if (t >= CONSUMERS) {
        if (t > CONSUMERS) return;
        for (int i = 0; i < tiles; i++) {
            const int s = i % STAGES;
            if (i >= STAGES && BUG != 2) mbarrier_wait(&empty[s], (i / STAGES - 1) % 2);  // BUG 4, 5, 6
            mbarrier_arrive_expect(&full[s], BUG == 4 ? TILE_BYTES + 16 : TILE_BYTES);  // BUG 2, 6, 13
            if (BUG == 3) mbarrier_expect(&full[s], 32);  // BUG 3
            bulk_load(stage[s], in + i * TILE, TILE_BYTES, &full[s]);  // BUG 1, 2, 5, 6, 7
            if (BUG == 13) mbarrier_arrive(&full[s]);  // BUG 13
        }
        return;  // BUG 3
    }
    for (int i = 0; i < tiles; i++) {
        const int s = i % STAGES;
        const int parity = BUG == 5 ? (i / STAGES + 1) % 2 : i / STAGES % 2;
        if (BUG != 1) mbarrier_wait(&full[s], parity);  // BUG 3, 4, 5, 6
        for (int j = t; j < TILE; j += CONSUMERS) out[i * TILE + j] = 2 * stage[s][j];  // BUG 1, 2, 5
        mbarrier_arrive(&empty[s]);  // BUG 6
    }
}

// Copies in halves whose bytes are expected apart. in, out: [64] f32. One block of 64 threads.
extern "C" __global__ void halves(const float* in, float* out) {
    __shared__ alignas(16) float stage[64];
    __shared__ uint64_t barrier;
    const int t = threadIdx.x;
    if (t == 0) {
        mbarrier_init(&barrier, 1);
        fence_mbarrier_init();
    }
    __syncthreads();
    if (t == 0) {
        bulk_load(stage, in, 128, &barrier);  // BUG 21
        if (BUG == 22) bulk_load(stage + 31, in + 32, 128, &barrier);  // BUG 22
        else if (BUG == 23) bulk_load(stage + 36, in + 32, 128, &barrier);  // BUG 23
        else if (BUG == 24) bulk_load(stage + 32, in + 36, 128, &barrier);  // BUG 24
        else if (BUG == 25) bulk_load(stage + 32, in + 32, 120, &barrier);  // BUG 25
        else bulk_load(stage + 32, in + 32, 128, &barrier);  // BUG 21
        if (BUG == 26) mbarrier_expect(&barrier, 1 << 20);  // BUG 26
        mbarrier_arrive_expect(&barrier, BUG == 21 ? 128 : 256);
    }
    mbarrier_wait(&barrier, 0);
    out[t] = stage[63 - t];  // BUG 21
}

// out = in + 1 through shared memory and back, 4 rounds on one buffer. in, out: [4, 64] u32. One block of 64 threads.
extern "C" __global__ void store_back(const uint32_t* in, uint32_t* out) {
    __shared__ alignas(16) uint32_t stage[64];
    const int t = threadIdx.x;
    for (int i = 0; i < 4; i++) {
        stage[t] = in[i * 64 + t] + 1;  // BUG 31, 32, 34
        if (BUG != 31) fence_proxy_async();
        if (BUG != 34) __syncthreads();
        if (t == 0) {
            bulk_store(out + i * 64, stage, 256);  // BUG 31, 32, 33, 34, 35
            bulk_commit();
            if (BUG != 32 && (BUG != 33 || i < 3)) bulk_wait_read<0>();
            if (BUG == 35 && i == 0) out[5] = 0;  // BUG 35
        }
        __syncthreads();
    }
}  // BUG 33

// out[t] = in[t ^ 1]: who waits by state. in, out: [64] u32. One block of 64 threads.
extern "C" __global__ void by_state(const uint32_t* in, uint32_t* out) {
    __shared__ uint32_t stage[64];
    __shared__ uint64_t barrier;
    const int t = threadIdx.x;
    if (t == 0 && BUG != 42) mbarrier_init(&barrier, BUG == 45 ? 65 : 64);
    __syncthreads();
    if (BUG == 43 && t == 3) reinterpret_cast<volatile uint32_t*>(&barrier)[1] = 0;  // BUG 43
    for (int round = 0; round < 3; round++) {
        stage[t] = in[t] + round;  // BUG 44, 46
        if (BUG == 41 && t == 0) mbarrier_arrive_count(&barrier, 65);  // BUG 41
        const uint64_t state = mbarrier_arrive_state(&barrier);  // BUG 42
        if (BUG != 44) while (!mbarrier_test_state(&barrier, state)) {}  // BUG 45
        out[t] = stage[t ^ 1];  // BUG 44, 46
        if (BUG != 46) __syncthreads();
    }
    if (t == 0) {
        mbarrier_invalidate(&barrier);
        barrier = 0;
    }
}

// out[t] = in[63 - t]: copies by cp.async that an mbarrier waits for. in, out: [64] of 4 f32. One block of 64 threads.
extern "C" __global__ void by_cp_async(const float4* in, float4* out) {
    __shared__ float4 stage[64];
    __shared__ uint64_t barrier;
    const int t = threadIdx.x;
    if (t == 0) mbarrier_init(&barrier, 64);
    __syncthreads();
    cp_async16(&stage[t], &in[t]);  // BUG 51
    cp_async_mbarrier_arrive(&barrier);
    if (BUG != 51) mbarrier_wait(&barrier, 0);
    out[t] = stage[63 - t];  // BUG 51
}
