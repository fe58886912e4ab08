// Attention pool in one pass by Hopper's own instructions: see ../attention_pool.cu for what it does, and what becomes
// of the scores (../attention_pool.cuh).
//
// One warp copies and two warpgroups compute. The copy engine brings the rows of a block's item in boxes of 64 features,
// all of them at once, and the packed columns in stages of 32 features of 128 columns, which the blocks of a cluster
// share: each copies a part of every stage to all of them. The warpgroups take turns at the columns, 128 of them over all
// rows, by wgmma: while one makes scores of its sums, biases, tanh and gate, the other multiplies. The rows of the next
// item come while the chunks of a long bag are merged.
//
// A score is its bias, the parts of the even passes in their order, and those of the odd ones.
#include "../attention_pool.cuh"
#include "../scores.cuh"
#include "ptx.cuh"

namespace mivc::sm90 {

constexpr int COLUMNS = MIVC_POOL_COLUMNS, CONSUMERS = MIVC_POOL_THREADS, WARPGROUP = 128;
constexpr int PRODUCERS = WARPGROUP, THREADS = CONSUMERS + PRODUCERS;
static_assert(THREADS == MIVC_POOL_SM90_THREADS && CONSUMERS == 2 * WARPGROUP, "as the host has it");

// A line of rows in shared memory, and one of columns, in bytes: as long as their swizzles.
constexpr int ROW_BYTES = 128, COLUMN_BYTES = DEPTH_BYTES;
// Rows that a box and a product have.
constexpr int BOX_ROWS = 64, STAGE_BYTES = COLUMNS * COLUMN_BYTES;
static_assert(STAGE_BYTES == MIVC_POOL_SM90_STAGE_BYTES && ROW_BYTES == MIVC_POOL_SM90_SLAB_BYTES, "as the host has it");
// What a product takes of a line.
constexpr int PRODUCT_BYTES = 32;

// Barriers of the hardware, by number; 0 is __syncthreads.
constexpr int CONSUMERS_BARRIER = 1, TURN_BARRIER = 2, SKIP_BARRIER = 4;

// The warpgroups that compute.
struct ConsumerTeam {
    static constexpr int THREADS = CONSUMERS;
    __device__ __forceinline__ static bool is_leader() { return threadIdx.x == 0; }
    __device__ __forceinline__ static void sync() { sync_threads(CONSUMERS_BARRIER, CONSUMERS); }
    __device__ __forceinline__ static bool leader_says(bool value) {
        __shared__ bool said;
        if (is_leader()) said = value;
        sync();
        return said;
    }
};

// What a warpgroup multiplies in a pass: all rows and columns.
template <int TILE_ROWS>
struct WarpgroupTile {
    static constexpr int ROWS = TILE_ROWS, DOWN_FRAGMENTS = ROWS / BOX_ROWS, ACROSS_FRAGMENTS = COLUMNS / 8;
    struct Sums {
        float at[DOWN_FRAGMENTS][ACROSS_FRAGMENTS][4];
    };
    // Of fragment i.
    __device__ __forceinline__ static int row(int i) { return BOX_ROWS * i + threadIdx.x / 32 % 4 * 16; }
    __device__ __forceinline__ static int first_column() { return 0; }
};

// Slabs of 64 features of all rows, as boxes one below the other.
template <int ROWS>
struct Slabs {
    unsigned char* first;

    __device__ __forceinline__ unsigned char* box(int slab, int i) const {
        return first + (slab * ROWS + i * BOX_ROWS) * ROW_BYTES;
    }
    // Chunk `chunk` of 16 bytes of a row, where the swizzle has put it.
    __device__ __forceinline__ uint4& at(int line, int chunk) const {
        constexpr int OF_LINE = ROW_BYTES / CHUNK_BYTES;
        unsigned char* row = first + (chunk / OF_LINE * ROWS + line) * ROW_BYTES;
        return reinterpret_cast<uint4*>(row)[chunk % OF_LINE ^ line % 8];
    }
};

struct Barriers {
    uint64_t full[MIVC_POOL_SM90_MOST_STAGES];
    uint64_t empty[MIVC_POOL_SM90_MOST_STAGES];
    uint64_t slab[MIVC_POOL_SM90_MOST_SLABS];
    uint64_t rows_free;
};

// What lies in shared memory that was asked for at launch, and how much there is to do.
template <int ROWS>
struct Block {
    const MivcAttentionPoolSm90& p;
    Barriers& barriers;
    unsigned char* memory;
    int slabs;
    int steps;
    int stages;

