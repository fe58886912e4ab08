// Max and mean of each feature over the instances of each bag, in one read of the features.
//
// A thread owns neighbouring columns, 16 bytes of them where alignment allows, and walks the rows of a chunk in
// their order, ROWS_AT_ONCE loads under way. Nothing is exchanged between threads; partial results of the chunks
// of a long bag are merged by merge_chunks. Both results are computed even where one is asked for: the features
// must be read anyway.
#include "numeric.cuh"
#include "work_list.cuh"

namespace mivc {

struct MaxMeanPolicy {
    int threads;       // of a block
    int rows_at_once;  // loads under way per thread
};
constexpr MaxMeanPolicy POLICY = {MIVC_MAX_MEAN_THREADS, 8};

// Rows, pooled: N neighbouring columns of them.
template <int N, bool ARGMAX>
struct Partial {
    int64_t count = 0;  // rows that are there
    float max[N];
    float sum[N];
    int64_t argmax[ARGMAX ? N : 1];

    __device__ __forceinline__ Partial() {
#pragma unroll
        for (int i = 0; i < N; i++) {
            max[i] = -INFINITY;
            sum[i] = 0;
            if constexpr (ARGMAX) argmax[i] = -1;
        }
    }

    // Takes in column i of rows behind those it has. Of equal maxima the first stays, as does the first NaN.
    __device__ __forceinline__ void take(int i, float their_max, float their_sum, int64_t their_argmax) {
        if constexpr (ARGMAX) {
            const bool is_first = argmax[i] < 0;
            if (is_first || their_max > max[i] || (isnan(their_max) && !isnan(max[i]))) argmax[i] = their_argmax;
        }
        max[i] = maximum(max[i], their_max);
        sum[i] += their_sum;
    }
};

// Partial results of chunks in memory.
template <int N, bool ARGMAX>
struct Partials {
    const MivcMaxMean& p;
    int64_t column;

    __device__ __forceinline__ void store(int64_t node, const Partial<N, ARGMAX>& partial) const {
        if (threadIdx.x == 0) pointer<int64_t>(p.partial_count)[node * p.list.tiles + blockIdx.y] = partial.count;
        if (column >= p.dim) return;
        const int64_t start = node * p.dim + column;
        mivc::store(pointer<float>(p.partial_max) + start, partial.max);
        mivc::store(pointer<float>(p.partial_sum) + start, partial.sum);
        if constexpr (ARGMAX) mivc::store(pointer<int64_t>(p.partial_argmax) + start, partial.argmax);
    }

    __device__ __forceinline__ void merge(Partial<N, ARGMAX>& into, int64_t node) const {
        const int64_t count = pointer<int64_t>(p.partial_count)[node * p.list.tiles + blockIdx.y];
        if (count == 0) return;
        into.count += count;
        if (column >= p.dim) return;
        const int64_t start = node * p.dim + column;
#pragma unroll
        for (int i = 0; i < N; i++) {
            into.take(i, pointer<float>(p.partial_max)[start + i], pointer<float>(p.partial_sum)[start + i],
                      ARGMAX ? pointer<int64_t>(p.partial_argmax)[start + i] : 0);
        }
    }
};

// Pools the rows of a chunk. Threads beyond the last column count the rows, and nothing else.
template <typename T, int N, bool ARGMAX>
__device__ __forceinline__ void pool_rows(const MivcMaxMean& p, const Work& work, int64_t column,
                                          Partial<N, ARGMAX>& partial) {
    constexpr int ROWS = POLICY.rows_at_once;
    const auto* mask = pointer<const uint8_t>(p.mask);
    const T* features = pointer<const T>(p.features) + column;
    for (int64_t start = work.first_row; start < work.last_row; start += ROWS) {
        Elements<T, N> rows[ROWS];
        bool is_there[ROWS];
#pragma unroll
        for (int i = 0; i < ROWS; i++) {
            const int64_t row = start + i;
            is_there[i] = row < work.last_row && (mask == nullptr || mask[row] != 0);
            if (is_there[i] && column < p.dim) rows[i] = Elements<T, N>::load_once(features + row * p.row_stride);
        }
#pragma unroll
        for (int i = 0; i < ROWS; i++) {
            if (!is_there[i]) continue;
            partial.count++;
            if (column >= p.dim) continue;
#pragma unroll
            for (int j = 0; j < N; j++) partial.take(j, rows[i][j], rows[i][j], start + i);
        }
    }
}

template <typename O, int N, bool ARGMAX>
__device__ __forceinline__ void write(const MivcMaxMean& p, int64_t start, const Partial<N, ARGMAX>& partial) {
    float max[N], mean[N];
#pragma unroll
    for (int i = 0; i < N; i++) {
        max[i] = partial.count == 0 ? 0 : partial.max[i];
        mean[i] = partial.count == 0 ? 0 : partial.sum[i] / float(partial.count);
    }
    if (p.max != 0) store(pointer<O>(p.max) + start, max);
    if (p.mean != 0) store(pointer<O>(p.mean) + start, mean);
    if constexpr (ARGMAX) store(pointer<int64_t>(p.argmax) + start, partial.argmax);
}

template <typename T, int N, bool ARGMAX>
__device__ __forceinline__ void max_mean(const MivcMaxMean& p) {
    const Work work = work_of_team(p.list, blockIdx.x);
    if (!work.any) return;
    const int64_t column = (int64_t(blockIdx.y) * POLICY.threads + threadIdx.x) * N;
    Partial<N, ARGMAX> partial;
    pool_rows<T>(p, work, column, partial);
    const bool is_whole = merge_chunks<BlockTeam>(p.list, work, blockIdx.y, Partials<N, ARGMAX>{p, column}, partial);
    if (!is_whole || column >= p.dim) return;
    const int64_t start = work.bag * p.dim + column;
    if (p.outputs_are_f32) {
        write<float>(p, start, partial);
    } else {
        write<T>(p, start, partial);
    }
}

// Eight blocks of those that load single elements: left to itself, ptxas makes room for ten, and spills.
#define MIVC_KERNEL(name, T, N, ARGMAX)                                               \
    extern "C" __global__ void __launch_bounds__(POLICY.threads, N == 1 ? 8 : 0) name(\
        const __grid_constant__ MivcMaxMean p) {                                      \
        max_mean<T, N, ARGMAX>(p);                                                    \
    }
#define MIVC_KERNELS(suffix, T)                                                       \
    MIVC_KERNEL(mivc_max_mean_##suffix, T, 1, false)                                  \
    MIVC_KERNEL(mivc_max_mean_argmax_##suffix, T, 1, true)                            \
    MIVC_KERNEL(mivc_max_mean_##suffix##_vector, T, VECTOR_ELEMENTS<T>, false)        \
    MIVC_KERNEL(mivc_max_mean_argmax_##suffix##_vector, T, VECTOR_ELEMENTS<T>, true)

MIVC_KERNELS(f32, float)
MIVC_KERNELS(f16, __half)
MIVC_KERNELS(bf16, __nv_bfloat16)

}  // namespace mivc
