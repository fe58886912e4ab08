// Backward of max and mean: dh[n] = dmax[b] / ties where h[n] is the maximum, + dmean[b] / count.
//
// The gradient of a maximum needs the maximum, and how many rows hold it. One read of the features finds both: to be
// given the maximum, or argmax, would spare nothing, as ties would still have to be counted, and to have the forward
// make the maximum again would be a read more. So of an instance of D features of s bytes, 2 D s bytes are read and
// D g written, for gradients of g bytes; what is added to is read besides. A bag of one chunk is finished by the block
// that has counted its ties, which finds the rows of a short bag in cache: from memory they come once. Of longer bags
// maximum, ties and count are kept, and `max_mean_backward_long` does the rest. Without dmax no feature is read; without
// a mask either, nothing is counted, and one pass writes the gradient: D g bytes.
//
// A thread owns neighbouring columns, 16 bytes of them where alignment allows, and walks the rows of a chunk.
#include "../work_list.cuh"
#include "gradient.cuh"

namespace mivc {

// Loads under way per thread: where nothing is written, and where gradients are, which may have been read, too.
constexpr int ROWS_TO_SCAN = 8;
template <int N>
constexpr int ROWS_TO_WRITE = N == 8 ? 2 : 4;

// Whether a feature is the maximum: equal to it, or NaN as it is.
__device__ __forceinline__ bool ties(float x, float max) { return x == max || (isnan(x) && isnan(max)); }

// N neighbouring columns of some rows.
template <int N>
struct Partial {
    int64_t count = 0;  // rows that are there
    float max[N];
    int64_t ties[N];    // of those, that hold the maximum

    __device__ __forceinline__ Partial() {
#pragma unroll
        for (int i = 0; i < N; i++) {
            max[i] = -INFINITY;
            ties[i] = 0;
        }
    }

    // Takes in column i of other rows, in whatever order.
    __device__ __forceinline__ void take(int i, float their_max, int64_t their_ties) {
        if (mivc::ties(their_max, max[i])) {
            ties[i] += their_ties;
        } else if (their_max > max[i] || isnan(their_max)) {
            max[i] = their_max;
            ties[i] = their_ties;
        }
    }
};

// Partial results of chunks in memory.
template <int N>
struct Partials {
    const MivcMaxMeanBackward& p;
    int64_t column;

    __device__ __forceinline__ void store(int64_t node, const Partial<N>& partial) const {
        if (threadIdx.x == 0) pointer<int64_t>(p.partial_count)[node * p.list.tiles + blockIdx.y] = partial.count;
        if (p.d_max == 0 || column >= p.dim) return;
        const int64_t start = node * p.dim + column;
        mivc::store(pointer<float>(p.partial_max) + start, partial.max);
        mivc::store(pointer<int64_t>(p.partial_ties) + start, partial.ties);
    }

    __device__ __forceinline__ void merge(Partial<N>& into, int64_t node) const {
        into.count += pointer<int64_t>(p.partial_count)[node * p.list.tiles + blockIdx.y];
        if (p.d_max == 0 || column >= p.dim) return;
        const int64_t start = node * p.dim + column;
#pragma unroll
        for (int i = 0; i < N; i++) {
            into.take(i, pointer<float>(p.partial_max)[start + i], pointer<int64_t>(p.partial_ties)[start + i]);
        }
    }
};

// ROWS rows of a chunk from `start` on: which are there, and their features where these are wanted.
template <typename T, int N, int ROWS>
struct Rows {
    Elements<T, N> features[ROWS];
    bool is_there[ROWS];

    __device__ __forceinline__ Rows(const MivcMaxMeanBackward& p, const Work& work, int64_t start, int64_t column) {
        const auto* mask = pointer<const uint8_t>(p.mask);
        const T* first = pointer<const T>(p.features) + start * p.row_stride + column;
#pragma unroll
        for (int i = 0; i < ROWS; i++) {
            is_there[i] = start + i < work.last_row && (mask == nullptr || mask[start + i] != 0);
            if (is_there[i] && p.d_max != 0 && column < p.dim) {
                features[i] = Elements<T, N>::load(first + i * p.row_stride);
            }
        }
    }
};

// Finds the maxima of a chunk. Threads beyond the last column count the rows, and nothing else.
template <typename T, int N>
__device__ __forceinline__ void scan_rows(const MivcMaxMeanBackward& p, const Work& work, int64_t column,
                                          Partial<N>& partial) {
    for (int64_t start = work.first_row; start < work.last_row; start += ROWS_TO_SCAN) {
        const Rows<T, N, ROWS_TO_SCAN> rows(p, work, start, column);
#pragma unroll
        for (int i = 0; i < ROWS_TO_SCAN; i++) {
            if (!rows.is_there[i]) continue;
            partial.count++;
            if (p.d_max == 0 || column >= p.dim) continue;
#pragma unroll
            for (int j = 0; j < N; j++) partial.take(j, rows.features[i][j], 1);
        }
    }
}

// What each row of a bag has of its gradients.
template <int N>
struct Shares {
    float of_max[N];
    float of_mean[N];

