// Attention scores: s[n, k] = w[k] . (tanh(V h[n] + b_v) * sigma(U h[n] + b_u)) + c[k], or without the gate.
//
// A block scores the rows of a flat tile, whatever bags they belong to (scores.cuh). No [N, L] array exists, but where
// the activations are kept for a backward. Which tile is used depends on type and columns alone, so a row's bits on
// nothing but the row.
#include "scores.cuh"

namespace mivc {

using SmallTile = Tile<4, 1, 1, 4>;
// Of f32: with the fragments of the others its sums would not fit the registers. There is no large one; f32 products
// take so long that reading a tile of rows once more, from the second-level cache, hides behind them.
using MediumF32Tile = Tile<2, 2, 2, 8>;
using MediumTile = Tile<2, 2, 4, 8>;
using LargeTile = Tile<2, 4, 4, 8>;
#define MIVC_EXPECT_TILE(name, NAME)                                                                             \
    static_assert(name::ROWS == MIVC_##NAME##_TILE_ROWS && name::COLUMNS == MIVC_##NAME##_TILE_COLUMNS &&        \
                      name::ACROSS == MIVC_##NAME##_TILE_ACROSS && name::THREADS == MIVC_##NAME##_TILE_THREADS,  \
                  "as the host has it");
MIVC_EXPECT_TILE(SmallTile, SMALL)
MIVC_EXPECT_TILE(MediumF32Tile, MEDIUM_F32)
MIVC_EXPECT_TILE(MediumTile, MEDIUM)
MIVC_EXPECT_TILE(LargeTile, LARGE)

// Scores and activations in memory, of rows from `first_row` on.
template <typename T>
struct FlatScores {
    const MivcScores& p;
    int64_t first_row;

    __device__ __forceinline__ bool is_row(int line) const { return first_row + line < p.features.instances; }
    __device__ __forceinline__ bool is_there(int line) const { return mivc::is_there(p.features, first_row + line); }
    __device__ __forceinline__ float* at(int line, int64_t head) const {
        return pointer<float>(p.scores) + (first_row + line) * p.packed.heads + head;
    }
    __device__ __forceinline__ float feature(int line, int64_t d) const {
        return pointer<const float>(p.features.rows)[(first_row + line) * p.features.row_stride + d];
    }
    __device__ __forceinline__ bool are_wanted() const { return p.scores != 0; }
    static constexpr bool KEEPS = true;
    __device__ __forceinline__ bool keeps() const { return p.activations.at != 0; }
    // The activations of a unit; those of a row that is not there are 0.
    __device__ __forceinline__ void keep(int line, int64_t group, int64_t unit, float tanh, float sigma) const {
        if (!is_row(line)) return;
        const MivcActivations& to = p.activations;
        const int64_t at = (first_row + line) * to.row_stride + group * to.group_stride + unit;
        const bool is_kept = is_there(line);
        put(at, is_kept ? tanh : 0);
        if (p.packed.is_gated) put(at + p.packed.groups * to.group_stride, is_kept ? sigma : 0);
    }
    __device__ __forceinline__ void put(int64_t at, float activation) const {
        if (p.activations.are_f32) {
            pointer<float>(p.activations.at)[at] = activation;
        } else {
            pointer<T>(p.activations.at)[at] = from_f32<T>(activation);
        }
    }
};

template <typename Product, typename Tile>
__device__ __forceinline__ void scores(const MivcScores& p) {
    using T = typename Product::Element;
    extern __shared__ __align__(128) unsigned char shared[];
    auto* stages = reinterpret_cast<Stage<Tile>*>(shared);
    auto& exchange = *reinterpret_cast<Exchange<Tile, MIVC_SCORES_HEADS_AT_ONCE>*>(stages + STAGES);
    const int64_t first_row = int64_t(blockIdx.x) * Tile::ROWS;
    const FlatSource<Tile, T> source = {p.packed, {p.features, p.packed.dim, first_row, p.features.instances}, stages};
    score_tile<Product>(p.packed, source, exchange, FlatScores<T>{p, first_row});
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
