// The product of a tile of features and packed columns, by the matrix units or by plain multiply-adds.
//
// A block takes ROWS rows, and in each pass COLUMNS columns, and walks through their depth D in steps of 64 bytes.
// Three stages lie in shared memory: one is multiplied while cp.async fills the next two, those of the next pass while
// the sums of one are made scores. (Who keeps the rows has more places for them, and begins their copies earlier.) Each
// line of a stage is four chunks of 16 bytes, placed so that eight lines at one depth lie in different banks (`slot`),
// which makes both the copies and ldmatrix free of conflicts.
//
// Sums are where mma.sync leaves them, whoever makes them: fragment (i, j) of a warp is 16 rows by 8 columns, of which
// a lane has rows lane / 4 and 8 further, columns 2 (lane % 4) and the next. So a gated unit, whose columns of V and U
// are neighbours, is in one lane.
#pragma once
#include "numeric.cuh"

namespace mivc {

constexpr int DEPTH_BYTES = MIVC_TILE_DEPTH_BYTES, STAGES = MIVC_TILE_STAGES;
constexpr int CHUNK_BYTES = 16, CHUNKS = DEPTH_BYTES / CHUNK_BYTES;

// Warps, and fragments of each, down and across.
template <int WARPS_DOWN, int WARPS_ACROSS, int FRAGMENTS_DOWN, int FRAGMENTS_ACROSS>
struct Tile {
    static constexpr int ACROSS = WARPS_ACROSS, DOWN_FRAGMENTS = FRAGMENTS_DOWN, ACROSS_FRAGMENTS = FRAGMENTS_ACROSS;
    static constexpr int WARP_ROWS = 16 * FRAGMENTS_DOWN, WARP_COLUMNS = 8 * FRAGMENTS_ACROSS;
    static constexpr int ROWS = WARPS_DOWN * WARP_ROWS, COLUMNS = WARPS_ACROSS * WARP_COLUMNS;
    static constexpr int THREADS = 32 * WARPS_DOWN * WARPS_ACROSS;
    static_assert(FRAGMENTS_ACROSS % 2 == 0, "ldmatrix loads two at once");

    struct Sums {
        float at[FRAGMENTS_DOWN][FRAGMENTS_ACROSS][4];
    };

    // Where the warp's fragments begin.
    __device__ __forceinline__ static int first_row() { return threadIdx.x / 32 / WARPS_ACROSS * WARP_ROWS; }
    // Of fragment i.
    __device__ __forceinline__ static int row(int i) { return first_row() + 16 * i; }
    __device__ __forceinline__ static int first_column() { return threadIdx.x / 32 % WARPS_ACROSS * WARP_COLUMNS; }
};

// 64 bytes of each row or column.
using Lines = uint4 (*)[CHUNKS];

__device__ __forceinline__ int slot(int line, int chunk) { return chunk ^ (line / 2 % CHUNKS); }

// Four 8 x 8 matrices of words for mma: of lines `first` to `first` + 15, at 32 bytes of their depth. `across`: the
// order in which the factor B has them, two fragments of 8 columns; else that of A, one of 16 rows.
__device__ __forceinline__ void load_fragment(uint32_t (&fragment)[4], Lines lines, int first, int half,
                                              bool across) {
    const int lane = threadIdx.x % 32;
    const int line = first + (across ? lane / 16 * 8 + lane % 8 : lane % 16);
    const int chunk = 2 * half + (across ? lane / 8 % 2 : lane / 16);
    load_matrices(fragment, &lines[line][slot(line, chunk)]);
}

// f16 and bf16, on the matrix units.
template <typename T>
struct Direct {
    using Element = T;
    // Whether sums that are not finite may be wrong.
    static constexpr bool LOSES_INFINITIES = false;

    template <typename Tile>
    __device__ __forceinline__ static void multiply(Lines rows, Lines columns, typename Tile::Sums& sums) {
#pragma unroll
        for (int half = 0; half < CHUNKS / 2; half++) {
            uint32_t a[Tile::DOWN_FRAGMENTS][4];
#pragma unroll
            for (int i = 0; i < Tile::DOWN_FRAGMENTS; i++) {
                load_fragment(a[i], rows, Tile::row(i), half, false);
            }
#pragma unroll
            for (int j = 0; j < Tile::ACROSS_FRAGMENTS; j += 2) {
                uint32_t b[4];
                load_fragment(b, columns, Tile::first_column() + 8 * j, half, true);
#pragma unroll
                for (int i = 0; i < Tile::DOWN_FRAGMENTS; i++) {
                    multiply_add(sums.at[i][j], a[i], {b[0], b[1]});
                    multiply_add(sums.at[i][j + 1], a[i], {b[2], b[3]});
                }
            }
        }
    }