    template <typename T>
    __device__ __forceinline__ static Shares of(const MivcMaxMeanBackward& p, int64_t bag, int64_t column,
                                                const Partial<N>& partial) {
        Shares shares = {};
        const int64_t start = bag * p.dim + column;
        if (p.d_max != 0) load_upstream<T>(p.d_max, p.upstream_is_f32, start, shares.of_max);
        if (p.d_mean != 0) load_upstream<T>(p.d_mean, p.upstream_is_f32, start, shares.of_mean);
#pragma unroll
        for (int i = 0; i < N; i++) {
            if (p.d_max != 0) shares.of_max[i] /= float(partial.ties[i]);
            if (p.d_mean != 0) shares.of_mean[i] /= float(partial.count);
        }
        return shares;
    }
};

// Writes the gradient of a chunk, of a bag that `bag` is.
template <typename T, int N>
__device__ __forceinline__ void write_chunk(const MivcMaxMeanBackward& p, const Work& work, int64_t column,
                                            const Partial<N>& bag) {
    constexpr int ROWS = ROWS_TO_WRITE<N>;
    if (column >= p.dim) return;
    const Shares<N> shares = Shares<N>::template of<T>(p, work.bag, column, bag);
    for (int64_t start = work.first_row; start < work.last_row; start += ROWS) {
        const Rows<T, N, ROWS> rows(p, work, start, column);
        bool is_written[ROWS];
#pragma unroll
        for (int i = 0; i < ROWS; i++) {
            // Nothing is added to masked rows.
            is_written[i] = rows.is_there[i] || (!p.d_features.adds && start + i < work.last_row);
        }
        write_gradient<T, N>(p.d_features, start * p.dim + column, p.dim, is_written, [&](int i, float (&to)[N]) {
#pragma unroll
            for (int j = 0; j < N; j++) {
                const bool is_max = p.d_max != 0 && rows.is_there[i] && ties(rows.features[i][j], bag.max[j]);
                to[j] = (rows.is_there[i] ? shares.of_mean[j] : 0) + (is_max ? shares.of_max[j] : 0);
            }
        });
    }
}

template <int N>
__device__ __forceinline__ int64_t column_of_thread() {
    return (int64_t(blockIdx.y) * MIVC_MAX_MEAN_THREADS + threadIdx.x) * N;
}

template <typename T, int N>
__device__ __forceinline__ void max_mean_backward(const MivcMaxMeanBackward& p) {
    const Work work = work_of_team(p.list, blockIdx.x);
    if (!work.any || !work.has_rows()) return;
    const int64_t column = column_of_thread<N>();
    Partial<N> bag;
    if (p.d_max == 0 && p.mask == 0) {
        const int64_t* range = pointer<int64_t>(p.list.ranges) + work.bag;
        bag.count = range[1] - range[0];
    } else {
        scan_rows<T>(p, work, column, bag);
        const Partials<N> partials = {p, column};
        const bool is_whole = merge_chunks<BlockTeam>(p.list, work, blockIdx.y, partials, bag);
        if (work.chunks > 1) {
            if (is_whole) partials.store(root_of(p.list, work), bag);
            return;
        }
    }
    write_chunk<T>(p, work, column, bag);
}

// The chunks of bags that have several.
template <typename T, int N>
__device__ __forceinline__ void max_mean_backward_long(const MivcMaxMeanBackward& p) {
    const Work work = work_of_team(p.list, blockIdx.x);
    if (!work.any || work.chunks == 1) return;
    const int64_t column = column_of_thread<N>();
    Partial<N> bag;
    Partials<N>{p, column}.merge(bag, root_of(p.list, work));
    write_chunk<T>(p, work, column, bag);
}

// So many blocks of those that load vectors: left to itself, ptxas makes room for others, and spills.
#define MIVC_KERNEL(name, function, T, N, BLOCKS)                                              \
    extern "C" __global__ void __launch_bounds__(MIVC_MAX_MEAN_THREADS, N == 1 ? 0 : BLOCKS)    \
        name(const __grid_constant__ MivcMaxMeanBackward p) {                                  \
        function<T, N>(p);                                                                     \
    }
#define MIVC_KERNELS(suffix, T)                                                                                  \
    MIVC_KERNEL(mivc_max_mean_backward_##suffix, max_mean_backward, T, 1, 0)                                      \
    MIVC_KERNEL(mivc_max_mean_backward_long_##suffix, max_mean_backward_long, T, 1, 0)                            \
    MIVC_KERNEL(mivc_max_mean_backward_##suffix##_vector, max_mean_backward, T, VECTOR_ELEMENTS<T>, 3)            \
    MIVC_KERNEL(mivc_max_mean_backward_long_##suffix##_vector, max_mean_backward_long, T, VECTOR_ELEMENTS<T>, 4)

MIVC_KERNELS(f32, float)
MIVC_KERNELS(f16, __half)
MIVC_KERNELS(bf16, __nv_bfloat16)

}  // namespace mivc
