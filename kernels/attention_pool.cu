// Attention pool in one pass: scores, softmax over instances and weighted sum of features that are read once.
//
// A block takes items of the work list in turns. The rows of one, several short bags or a chunk of a long one, come into
// shared memory step by step while they are multiplied with the first columns (scores.cuh), and stay there: the other
// passes, and the weighted sum, read them from where they are. So no feature crosses from memory twice, and neither
// scores nor weights need to leave the block. A bag's bits do not depend on what shares its item: each score is a row's
// own, warps normalise a bag by itself, and a thread owns columns and walks the bag's rows.
//
// The chunks of a long bag give m, l and z = sum of exp(s - m) h, which are merged in the tree of work_list.cuh.
#include "attention_pool.cuh"
#include "scores.cuh"

namespace mivc {

using FullTile = Tile<2, 4, 4, 4>;
using HalfTile = Tile<2, 4, 2, 4>;
static_assert(FullTile::ROWS == MIVC_POOL_ROWS && HalfTile::ROWS == MIVC_POOL_ROWS_HALF, "as the host has it");

struct Team : BlockTeam {
    static constexpr int THREADS = MIVC_POOL_THREADS;
};

// What a block holds, besides the scores of its rows, or their weights, [ROWS, heads], and then their slices.
template <typename Tile>
struct Shared {
    static_assert(Tile::COLUMNS == MIVC_POOL_COLUMNS && Tile::THREADS == MIVC_POOL_THREADS, "as the host has it");

    uint4 columns[STAGES][Tile::COLUMNS][CHUNKS];
    Exchange<Tile, MIVC_POOL_HEADS_AT_ONCE> exchange;

    __device__ __forceinline__ float* scores() { return reinterpret_cast<float*>(this + 1); }
    // The factors of a node's children, [MIVC_MERGE_RADIX, heads], when nothing is multiplied.
    __device__ __forceinline__ float* factors() { return reinterpret_cast<float*>(columns); }
    static_assert(sizeof columns >= MIVC_MERGE_RADIX * MIVC_POOL_HEADS * sizeof(float), "so they fit");
};

// The rows of an item, 64 bytes of each at a time.
template <typename Tile>
struct Slices {
    unsigned char* first;

    __device__ __forceinline__ Slices(Shared<Tile>& shared, int64_t heads)
        : first(reinterpret_cast<unsigned char*>(shared.scores() + Tile::ROWS * heads)) {}

    __device__ __forceinline__ Lines operator[](int step) const {
        return reinterpret_cast<Lines>(first + step * (Tile::ROWS * DEPTH_BYTES + MIVC_POOL_SLICE_GAP));
    }
    // Chunk `chunk` of 16 bytes of a row.
    __device__ __forceinline__ uint4& at(int line, int chunk) const {
        return (*this)[chunk / CHUNKS][line][slot(line, chunk % CHUNKS)];
    }
};

// Rows from memory in the first pass, columns, from the second-level cache, in each. Half of the warps copy the rows and
// half the columns: a thread's copies are waited for in their order, and rows, each of which has its own place, are to
// be further ahead than there are stages of columns.
template <typename Tile, typename T>
struct Source {
    static constexpr int HALF = Tile::THREADS / 2;
    static constexpr int ROW_STEPS_AHEAD = MIVC_POOL_ROW_BYTES_AHEAD / (Tile::ROWS * DEPTH_BYTES);

    const MivcPacked& packed;
    const RowLoader<Tile::ROWS, HALF, T> loader;
    Shared<Tile>& shared;
    const Slices<Tile> slices;

    __device__ __forceinline__ static bool has_rows() { return threadIdx.x < HALF; }
    __device__ __forceinline__ void fetch(int stage, int step, const T* matrix, bool is_first) const {
        if (!has_rows()) {
            fetch_columns<Tile::COLUMNS, HALF>(shared.columns[stage], matrix, packed.padded_dim, step);
        } else if (is_first) {
            loader.fetch(slices[step], step);
        }
    }
    __device__ __forceinline__ static int steps_ahead() { return has_rows() ? ROW_STEPS_AHEAD : STAGES - 1; }
    __device__ __forceinline__ static void wait() {
        if (has_rows()) {
            copy_async_wait<ROW_STEPS_AHEAD - 1>();
        } else {
            copy_async_wait<STAGES - 2>();
        }
    }
    __device__ __forceinline__ Lines rows(int, int step) const { return slices[step]; }
    __device__ __forceinline__ Lines columns(int stage) const { return shared.columns[stage]; }
};

template <typename Tile>
struct TileScores {
    const MivcAttentionPool& p;
    const Work& work;
    float* const scores;
    const Slices<Tile> slices;