    __device__ __forceinline__ static void multiply_add(float (&d)[4], const uint32_t (&a)[4],
                                                        const uint32_t (&b)[2]) {
        if constexpr (std::is_same_v<T, __half>) {
            multiply_add_f16(d, a, b);
        } else {
            multiply_add_bf16(d, a, b);
        }
    }
};

// f32 as the sum of two TF32, on the matrix units: x y = x0 y0 + x0 y1 + x1 y0, without x1 y1. The units cut off their
// sums, so each 8 features are added to the rest in f32. Where `COLUMNS_ARE_TF32`, y1 is 0.
template <bool COLUMNS_ARE_TF32>
struct SplitInto {
    using Element = float;
    static constexpr bool LOSES_INFINITIES = true;

    template <int N>
    __device__ __forceinline__ static void split(const uint32_t (&words)[N], uint32_t (&upper)[N],
                                                 uint32_t (&lower)[N]) {
#pragma unroll
        for (int i = 0; i < N; i++) {
            const float x = __uint_as_float(words[i]);
            upper[i] = to_tf32(x);
            lower[i] = to_tf32(x - __uint_as_float(upper[i]));
        }
    }

    template <typename Tile>
    __device__ __forceinline__ static void multiply(Lines rows, Lines columns, typename Tile::Sums& sums) {
        // One after the other where there are many sums: both at once would not fit the registers.
        constexpr int UNROLLED = Tile::DOWN_FRAGMENTS > 1 ? 1 : CHUNKS / 2;
#pragma unroll UNROLLED
        for (int half = 0; half < CHUNKS / 2; half++) {
            uint32_t upper[Tile::DOWN_FRAGMENTS][4], lower[Tile::DOWN_FRAGMENTS][4];
#pragma unroll
            for (int i = 0; i < Tile::DOWN_FRAGMENTS; i++) {
                uint32_t a[4];
                load_fragment(a, rows, Tile::row(i), half, false);
                split(a, upper[i], lower[i]);
            }
#pragma unroll
            for (int j = 0; j < Tile::ACROSS_FRAGMENTS; j += 2) {
                uint32_t b[4], above[4], below[4];
                load_fragment(b, columns, Tile::first_column() + 8 * j, half, true);
                split(b, above, below);
#pragma unroll
                for (int i = 0; i < Tile::DOWN_FRAGMENTS; i++) {
                    add_products(sums.at[i][j], upper[i], lower[i], {above[0], above[1]}, {below[0], below[1]});
                    add_products(sums.at[i][j + 1], upper[i], lower[i], {above[2], above[3]}, {below[2], below[3]});
                }
            }
        }
    }

    __device__ __forceinline__ static void add_products(float (&sums)[4], const uint32_t (&upper)[4],
                                                        const uint32_t (&lower)[4], const uint32_t (&above)[2],
                                                        const uint32_t (&below)[2]) {
        float products[4] = {};
        multiply_add_tf32(products, lower, above);
        if constexpr (!COLUMNS_ARE_TF32) multiply_add_tf32(products, upper, below);
        multiply_add_tf32(products, upper, above);
#pragma unroll
        for (int e = 0; e < 4; e++) sums[e] += products[e];
    }
};
using Split = SplitInto<false>;

// f32 by multiply-adds: each sum is one chain over D.
struct Plain {
    using Element = float;
    static constexpr bool LOSES_INFINITIES = false;

