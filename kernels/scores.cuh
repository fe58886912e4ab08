// From the sums of a tile to scores: biases, tanh and gate in registers, then the product with w. A score is the sum of
// its bias and the parts of each pass, in their order.
#pragma once
#include "gate.cuh"
#include "product.cuh"

namespace mivc {

// Turns sums of V h and U h into hidden units. A gated unit is where its column of V was, beside a 0; padding is 0,
// whatever its sums are. keep(line, unit, tanh, sigma) gets the activations of each.
template <typename Tile, typename Keep>
__device__ __forceinline__ void activate(const MivcPacked& packed, const Columns& columns, typename Tile::Sums& sums,
                                         const Keep& keep) {
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
                const int line = Tile::row(i) + 8 * row + lane / 4;
                const float tanh = tanhf(left + bias.x);
                if (packed.is_gated) {
                    const float sigma = sigmoid(right + bias.y);
                    left = column < packed.columns ? tanh * sigma : 0;
                    right = 0;
                    if (column < packed.columns) keep(line, column / 2, tanh, sigma);
                } else {
                    const float next = tanhf(right + bias.y);
                    left = column < packed.columns ? tanh : 0;
                    right = column + 1 < packed.columns ? next : 0;
                    if (column < packed.columns) keep(line, column, tanh, 0);
                    if (column + 1 < packed.columns) keep(line, column + 1, next, 0);
                }
            }
        }
    }
}

struct KeepNothing {
    __device__ __forceinline__ void operator()(int, int64_t, float, float) const {}
};

// Parts of scores, from each column of warps, of HEADS heads at once.
template <typename Tile, int HEADS>
struct Exchange {
    float parts[HEADS][Tile::ACROSS][Tile::ROWS];
};

// What the warp's columns give to the scores of head `head`: of the rows lane / 4 and 8 further of each fragment.
template <typename Tile>
struct Parts {
    float of_row[Tile::DOWN_FRAGMENTS][2] = {};

    __device__ __forceinline__ Parts(const MivcPacked& packed, const Columns& columns, int64_t head,
                                     const typename Tile::Sums& units) {
        const int lane = threadIdx.x % 32;
        const auto* weights = pointer<const float>(packed.column_weights) + head * packed.group_columns +
                              columns.first + Tile::first_column() + lane % 4 * 2;
#pragma unroll
        for (int j = 0; j < Tile::ACROSS_FRAGMENTS; j++) {
            const float2 w = *reinterpret_cast<const float2*>(weights + 8 * j);
#pragma unroll
            for (int i = 0; i < Tile::DOWN_FRAGMENTS; i++) {
#pragma unroll
                for (int row = 0; row < 2; row++) {
                    of_row[i][row] = fmaf(w.x, units.at[i][j][2 * row], of_row[i][row]);
                    of_row[i][row] = fmaf(w.y, units.at[i][j][2 * row + 1], of_row[i][row]);
                }
            }
        }
    }

    // put(line, part), from one lane for each line.
    template <typename Put>
    __device__ __forceinline__ void for_each(const Put& put) const {
        const int lane = threadIdx.x % 32;
#pragma unroll
        for (int i = 0; i < Tile::DOWN_FRAGMENTS; i++) {
#pragma unroll
            for (int row = 0; row < 2; row++) {
                float part = of_row[i][row];
                part += __shfl_xor_sync(0xffffffff, part, 1);
                part += __shfl_xor_sync(0xffffffff, part, 2);
                if (lane % 4 == 0) put(Tile::row(i) + 8 * row + lane / 4, part);
            }
        }
    }
};

// Adds what the hidden units of these columns give to the scores of the tile's rows. `scores` says whether they are
// wanted; and of each line whether it has one (`is_row`), where (`at`), and whether the row is there; those that are not
// get -inf. The first columns of a group begin with the bias.
template <typename Tile, int HEADS, typename Scores>
__device__ __forceinline__ void add_scores(const MivcPacked& packed, const Columns& columns,
                                           const typename Tile::Sums& units, Exchange<Tile, HEADS>& exchange,
                                           const Scores& scores) {
    if (!scores.are_wanted()) return;
    const int64_t heads_of_group = packed.heads / packed.groups;
    const int64_t first_head = columns.group * heads_of_group, last_head = first_head + heads_of_group;
    for (int64_t start = first_head; start < last_head; start += HEADS) {
        const int heads = int(min(last_head - start, int64_t(HEADS)));
        for (int head = 0; head < heads; head++) {
            float* parts = exchange.parts[head][Tile::first_column() / Tile::WARP_COLUMNS];
            Parts<Tile>(packed, columns, start + head, units).for_each([&](int line, float part) {
                parts[line] = part;
            });
        }
        __syncthreads();
        for (int i = threadIdx.x; i < heads * Tile::ROWS; i += Tile::THREADS) {
            const int line = i / heads, head = i % heads;
            if (!scores.is_row(line)) break;
            float* score = scores.at(line, start + head);
            float sum = columns.first == 0 ? pointer<const float>(packed.score_bias)[start + head] : *score;
#pragma unroll
            for (int part = 0; part < Tile::ACROSS; part++) sum += exchange.parts[head][part][line];
            *score = scores.is_there(line) ? sum : -INFINITY;
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
            const int line = Tile::row(i) + 8 * row + lane / 4;
            if (!all_finite) atomicOr(&noted[line / 32], 1u << line % 32);
        }
    }
}