    __device__ __forceinline__ bool is_row(int line) const { return work.first_row + line < work.last_row; }
    __device__ __forceinline__ bool is_there(int line) const {
        return mivc::is_there(p.features, work.first_row + line);
    }
    __device__ __forceinline__ float* at(int line, int64_t head) const {
        return scores + line * p.packed.heads + head;
    }
    __device__ __forceinline__ float feature(int line, int64_t d) const {
        constexpr int ELEMENTS = CHUNK_BYTES / sizeof(float);
        return reinterpret_cast<const float*>(&slices.at(line, int(d / ELEMENTS)))[d % ELEMENTS];
    }
    static constexpr bool KEEPS = false;
    __device__ __forceinline__ static constexpr bool are_wanted() { return true; }
};

template <typename Product, typename Tile>
__device__ __forceinline__ void attention_pool(const MivcAttentionPool& p) {
    using T = typename Product::Element;
    extern __shared__ __align__(128) unsigned char memory[];
    auto& shared = *reinterpret_cast<Shared<Tile>*>(memory);
    const Slices<Tile> slices(shared, p.packed.heads);
    // Not in registers: the product leaves none.
    __shared__ Work work;
    const int64_t items = items_of(p.list);
    for (int64_t i = blockIdx.x; i < items; i += gridDim.x) {
        if (threadIdx.x == 0) work = work_of_item(p.list, pointer<MivcItem>(p.list.items)[i]);
        __syncthreads();
        if (work.has_rows()) {
            const Source<Tile, T> source = {
                p.packed, {p.features, p.packed.dim, work.first_row, work.last_row}, shared, slices};
            score_tile<Product>(p.packed, source, shared.exchange, TileScores<Tile>{p, work, shared.scores(), slices});
        }
        pool_lines<T, Team>(p, work, shared.scores(), slices);
        merge_chunk<T, Team>(p, work, shared.factors());
        // Before the next item, and its features, overwrite what is read here.
        __syncthreads();
    }
}

// The weights of all instances in bags, of their scores and m and l of their bags. Behind `attention_pool`, where they
// are asked for: those of a long bag are not known before.
extern "C" __global__ void __launch_bounds__(MIVC_POOL_THREADS)
    mivc_attention_pool_weights(const __grid_constant__ MivcAttentionPool p) {
    const int64_t heads = p.packed.heads, items = items_of(p.list);
    for (int64_t i = blockIdx.x; i < items; i += gridDim.x) {
        const Work work = work_of_item(p.list, pointer<MivcItem>(p.list.items)[i]);
        // A block has one bag, or each of its warps some.
        const bool is_alone = work.bags == 1;
        const int team = is_alone ? 0 : threadIdx.x / 32, teams = is_alone ? 1 : MIVC_POOL_THREADS / 32;
        const int thread = is_alone ? threadIdx.x : threadIdx.x % 32, threads = MIVC_POOL_THREADS / teams;
        for (int64_t bag = work.bag + team; bag < work.bag + work.bags; bag += teams) {
            const Span lines = lines_of(p.list, work, bag);
            const int64_t first = (work.first_row + lines.first) * heads, last = (work.first_row + lines.last) * heads;
            for (int64_t at = first + thread; at < last; at += threads) {
                const int64_t of_bag = bag * heads + at % heads;
                const Normaliser all = {pointer<float>(p.max)[of_bag], pointer<float>(p.sum)[of_bag]};
                pointer<float>(p.weights)[at] = all.weight(pointer<float>(p.scores)[at]);
            }
        }
    }
}

// Blocks of a multiprocessor; for two, one of the kernels would spill on sm_120.
#define MIVC_KERNEL(name, Product, Tile, BLOCKS)                                                                 \
    extern "C" __global__ void __launch_bounds__(Tile::THREADS, BLOCKS)                                          \
        name(const __grid_constant__ MivcAttentionPool p) {                                                      \
        attention_pool<Product, Tile>(p);                                                                        \
    }
MIVC_KERNEL(mivc_attention_pool_f32_64, Plain, HalfTile, 2)
MIVC_KERNEL(mivc_attention_pool_f32_split_64, Split, HalfTile, 1)
MIVC_KERNEL(mivc_attention_pool_f16_128, Direct<__half>, FullTile, 2)
MIVC_KERNEL(mivc_attention_pool_f16_64, Direct<__half>, HalfTile, 2)
MIVC_KERNEL(mivc_attention_pool_bf16_128, Direct<__nv_bfloat16>, FullTile, 2)
MIVC_KERNEL(mivc_attention_pool_bf16_64, Direct<__nv_bfloat16>, HalfTile, 2)

}  // namespace mivc
