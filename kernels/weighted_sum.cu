// Weighted sum of the values of each bag: z[k] = sum over n of a[n, k] x[n], the values shared by the heads or one block
// for each.
//
// A thread owns neighbouring columns, 16 bytes of them where alignment allows, and walks the rows of a chunk in their
// order, several loads under way. Up to HEADS heads are summed in one read of the values. The weights of the chunk
// lie in shared memory; in attention pool they are made there of scores, so that nothing of [N, K] is written that
// nobody asked for. Rows without a weight are not read.
#include "softmax.cuh"
#include "work_list.cuh"

namespace mivc {

// Loads under way per thread: as many as fit the registers beside the sums.
template <int HEADS>
constexpr int ROWS_AT_ONCE = HEADS == 1 ? 8 : 4;

// Sums over rows: N neighbouring columns of HEADS heads.
template <int N, int HEADS>
struct Sums {
    float of_head[HEADS][N] = {};
};

// Which part of the output the block has.
struct Part {
    int64_t column;      // of the thread
    int64_t first_head;
    int heads;
    int64_t tile;        // counts the blocks that share a chunk
};

// Sums of chunks in memory.
template <int N, int HEADS>
struct Partials {
    const MivcWeightedSum& p;
    Part part;

    __device__ __forceinline__ float* at(int64_t node, int head) const {
        return pointer<float>(p.partial_sums) + (node * p.heads + part.first_head + head) * p.dim + part.column;
    }

    __device__ __forceinline__ void store(int64_t node, const Sums<N, HEADS>& sums) const {
        if (part.column >= p.dim) return;
#pragma unroll
        for (int head = 0; head < HEADS; head++) {
            if (head < part.heads) mivc::store(at(node, head), sums.of_head[head]);
        }
    }

    __device__ __forceinline__ void merge(Sums<N, HEADS>& into, int64_t node) const {
        if (part.column >= p.dim) return;
#pragma unroll
        for (int head = 0; head < HEADS; head++) {
            if (head >= part.heads) continue;
#pragma unroll
            for (int i = 0; i < N; i++) into.of_head[head][i] += at(node, head)[i];
        }
    }
};

// The weights of a chunk: 0 where a row is not there.
template <int HEADS>
__device__ __forceinline__ void load_weights(const MivcWeightedSum& p, const Work& work, const Part& part,
                                             float (*weights)[HEADS]) {
    const auto* mask = pointer<const uint8_t>(p.mask);
    const int rows = int(work.last_row - work.first_row);
    for (int i = threadIdx.x; i < rows * HEADS; i += MIVC_THREADS) {
        const int row = i / HEADS, head = i % HEADS;
        float weight = 0;
        if (head < part.heads) {
            const int64_t n = work.first_row + row;
            const int64_t at = n * p.heads + part.first_head + head;
            const bool is_there = mask == nullptr || mask[n] != 0;
            if (p.scores == 0) {
                weight = is_there ? pointer<const float>(p.weights)[at] : 0;
            } else {
                const int64_t of_bag = work.bag * p.heads + part.first_head + head;
                const Normaliser all = {pointer<const float>(p.max)[of_bag], pointer<const float>(p.sum)[of_bag]};
                weight = is_there ? all.weight(pointer<const float>(p.scores)[at]) : 0;
                if (p.weights != 0 && blockIdx.y == 0) pointer<float>(p.weights)[at] = weight;
            }
        }
        weights[row][head] = weight;
    }
    __syncthreads();
}

template <typename T, int N, int HEADS>
__device__ __forceinline__ void sum_rows(const MivcWeightedSum& p, const Work& work, const Part& part,
                                         const float (*weights)[HEADS], Sums<N, HEADS>& sums) {
    constexpr int ROWS = ROWS_AT_ONCE<HEADS>;
    const int count = int(work.last_row - work.first_row);
    const T* values = pointer<const T>(p.values) + work.first_row * p.row_stride + part.first_head * p.head_stride +
                      part.column;
    for (int start = 0; start < count; start += ROWS) {
        Elements<T, N> rows[ROWS];
        bool has_weight[ROWS];
#pragma unroll
        for (int i = 0; i < ROWS; i++) {
            has_weight[i] = false;
            if (start + i >= count) continue;
#pragma unroll
            for (int head = 0; head < HEADS; head++) has_weight[i] |= weights[start + i][head] != 0;
            if (has_weight[i]) rows[i] = Elements<T, N>::load_once(values + (start + i) * p.row_stride);
        }
#pragma unroll
        for (int i = 0; i < ROWS; i++) {
            if (!has_weight[i]) continue;
#pragma unroll
            for (int head = 0; head < HEADS; head++) {
                const float weight = weights[start + i][head];
                if (weight == 0) continue;
#pragma unroll
                for (int j = 0; j < N; j++) {
                    sums.of_head[head][j] = fmaf(weight, rows[i][j], sums.of_head[head][j]);
                }
            }
        }
    }
}

template <typename T, int N, int HEADS>
__device__ __forceinline__ void weighted_sum(const MivcWeightedSum& p) {
    __shared__ float weights[MIVC_CHUNK_ROWS][HEADS];
    const Work work = work_of_team(p.list, blockIdx.x);
    if (!work.any) return;
    const int64_t first_head = int64_t(blockIdx.z) * HEADS;
    const Part part = {(int64_t(blockIdx.y) * MIVC_THREADS + threadIdx.x) * N, first_head,
                       int(min(p.heads - first_head, int64_t(HEADS))), int64_t(blockIdx.z) * gridDim.y + blockIdx.y};
    load_weights<HEADS>(p, work, part, weights);
    Sums<N, HEADS> sums;
    if (part.column < p.dim) sum_rows<T>(p, work, part, weights, sums);
    const bool is_whole = merge_chunks<BlockTeam>(p.list, work, part.tile, Partials<N, HEADS>{p, part}, sums);
    if (!is_whole || part.column >= p.dim) return;
#pragma unroll
    for (int head = 0; head < HEADS; head++) {
        if (head >= part.heads) continue;
        const int64_t start = (work.bag * p.heads + first_head + head) * p.dim + part.column;
        if (p.outputs_are_f32) {
            store(pointer<float>(p.pooled) + start, sums.of_head[head]);
        } else {
            store(pointer<T>(p.pooled) + start, sums.of_head[head]);
        }
    }
}

// Eight blocks of those that load single elements for one head: left to itself, ptxas makes room for more, and spills.
#define MIVC_KERNEL(name, T, N, HEADS)                                                                           \
    extern "C" __global__ void __launch_bounds__(MIVC_THREADS, N == 1 && HEADS == 1 ? 8 : 0)                     \
        name(const __grid_constant__ MivcWeightedSum p) {                                                        \
        weighted_sum<T, N, HEADS>(p);                                                                            \
    }
#define MIVC_KERNELS(suffix, T)                                                                         \
    MIVC_KERNEL(mivc_weighted_sum_##suffix, T, 1, 1)                                                    \
    MIVC_KERNEL(mivc_weighted_sum_heads_##suffix, T, 1, MIVC_WEIGHTED_SUM_HEADS)                        \
    MIVC_KERNEL(mivc_weighted_sum_##suffix##_vector, T, VECTOR_ELEMENTS<T>, 1)                          \
    MIVC_KERNEL(mivc_weighted_sum_heads_##suffix##_vector, T, VECTOR_ELEMENTS<T>, MIVC_WEIGHTED_SUM_HEADS)

MIVC_KERNELS(f32, float)
MIVC_KERNELS(f16, __half)
MIVC_KERNELS(bf16, __nv_bfloat16)

}  // namespace mivc
