// Rows of an exact sum in shared memory: their scales and exponents, and an order by these, so that rows of the same one
// are summed in registers.
#pragma once
#include "sums_in_shared.cuh"
#include "terms.cuh"

namespace mivc {

// Rows of a tile at most, and exponents from the greatest of a tile down: what is below is not kept.
constexpr int MOST_ROWS = MIVC_EXACT_TILE_BYTES / MIVC_EXACT_COLUMNS / 2;
constexpr int EXPONENTS = 128;
static_assert(EXPONENTS > KEPT_BINS * BIN_WIDTH && EXPONENTS % 32 == 0, "a warp counts them");
// Rows that are added at once. Those of one exponent are filled up with rows of scale 0.
constexpr int ROWS_AT_ONCE = 4;
static_assert(MOST_ROWS + ROWS_AT_ONCE <= 256, "integers of 32 bits");

template <typename T>
constexpr int TILE_ROWS = MIVC_EXACT_TILE_BYTES / MIVC_EXACT_COLUMNS / sizeof(T);
// Each thread has so many rows of a tile.
template <typename T>
constexpr int ROWS_OF_THREAD = TILE_ROWS<T> / THREADS;
// Elements from row to row of a tile: 16 bytes more than are there, so that threads that walk down a row each are in
// different banks.
template <typename T>
constexpr int LINE = MIVC_EXACT_COLUMNS + VECTOR_ELEMENTS<T>;
template <typename T>
constexpr int TILE_BYTES = TILE_ROWS<T> * LINE<T> * sizeof(T);

// What a row is multiplied with.
struct Row {
    Power weight;     // mantissa 0 where the row takes no part
    float score;      // what its infinities and NaNs go with
    bool is_special;  // an infinite weight, or NaN, in the mantissa
};

// A row with its place in the order.
struct alignas(8) Entry {
    float scale;
    int32_t offset;  // bytes from the first row
};

// Rows of one exponent end here.
struct alignas(8) Run {
    int32_t below;  // the greatest exponent
    int32_t end;
};

struct Order {
    alignas(16) Entry entries[MOST_ROWS * ROWS_AT_ONCE];
    Run runs[MOST_ROWS];
    int32_t run_count;
    int32_t counts[EXPONENTS];
    int64_t greatest_of_warp[WARPS];
};

// The bits of the greatest magnitude of a row of a tile, as f32. Magnitudes compare as their bits do.
__device__ __forceinline__ uint32_t greatest_magnitude(const float* row) {
    uint32_t greatest = 0;
#pragma unroll 8
    for (int column = 0; column < MIVC_EXACT_COLUMNS; column += VECTOR_ELEMENTS<float>) {
        const uint4 words = *reinterpret_cast<const uint4*>(row + column);
        for (uint32_t word : {words.x, words.y, words.z, words.w}) greatest = max(greatest, word & 0x7fffffff);
    }
    return greatest;
}

template <typename Pair, typename T>
__device__ __forceinline__ uint32_t greatest_magnitude_of_pairs(const T* row) {
    Pair greatest = {};
#pragma unroll 8
    for (int column = 0; column < MIVC_EXACT_COLUMNS; column += VECTOR_ELEMENTS<T>) {
        const uint4 words = *reinterpret_cast<const uint4*>(row + column);
        for (uint32_t word : {words.x, words.y, words.z, words.w}) {
            Pair pair;
            memcpy(&pair, &word, sizeof pair);
            greatest = __hmax2_nan(greatest, __habs2(pair));
        }
    }
    uint32_t bits;
    memcpy(&bits, &greatest, sizeof bits);
    return __float_as_uint(element_f32(max(bits & 0xffff, bits >> 16), false, T()));
}

__device__ __forceinline__ uint32_t greatest_magnitude(const __half* row) {
    return greatest_magnitude_of_pairs<__half2>(row);
}

__device__ __forceinline__ uint32_t greatest_magnitude(const __nv_bfloat16* row) {
    return greatest_magnitude_of_pairs<__nv_bfloat162>(row);
}

// Notes the infinities and NaNs of a row, which become 0. Returns the bits of the greatest magnitude of what is left.
template <typename T>
__device__ __noinline__ uint32_t take_out_specials(Row row, int columns, T* elements, Sums& sums) {
    uint32_t magnitude = 0;
    for (int column = 0; column < columns; column++) {
        const float x = to_f32(elements[column]);
        if (row.is_special || !isfinite(x)) {
            add_special(sums, column, x * row.weight.mantissa, row.score);
            elements[column] = from_f32<T>(0);
        } else {
            magnitude = max(magnitude, __float_as_uint(fabsf(x)));
        }
    }
    return magnitude;
}

// The scale of a row of a tile; of exponent NO_BIN where it adds nothing.
template <typename T>
__device__ __forceinline__ Scale measure(const Row& row, int columns, T* elements, Sums& sums) {
    if (row.weight.mantissa == 0) return {0, NO_BIN};
    uint32_t magnitude = greatest_magnitude(elements);
    if (magnitude >= __float_as_uint(INFINITY) || row.is_special) {
        magnitude = take_out_specials(row, columns, elements, sums);
    }
    if (magnitude == 0) return {0, NO_BIN};
    return scale_of(row.weight, __uint_as_float(magnitude));
}

// Of all threads.
__device__ __forceinline__ int64_t greatest_of_block(int64_t value, int64_t (&of_warp)[WARPS]) {
    value = greatest_of_lanes(value, 1);
    if (threadIdx.x % 32 == 0) of_warp[threadIdx.x / 32] = value;
    __syncthreads();
#pragma unroll
    for (int warp = 0; warp < WARPS; warp++) value = max(value, of_warp[warp]);
    return value;
}

// Turns counts of rows into where the first goes, and writes down the runs and what they are filled up with. A warp does it.
__device__ __forceinline__ void place_runs(Order& order) {
    const int lane = threadIdx.x;
    int before = 0, runs = 0;
    for (int start = 0; start < EXPONENTS; start += 32) {
        const int count = order.counts[start + lane];
        const int filled = (count + ROWS_AT_ONCE - 1) / ROWS_AT_ONCE * ROWS_AT_ONCE;
        int end = filled;
        for (int d = 1; d < 32; d *= 2) {
            const int other = __shfl_up_sync(0xffffffff, end, d);
            if (lane >= d) end += other;
        }
        end += before;
        const unsigned used = __ballot_sync(0xffffffff, count > 0);
        if (count > 0) {
            order.runs[runs + __popc(used & ((1u << lane) - 1))] = {start + lane, end};
            for (int i = end - filled + count; i < end; i++) order.entries[i] = {0, 0};
        }
        order.counts[start + lane] = end - filled;
        before = __shfl_sync(0xffffffff, end, 31);
        runs += __popc(used);
    }
    if (lane == 0) order.run_count = runs;
}

// Puts rows of a tile, of which each thread has N, THREADS apart, in the order of their exponents. Returns the greatest.
template <typename T, int N>
__device__ __forceinline__ int64_t sort_rows(const Scale (&scales)[N], Order& order) {
    for (int i = threadIdx.x; i < EXPONENTS; i += THREADS) order.counts[i] = 0;
    int64_t greatest = NO_BIN;
#pragma unroll
    for (const Scale& scale : scales) greatest = max(greatest, scale.exponent);
    greatest = greatest_of_block(greatest, order.greatest_of_warp);

    // What is EXPONENTS below the greatest is in none of the bins that are kept.
    const auto is_kept = [&](const Scale& scale) {
        return scale.exponent != NO_BIN && greatest - scale.exponent < EXPONENTS;
    };
#pragma unroll
    for (const Scale& scale : scales) {
        if (is_kept(scale)) atomicAdd(&order.counts[greatest - scale.exponent], 1);
    }
    __syncthreads();
    if (threadIdx.x < 32) place_runs(order);
    __syncthreads();
#pragma unroll
    for (int i = 0; i < N; i++) {
        if (!is_kept(scales[i])) continue;
        const int place = atomicAdd(&order.counts[greatest - scales[i].exponent], 1);
        const int row = i * THREADS + threadIdx.x;
        order.entries[place] = {scales[i].scale, int32_t(row * LINE<T> * sizeof(T))};
    }
    __syncthreads();
    return greatest;
}

// Adds the rows of a tile, those of one exponent at a time.
template <typename T>
__device__ __forceinline__ void sum_rows(int64_t greatest, const Order& order, const T* tile, Bins& bins) {
    struct alignas(COLUMNS * sizeof(T)) Words {
        uint32_t at[COLUMNS * sizeof(T) / sizeof(uint32_t)];
    };
    struct alignas(16) Entries {
        Entry at[ROWS_AT_ONCE];
    };
    constexpr int OF_WORD = sizeof(uint32_t) / sizeof(T);
    const auto* columns = reinterpret_cast<const char*>(tile + bins.first);
    const int runs = order.run_count;
    int start = 0;
    for (int i = 0; i < runs; i++) {
        const Run run = order.runs[i];
        uint32_t high[COLUMNS] = {}, low[COLUMNS] = {};
        for (int first = start; first < run.end; first += ROWS_AT_ONCE) {
            const Entries rows = *reinterpret_cast<const Entries*>(order.entries + first);
            Words words[ROWS_AT_ONCE];
#pragma unroll
            for (int row = 0; row < ROWS_AT_ONCE; row++) {
                words[row] = *reinterpret_cast<const Words*>(columns + rows.at[row].offset);
            }
#pragma unroll
            for (int row = 0; row < ROWS_AT_ONCE; row++) {
#pragma unroll
                for (int j = 0; j < COLUMNS; j++) {
                    const float x = element_f32(words[row].at[j / OF_WORD], j % OF_WORD == 1, T());
                    const Limbs limbs = limbs_of(rows.at[row].scale, x);
                    high[j] += limbs.high;
                    low[j] += limbs.low;
                }
            }
        }
        int64_t terms[COLUMNS];
#pragma unroll
        for (int j = 0; j < COLUMNS; j++) terms[j] = term_of_limbs(high[j], low[j], run.end - start);
        bins.add(greatest - run.below, terms);
        start = run.end;
    }
}

}  // namespace mivc
