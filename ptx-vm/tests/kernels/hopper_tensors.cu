// Boxes of tensors. Compiled with -DBUG=n; 0 is clean. Of each fault all sides are marked.

#include "hopper.cuh"

// A box of 8 rows of 64 elements of 2 bytes, as it lies in shared memory, at each of some places. out: [places, 512] u16,
// places: [places, 2], x and y. One block of 32 threads.
extern "C" __global__ void boxes(const __grid_constant__ TensorMap map, const int* places, uint16_t* out, int count) {
    __shared__ alignas(1024) uint16_t stage[64 * 8 + 64];
    __shared__ uint64_t barrier;
    const int t = threadIdx.x;
    if (t == 0) {
        prefetch_tensor_map(&map);
        mbarrier_init(&barrier, 1);
        fence_mbarrier_init();
    }
    __syncwarp();
    for (int i = 0; i < count; i++) {
        uint16_t* to = stage + (BUG == 1 ? 32 : 0);
        if (t == 0) {
            mbarrier_arrive_expect(&barrier, BUG == 2 ? 1024 - 128 : 1024);  // BUG 3
            tensor_load_2d(to, &map, places[2 * i], places[2 * i + 1], &barrier);  // BUG 1, 3, 4
        }
        if (BUG != 3) mbarrier_wait(&barrier, i % 2);  // BUG 2
        for (int j = t; j < 512; j += 32) out[i * 512 + j] = stage[j];  // BUG 3, 4
        if (BUG != 4) __syncwarp();
    }
}

struct Inputs {
    int z;
    TensorMap map, bytes;
};

// A box of 8 x 4 x 2 floats at (x, y, z) and one of 64 bytes at x. One block of 32 threads.
extern "C" __global__ void box_and_line(const __grid_constant__ Inputs in, int x, int y, float* out, uint8_t* line_out) {
    __shared__ alignas(128) float box[8 * 4 * 2];
    __shared__ alignas(128) uint8_t line[64];
    __shared__ uint64_t barrier;
    const int t = threadIdx.x;
    if (t == 0) {
        mbarrier_init(&barrier, 1);
        fence_mbarrier_init();
        mbarrier_arrive_expect(&barrier, 256 + 64);
        tensor_load_3d(box, &in.map, x, y, in.z, &barrier);
        tensor_load_1d(line, &in.bytes, x, &barrier);
    }
    __syncwarp();
    mbarrier_wait(&barrier, 0);
    for (int j = t; j < 64; j += 32) out[j] = box[j];
    for (int j = t; j < 64; j += 32) line_out[j] = line[j];
}
