// Puts instances in an order of their own content, in which the gradients of parameters are then summed as they always are:
// by the bits of the gradients of their scores, then of their features; those that add nothing come last. Instances that
// are equal in both add equal terms, wherever they stand.
//
// A merge sort. The place of an entry among two runs is its place in its own, plus how many of the other run go before it,
// which a thread finds by bisection. A block begins with runs of one row, and has sorted MIVC_EXACT_RUN_ROWS in shared
// memory when it is done; each further launch merges pairs of runs. An entry has 16 bytes, so that those of a million
// instances stay in the second-level cache; features are only read where scores have equal gradients.
#include "../backward/slice.cuh"

namespace mivc {

// Less than 0, 0 or greater, as with memcmp. Word is the unsigned integer of the size of a feature.
template <typename Word>
__device__ __noinline__ int compare_content(const MivcExactOrder& p, int64_t one, int64_t other) {
    const auto* d_scores = pointer<const uint32_t>(p.d_scores);
    for (int64_t head = 1; head < p.heads; head++) {
        const uint32_t a = d_scores[one * p.heads + head], b = d_scores[other * p.heads + head];
        if (a != b) return a < b ? -1 : 1;
    }
    const auto* features = pointer<const Word>(p.features);
    for (int64_t column = 0; column < p.dim; column++) {
        const Word a = features[one * p.row_stride + column], b = features[other * p.row_stride + column];
        if (a != b) return a < b ? -1 : 1;
    }
    return 0;
}

template <typename Word>
__device__ __forceinline__ int compare(const MivcExactOrder& p, const MivcExactEntry& one, const MivcExactEntry& other) {
    if (one.key != other.key) return one.key < other.key ? -1 : 1;
    if (one.key == MIVC_EXACT_NOTHING) return 0;
    return compare_content<Word>(p, one.row, other.row);
}

// Where entry i of `count`, in runs of `run` rows, goes when pairs of runs are merged. Of equal ones, those of the former
// run go first.
template <typename Word>
__device__ __forceinline__ int64_t merged_place(const MivcExactOrder& p, const MivcExactEntry* entries, int64_t count,
                                                int64_t run, int64_t i) {
    const int64_t own = i / run * run;
    const bool is_former = i / run % 2 == 0;
    const int64_t other = is_former ? min(own + run, count) : own - run;
    const int64_t other_end = min(other + run, count);
    const MivcExactEntry entry = entries[i];
    int64_t first = other, last = other_end;  // how far those of the other run go that come before
    while (first < last) {
        const int64_t middle = (first + last) / 2;
        const int order = compare<Word>(p, entries[middle], entry);
        if (order < 0 || (order == 0 && !is_former)) first = middle + 1;
        else last = middle;
    }
    return min(own, other) + (i - own) + (first - other);
}

__device__ __forceinline__ MivcExactEntry entry_of(const MivcExactOrder& p, int64_t row) {
    if (is_masked(p.slice, row) || !is_in_bag(p.slice, row)) return {uint64_t(MIVC_EXACT_NOTHING), row};
    const auto* d_scores = pointer<const float>(p.d_scores) + row * p.heads;
    bool flows = false;
    for (int64_t head = 0; head < p.heads; head++) flows |= d_scores[head] != 0;
    return {flows ? uint64_t(__float_as_uint(d_scores[0])) : uint64_t(MIVC_EXACT_NOTHING), row};
}

template <typename Word>
__device__ __forceinline__ void order(const MivcExactOrder& p) {
    __shared__ MivcExactEntry entries[2][MIVC_EXACT_RUN_ROWS];
    const int64_t first = int64_t(blockIdx.x) * MIVC_EXACT_RUN_ROWS;
    const int count = int(min(p.slice.rows - first, int64_t(MIVC_EXACT_RUN_ROWS)));
    const bool is_there = threadIdx.x < count;
    if (is_there) entries[0][threadIdx.x] = entry_of(p, first + threadIdx.x);
    int now = 0;
    for (int run = 1; run < MIVC_EXACT_RUN_ROWS; run *= 2) {
        __syncthreads();
        if (is_there) {
            const int64_t place = merged_place<Word>(p, entries[now], count, run, threadIdx.x);
            entries[1 - now][place] = entries[now][threadIdx.x];
        }
        now = 1 - now;
    }
    __syncthreads();
    if (is_there) pointer<MivcExactEntry>(p.to)[first + threadIdx.x] = entries[now][threadIdx.x];
}

template <typename Word>
__device__ __forceinline__ void merge(const MivcExactOrder& p) {
    const int64_t i = int64_t(blockIdx.x) * MIVC_EXACT_RUN_ROWS + threadIdx.x;
    if (i >= p.slice.rows) return;
    const auto* from = pointer<const MivcExactEntry>(p.from);
    pointer<MivcExactEntry>(p.to)[merged_place<Word>(p, from, p.slice.rows, p.run_rows, i)] = from[i];
}

// Copies `count` elements, those of all threads of a block together.
template <typename T>
__device__ __forceinline__ void copy_elements(const T* from, T* to, int64_t count) {
    for (int64_t i = threadIdx.x; i < count; i += MIVC_THREADS) to[i] = from[i];
}

// A block takes a row. Of one that adds nothing there is only the mask.
template <typename Word>
__device__ __forceinline__ void gather(const MivcExactGather& p) {
    const int64_t i = blockIdx.x;
    const auto [key, row] = pointer<const MivcExactEntry>(p.entries)[i];
    if (threadIdx.x == 0) pointer<uint8_t>(p.to_mask)[i] = key != MIVC_EXACT_NOTHING;
    if (key == MIVC_EXACT_NOTHING) return;
    copy_elements(pointer<const float>(p.d_scores) + row * p.heads, pointer<float>(p.to_d_scores) + i * p.heads, p.heads);
    copy_elements(pointer<const Word>(p.features) + row * p.row_stride, pointer<Word>(p.to_features) + i * p.dim, p.dim);
    if (p.activations == 0) return;
    copy_elements(pointer<const Word>(p.activations) + row * p.activation_count,
                  pointer<Word>(p.to_activations) + i * p.activation_count, p.activation_count);
}

#define MIVC_KERNEL(name, function, threads, Parameters, Word)                                            \
    extern "C" __global__ void __launch_bounds__(threads) name(const __grid_constant__ Parameters p) {    \
        function<Word>(p);                                                                                \
    }
#define MIVC_KERNELS(suffix, Word)                                                              \
    MIVC_KERNEL(mivc_exact_order_##suffix, order, MIVC_EXACT_RUN_ROWS, MivcExactOrder, Word)    \
    MIVC_KERNEL(mivc_exact_merge_##suffix, merge, MIVC_EXACT_RUN_ROWS, MivcExactOrder, Word)    \
    MIVC_KERNEL(mivc_exact_gather_##suffix, gather, MIVC_THREADS, MivcExactGather, Word)

MIVC_KERNELS(b16, uint16_t)
MIVC_KERNELS(b32, uint32_t)

}  // namespace mivc