    template <typename Tile>
    __device__ __forceinline__ static void multiply(Lines rows, Lines columns, typename Tile::Sums& sums) {
        const int lane = threadIdx.x % 32;
        // One after the other where there are many sums: all at once would not fit the registers.
        constexpr int UNROLLED = Tile::DOWN_FRAGMENTS > 1 ? 1 : CHUNKS;
#pragma unroll UNROLLED
        for (int chunk = 0; chunk < CHUNKS; chunk++) {
            float4 a[Tile::DOWN_FRAGMENTS][2];
#pragma unroll
            for (int i = 0; i < Tile::DOWN_FRAGMENTS; i++) {
#pragma unroll
                for (int k = 0; k < 2; k++) {
                    a[i][k] = load(rows, Tile::row(i) + 8 * k + lane / 4, chunk);
                }
            }
#pragma unroll
            for (int j = 0; j < Tile::ACROSS_FRAGMENTS; j++) {
#pragma unroll
                for (int k = 0; k < 2; k++) {
                    const int line = Tile::first_column() + 8 * j + lane % 4 * 2 + k;
                    const float4 b = load(columns, line, chunk);
#pragma unroll
                    for (int i = 0; i < Tile::DOWN_FRAGMENTS; i++) {
                        add_products(sums.at[i][j][k], a[i][0], b);
                        add_products(sums.at[i][j][2 + k], a[i][1], b);
                    }
                }
            }
        }
    }

    __device__ __forceinline__ static float4 load(Lines lines, int line, int chunk) {
        return reinterpret_cast<const float4&>(lines[line][slot(line, chunk)]);
    }

    __device__ __forceinline__ static void add_products(float& sum, const float4& a, const float4& b) {
        sum = fmaf(a.x, b.x, sum);
        sum = fmaf(a.y, b.y, sum);
        sum = fmaf(a.z, b.z, sum);
        sum = fmaf(a.w, b.w, sum);
    }
};

__device__ __forceinline__ bool is_there(const MivcFeatures& features, int64_t row) {
    const auto* mask = pointer<const uint8_t>(features.mask);
    return mask == nullptr || mask[row] != 0;
}

// What each of THREADS threads, some warps of a block, copies of so many lines: a chunk of each LINE_STEP-th.
template <int ALL_LINES, int THREADS>
struct Share {
    static constexpr int LINE_STEP = THREADS / CHUNKS, LINES = ALL_LINES / LINE_STEP;
    static_assert(ALL_LINES % LINE_STEP == 0, "threads copy equally many chunks");

    __device__ __forceinline__ static int chunk() { return threadIdx.x % CHUNKS; }
    __device__ __forceinline__ static int line(int i) { return threadIdx.x % THREADS / CHUNKS + i * LINE_STEP; }
};

// Fills lines from features that may lie anywhere. Rows that are not there, or from `last_row` on, are 0 and not read.
template <int ROWS, int THREADS, typename T>
struct RowLoader {
    using Own = Share<ROWS, THREADS>;
    static constexpr int ELEMENTS = CHUNK_BYTES / sizeof(T);

    const MivcFeatures& features;
    const int64_t dim;
    const T* first;        // of the tile's rows
    unsigned present = 0;  // a bit for each of the thread's lines

    __device__ __forceinline__ RowLoader(const MivcFeatures& features, int64_t dim, int64_t first_row,
                                         int64_t last_row)
        : features(features), dim(dim), first(pointer<const T>(features.rows) + first_row * features.row_stride) {
#pragma unroll
        for (int i = 0; i < Own::LINES; i++) {
            const int64_t row = first_row + Own::line(i);
            if (row < last_row && is_there(features, row)) present |= 1u << i;
        }
    }

    __device__ __forceinline__ void fetch(Lines lines, int64_t step) const {
        const int chunk = Own::chunk();
        const int64_t d = step * (DEPTH_BYTES / sizeof(T)) + chunk * ELEMENTS;
        const int elements = int(min(max(dim - d, int64_t(0)), int64_t(ELEMENTS)));
#pragma unroll
        for (int i = 0; i < Own::LINES; i++) {
            const int line = Own::line(i);
            uint4* to = &lines[line][slot(line, chunk)];
            const int count = present >> i & 1 ? elements : 0;
            // Nothing is read where there is nothing, but an address must be one.
            const T* from = count > 0 ? first + line * features.row_stride + d : pointer<const T>(features.rows);
            if (features.is_aligned) {
                copy_async(to, from, count * sizeof(T));
            } else {
                *to = gather(from, count);
            }
        }
    }

