// Attention scores: s[n, k] = w[k] . (tanh(V h[n] + b_v) * sigma(U h[n] + b_u)) + c[k], or without the gate.
//
// A block scores the rows of a flat tile, whatever bags they belong to: tile by tile of columns it makes the product
// with V and U (product.cuh), applies biases, tanh and gate to the sums in registers, and multiplies them with w. No
// [N, L] array exists. Which tile is used depends on type and columns alone, so a row's bits on nothing but the row.
#include "gate.cuh"
#include "product.cuh"

namespace mivc {

using SmallTile = Tile<4, 1, 1, 4>;
// Of f32: with the fragments of the others its sums would not fit the registers. There is no large one; f32 products
// take so long that reading a tile of rows once more, from the second-level cache, hides behind them.
using MediumF32Tile = Tile<2, 2, 2, 8>;
using MediumTile = Tile<2, 2, 4, 8>;
using LargeTile = Tile<2, 4, 4, 8>;
#define MIVC_EXPECT_TILE(name, NAME)                                                                             \
    static_assert(name::ROWS == MIVC_##NAME##_TILE_ROWS && name::COLUMNS == MIVC_##NAME##_TILE_COLUMNS &&        \
                      name::THREADS == MIVC_##NAME##_TILE_THREADS,                                               \
                  "as the host has it");
MIVC_EXPECT_TILE(SmallTile, SMALL)
MIVC_EXPECT_TILE(MediumF32Tile, MEDIUM_F32)
MIVC_EXPECT_TILE(MediumTile, MEDIUM)
MIVC_EXPECT_TILE(LargeTile, LARGE)

// Heads whose parts of the scores are exchanged between warps at once.
constexpr int HEADS_AT_ONCE = 8;

// Columns of one group that a tile takes.
struct Columns {
    int64_t group;
    int64_t first;  // within the group
};

// Turns sums of V h and U h into hidden units. A gated unit is where its column of V was, beside a 0; padding is 0,
// whatever its sums are.
template <typename Tile>
__device__ __forceinline__ void activate(const MivcPacked& packed, const Columns& columns,
                                         typename Tile::Sums& sums) {
    const int lane = threadIdx.x % 32;
    const auto* biases = pointer<const float>(packed.column_bias) + columns.group * packed.group_columns;
#pragma unroll
    for (int j = 0; j < Tile::ACROSS_FRAGMENTS; j++) {
        const int64_t column = columns.first + Tile::first_column() + 8 * j + lane % 4 * 2;
        const float2 bias = *reinterpret_cast<const float2*>(biases + column);
#pragma unroll
        for (int i = 0; i < Tile::DOWN_FRAGMENTS; i++) {
#pragma unroll
            for (int row = 0; row < 2; row++) {
                float& left = sums.at[i][j][2 * row];
                float& right = sums.at[i][j][2 * row + 1];
                left += bias.x;
                right += bias.y;
                if (packed.is_gated) {
                    left = column < packed.columns ? gate(left, right) : 0;
                    right = 0;
                } else {
                    left = column < packed.columns ? tanhf(left) : 0;
                    right = column + 1 < packed.columns ? tanhf(right) : 0;
                }
            }
        }
    }
}

// Parts of scores, from each column of warps.
template <typename Tile>
struct Exchange {
    float parts[HEADS_AT_ONCE][Tile::ACROSS][Tile::ROWS];
};

// The lane's part of the scores of head `head`, over the warp's columns.
template <typename Tile>
__device__ __forceinline__ void put_parts(const MivcPacked& packed, const Columns& columns, int64_t head,
                                          const typename Tile::Sums& units, float (*parts)[Tile::ROWS]) {
    const int lane = threadIdx.x % 32;
    const auto* weights = pointer<const float>(packed.column_weights) + head * packed.group_columns + columns.first +
                          Tile::first_column() + lane % 4 * 2;
    float sums[Tile::DOWN_FRAGMENTS][2] = {};
#pragma unroll
    for (int j = 0; j < Tile::ACROSS_FRAGMENTS; j++) {
        const float2 w = *reinterpret_cast<const float2*>(weights + 8 * j);
#pragma unroll
        for (int i = 0; i < Tile::DOWN_FRAGMENTS; i++) {
#pragma unroll
            for (int row = 0; row < 2; row++) {
                sums[i][row] = fmaf(w.x, units.at[i][j][2 * row], sums[i][row]);
                sums[i][row] = fmaf(w.y, units.at[i][j][2 * row + 1], sums[i][row]);
            }
        }
    }
#pragma unroll
    for (int i = 0; i < Tile::DOWN_FRAGMENTS; i++) {
#pragma unroll
        for (int row = 0; row < 2; row++) {
            float sum = sums[i][row];
            sum += __shfl_xor_sync(0xffffffff, sum, 1);
            sum += __shfl_xor_sync(0xffffffff, sum, 2);
            const int line = Tile::first_row() + 16 * i + 8 * row + lane / 4;
            if (lane % 4 == 0) parts[Tile::first_column() / Tile::WARP_COLUMNS][line] = sum;
        }
    }
}

// Adds what the hidden units of these columns give to the scores of the tile's rows. The first columns of a group
// begin with the bias.
template <typename Tile>
__device__ __forceinline__ void add_scores(const MivcScores& p, int64_t first_row, const Columns& columns,
                                           const typename Tile::Sums& units, Exchange<Tile>& exchange) {
    const int64_t heads_of_group = p.packed.heads / p.packed.groups;
    const int64_t first_head = columns.group * heads_of_group, last_head = first_head + heads_of_group;
    for (int64_t start = first_head; start < last_head; start += HEADS_AT_ONCE) {
        const int heads = int(min(last_head - start, int64_t(HEADS_AT_ONCE)));
        for (int head = 0; head < heads; head++) {
            put_parts<Tile>(p.packed, columns, start + head, units, exchange.parts[head]);
        }
        __syncthreads();
        for (int i = threadIdx.x; i < heads * Tile::ROWS; i += Tile::THREADS) {
            const int line = i / heads, head = i % heads;
            const int64_t row = first_row + line;
            if (row >= p.instances) break;
            float* score = pointer<float>(p.scores) + row * p.packed.heads + start + head;
            float sum = columns.first == 0 ? pointer<const float>(p.packed.score_bias)[start + head] : *score;
#pragma unroll
            for (int part = 0; part < Tile::ACROSS; part++) sum += exchange.parts[head][part][line];
            *score = is_there(p, row) ? sum : -INFINITY;
        }
        __syncthreads();
    }
}

// Notes the rows of which a sum is not finite.
template <typename Tile>
__device__ __forceinline__ void note_infinite_rows(const typename Tile::Sums& sums, unsigned (&noted)[Tile::ROWS / 32]) {
    const int lane = threadIdx.x % 32;
#pragma unroll
    for (int i = 0; i < Tile::DOWN_FRAGMENTS; i++) {
#pragma unroll
        for (int row = 0; row < 2; row++) {
            bool all_finite = true;
#pragma unroll
            for (int j = 0; j < Tile::ACROSS_FRAGMENTS; j++) {
                all_finite &= isfinite(sums.at[i][j][2 * row]) && isfinite(sums.at[i][j][2 * row + 1]);
            }
            const int line = Tile::first_row() + 16 * i + 8 * row + lane / 4;
            if (!all_finite) atomicOr(&noted[line / 32], 1u << line % 32);
        }
    }
}

// V h or U h of one column, in one chain.
__device__ __forceinline__ float plain_product(const MivcScores& p, int64_t row, int64_t column) {
    const auto* h = pointer<const float>(p.features) + row * p.row_stride;
    const auto* v = pointer<const float>(p.packed.matrix) + column * p.packed.padded_dim;
    float sum = 0;
    for (int64_t d = 0; d < p.packed.dim; d++) sum = fmaf(h[d], v[d], sum);
    return sum + pointer<const float>(p.packed.column_bias)[column];
}

// Scores a row without splitting its features, one warp for all heads, a lane for a unit.
__device__ __forceinline__ void score_plainly(const MivcScores& p, int64_t row) {
    const MivcPacked& packed = p.packed;
    const int lane = threadIdx.x % 32, matrices = packed.is_gated ? 2 : 1;
    const int64_t heads_of_group = packed.heads / packed.groups;
    for (int64_t group = 0; group < packed.groups; group++) {
        for (int64_t first = 0; first < packed.columns; first += 32 * matrices) {
            const int64_t column = first + lane * matrices, packed_column = group * packed.group_columns + column;
            float unit = 0;
            if (column < packed.columns) {
                const float x = plain_product(p, row, packed_column);
                unit = packed.is_gated ? gate(x, plain_product(p, row, packed_column + 1)) : tanhf(x);
            }
            for (int64_t head = group * heads_of_group; head < (group + 1) * heads_of_group; head++) {
                float part = 0;
                if (column < packed.columns) {
                    part = unit * pointer<const float>(packed.column_weights)[head * packed.group_columns + column];
                }
                for (int distance = 16; distance > 0; distance /= 2) {
                    part += __shfl_xor_sync(0xffffffff, part, distance);
                }
                float* score = pointer<float>(p.scores) + row * packed.heads + head;
                if (lane == 0) *score = part + (first == 0 ? pointer<const float>(packed.score_bias)[head] : *score);
            }
        }
    }
}

template <typename Product, typename Tile>
__device__ __forceinline__ void scores(const MivcScores& p) {
    using T = typename Product::Element;
    extern __shared__ __align__(128) unsigned char shared[];
    __shared__ unsigned infinite_rows[Tile::ROWS / 32];
    auto* stages = reinterpret_cast<typename Tile::Stage*>(shared);
    // Between products the stages are free.
    auto& exchange = *reinterpret_cast<Exchange<Tile>*>(shared);
    static_assert(sizeof exchange <= STAGES * sizeof *stages, "it takes the place of the stages");

    if (Product::LOSES_INFINITIES && threadIdx.x < Tile::ROWS / 32) infinite_rows[threadIdx.x] = 0;
    const int64_t first_row = int64_t(blockIdx.x) * Tile::ROWS;
    const RowLoader<Tile, T> rows(p, first_row);
    for (int64_t group = 0; group < p.packed.groups; group++) {
        for (int64_t first = 0; first < p.packed.columns; first += Tile::COLUMNS) {
            const Columns columns = {group, first};
            const T* matrix = pointer<const T>(p.packed.matrix) +
                              (group * p.packed.group_columns + first) * p.packed.padded_dim;
            typename Tile::Sums sums = {};
            multiply<Product>(rows, matrix, p.packed.padded_dim, stages, sums);
            if constexpr (Product::LOSES_INFINITIES) note_infinite_rows<Tile>(sums, infinite_rows);
            activate<Tile>(p.packed, columns, sums);
            add_scores<Tile>(p, first_row, columns, sums, exchange);
        }
    }
    if constexpr (Product::LOSES_INFINITIES) {
        for (int line = threadIdx.x / 32; line < Tile::ROWS; line += Tile::THREADS / 32) {
            const int64_t row = first_row + line;
            // Rows that are not there were zeros, which a NaN in V or U makes NaN too.
            if (infinite_rows[line / 32] >> line % 32 & 1 && is_there(p, row)) score_plainly(p, row);
        }
    }
}

// Blocks of a multiprocessor: left to itself, ptxas makes room for more small ones, and spills.
#define MIVC_KERNEL(name, Product, Tile, BLOCKS)                                                                 \
    extern "C" __global__ void __launch_bounds__(Tile::THREADS, BLOCKS)                                          \
        name(const __grid_constant__ MivcScores p) {                                                             \
        scores<Product, Tile>(p);                                                                                \
    }
MIVC_KERNEL(mivc_scores_f32_small, Plain, SmallTile, 4)
MIVC_KERNEL(mivc_scores_f32_medium, Plain, MediumF32Tile, 2)
MIVC_KERNEL(mivc_scores_f32_split_small, Split, SmallTile, 4)
MIVC_KERNEL(mivc_scores_f32_split_medium, Split, MediumF32Tile, 2)
MIVC_KERNEL(mivc_scores_f16_small, Direct<__half>, SmallTile, 4)
MIVC_KERNEL(mivc_scores_f16_medium, Direct<__half>, MediumTile, 2)
MIVC_KERNEL(mivc_scores_f16_large, Direct<__half>, LargeTile, 1)
MIVC_KERNEL(mivc_scores_bf16_small, Direct<__nv_bfloat16>, SmallTile, 4)
MIVC_KERNEL(mivc_scores_bf16_medium, Direct<__nv_bfloat16>, MediumTile, 2)
MIVC_KERNEL(mivc_scores_bf16_large, Direct<__nv_bfloat16>, LargeTile, 1)

}  // namespace mivc
