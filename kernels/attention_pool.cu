// Attention pool in one pass: scores, softmax over instances and weighted sum of features that are read once.
//
// A block takes items of the work list in turns. The rows of one, several short bags or a chunk of a long one, come into
// shared memory step by step while they are multiplied with the first columns (scores.cuh), and stay there: the other
// passes, and the weighted sum, read them from where they are. So no feature crosses from memory twice, and neither
// scores nor weights need to leave the block. A bag's bits do not depend on what shares its item: each score is a row's
// own, warps normalise a bag by itself, and a thread owns columns and walks the bag's rows.
//
// The chunks of a long bag give m, l and z = sum of exp(s - m) h, which are merged in the tree of work_list.cuh.
#include "scores.cuh"
#include "softmax.cuh"
#include "work_list.cuh"

namespace mivc {

using FullTile = Tile<2, 4, 4, 4>;
using HalfTile = Tile<2, 4, 2, 4>;
using QuarterTile = Tile<1, 8, 2, 2>;
static_assert(FullTile::ROWS == MIVC_POOL_ROWS && HalfTile::ROWS == MIVC_POOL_ROWS_HALF &&
                  QuarterTile::ROWS == MIVC_POOL_ROWS_QUARTER,
              "as the host has it");

// Heads that a thread sums at once, where there are several.
constexpr int POOL_HEADS_AT_ONCE = 4;

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

// Rows from memory in the first pass, columns in each.
template <typename Tile, typename T>
struct Source {
    const MivcPacked& packed;
    const RowLoader<Tile, T> loader;
    Shared<Tile>& shared;
    const Slices<Tile> slices;

