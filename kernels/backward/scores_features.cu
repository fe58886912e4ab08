// Backward of the scores, of the features: dh[n] = sum over l of dx[n, l] V[l] + dy[n, l] U[l]; and where the features
// are pooled themselves, sum over k of a[n, k] dz[b, k] beside it.
//
// The product of `scores` (product.cuh) with other factors: rows of dx and dy, and the lines of V and U that
// pack.cu has made. Both are f32, as gradients are; of f16 and bf16 features V and U are TF32 as they are, which takes
// two products instead of three. Bound by the matrix units: 2 D L of each matrix and row, twice or three times.
//
// A row's bits depend on the row alone.
#include "../product.cuh"
#include "slice.cuh"

namespace mivc {

using Block = Tile<2, 2, 2, 8>;
static_assert(Block::ROWS == MIVC_MEDIUM_F32_TILE_ROWS && Block::COLUMNS == MIVC_MEDIUM_F32_TILE_COLUMNS &&
                  Block::THREADS == MIVC_MEDIUM_F32_TILE_THREADS,
              "as the host has it");

// What is known of each row of a tile.
struct Rows {
    int64_t bag[Block::ROWS];
    bool is_written[Block::ROWS];
    bool flows[Block::ROWS];     // to any of its scores
    bool is_pooled[Block::ROWS];
};

__device__ __forceinline__ void find_rows(const MivcScoresFeaturesBackward& p, int64_t first_row, Rows& rows) {
    const int line = threadIdx.x;
    if (line >= Block::ROWS) return;
    const int64_t row = first_row + line;
    rows.is_written[line] = row < p.slice.rows && is_in_bag(p.slice, row);
    rows.flows[line] = rows.is_pooled[line] = false;
    if (!rows.is_written[line]) return;
    for (int64_t group = 0; group < p.groups; group++) {
        rows.flows[line] |= pointer<const uint8_t>(p.slice.flows)[row * p.groups + group] != 0;
    }
    if (p.weights == 0 || is_masked(p.slice, row)) return;
    rows.is_pooled[line] = true;
    rows.bag[line] = bag_of(p.slice, row);
}

template <typename T>
__device__ __forceinline__ float upstream_at(const MivcScoresFeaturesBackward& p, int64_t i) {
    return p.upstream_is_f32 ? pointer<const float>(p.d_pooled)[i] : to_f32(pointer<const T>(p.d_pooled)[i]);
}

template <typename T>
__device__ __forceinline__ void write_element(const MivcGradient& gradient, int64_t i, float value) {
    if (gradient.is_f32) {
        write_one(gradient, i, value);
    } else {
        T* to = pointer<T>(gradient.to) + i;
        *to = from_f32<T>(gradient.adds ? to_f32(*to) + value : value);
    }
}

// The gradients of a row's neighbouring features, from those that its scores have given them.
template <typename T, int N>
__device__ __forceinline__ void write_features(const MivcScoresFeaturesBackward& p, int64_t row, int64_t column,
                                               const Rows& rows, int line, float (&sums)[N]) {
    const int64_t dim = p.by_feature.columns;
    if (rows.is_pooled[line]) {
        for (int64_t head = 0; head < p.heads; head++) {
            const float weight = pointer<const float>(p.weights)[row * p.heads + head];
            // 0 times infinity is not there.
            if (weight == 0) continue;
            const int64_t at = (rows.bag[line] * p.heads + head) * dim + column;
#pragma unroll
            for (int i = 0; i < N; i++) {
                if (column + i < dim) sums[i] = fmaf(weight, upstream_at<T>(p, at + i), sums[i]);
            }
        }
    }
#pragma unroll
    for (int i = 0; i < N; i++) {
        if (column + i < dim) write_element<T>(p.d_features, row * dim + column + i, sums[i]);
    }
}

template <typename T, typename Product>
__device__ __forceinline__ void d_features(const MivcScoresFeaturesBackward& p) {
    extern __shared__ __align__(128) unsigned char shared[];
    auto* stages = reinterpret_cast<Stage<Block>*>(shared);
    __shared__ Rows rows;
    const int64_t first_row = int64_t(blockIdx.x) * Block::ROWS;
    // The first product of `multiply` waits for all threads.
    find_rows(p, first_row, rows);
    const FlatSource<Block, float> source = {
        p.by_feature, {p.d_columns, p.by_feature.dim, first_row, p.d_columns.instances}, stages};
    multiply<Product, Block>(p.by_feature, source, [&](const Columns& columns, Block::Sums& sums) {
        const int lane = threadIdx.x % 32;
#pragma unroll
        for (int i = 0; i < Block::DOWN_FRAGMENTS; i++) {
#pragma unroll
            for (int row = 0; row < 2; row++) {
                const int line = Block::row(i) + 8 * row + lane / 4;
                if (!rows.is_written[line]) continue;
#pragma unroll
                for (int j = 0; j < Block::ACROSS_FRAGMENTS; j++) {
                    const int64_t column = columns.first + Block::first_column() + 8 * j + lane % 4 * 2;
                    // Where V or U is not finite, 0 of a row to which nothing flows has become NaN.
                    const bool flows = rows.flows[line];
                    float of_row[2] = {flows ? sums.at[i][j][2 * row] : 0, flows ? sums.at[i][j][2 * row + 1] : 0};
                    write_features<T>(p, first_row + line, column, rows, line, of_row);
                }
            }
        }
    });
}

#define MIVC_KERNEL(name, T, Product)                                      \
    extern "C" __global__ void __launch_bounds__(Block::THREADS, 2)        \
        name(const __grid_constant__ MivcScoresFeaturesBackward p) {       \
        d_features<T, Product>(p);                                         \
    }
MIVC_KERNEL(mivc_scores_d_features_f32, float, Plain)
MIVC_KERNEL(mivc_scores_d_features_f16, __half, Plain)
MIVC_KERNEL(mivc_scores_d_features_bf16, __nv_bfloat16, Plain)
MIVC_KERNEL(mivc_scores_d_features_f32_split, float, SplitInto<false>)
MIVC_KERNEL(mivc_scores_d_features_f16_split, __half, SplitInto<true>)
MIVC_KERNEL(mivc_scores_d_features_bf16_split, __nv_bfloat16, SplitInto<true>)

}  // namespace mivc
