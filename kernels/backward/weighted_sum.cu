// Backward of the weighted sum: da[n, k] = dz[b, k] . x[n], dx[n] = sum over k of a[n, k] dz[b, k], the values shared by
// the heads or one block for each.
//
// Two kernels, as each gradient moves other bytes, and either may be asked for alone. Of an instance of D values of s
// bytes and K heads, da reads D s + 4 K bytes, its values once, and writes 4 K; dx reads 4 K, no value among them, and
// writes D g for gradients of g bytes; what is added to is read besides. Where each head has values of its own, D is
// that of all heads. dz, which the rows of a bag share, comes from cache. A row without a weight is not read.
//
// No row depends on another, so nothing is merged: chunks are there to share out the work.
#include "../work_list.cuh"
#include "gradient.cuh"

namespace mivc {

constexpr int WARPS = MIVC_THREADS / 32;

// 0 where the row is masked, and its weight is then not read.
__device__ __forceinline__ float weight_at(const MivcWeightedSumBackward& p, int64_t row, int64_t head) {
    const auto* mask = pointer<const uint8_t>(p.mask);
    if (mask != nullptr && mask[row] == 0) return 0;
    return pointer<const float>(p.weights)[row * p.heads + head];
}

// ---- da ----

// The sum over all lanes of each of COUNT values: a lane gets that of value lane / (32 / COUNT). Lanes are added in the
// same order whichever value it is.
template <int COUNT>
__device__ __forceinline__ float sums_of_lanes(float (&values)[COUNT], int distance = 16) {
    if constexpr (COUNT == 1) {
        float sum = values[0];
        for (; distance > 0; distance /= 2) sum += __shfl_xor_sync(0xffffffff, sum, distance);
        return sum;
    } else {
        const bool is_upper = (threadIdx.x & distance) != 0;
        float half[COUNT / 2];
#pragma unroll
        for (int i = 0; i < COUNT / 2; i++) {
            const float lower = values[i], upper = values[i + COUNT / 2];
            half[i] = (is_upper ? upper : lower) + __shfl_xor_sync(0xffffffff, is_upper ? lower : upper, distance);
        }
        return sums_of_lanes(half, distance / 2);
    }
}

// Rows of a warp at once, whose products with HEADS gradients are summed: as many as fit the registers, and the lanes.
template <int HEADS>
constexpr int ROWS_AT_ONCE = HEADS == 1 ? 8 : 4;

// N neighbouring elements from `column` on, one by one where they are not aligned. In either case a lane has the same
// columns, so that sums do not depend on where the rows lie. 0 behind the last column.
template <typename T, int N, bool IS_VECTOR>
__device__ __forceinline__ Elements<T, N> load_columns(const T* row, int64_t column, int64_t dim) {
    if constexpr (IS_VECTOR) {
        return Elements<T, N>::load_once(row + column);
    } else {
        Elements<T, N> elements = {};
#pragma unroll
        for (int i = 0; i < N; i++) {
            if (column + i < dim) elements.set(i, row[column + i]);
        }
        return elements;
    }
}

template <typename T, int N, bool IS_VECTOR>
__device__ __forceinline__ void load_upstream_columns(const MivcWeightedSumBackward& p, int64_t start, int64_t column,
                                                      float (&to)[N]) {
    if constexpr (IS_VECTOR) {
        load_upstream<T>(p.d_pooled, p.upstream_is_f32, start + column, to);
    } else {
#pragma unroll
        for (int i = 0; i < N; i++) {
            float one[1] = {0};
            if (column + i < p.dim) load_upstream<T>(p.d_pooled, p.upstream_is_f32, start + column + i, one);
            to[i] = one[0];
        }
    }
}

// The products of the lane's columns: value row * HEADS + head is of those of that row and head. `rows` has a bit for
// each row to be read; of others the products are of 0.
template <typename T, bool IS_VECTOR, int HEADS, int ROWS>
__device__ __forceinline__ void multiply_rows(const MivcWeightedSumBackward& p, int64_t bag, int64_t first_head, int heads,
                                              const T* values, int64_t stride, unsigned rows,
                                              float (&products)[ROWS * HEADS]) {
    constexpr int N = VECTOR_ELEMENTS<T>;
    for (int64_t column = threadIdx.x % 32 * N; column < p.dim; column += 32 * N) {
        Elements<T, N> x[ROWS];
#pragma unroll
        for (int row = 0; row < ROWS; row++) {
            x[row] = {};
            if (rows >> row & 1) x[row] = load_columns<T, N, IS_VECTOR>(values + row * stride, column, p.dim);
        }
#pragma unroll
        for (int head = 0; head < HEADS; head++) {
            if (head >= heads) continue;
            float d_pooled[N];
            load_upstream_columns<T, N, IS_VECTOR>(p, (bag * p.heads + first_head + head) * p.dim, column, d_pooled);
#pragma unroll
            for (int row = 0; row < ROWS; row++) {
                float& product = products[row * HEADS + head];
#pragma unroll
                for (int i = 0; i < N; i++) product = fmaf(x[row][i], d_pooled[i], product);
            }
        }
    }
}

// A warp takes every fourth row, so that all four have some of a short bag, and multiplies ROWS of them with the same
// columns of dz at once. Lane row * HEADS + head, or a group of lanes, has the weight of that row and head, and in the
// end its gradient.
template <typename T, bool IS_VECTOR, int HEADS>
__device__ __forceinline__ void d_weights(const MivcWeightedSumBackward& p) {
    constexpr int ROWS = ROWS_AT_ONCE<HEADS>, LANES = 32 / (ROWS * HEADS);
    static_assert(LANES >= 1, "a lane for each product");
    const Work work = work_of_team(p.list, blockIdx.x);
    if (!work.any) return;
    const int64_t first_head = int64_t(blockIdx.y) * HEADS;
    const int heads = int(min(p.heads - first_head, int64_t(HEADS)));
    const int place = threadIdx.x % 32 / LANES, my_row = place / HEADS, my_head = place % HEADS;
    for (int64_t start = work.first_row + threadIdx.x / 32; start < work.last_row; start += ROWS * WARPS) {
        const int64_t row = start + my_row * WARPS, head = first_head + my_head;
        const bool is_there = row < work.last_row && my_head < heads;
        const float weight = is_there ? weight_at(p, row, head) : 0;
        const unsigned has_weight = __ballot_sync(0xffffffff, weight != 0);
        unsigned rows = 0;
#pragma unroll
        for (int i = 0; i < ROWS; i++) {
            const unsigned lanes_of_row = (1u << (LANES * HEADS)) - 1;
            rows |= (has_weight >> (i * LANES * HEADS) & lanes_of_row) != 0 ? 1u << i : 0;
        }
        float products[ROWS * HEADS] = {};
        const T* values = pointer<const T>(p.values) + start * p.row_stride + first_head * p.head_stride;
        if (rows != 0) {
            multiply_rows<T, IS_VECTOR, HEADS, ROWS>(p, work.bag, first_head, heads, values, WARPS * p.row_stride, rows,
                                                     products);
        }
        const float gradient = sums_of_lanes(products);
        if (!is_there || threadIdx.x % LANES != 0) continue;
        write_one(p.d_weights, row * p.heads + head, weight == 0 ? 0 : gradient);
    }
}

// ---- dx ----

// Rows that a thread sums at once: each reads dz once.
constexpr int ROWS = 4;

// A thread owns N neighbouring columns, and walks the rows of a chunk. Where the values are shared, it sums over the
// heads in their order; else its head is that of the block.
template <typename T, int N>
__device__ __forceinline__ void d_values(const MivcWeightedSumBackward& p) {
    const Work work = work_of_team(p.list, blockIdx.x);
    const int64_t column = (int64_t(blockIdx.y) * MIVC_THREADS + threadIdx.x) * N;
    if (!work.any || column >= p.dim) return;
    const bool is_shared = p.head_stride == 0;
    const int64_t first_head = blockIdx.z, last_head = is_shared ? p.heads : first_head + 1;
    const int64_t stride = is_shared ? p.dim : p.heads * p.dim;
    for (int64_t start = work.first_row; start < work.last_row; start += ROWS) {
        float sums[ROWS][N] = {};
        bool is_there[ROWS], has_weight[ROWS] = {};
#pragma unroll
        for (int i = 0; i < ROWS; i++) is_there[i] = start + i < work.last_row;
        for (int64_t head = first_head; head < last_head; head++) {
            float d_pooled[N];
            load_upstream<T>(p.d_pooled, p.upstream_is_f32, (work.bag * p.heads + head) * p.dim + column, d_pooled);
#pragma unroll
            for (int i = 0; i < ROWS; i++) {
                const float weight = is_there[i] ? weight_at(p, start + i, head) : 0;
                if (weight == 0) continue;
                has_weight[i] = true;
#pragma unroll
                for (int j = 0; j < N; j++) sums[i][j] = fmaf(weight, d_pooled[j], sums[i][j]);
            }
        }
        // Nothing is added to rows without a weight.
#pragma unroll
        for (int i = 0; i < ROWS; i++) is_there[i] &= has_weight[i] || !p.d_values.adds;
        const int64_t at = start * stride + first_head * p.dim + column;
        write_gradient<T, N>(p.d_values, at, stride, is_there, [&](int row, float (&to)[N]) {
#pragma unroll
            for (int j = 0; j < N; j++) to[j] = sums[row][j];
        });
    }
}

// So many blocks: left to itself, ptxas makes room for more, and spills.
#define MIVC_D_WEIGHTS(name, T, IS_VECTOR, HEADS)                   \
    extern "C" __global__ void __launch_bounds__(MIVC_THREADS, 4)   \
        name(const __grid_constant__ MivcWeightedSumBackward p) {   \
        d_weights<T, IS_VECTOR, HEADS>(p);                          \
    }
#define MIVC_D_VALUES(name, T, N)                                              \
    extern "C" __global__ void __launch_bounds__(MIVC_THREADS, N == 1 ? 0 : 3)  \
        name(const __grid_constant__ MivcWeightedSumBackward p) {   \
        d_values<T, N>(p);                                          \
    }
#define MIVC_KERNELS(suffix, T)                                                                          \
    MIVC_D_WEIGHTS(mivc_weighted_sum_d_weights_##suffix, T, false, 1)                                    \
    MIVC_D_WEIGHTS(mivc_weighted_sum_d_weights_heads_##suffix, T, false, MIVC_WEIGHTED_SUM_HEADS)        \
    MIVC_D_WEIGHTS(mivc_weighted_sum_d_weights_##suffix##_vector, T, true, 1)                            \
    MIVC_D_WEIGHTS(mivc_weighted_sum_d_weights_heads_##suffix##_vector, T, true, MIVC_WEIGHTED_SUM_HEADS) \
    MIVC_D_VALUES(mivc_weighted_sum_d_values_##suffix, T, 1)                                             \
    MIVC_D_VALUES(mivc_weighted_sum_d_values_##suffix##_vector, T, VECTOR_ELEMENTS<T>)

MIVC_KERNELS(f32, float)
MIVC_KERNELS(f16, __half)
MIVC_KERNELS(bf16, __nv_bfloat16)

}  // namespace mivc
