// Which rows a block takes, and how the chunks of a bag become one.
//
// A team, a block or a warp of it, takes a chunk: the first `bags` teams the first chunk of each bag, the others the
// items of the work list. Where bags are packed, a team takes an item, which may be several short bags. Several teams
// may share a chunk, each with a tile of the outputs of its own. The chunks of a bag are merged in a tree: whichever
// team finishes the last of up to MIVC_MERGE_RADIX children merges them in their order, so that the tree, and with it
// every bit, is fixed while no team waits for another.
#pragma once
#include "numeric.cuh"

namespace mivc {

// Chunks that a bag is cut into, counted from its own first row; an empty bag has one.
__device__ __forceinline__ int64_t chunks_of(const MivcWorkList& list, int64_t rows) {
    return rows <= list.chunk_rows ? 1 : (rows + list.chunk_rows - 1) / list.chunk_rows;
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

// The threads that take a chunk together.
struct BlockTeam {
    __device__ __forceinline__ static bool is_leader() { return threadIdx.x == 0; }
    __device__ __forceinline__ static void sync() { __syncthreads(); }
    // True in all threads where it is in the leader.
    __device__ __forceinline__ static bool leader_says(bool value) {
        __shared__ bool said;
        if (is_leader()) said = value;
        __syncthreads();
        return said;
    }
};

struct WarpTeam {
    __device__ __forceinline__ static bool is_leader() { return threadIdx.x % 32 == 0; }
    __device__ __forceinline__ static void sync() { __syncwarp(); }
    // A shuffle alone orders no memory.
    __device__ __forceinline__ static bool leader_says(bool value) {
        __syncwarp();
        return __shfl_sync(0xffffffff, value, 0);
    }
};

// What a team has to do.
struct Work {
    bool any;
    int64_t bag;
    int64_t bags;       // neighbours of one chunk each, or 1
    int64_t chunk;
    int64_t chunks;     // of the bag
    int64_t first_row;  // of the chunk, or of the bags
    int64_t last_row;   // the one behind it

    __device__ __forceinline__ bool has_rows() const { return first_row < last_row; }
};

__device__ __forceinline__ Work work_of_item(const MivcWorkList& list, const MivcItem& item) {
    const int64_t* range = pointer<int64_t>(list.ranges) + item.bag;
    const int64_t first = range[0] + item.chunk * list.chunk_rows;
    return {true,  item.bag,  item.bags, item.chunk, item.bags > 1 ? 1 : chunks_of(list, range[1] - range[0]),
            first, min(range[item.bags], first + list.chunk_rows)};
}

__device__ __forceinline__ Work work_of_team(const MivcWorkList& list, int64_t team) {
    MivcItem item = {team, 0, 1};
    if (item.bag >= list.bags) {
        const int64_t entry = team - list.bags;
        if (entry >= list.item_capacity || entry >= int64_t(pointer<MivcCounters>(list.counters)->items)) return {};
        item = pointer<MivcItem>(list.items)[entry];
    }
    return work_of_item(list, item);
}

// The leaf of a chunk, where its bag has several.
__device__ __forceinline__ int64_t leaf_of(const MivcWorkList& list, const Work& work) {
    return pointer<int64_t>(list.first_nodes)[work.bag] + work.chunk;
}

// The root of the tree of a bag that has several chunks. merge_chunks leaves it to whoever wants the bag kept there.
__device__ __forceinline__ int64_t root_of(const MivcWorkList& list, const Work& work) {
    return pointer<int64_t>(list.first_nodes)[work.bag] + nodes_of(work.chunks) - 1;
}

// Climbs the tree of a bag of several chunks, from the leaf that the team has stored, for as long as it is the team that
// finishes the last child: merge(first_child, children, parent, is_root) then merges nodes into their parent, or at the
// root keeps the bag. True in the one team that has merged the root. All threads of the team take part. A ticket that has
// been used up is 0 again, as the next launch over the same work list needs it.
template <typename Team, typename Merge>
__device__ __forceinline__ bool climb(const MivcWorkList& list, const Work& work, int64_t tile, const Merge& merge) {
    int64_t level = pointer<int64_t>(list.first_nodes)[work.bag];  // its first node
    int64_t nodes = work.chunks, index = work.chunk;
    while (nodes > 1) {
        const int64_t index_of_parent = index / MIVC_MERGE_RADIX, first = index_of_parent * MIVC_MERGE_RADIX;
        const int64_t children = min(nodes - first, int64_t(MIVC_MERGE_RADIX)), parent = level + nodes + index_of_parent;
        bool is_last = false;
        Team::sync();
        if (Team::is_leader()) {
            // What the team has stored becomes visible before its ticket, and what the others have, after theirs.
            fence_device();
            unsigned* ticket = pointer<unsigned>(list.tickets) + parent * list.tiles + tile;
            is_last = atomicAdd(ticket, 1) == children - 1;
            fence_device();
            if (is_last) *ticket = 0;
        }
        if (!Team::leader_says(is_last)) return false;
        merge(level + first, children, parent, children == nodes);
        level += nodes;
        nodes = parents_of(nodes);
        index = index_of_parent;
    }
    return true;
}

// Merges the chunks of a bag. `Partials` has store(node, partial) and merge(partial, node), which adds the rows of
// a node behind those of a partial; `Partial` begins as that of the team's own chunk. True in the one team that has
// the whole bag, in `partial`.
template <typename Team, typename Partials, typename Partial>
__device__ __forceinline__ bool merge_chunks(const MivcWorkList& list, const Work& work, int64_t tile,
                                             const Partials& partials, Partial& partial) {
    if (work.chunks <= 1) return true;
    partials.store(leaf_of(list, work), partial);
    return climb<Team>(list, work, tile, [&](int64_t first_child, int64_t children, int64_t parent, bool is_root) {
        partial = Partial();
        for (int64_t child = first_child; child < first_child + children; child++) partials.merge(partial, child);
        if (!is_root) partials.store(parent, partial);
    });
}

}  // namespace mivc
