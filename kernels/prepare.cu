// Makes the work list from the offsets, on the device, so that no offset needs to be known on the host.
//
// Any offsets do: they are clamped to [0, instances], then each is raised to the greatest before it. Each block
// finds the greatest offset before its bags by reading them all: the offsets stay in the second-level cache, and
// no block waits for another. A thread takes neighbouring bags, and where bags are packed, puts as many of them in one
// item as fit a chunk. The order of items and nodes depends on who comes first, and which bags share an item on the
// number of bags; no result does.
#include "work_list.cuh"

namespace mivc {

constexpr int THREADS = MIVC_PREPARE_THREADS, WARPS = THREADS / 32;
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

// The bags of a thread, and what is before them.
struct Bags {
    int64_t first;
    int64_t last;   // the one behind them
    int64_t begin;  // at least where the first begins
};

// Rows of a bag.
struct Range {
    int64_t begin;
    int64_t end;
};

// Of a bag that begins at `before` at least.
__device__ __forceinline__ Range range_of(const MivcPrepare& p, int64_t bag, int64_t before) {
    const int64_t begin = max(before, clamped_offset(p, bag));
    return {begin, max(begin, clamped_offset(p, bag + 1))};
}

// The first chunk of a long bag that has an item.
__device__ __forceinline__ int64_t first_listed_chunk(const MivcPrepare& p) { return p.packs_bags ? 0 : 1; }

// Neighbouring bags that share an item.
struct Run {
    int64_t first;
    int64_t bags = 0;
    int64_t rows = 0;
};

// Adds a bag of one chunk to the run; where it does not fit, emit(run) comes first, and a run of its own begins.
template <typename Emit>
__device__ __forceinline__ void add_to(Run& run, int64_t bag, int64_t rows, int64_t most_rows, const Emit& emit) {
    if (run.bags > 0 && run.rows + rows > most_rows) {
        emit(run);
        run = {};
    }
    if (run.bags == 0) run.first = bag;
    run.bags++;
    run.rows += rows;
}

// Entries that a thread needs.
struct Need {
    int64_t items = 0;
    int64_t nodes = 0;
};

__device__ __forceinline__ Need need_of(const MivcPrepare& p, const Bags& bags) {
    Need need;
    Run run;
    int64_t before = bags.begin;
    for (int64_t bag = bags.first; bag < bags.last; bag++) {
        const Range range = range_of(p, bag, before);
        const int64_t rows = range.end - range.begin, chunks = chunks_of(p.list, rows);
        before = range.end;
        if (chunks > 1) {
            need.items += chunks - first_listed_chunk(p);
            need.nodes += nodes_of(chunks);
            need.items += run.bags > 0;
            run = {};
        } else if (p.packs_bags) {
            add_to(run, bag, rows, p.list.chunk_rows, [&](const Run&) { need.items++; });
        }
    }
    need.items += run.bags > 0;
    return need;
}

// Writes the items and tickets of bags of several chunks, whose number and first entries may differ from lane to lane,
// by all lanes of the warp together.
__device__ __forceinline__ void write_long_bag(const MivcPrepare& p, bool any, int64_t bag, int64_t chunks, int64_t item,
                                               int64_t node) {
    const int lane = threadIdx.x % 32;
    for (unsigned lanes = __ballot_sync(0xffffffff, any); lanes != 0; lanes &= lanes - 1) {
        const int from = __ffs(lanes) - 1;
        const int64_t its_bag = __shfl_sync(0xffffffff, bag, from), its_chunks = __shfl_sync(0xffffffff, chunks, from);
        const int64_t first_item = __shfl_sync(0xffffffff, item, from), leaf = __shfl_sync(0xffffffff, node, from);
        const int64_t first_chunk = first_listed_chunk(p);
        for (int64_t chunk = first_chunk + lane; chunk < its_chunks; chunk += 32) {
            pointer<MivcItem>(p.list.items)[first_item + chunk - first_chunk] = {its_bag, chunk, 1};
        }
        // Leaves have no ticket.
        const int64_t first = (leaf + its_chunks) * p.list.tiles, last = (leaf + nodes_of(its_chunks)) * p.list.tiles;
        for (int64_t i = first + lane; i < last; i += 32) pointer<uint32_t>(p.list.tickets)[i] = 0;
    }
}

// Lists the bags of each thread of a warp, from its entries on.
__device__ __forceinline__ void list_bags(const MivcPrepare& p, const Bags& bags, int64_t item, int64_t node) {
    auto* ranges = pointer<int64_t>(p.list.ranges);
    auto emit = [&](const Run& run) {
        if (run.bags > 0) pointer<MivcItem>(p.list.items)[item++] = {run.first, 0, run.bags};
    };
    Run run;
    int64_t before = bags.begin;
    // As many turns in every lane, as they write together.
    for (int64_t i = 0; i < p.bags_per_thread; i++) {
        const int64_t bag = bags.first + i;
        int64_t rows = 0, chunks = 0;
        if (bag < bags.last) {
            const Range range = range_of(p, bag, before);
            ranges[bag] = range.begin;
            if (bag == p.list.bags - 1) ranges[bag + 1] = range.end;
            rows = range.end - range.begin;
            chunks = chunks_of(p.list, rows);
            before = range.end;
        }
        if (chunks > 1) {
            emit(run);
            run = {};
            pointer<int64_t>(p.list.first_nodes)[bag] = node;
        } else if (chunks == 1 && p.packs_bags) {
            add_to(run, bag, rows, p.list.chunk_rows, emit);
        }
        write_long_bag(p, chunks > 1, bag, chunks, item, node);
        if (chunks > 1) {
            item += chunks - first_listed_chunk(p);
            node += nodes_of(chunks);
        }
    }
    emit(run);
}

extern "C" __global__ void __launch_bounds__(THREADS) mivc_prepare(const __grid_constant__ MivcPrepare p) {
    const int64_t first_of_block = int64_t(blockIdx.x) * THREADS * p.bags_per_thread;
    const int64_t first = first_of_block + int64_t(threadIdx.x) * p.bags_per_thread;

    int64_t greatest = 0;
#pragma unroll 8
    for (int64_t i = threadIdx.x; i < first_of_block; i += THREADS) greatest = max(greatest, clamped_offset(p, i));
    int64_t before_block;
    greatest_before_in_block(greatest, before_block);

    Bags bags = {first, min(first + p.bags_per_thread, p.list.bags), 0};
    int64_t own = 0;
    for (int64_t bag = bags.first; bag < bags.last; bag++) own = max(own, clamped_offset(p, bag));
    int64_t unused;
    bags.begin = max(before_block, greatest_before_in_block(own, unused));

    const Need need = need_of(p, bags);
    auto* counters = pointer<unsigned long long>(p.list.counters);
    int64_t item = 0, node = 0;
    if (need.items > 0) item = atomicAdd(counters, need.items);
    if (need.nodes > 0) node = atomicAdd(counters + 1, need.nodes);
    // The host has made room for any ranges that do not fall. Had it not, nothing could be done within bounds.
    if (item + need.items > p.list.item_capacity || node + need.nodes > p.list.node_capacity) __trap();
    list_bags(p, bags, item, node);
}

}  // namespace mivc