    __device__ __forceinline__ static uint4 gather(const T* from, int count) {
        T elements[ELEMENTS];
#pragma unroll
        for (int i = 0; i < ELEMENTS; i++) elements[i] = i < count ? from[i] : from_f32<T>(0);
        uint4 bits;
        memcpy(&bits, elements, sizeof bits);
        return bits;
    }
};

template <int COLUMNS, int THREADS, typename T>
__device__ __forceinline__ void fetch_columns(Lines lines, const T* columns, int64_t padded_dim, int64_t step) {
    using Own = Share<COLUMNS, THREADS>;
    const int chunk = Own::chunk();
    const T* from = columns + step * (DEPTH_BYTES / sizeof(T)) + chunk * (CHUNK_BYTES / sizeof(T));
#pragma unroll
    for (int i = 0; i < Own::LINES; i++) {
        const int line = Own::line(i);
        copy_async(&lines[line][slot(line, chunk)], from + line * padded_dim, CHUNK_BYTES);
    }
}

// A step of all rows and columns.
template <typename Tile>
struct Stage {
    uint4 rows[Tile::ROWS][CHUNKS];
    uint4 columns[Tile::COLUMNS][CHUNKS];
};

// Rows and columns, both from memory in every pass.
template <typename Tile, typename T>
struct FlatSource {
    const MivcPacked& packed;
    const RowLoader<Tile::ROWS, Tile::THREADS, T> loader;
    Stage<Tile>* stages;

    __device__ __forceinline__ void fetch(int stage, int step, const T* matrix, bool) const {
        loader.fetch(stages[stage].rows, step);
        fetch_columns<Tile::COLUMNS, Tile::THREADS>(stages[stage].columns, matrix, packed.padded_dim, step);
    }
    __device__ __forceinline__ static constexpr int steps_ahead() { return STAGES - 1; }
    __device__ __forceinline__ static void wait() { copy_async_wait<STAGES - 2>(); }
    __device__ __forceinline__ Lines rows(int stage, int) const { return stages[stage].rows; }
    __device__ __forceinline__ Lines columns(int stage) const { return stages[stage].columns; }
};

// Columns of one group that a pass takes.
struct Columns {
    int64_t group = 0;
    int64_t first = 0;  // within the group

    __device__ __forceinline__ void advance(const MivcPacked& packed, int columns_at_once) {
        const bool is_next_group = are_last_of_group(packed, columns_at_once);
        first = is_next_group ? 0 : first + columns_at_once;
        group += is_next_group;
    }

    __device__ __forceinline__ bool are_last_of_group(const MivcPacked& packed, int columns_at_once) const {
        return first + columns_at_once >= packed.columns;
    }

    // Where they are packed.
    template <typename T>
    __device__ __forceinline__ const T* matrix(const MivcPacked& packed) const {
        return pointer<const T>(packed.matrix) + (group * packed.group_columns + first) * packed.padded_dim;
    }
};

// Multiplies pass after pass, and gives the sums of each to `finish(columns, sums)`. `source` has
// fetch(stage, step, matrix, is_first), which begins the thread's copies of a step of a pass; rows(stage, step) and
// columns(stage), where they arrive; steps_ahead(), how many steps before their product the thread begins them; and
// wait(), until those of the next product have arrived.
template <typename Product, typename Tile, typename Source, typename Finish>
__device__ __forceinline__ void multiply(const MivcPacked& packed, const Source& source, const Finish& finish) {
    using T = typename Product::Element;
    const int steps = int(packed.padded_dim / (DEPTH_BYTES / sizeof(T)));
    Columns next;
    const T* next_matrix = next.matrix<T>(packed);
    int next_step = 0, next_stage = 0, stage = 0;
    bool is_first = true;
    auto fetch = [&] {
        if (next.group < packed.groups) source.fetch(next_stage, next_step, next_matrix, is_first);
        // Empty at the end, so that the waits can count groups.
        copy_async_commit();
        next_stage = next_stage + 1 == STAGES ? 0 : next_stage + 1;
        if (++next_step < steps) return;
        next_step = 0;
        is_first = false;
        next.advance(packed, Tile::COLUMNS);
        next_matrix = next.matrix<T>(packed);
    };
    const int steps_ahead = source.steps_ahead();
    for (int i = 0; i < steps_ahead; i++) fetch();
    for (Columns columns; columns.group < packed.groups; columns.advance(packed, Tile::COLUMNS)) {
        typename Tile::Sums sums = {};
        for (int step = 0; step < steps; step++) {
            source.wait();
            // All threads' copies have arrived, and all threads have multiplied what the next copies overwrite.
            __syncthreads();
            fetch();
            Product::template multiply<Tile>(source.rows(stage, step), source.columns(stage), sums);
            stage = stage + 1 == STAGES ? 0 : stage + 1;
        }
        finish(columns, sums);
    }
    copy_async_wait<0>();
}

}  // namespace mivc
