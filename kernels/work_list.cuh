// Which rows a block takes, and how the chunks of a bag become one.
//
// The first `bags` blocks along x take the first chunk of each bag, the others the items of the work list. Blocks
// along y take columns of their own. The chunks of a bag are merged in a tree: whichever block finishes the last of
// up to MIVC_MERGE_RADIX children merges them in their order, so that the tree, and with it every bit, is fixed
// while no block waits for another.
#pragma once
#include "abi.h"
#include "ptx.cuh"

namespace mivc {

template <typename T>
__device__ __forceinline__ T* pointer(uint64_t address) {
    return reinterpret_cast<T*>(address);
}

// Chunks that a bag is cut into, counted from its own first row; an empty bag has one.
__device__ __forceinline__ int64_t chunks_of(int64_t rows) {
    return rows <= MIVC_CHUNK_ROWS ? 1 : (rows + MIVC_CHUNK_ROWS - 1) / MIVC_CHUNK_ROWS;
}

__device__ __forceinline__ int64_t parents_of(int64_t nodes) {
    return (nodes + MIVC_MERGE_RADIX - 1) / MIVC_MERGE_RADIX;
}

// Nodes of the tree over `chunks` > 1 leaves, root and leaves included.
__device__ __forceinline__ int64_t nodes_of(int64_t chunks) {
    int64_t nodes = chunks;
    for (int64_t level = chunks; level > 1;) {
        level = parents_of(level);
        nodes += level;
    }
    return nodes;
}

// What a block has to do.
struct Work {
    bool any;
    int64_t bag;
    int64_t chunk;
    int64_t chunks;     // of the bag
    int64_t first_row;  // of the chunk
    int64_t last_row;   // the one behind it
};

__device__ __forceinline__ Work work_of_block(const MivcWorkList& list) {
    MivcItem item = {blockIdx.x, 0};
    if (item.bag >= list.bags) {
        const int64_t entry = blockIdx.x - list.bags;
        if (entry >= list.item_capacity || entry >= int64_t(pointer<MivcCounters>(list.counters)->items)) return {};
        item = pointer<MivcItem>(list.items)[entry];
    }
    const int64_t* range = pointer<int64_t>(list.ranges) + item.bag;
    const int64_t first = range[0] + item.chunk * MIVC_CHUNK_ROWS;
    return {true, item.bag, item.chunk, chunks_of(range[1] - range[0]), first,
            min(range[1], first + MIVC_CHUNK_ROWS)};
}

// Merges the chunks of a bag. `Partials` has store(node, partial) and merge(partial, node), which adds the rows of
// a node behind those of a partial; `Partial` begins as that of the block's own chunk. True in the one block that
// has the whole bag, in `partial`. All threads of the block take part.
template <typename Partials, typename Partial>
__device__ __forceinline__ bool merge_chunks(const MivcWorkList& list, const Work& work, const Partials& partials,
                                             Partial& partial) {
    __shared__ bool is_last;
    int64_t level = pointer<int64_t>(list.first_nodes)[work.bag];  // its first node
    int64_t nodes = work.chunks, index = work.chunk;
    while (nodes > 1) {
        partials.store(level + index, partial);
        const int64_t parent = index / MIVC_MERGE_RADIX, first_child = parent * MIVC_MERGE_RADIX;
        const int64_t children = min(nodes - first_child, int64_t(MIVC_MERGE_RADIX));
        const int64_t parent_node = level + nodes + parent;
        __syncthreads();
        if (threadIdx.x == 0) {
            // What the block has stored becomes visible before its ticket, and what the others have, after theirs.
            fence_device();
            unsigned* tickets = pointer<unsigned>(list.tickets);
            is_last = atomicAdd(&tickets[parent_node * list.tiles + blockIdx.y], 1) == children - 1;
            fence_device();
        }
        __syncthreads();
        if (!is_last) return false;
        partial = Partial();
        for (int64_t child = first_child; child < first_child + children; child++) {
            partials.merge(partial, level + child);
        }
        level += nodes;
        nodes = parents_of(nodes);
        index = parent;
    }
    return true;
}

}  // namespace mivc
