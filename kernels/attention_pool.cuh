// From the scores of an item to what its bags are pooled to: softmax, weighted sum, and the merge of the chunks of long
// bags.
//
// `Team` are the threads that take an item together, from thread 0 of the block on: THREADS of them, and what
// work_list.cuh asks for. `Slices` has at(line, chunk), 16 bytes of a row of features in shared memory.
#pragma once
#include "softmax.cuh"
#include "work_list.cuh"

namespace mivc {

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
template <typename Team>
__device__ __forceinline__ void weigh(const MivcAttentionPool& p, const Work& work, float* scores) {
    const int heads = int(p.packed.heads), lane = threadIdx.x % 32;
    const bool is_whole = work.chunks == 1;
    for (int unit = threadIdx.x / 32; unit < work.bags * heads; unit += Team::THREADS / 32) {
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
    Team::sync();
}

// Chunk `chunk` of N columns of a head of a node. Rows of partial results are padded as the features are.
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
template <typename T, typename Team, int HEADS, typename Slices>
__device__ __forceinline__ void sum_lines(const MivcAttentionPool& p, const Work& work, const float* weights,
                                          const Slices& slices) {
    constexpr int N = VECTOR_ELEMENTS<T>;
    const int heads = int(p.packed.heads), chunks = int((p.packed.dim + N - 1) / N);
    const int units_of_bag = chunks * ((heads + HEADS - 1) / HEADS);
    for (int unit = threadIdx.x; unit < work.bags * units_of_bag; unit += Team::THREADS) {
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
template <typename Team>
__device__ __forceinline__ void merge_normalisers(const MivcAttentionPool& p, int64_t first_child, int64_t children,
                                                  const NormaliserOutputs outputs, int64_t output, float* factors) {
    const int heads = int(p.packed.heads), lane = threadIdx.x % 32;
    for (int head = threadIdx.x / 32; head < heads; head += Team::THREADS / 32) {
        const int64_t at = (first_child + lane) * heads + head;
        Normaliser child;
        if (lane < children) child = {pointer<float>(p.partial_max)[at], pointer<float>(p.partial_sum)[at]};
        const float max = greatest_of_lanes(child.max, 1), factor = exponential(child.max, max);
        const Normaliser all = {max, sum_of_lanes(child.sum * factor, 1)};
        factors[lane * heads + head] = factor;
        if (lane == 0) outputs.store(output + head, all);
    }
    Team::sync();
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
template <typename T, typename Team>
__device__ __forceinline__ void merge_children(const MivcAttentionPool& p, int64_t bag, int64_t first_child,
                                               int64_t children, int64_t parent, bool is_root, float* factors) {
    constexpr int N = VECTOR_ELEMENTS<T>;
    const int heads = int(p.packed.heads), chunks = int((p.packed.dim + N - 1) / N);
    const NormaliserOutputs outputs = {is_root ? p.max : p.partial_max, is_root ? p.sum : p.partial_sum,
                                       is_root ? p.lse : 0};
    merge_normalisers<Team>(p, first_child, children, outputs, (is_root ? bag : parent) * heads, factors);
    for (int unit = threadIdx.x; unit < chunks * heads; unit += Team::THREADS) {
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

// The weighted sums of an item's bags, of its lines and their scores.
template <typename T, typename Team, typename Slices>
__device__ __forceinline__ void pool_lines(const MivcAttentionPool& p, const Work& work, float* scores,
                                           const Slices& slices) {
    weigh<Team>(p, work, scores);
    if (p.packed.heads == 1) {
        sum_lines<T, Team, 1>(p, work, scores, slices);
    } else {
        sum_lines<T, Team, MIVC_POOL_SUM_HEADS>(p, work, scores, slices);
    }
}

// What follows where the item is a chunk of a long bag. `factors` has room for [MIVC_MERGE_RADIX, heads].
template <typename T, typename Team>
__device__ __forceinline__ void merge_chunk(const MivcAttentionPool& p, const Work& work, float* factors) {
    if (work.chunks == 1) return;
    climb<Team>(p.list, work, 0, [&](int64_t first, int64_t children, int64_t parent, bool is_root) {
        merge_children<T, Team>(p, work.bag, first, children, parent, is_root, factors);
    });
}

}  // namespace mivc