    __device__ __forceinline__ Block(const MivcAttentionPoolSm90& p, Barriers& barriers, unsigned char* memory)
        : p(p), barriers(barriers), memory(memory), stages(int(p.stages)) {
        steps = int(p.pool.packed.padded_dim * sizeof(uint16_t) / DEPTH_BYTES);
        slabs = (steps * DEPTH_BYTES + ROW_BYTES - 1) / ROW_BYTES;
    }

    __device__ __forceinline__ Slabs<ROWS> rows() const { return {memory}; }
    __device__ __forceinline__ unsigned char* stage(int i) const {
        return memory + slabs * ROWS * ROW_BYTES + i * STAGE_BYTES;
    }
    // Of the even passes, then of the odd ones, each [ROWS, heads].
    __device__ __forceinline__ float* parts(int parity) const {
        return reinterpret_cast<float*>(stage(stages)) + parity * ROWS * p.pool.packed.heads;
    }
    __device__ __forceinline__ float* factors() const { return parts(2); }
};

// A place in a ring: which stage, and in which round.
struct Place {
    int stage = 0;
    uint32_t round = 0;

    __device__ __forceinline__ void advance(int stages) {
        if (++stage < stages) return;
        stage = 0;
        round++;
    }
};

// The item of a block in a round of its cluster. All blocks of a cluster take part in every round, as they share the
// columns, with an item or without.
template <int CLUSTER>
struct Rounds {
    const MivcWorkList& list;
    int64_t items;
    int64_t first;  // of the cluster