    __device__ __forceinline__ void fetch(int stage, int step, const T* matrix, bool is_first) const {
        if (is_first) loader.fetch(slices[step], step);
        fetch_columns<Tile>(shared.columns[stage], matrix, packed.padded_dim, step);
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
};

// Lines of an item.
struct Span {
    int first;
    int last;  // the one behind them
};

__device__ __forceinline__ Span lines_of(const MivcWorkList& list, const Work& work, int64_t bag) {
    if (work.bags == 1) return {0, int(work.last_row - work.first_row)};
    const int64_t* range = pointer<int64_t>(list.ranges) + bag;
    return {int(range[0] - work.first_row), int(range[1] - work.first_row)};
}

// Turns scores into weights, or of a chunk of a long bag into exp(s - m). A warp takes a bag and head.
template <typename Tile>
__device__ __forceinline__ void weigh(const MivcAttentionPool& p, const Work& work, float* scores) {
    const int heads = int(p.packed.heads), lane = threadIdx.x % 32;
    const bool is_whole = work.chunks == 1;
    for (int unit = threadIdx.x / 32; unit < work.bags * heads; unit += Tile::THREADS / 32) {
        const int64_t bag = work.bag + unit / heads;
        const int head = unit % heads;
        const Span lines = lines_of(p.list, work, bag);
        const Normaliser all = normalise(lines.first + lane, lines.last, 32, 1,
                                         [&](int64_t line) { return scores[line * heads + head]; });
        for (int line = lines.first + lane; line < lines.last; line += 32) {
            const float score = scores[line * heads + head];
            if (p.keeps_scores || !is_whole) {
                pointer<float>(p.scores)[(work.first_row + line) * heads + head] = score;
            }
            scores[line * heads + head] = is_whole ? all.weight(score) : exponential(score, all.max);
        }
        if (lane != 0) continue;
        if (is_whole) {
            NormaliserOutputs{p.max, p.sum, p.lse}.store(bag * heads + head, all);
        } else {
            NormaliserOutputs{p.partial_max, p.partial_sum, 0}.store(leaf_of(p.list, work) * heads + head, all);
        }
    }
    __syncthreads();
}

// N columns from `column` on of heads from `head` on. Those of partial results are padded as the features are.
template <int N>
__device__ __forceinline__ float* partial_at(const MivcAttentionPool& p, int64_t node, int head, int chunk) {
    return pointer<float>(p.partial_pooled) + (node * p.packed.heads + head) * p.packed.padded_dim + chunk * N;
}

template <typename O, int N>
__device__ __forceinline__ void store_columns(O* to, const float (&from)[N], int64_t columns, bool has_vectors) {
    if (has_vectors) {
        store(to, from);
    } else {
#pragma unroll
        for (int i = 0; i < N; i++) {
            if (i < columns) to[i] = from_f32<O>(from[i]);
        }
    }
}

template <typename T, int N>
__device__ __forceinline__ void store_pooled(const MivcAttentionPool& p, int64_t bag, int head, int chunk,
                                             const float (&z)[N]) {
    const int64_t column = int64_t(chunk) * N, columns = p.packed.dim - column;
    const int64_t start = (bag * p.packed.heads + head) * p.packed.dim + column;
    if (p.outputs_are_f32) {
        store_columns(pointer<float>(p.pooled) + start, z, columns, p.has_vectors);
    } else {
        store_columns(pointer<T>(p.pooled) + start, z, columns, p.has_vectors);
    }
}

// The weighted sums of an item. A thread takes 16 bytes of columns of a bag and HEADS heads.
template <typename T, typename Tile, int HEADS>
__device__ __forceinline__ void sum_lines(const MivcAttentionPool& p, const Work& work, const float* weights,
                                          const Slices<Tile>& slices) {
    constexpr int N = VECTOR_ELEMENTS<T>;
    const int heads = int(p.packed.heads), chunks = int((p.packed.dim + N - 1) / N);
    const int units_of_bag = chunks * ((heads + HEADS - 1) / HEADS);
    for (int unit = threadIdx.x; unit < work.bags * units_of_bag; unit += Tile::THREADS) {
        const int64_t bag = work.bag + unit / units_of_bag;
        const int chunk = unit % units_of_bag % chunks, first_head = unit % units_of_bag / chunks * HEADS;
        const Span lines = lines_of(p.list, work, bag);
        float z[HEADS][N] = {};
#pragma unroll 4
        for (int line = lines.first; line < lines.last; line++) {
            const Elements<T, N> row = Elements<T, N>::of_bits(slices.at(line, chunk));
#pragma unroll
            for (int head = 0; head < HEADS; head++) {
                if (first_head + head >= heads) continue;
                const float weight = weights[line * heads + first_head + head];
                if (weight == 0) continue;
#pragma unroll
                for (int i = 0; i < N; i++) z[head][i] = fmaf(weight, row[i], z[head][i]);
            }
        }
#pragma unroll
        for (int head = 0; head < HEADS; head++) {
            if (first_head + head >= heads) continue;
            if (work.chunks == 1) {
                store_pooled<T>(p, bag, first_head + head, chunk, z[head]);
            } else {
                store(partial_at<N>(p, leaf_of(p.list, work), first_head + head, chunk), z[head]);
            }
        }
    }
}

// m and l of a node, of those of its children, and the factor of each child. A warp takes a head, a lane a child.
template <typename Tile>
__device__ __forceinline__ void merge_normalisers(const MivcAttentionPool& p, int64_t first_child, int64_t children,
                                                  const NormaliserOutputs outputs, int64_t output, float* factors) {
    const int heads = int(p.packed.heads), lane = threadIdx.x % 32;
    for (int head = threadIdx.x / 32; head < heads; head += Tile::THREADS / 32) {
        const int64_t at = (first_child + lane) * heads + head;
        Normaliser child;
        if (lane < children) child = {pointer<float>(p.partial_max)[at], pointer<float>(p.partial_sum)[at]};
        Normaliser all = {child.max};
        for (int d = 1; d < 32; d *= 2) all.max = greatest(all.max, __shfl_xor_sync(0xffffffff, all.max, d));
        const float factor = exponential(child.max, all.max);
        all.sum = child.sum * factor;
        for (int d = 1; d < 32; d *= 2) all.sum += __shfl_xor_sync(0xffffffff, all.sum, d);
        factors[lane * heads + head] = factor;
        if (lane == 0) outputs.store(output + head, all);
    }
    __syncthreads();
}

// z of a whole bag by its weights, row after row, from memory. What the merge of its chunks makes infinite or NaN need
// not be: a row whose weight is 0 was multiplied by an exponential that was not, and f32 has no room for sums of
// greater factors than weights are. So then this is done.
template <typename T, int N>
__device__ __forceinline__ void sum_rows(const MivcAttentionPool& p, int64_t bag, int head, int chunk,
                                         const Normaliser& all, float (&z)[N]) {
    const int64_t* range = pointer<int64_t>(p.list.ranges) + bag;
    const T* features = pointer<const T>(p.features.rows) + chunk * N;
#pragma unroll
    for (int i = 0; i < N; i++) z[i] = 0;
    for (int64_t row = range[0]; row < range[1]; row++) {
        const float weight = all.weight(pointer<float>(p.scores)[row * p.packed.heads + head]);
        if (weight == 0) continue;
#pragma unroll
        for (int i = 0; i < N; i++) {
            if (chunk * N + i < p.packed.dim) {
                z[i] = fmaf(weight, to_f32(features[row * p.features.row_stride + i]), z[i]);
            }
        }
    }
}

// Merges the children of a node of a bag's tree: into the node, or at the root into what the bag is pooled to.
template <typename T, typename Tile>
__device__ __forceinline__ void merge_children(const MivcAttentionPool& p, int64_t bag, int64_t first_child,
                                               int64_t children, int64_t parent, bool is_root, float* factors) {
    constexpr int N = VECTOR_ELEMENTS<T>;
    const int heads = int(p.packed.heads), chunks = int((p.packed.dim + N - 1) / N);
    const NormaliserOutputs outputs = {is_root ? p.max : p.partial_max, is_root ? p.sum : p.partial_sum,
                                       is_root ? p.lse : 0};
    merge_normalisers<Tile>(p, first_child, children, outputs, (is_root ? bag : parent) * heads, factors);
    for (int unit = threadIdx.x; unit < chunks * heads; unit += Tile::THREADS) {
        const int chunk = unit % chunks, head = unit / chunks;
        float z[N] = {};
#pragma unroll 4
        for (int child = 0; child < children; child++) {
            const float factor = factors[child * heads + head];
            const float* from = partial_at<N>(p, first_child + child, head, chunk);
#pragma unroll
            for (int i = 0; i < N; i += 4) {
                const float4 four = *reinterpret_cast<const float4*>(from + i);
                if (factor == 0) continue;
                z[i] = fmaf(factor, four.x, z[i]);
                z[i + 1] = fmaf(factor, four.y, z[i + 1]);
                z[i + 2] = fmaf(factor, four.z, z[i + 2]);
                z[i + 3] = fmaf(factor, four.w, z[i + 3]);
            }
        }
        if (!is_root) {
            store(partial_at<N>(p, parent, head, chunk), z);
            continue;
        }
        const int64_t i_of_bag = bag * heads + head;
        const Normaliser all = {pointer<float>(p.max)[i_of_bag], pointer<float>(p.sum)[i_of_bag]};
        bool is_finite = true;
#pragma unroll
        for (int i = 0; i < N; i++) {
            z[i] = all.sum == 0 ? 0 : z[i] / all.sum;
            is_finite &= bool(isfinite(z[i]));
        }
        if (!is_finite && !isnan(all.sum)) sum_rows<T>(p, bag, head, chunk, all, z);
        store_pooled<T>(p, bag, head, chunk, z);
    }
}

__device__ __forceinline__ int64_t items_of(const MivcWorkList& list) {
    return min(list.item_capacity, int64_t(pointer<MivcCounters>(list.counters)->items));
}

template <typename Product, typename Tile>
__device__ __forceinline__ void attention_pool(const MivcAttentionPool& p) {
    using T = typename Product::Element;
    extern __shared__ __align__(128) unsigned char memory[];
    auto& shared = *reinterpret_cast<Shared<Tile>*>(memory);
    const Slices<Tile> slices(shared, p.packed.heads);
    const int64_t items = items_of(p.list);
    for (int64_t i = blockIdx.x; i < items; i += gridDim.x) {
        const Work work = work_of_item(p.list, pointer<MivcItem>(p.list.items)[i]);
        if (work.first_row < work.last_row) {
            const RowLoader<Tile, T> loader(p.features, p.packed.dim, work.first_row, work.last_row);
            const Source<Tile, T> source = {p.packed, loader, shared, slices};
            score_tile<Product>(p.packed, source, shared.exchange, TileScores<Tile>{p, work, shared.scores(), slices});
        }
        weigh<Tile>(p, work, shared.scores());
        if (p.packed.heads == 1) {
            sum_lines<T, Tile, 1>(p, work, shared.scores(), slices);
        } else {
            sum_lines<T, Tile, POOL_HEADS_AT_ONCE>(p, work, shared.scores(), slices);
        }
        if (work.chunks > 1) {
            climb<BlockTeam>(p.list, work, 0, [&](int64_t first, int64_t children, int64_t parent, bool is_root) {
                merge_children<T, Tile>(p, work.bag, first, children, parent, is_root, shared.factors());
            });
        }
        // Before the next item's features come.
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

#define MIVC_KERNEL(name, Product, Tile)                                                                         \
    extern "C" __global__ void __launch_bounds__(Tile::THREADS, 2)                                               \
        name(const __grid_constant__ MivcAttentionPool p) {                                                      \
        attention_pool<Product, Tile>(p);                                                                        \
    }
MIVC_KERNEL(mivc_attention_pool_f32_64, Plain, HalfTile)
MIVC_KERNEL(mivc_attention_pool_f32_32, Plain, QuarterTile)
MIVC_KERNEL(mivc_attention_pool_f32_split_64, Split, HalfTile)
MIVC_KERNEL(mivc_attention_pool_f32_split_32, Split, QuarterTile)
MIVC_KERNEL(mivc_attention_pool_f16_128, Direct<__half>, FullTile)
MIVC_KERNEL(mivc_attention_pool_f16_64, Direct<__half>, HalfTile)
MIVC_KERNEL(mivc_attention_pool_bf16_128, Direct<__nv_bfloat16>, FullTile)
MIVC_KERNEL(mivc_attention_pool_bf16_64, Direct<__nv_bfloat16>, HalfTile)

}  // namespace mivc
