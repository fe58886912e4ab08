// What the lanes of a warp do together. All kernels: one block of 32 threads; in: [32].

#include <cooperative_groups.h>

#include "ptx.cuh"

namespace groups = cooperative_groups;

// out: [8, 32]
//   0  in[t - 3], own where there is none      4  in[t - 1] within its 8, own at their first
//   1  in[t + 5], own where there is none      5  in[t + 2] within its 16, own at their last two
//   2  in[t ^ 6]                               6  in[3] of its 8
//   3  in[in[t] % 32]                          7  1 where row 0 came from another lane
extern "C" __global__ void shuffles(const int* in, int* out) {
    const int t = threadIdx.x, value = in[t];
    const unsigned all = 0xffffffff;
    const int up = __shfl_up_sync(all, value, 3);
    out[0 * 32 + t] = up;
    out[1 * 32 + t] = __shfl_down_sync(all, value, 5);
    out[2 * 32 + t] = __shfl_xor_sync(all, value, 6);
    out[3 * 32 + t] = __shfl_sync(all, value, value);
    out[4 * 32 + t] = __shfl_up_sync(all, value, 1, 8);
    out[5 * 32 + t] = __shfl_down_sync(all, value, 2, 16);
    out[6 * 32 + t] = __shfl_sync(all, value, 3, 8);
    out[7 * 32 + t] = t >= 3;
}

// Shuffles of 64-bit values: out[t] = in[t ^ 1] + in[31 - t]. in, out: [32] f64.
extern "C" __global__ void shuffles_f64(const double* in, double* out) {
    const double value = in[threadIdx.x];
    out[threadIdx.x] = __shfl_xor_sync(0xffffffff, value, 1) + __shfl_sync(0xffffffff, value, 31 - threadIdx.x);
}

// out: [6, 32]: ballot, any and all of in[t] > 0 over the warp, then over the lanes of equal t % 2.
extern "C" __global__ void votes(const int* in, unsigned* out) {
    const int t = threadIdx.x, value = in[t];
    out[0 * 32 + t] = __ballot_sync(0xffffffff, value > 0);
    out[1 * 32 + t] = __any_sync(0xffffffff, value > 0);
    out[2 * 32 + t] = __all_sync(0xffffffff, value > 0);
    if (t % 2 == 0) {
        out[3 * 32 + t] = __ballot_sync(0x55555555, value > 0);
        out[4 * 32 + t] = __any_sync(0x55555555, value > 0);
        out[5 * 32 + t] = __all_sync(0x55555555, value > 0);
    } else {
        out[3 * 32 + t] = __ballot_sync(0xaaaaaaaa, value > 0);
        out[4 * 32 + t] = __any_sync(0xaaaaaaaa, value > 0);
        out[5 * 32 + t] = __all_sync(0xaaaaaaaa, value > 0);
    }
}

// out: [5, 32]: the mask of the lanes with the same in[t]; the mask of those with the same in[t] as 64 bits, shifted up
// by 33; the mask of match_all of in[t], and its predicate; that of match_all of 7.
extern "C" __global__ void matches(const int* in, unsigned* out) {
    const int t = threadIdx.x, value = in[t];
    int agree;
    out[0 * 32 + t] = __match_any_sync(0xffffffff, value);
    out[1 * 32 + t] = __match_any_sync(0xffffffff, (unsigned long long)value << 33);
    out[2 * 32 + t] = __match_all_sync(0xffffffff, value, &agree);
    out[3 * 32 + t] = agree;
    out[4 * 32 + t] = __match_all_sync(0xffffffff, 7, &agree);
}

// out: [8, 32]: sum, min and max of in as i32, min and max as u32, and, or, xor over the lanes of equal t / 16.
extern "C" __global__ void reductions(const int* in, int* out) {
    const int t = threadIdx.x, value = in[t];
    const unsigned bits = value, half = t < 16 ? 0x0000ffff : 0xffff0000;
    out[0 * 32 + t] = __reduce_add_sync(half, value);
    out[1 * 32 + t] = __reduce_min_sync(half, value);
    out[2 * 32 + t] = __reduce_max_sync(half, value);
    out[3 * 32 + t] = __reduce_min_sync(half, bits);
    out[4 * 32 + t] = __reduce_max_sync(half, bits);
    out[5 * 32 + t] = __reduce_and_sync(half, bits);
    out[6 * 32 + t] = __reduce_or_sync(half, bits);
    out[7 * 32 + t] = __reduce_xor_sync(half, bits);
}

// out: [3, 32]: the active lanes where in[t] > 0 and where not; 1 where another lane is below among them; those of all
// after they have met again.
extern "C" __global__ void active(const int* in, unsigned* out) {
    const int t = threadIdx.x;
    unsigned here;
    if (in[t] > 0) {
        here = __activemask();
        out[t] = here;
    } else {
        here = __activemask();
        out[t] = here;
    }
    out[32 + t] = (here & lanes_below()) != 0;
    __syncwarp();
    out[64 + t] = __activemask();
}

// Tiles of 8: out: [3, 32]: the sum over the tile; in of the tile's next lane, in a ring; the tile's ballot of in > 0.
extern "C" __global__ void tiles(const int* in, int* out) {
    const auto tile = groups::tiled_partition<8>(groups::this_thread_block());
    const int t = threadIdx.x, value = in[t];
    int sum = value;
    for (int distance = 4; distance > 0; distance /= 2) sum += tile.shfl_xor(sum, distance);
    out[t] = sum;
    tile.sync();
    out[32 + t] = tile.shfl(value, (tile.thread_rank() + 1) % tile.size());
    out[64 + t] = tile.ballot(value > 0);
}