    __device__ __forceinline__ explicit Rounds(const MivcWorkList& list)
        : list(list), items(items_of(list)), first(blockIdx.x / CLUSTER * CLUSTER) {}
    __device__ __forceinline__ bool any() const { return first < items; }
    __device__ __forceinline__ void advance() { first += gridDim.x; }
    __device__ __forceinline__ Work work() const {
        const int64_t item = first + cluster_rank();
        if (item >= items) return {};
        return work_of_item(list, pointer<MivcItem>(list.items)[item]);
    }
};

// One thread: brings the rows of item after item, and columns for pass after pass.
template <int ROWS, int CLUSTER>
__device__ __forceinline__ void produce(const Block<ROWS>& block) {
    constexpr int LINES = COLUMNS / CLUSTER;  // of a stage, that this block copies
    const MivcPacked& packed = block.p.pool.packed;
    const uint32_t rank = cluster_rank();
    Place place;
    uint32_t loaded = 0;  // items with rows
    for (Rounds<CLUSTER> rounds(block.p.pool.list); rounds.any(); rounds.advance()) {
        const Work work = rounds.work();
        if (work.has_rows()) {
            if (loaded > 0) wait(block.barriers.rows_free, (loaded - 1) % 2);
            loaded++;
            for (int slab = 0; slab < block.slabs; slab++) {
                uint64_t& barrier = block.barriers.slab[slab];
                arrive_and_expect(barrier, ROWS * ROW_BYTES);
                // Lines behind the item's rows get those of other items, of no account.
                for (int i = 0; i < ROWS / BOX_ROWS; i++) {
                    copy_box(block.rows().box(slab, i), block.p.features, slab * (ROW_BYTES / int(sizeof(uint16_t))),
                             int(work.first_row) + i * BOX_ROWS, barrier);
                }
            }
        }
        for (Columns columns; columns.group < packed.groups; columns.advance(packed, COLUMNS)) {
            const int line = int(columns.group * packed.group_columns + columns.first) + int(rank) * LINES;
            for (int step = 0; step < block.steps; step++) {
                // In the first round nothing was there before.
                if (place.round > 0) wait(block.barriers.empty[place.stage], (place.round - 1) % 2);
                uint64_t& barrier = block.barriers.full[place.stage];
                arrive_and_expect(barrier, STAGE_BYTES);
                copy_box_to(block.stage(place.stage) + rank * (LINES * COLUMN_BYTES), block.p.matrix,
                            step * (DEPTH_BYTES / int(sizeof(uint16_t))), line, barrier, (1 << CLUSTER) - 1);
                place.advance(block.stages);
            }
        }
    }
}

template <typename T>
__device__ __forceinline__ void multiply_add(float (&d)[COLUMNS / 8][4], uint64_t a, uint64_t b) {
    if constexpr (std::is_same_v<T, __half>) {
        multiply_add_f16(d, a, b);
    } else {
        multiply_add_bf16(d, a, b);
    }
}

// Lets go of a stage, to which every block of the cluster has written.
template <int ROWS, int CLUSTER>
__device__ __forceinline__ void release(const Block<ROWS>& block, int stage) {
    const int thread = threadIdx.x % WARPGROUP;
    if (thread < CLUSTER) arrive_at(block.barriers.empty[stage], thread);
}

// Lets the columns of a pass go by.
template <int ROWS, int CLUSTER>
__device__ __forceinline__ void skip(const Block<ROWS>& block, Place& place) {
    for (int step = 0; step < block.steps; step++) {
        wait(block.barriers.full[place.stage], place.round % 2);
        // All four warps have seen it.
        sync_threads(SKIP_BARRIER + threadIdx.x / WARPGROUP, WARPGROUP);
        release<ROWS, CLUSTER>(block, place.stage);
        place.advance(block.stages);
    }
}

// Adds the product of a pass to `sums`. The first pass of a warpgroup over an item waits for the rows, slab by slab, of
// phase `rows_parity`.
template <typename T, int ROWS, int CLUSTER>
__device__ __forceinline__ void multiply(const Block<ROWS>& block, bool is_first, uint32_t rows_parity, Place& place,
                                         typename WarpgroupTile<ROWS>::Sums& sums) {
    constexpr int PRODUCTS = DEPTH_BYTES / PRODUCT_BYTES;
    int last_stage = 0;
#pragma unroll
    for (int i = 0; i < ROWS / BOX_ROWS; i++) keep_here(sums.at[i]);
    for (int step = 0; step < block.steps; step++) {
        const int slab = step * DEPTH_BYTES / ROW_BYTES, in_slab = step * DEPTH_BYTES % ROW_BYTES;
        if (is_first && in_slab == 0) wait(block.barriers.slab[slab], rows_parity);
        wait(block.barriers.full[place.stage], place.round % 2);
        fence_products();
#pragma unroll
        for (int k = 0; k < PRODUCTS; k++) {
            const uint64_t b = matrix_at<COLUMN_BYTES>(block.stage(place.stage) + k * PRODUCT_BYTES);
#pragma unroll
            for (int i = 0; i < ROWS / BOX_ROWS; i++) {
                const unsigned char* a = block.rows().box(slab, i) + in_slab + k * PRODUCT_BYTES;
                multiply_add<T>(sums.at[i], matrix_at<ROW_BYTES>(a), b);
            }
        }
        commit_products();
        wait_for_products<1>();
        if (step > 0) release<ROWS, CLUSTER>(block, last_stage);
        last_stage = place.stage;
        place.advance(block.stages);
    }
    wait_for_products<0>();
    release<ROWS, CLUSTER>(block, last_stage);
#pragma unroll
    for (int i = 0; i < ROWS / BOX_ROWS; i++) keep_here(sums.at[i]);
}

// Adds what the hidden units of these columns give to the warpgroup's parts of the scores.
template <typename Tile>
__device__ __forceinline__ void add_parts(const MivcPacked& packed, const Columns& columns,
                                          const typename Tile::Sums& units, float* parts) {
    const int64_t heads_of_group = packed.heads / packed.groups;
    for (int64_t head = columns.group * heads_of_group; head < (columns.group + 1) * heads_of_group; head++) {
        Parts<Tile>(packed, columns, head, units).for_each([&](int line, float part) {
            parts[line * packed.heads + head] += part;
        });
    }
}

// Parts of the scores of an item's rows, made by both warpgroups in turns.
template <typename T, int ROWS, int CLUSTER>
__device__ __forceinline__ void score_rows(const Block<ROWS>& block, bool has_rows, uint32_t rows_parity, Place& place) {
    using Tile = WarpgroupTile<ROWS>;
    const MivcPacked& packed = block.p.pool.packed;
    // As the compiler must know, the same in all lanes.
    const int warpgroup = __shfl_sync(0xffffffff, threadIdx.x / WARPGROUP, 0);
    float* parts = block.parts(warpgroup);
    // Each line is one lane's own, here as there.
    for (int64_t head = 0; head < packed.heads; head++) {
        if (threadIdx.x % 4 != 0) continue;
#pragma unroll
        for (int i = 0; i < Tile::DOWN_FRAGMENTS; i++) {
            for (int row = 0; row < 2; row++) {
                parts[(Tile::row(i) + 8 * row + threadIdx.x % 32 / 4) * packed.heads + head] = 0;
            }
        }
    }
    int pass = 0;
    for (Columns columns; columns.group < packed.groups; pass++) {
        const Columns now = columns;
        columns.advance(packed, COLUMNS);
        if (pass % 2 == warpgroup) {
            // Stages come in the order of the passes, and phases of their barriers must not be missed.
            if (pass > 0) sync_threads(TURN_BARRIER + warpgroup, CONSUMERS);
            typename Tile::Sums sums = {};
            if (has_rows) {
                multiply<T, ROWS, CLUSTER>(block, pass == warpgroup, rows_parity, place, sums);
            } else {
                skip<ROWS, CLUSTER>(block, place);
            }
            if (columns.group < packed.groups) arrive_threads(TURN_BARRIER + 1 - warpgroup, CONSUMERS);
            if (has_rows) {
                activate<Tile>(packed, now, sums, KeepNothing());
                add_parts<Tile>(packed, now, sums, parts);
            }
        } else {
            for (int step = 0; step < block.steps; step++) place.advance(block.stages);
        }
    }
    ConsumerTeam::sync();
}

// Scores, in place of the parts of the even passes.
template <int ROWS>
__device__ __forceinline__ void add_up(const Block<ROWS>& block, const Work& work) {
    const MivcPacked& packed = block.p.pool.packed;
    float *even = block.parts(0), *odd = block.parts(1);
    for (int i = threadIdx.x; i < (work.last_row - work.first_row) * packed.heads; i += CONSUMERS) {
        const int64_t row = work.first_row + i / packed.heads;
        const float score = pointer<const float>(packed.score_bias)[i % packed.heads] + even[i] + odd[i];
        even[i] = is_there(block.p.pool.features, row) ? score : -INFINITY;
    }
    ConsumerTeam::sync();
}

template <typename T, int ROWS, int CLUSTER>
__device__ __forceinline__ void consume(const Block<ROWS>& block) {
    const MivcAttentionPool& p = block.p.pool;
    Place place;
    uint32_t loaded = 0;  // items with rows
    for (Rounds<CLUSTER> rounds(p.list); rounds.any(); rounds.advance()) {
        const Work work = rounds.work();
        score_rows<T, ROWS, CLUSTER>(block, work.has_rows(), loaded % 2, place);
        if (!work.any) continue;
        add_up(block, work);
        pool_lines<T, ConsumerTeam>(p, work, block.parts(0), block.rows());
        ConsumerTeam::sync();
        if (work.has_rows()) {
            loaded++;
            if (threadIdx.x == 0) arrive(block.barriers.rows_free);
        }
        merge_chunk<T, ConsumerTeam>(p, work, block.factors());
    }
}

template <typename T, int ROWS, int CLUSTER>
__device__ __forceinline__ void attention_pool(const MivcAttentionPoolSm90& p) {
    extern __shared__ __align__(1024) unsigned char memory[];
    __shared__ Barriers barriers;
    const Block<ROWS> block(p, barriers, memory);
    if (threadIdx.x == 0) {
        for (int i = 0; i < block.stages; i++) {
            initialise(barriers.full[i], 1);
            // A warpgroup of each block of the cluster has read it.
            initialise(barriers.empty[i], CLUSTER);
        }
        for (int i = 0; i < block.slabs; i++) initialise(barriers.slab[i], 1);
        initialise(barriers.rows_free, 1);
        fence_initialised();
    }
    sync_cluster();
    if (threadIdx.x >= CONSUMERS) {
        give_registers<MIVC_POOL_SM90_PRODUCER_REGISTERS>();
        if (threadIdx.x / 32 == CONSUMERS / 32 && elect_one()) {
            prefetch_map(p.features);
            prefetch_map(p.matrix);
            produce<ROWS, CLUSTER>(block);
        }
        __syncwarp();
    } else {
        take_registers<MIVC_POOL_SM90_CONSUMER_REGISTERS>();
        consume<T, ROWS, CLUSTER>(block);
    }
    // Another block may still copy to this one's stages, or arrive at its barriers.
    sync_cluster();
}

#define MIVC_KERNEL(name, T, ROWS, CLUSTER)                                                                      \
    extern "C" __global__ void __cluster_dims__(CLUSTER, 1, 1) __launch_bounds__(THREADS, 1)                     \
        name(const __grid_constant__ MivcAttentionPoolSm90 p) {                                                  \
        attention_pool<T, ROWS, CLUSTER>(p);                                                                     \
    }
MIVC_KERNEL(mivc_attention_pool_sm90_f16_128, __half, 128, MIVC_POOL_SM90_CLUSTER)
MIVC_KERNEL(mivc_attention_pool_sm90_f16_64, __half, 64, MIVC_POOL_SM90_CLUSTER_HALF)
MIVC_KERNEL(mivc_attention_pool_sm90_bf16_128, __nv_bfloat16, 128, MIVC_POOL_SM90_CLUSTER)
MIVC_KERNEL(mivc_attention_pool_sm90_bf16_64, __nv_bfloat16, 64, MIVC_POOL_SM90_CLUSTER_HALF)

}  // namespace mivc::sm90
