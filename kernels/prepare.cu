// Makes the work list from the offsets, on the device, so that no offset needs to be known on the host.
//
// Any offsets do: they are clamped to [0, instances], then each is raised to the greatest before it. Each block
// finds the greatest offset before its bags by reading them all: the offsets stay in the second-level cache, and
// no block waits for another. A thread takes neighbouring bags. The order of items and nodes depends on who comes
// first; no result does.
#include "work_list.cuh"

namespace mivc {

constexpr int THREADS = MIVC_PREPARE_THREADS, WARPS = THREADS / 32, BAGS = MIVC_PREPARE_BAGS_PER_THREAD;
static_assert(WARPS <= 32, "one lane per warp");

__device__ __forceinline__ int64_t clamped_offset(const MivcPrepare& p, int64_t i) {
    const int64_t offset = p.offsets_bytes == 8 ? pointer<const int64_t>(p.offsets)[i]
                                                : int64_t(pointer<const int32_t>(p.offsets)[i]);
    return min(max(offset, int64_t(0)), p.instances);
}

// The greatest value of the lanes before this one; 0 for the first.
__device__ __forceinline__ int64_t greatest_before(int64_t value, int lane) {
    for (int distance = 1; distance < 32; distance *= 2) {
        const int64_t other = __shfl_up_sync(0xffffffff, value, distance);
        if (lane >= distance) value = max(value, other);
    }
    const int64_t before = __shfl_up_sync(0xffffffff, value, 1);
    return lane == 0 ? 0 : before;
}

// The greatest value of all threads before this one; `all` is that of the block. Offsets are at least 0.
__device__ __forceinline__ int64_t greatest_before_in_block(int64_t value, int64_t& all) {
    __shared__ int64_t of_warp[WARPS];
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    const int64_t in_warp = greatest_before(value, lane);
    if (lane == 31) of_warp[warp] = max(in_warp, value);
    __syncthreads();
    int64_t before = in_warp;
    all = 0;
    for (int other = 0; other < WARPS; other++) {
        if (other < warp) before = max(before, of_warp[other]);
        all = max(all, of_warp[other]);
    }
    __syncthreads();
    return before;
}

// Gives a bag of several chunks its items and its nodes.
__device__ void add_long_bag(const MivcWorkList& list, int64_t bag, int64_t chunks) {
    auto* counters = pointer<MivcCounters>(list.counters);
    const int64_t nodes = nodes_of(chunks);
    const int64_t item = atomicAdd(reinterpret_cast<unsigned long long*>(&counters->items), chunks - 1);
    const int64_t node = atomicAdd(reinterpret_cast<unsigned long long*>(&counters->nodes), nodes);
    // The host has made room for any ranges that do not fall.
    if (item + chunks - 1 > list.item_capacity || node + nodes > list.node_capacity) return;
    pointer<int64_t>(list.first_nodes)[bag] = node;
    for (int64_t chunk = 1; chunk < chunks; chunk++) {
        pointer<MivcItem>(list.items)[item + chunk - 1] = {bag, chunk};
    }
    for (int64_t i = (node + chunks) * list.tiles; i < (node + nodes) * list.tiles; i++) {
        pointer<uint32_t>(list.tickets)[i] = 0;
    }
}

extern "C" __global__ void __launch_bounds__(THREADS) mivc_prepare(const __grid_constant__ MivcPrepare p) {
    const MivcWorkList& list = p.list;
    const int64_t first_of_block = int64_t(blockIdx.x) * (THREADS * BAGS);
    const int64_t first = first_of_block + int64_t(threadIdx.x) * BAGS;

    int64_t greatest = 0;
    for (int64_t i = threadIdx.x; i < first_of_block; i += THREADS) greatest = max(greatest, clamped_offset(p, i));
    int64_t before_block;
    greatest_before_in_block(greatest, before_block);

    int64_t own = 0;
    for (int64_t i = first; i < min(first + BAGS, list.bags); i++) own = max(own, clamped_offset(p, i));
    int64_t unused;
    int64_t begin = max(before_block, greatest_before_in_block(own, unused));

    auto* ranges = pointer<int64_t>(list.ranges);
    for (int64_t bag = first; bag < min(first + BAGS, list.bags); bag++) {
        begin = max(begin, clamped_offset(p, bag));
        const int64_t end = max(begin, clamped_offset(p, bag + 1));
        ranges[bag] = begin;
        if (bag == list.bags - 1) ranges[bag + 1] = end;
        const int64_t chunks = chunks_of(end - begin);
        if (chunks > 1) add_long_bag(list, bag, chunks);
    }
}

}  // namespace mivc