// V h or U h of one column, in one chain.
template <typename Scores>
__device__ __forceinline__ float plain_product(const MivcPacked& packed, int line, int64_t column,
                                               const Scores& scores) {
    const auto* v = pointer<const float>(packed.matrix) + column * packed.padded_dim;
    float sum = 0;
    for (int64_t d = 0; d < packed.dim; d++) sum = fmaf(scores.feature(line, d), v[d], sum);
    return sum + pointer<const float>(packed.column_bias)[column];
}

// keep(line, unit, tanh, sigma), of a group, where `scores` keeps activations.
template <typename Scores>
struct Keep {
    const Scores& scores;
    const int64_t group;

    __device__ __forceinline__ void operator()([[maybe_unused]] int line, [[maybe_unused]] int64_t unit,
                                               [[maybe_unused]] float tanh, [[maybe_unused]] float sigma) const {
        if constexpr (Scores::KEEPS) {
            if (scores.keeps()) scores.keep(line, group, unit, tanh, sigma);
        }
    }
};

// Scores a row without splitting its features, one warp for all heads of a group, a lane for a unit. Here `scores` gives
// the features, too.
template <typename Scores>
__device__ __forceinline__ void score_plainly(const MivcPacked& packed, int64_t group, int line, const Scores& scores) {
    const int lane = threadIdx.x % 32, matrices = packed.is_gated ? 2 : 1;
    const int64_t heads_of_group = packed.heads / packed.groups;
    for (int64_t first = 0; first < packed.columns; first += 32 * matrices) {
        const int64_t column = first + lane * matrices, packed_column = group * packed.group_columns + column;
        float unit = 0;
        if (column < packed.columns) {
            const float tanh = tanhf(plain_product(packed, line, packed_column, scores));
            const float sigma =
                packed.is_gated ? sigmoid(plain_product(packed, line, packed_column + 1, scores)) : 1.0f;
            Keep<Scores>{scores, group}(line, column / matrices, tanh, sigma);
            unit = tanh * sigma;
        }
        if (!scores.are_wanted()) continue;
        for (int64_t head = group * heads_of_group; head < (group + 1) * heads_of_group; head++) {
            float part = 0;
            if (column < packed.columns) {
                part = unit * pointer<const float>(packed.column_weights)[head * packed.group_columns + column];
            }
            for (int distance = 16; distance > 0; distance /= 2) {
                part += __shfl_xor_sync(0xffffffff, part, distance);
            }
            float* score = scores.at(line, head);
            if (lane == 0) *score = part + (first == 0 ? pointer<const float>(packed.score_bias)[head] : *score);
        }
    }
}

// Scores the rows of a tile: what `source` gives is multiplied pass by pass (product.cuh), and becomes scores while the
// copies of the next pass are under way. Afterwards all threads may read them.
template <typename Product, typename Tile, int HEADS, typename Source, typename Scores>
__device__ __forceinline__ void score_tile(const MivcPacked& packed, const Source& source,
                                           Exchange<Tile, HEADS>& exchange, const Scores& scores) {
    // Of the group that is multiplied: a NaN in V of one must change no bit of another's scores.
    __shared__ unsigned infinite_rows[Tile::ROWS / 32];
    const auto forget_rows = [&] {
        if (Product::LOSES_INFINITIES && threadIdx.x < Tile::ROWS / 32) infinite_rows[threadIdx.x] = 0;
    };
    forget_rows();
    multiply<Product, Tile>(packed, source, [&](const Columns& columns, typename Tile::Sums& sums) {
        if constexpr (Product::LOSES_INFINITIES) note_infinite_rows<Tile>(sums, infinite_rows);
        activate<Tile>(packed, columns, sums, Keep<Scores>{scores, columns.group});
        add_scores<Tile>(packed, columns, sums, exchange, scores);
        if constexpr (Product::LOSES_INFINITIES) {
            if (!columns.are_last_of_group(packed, Tile::COLUMNS)) return;
            // All have noted their rows, also where there are no scores to exchange parts of.
            __syncthreads();
            for (int line = threadIdx.x / 32; line < Tile::ROWS; line += Tile::THREADS / 32) {
                // Rows that are not there were zeros, which a NaN in V or U makes NaN too.
                if (infinite_rows[line / 32] >> line % 32 & 1 && scores.is_row(line) && scores.is_there(line)) {
                    score_plainly(packed, columns.group, line, scores);
                }
            }
            __syncthreads();
            forget_rows();
        }
    });
}

}  // namespace mivc
