// Weighted sum, and mean, of the values of each bag, in integers that no order changes.
//
// A block takes a chunk of a bag, one group of columns and one head. It brings a tile of rows to shared memory, finds the
// greatest magnitude of each row there, and with it the row's scale and exponent; sorts the rows by their exponents, so
// that those of the same one are summed in registers; and adds each such sum to the bins of its columns, which lie in
// shared memory too. A thread owns COLUMNS neighbouring columns from the tile to the output, so that nobody waits for
// anybody there.
#include "bins.cuh"
#include "mass.cuh"
#include "terms.cuh"
#include "../work_list.cuh"

namespace mivc {

constexpr int THREADS = MIVC_EXACT_THREADS, WARPS = THREADS / 32;
constexpr int COLUMNS = MIVC_EXACT_COLUMNS / THREADS;
constexpr int ELEMENTS_OF_LANE = MIVC_EXACT_COLUMNS / 32;
// Rows of a tile at most, and exponents from the greatest of a tile down: what is below is not kept.
constexpr int MOST_ROWS = MIVC_EXACT_TILE_BYTES / MIVC_EXACT_COLUMNS / 2;
constexpr int EXPONENTS = 128;
static_assert(EXPONENTS > KEPT_BINS * BIN_WIDTH && EXPONENTS % 32 == 0 && MOST_ROWS <= 256, "exponents and rows");
// Additions after which carries are taken over.
constexpr int CARRY_EVERY = 1 << 14;
// Of a special that has not come up, below every score.
constexpr int32_t NO_SCORE = INT32_MIN;

// A row of a tile: until it has a scale, what it is multiplied with.
struct Row {
    Power weight;      // mantissa 0 where the row takes no part
    float score;       // what its infinities and NaNs go with
    bool is_special;   // an infinite weight, or NaN, in the mantissa
};

// A row with its place in the order of exponents.
struct Entry {
    float scale;
    int32_t row;
};

struct Shared {
    int64_t low[KEPT_BINS][MIVC_EXACT_COLUMNS];
    int64_t high[KEPT_BINS][MIVC_EXACT_COLUMNS];
    // Of +inf, -inf and NaN: the greatest score, as an integer of the same order.
    int32_t specials[3][MIVC_EXACT_COLUMNS];
    Row rows[MOST_ROWS];
    int64_t exponents[MOST_ROWS];
    Entry entries[MOST_ROWS];
    uint32_t magnitudes[MOST_ROWS];
    int32_t counts[EXPONENTS];
    int32_t ends[EXPONENTS];
    int64_t greatest_of_warp[WARPS];
};

static_assert(sizeof(Shared) <= MIVC_EXACT_BLOCK_BYTES, "what a launch asks for");

// Which part of the output the block has.
struct Part {
    int64_t head;
    int64_t first_column;   // of the group
    int columns;            // in the group
    int64_t tile;           // counts the blocks that share a chunk

    // Columns that a tile has, in whole runs of a lane: those beyond the group are 0.
    __device__ __forceinline__ int width() const {
        return (columns + ELEMENTS_OF_LANE - 1) / ELEMENTS_OF_LANE * ELEMENTS_OF_LANE;
    }
};

__device__ __forceinline__ int32_t ordered(float score) {
    const int32_t bits = __float_as_int(score);
    return bits >= 0 ? bits : bits ^ 0x7fffffff;
}

__device__ __forceinline__ float score_of_ordered(int32_t ordered) {
    return __int_as_float(ordered >= 0 ? ordered : ordered ^ 0x7fffffff);
}

// The bins of the columns of a thread, and what all threads of the block know of them.
struct Bins {
    Shared& shared;
    int first;              // of the thread's columns
    int64_t top = NO_BIN;
    int pending = 0;        // additions since carries were taken over
    int64_t count = 0;      // rows that are there

    __device__ __forceinline__ void clear_slot(int slot) {
#pragma unroll
        for (int i = 0; i < COLUMNS; i++) shared.low[slot][first + i] = shared.high[slot][first + i] = 0;
    }

    __device__ __forceinline__ void clear() {
        for (int slot = 0; slot < KEPT_BINS; slot++) clear_slot(slot);
#pragma unroll
        for (int i = 0; i < COLUMNS; i++) {
            for (int kind = 0; kind < 3; kind++) shared.specials[kind][first + i] = NO_SCORE;
        }
        top = NO_BIN;
        pending = 0;
        count = 0;
    }

    // Whether terms of this bin are kept; it becomes the greatest if it is above it.
    __device__ __forceinline__ bool keeps(int64_t bin) {
        if (top == NO_BIN) top = bin;
        if (bin > top) {
            const int entering = int(min(bin - top, int64_t(KEPT_BINS)));
            for (int i = 0; i < entering; i++) clear_slot(slot_of(bin - i));
            top = bin;
        }
        return top - bin < KEPT_BINS;
    }

    __device__ __forceinline__ void carry() {
        for (int slot = 0; slot < KEPT_BINS; slot++) {
#pragma unroll
            for (int i = 0; i < COLUMNS; i++) {
                Word word = at(slot, i);
                word.carry();
                set(slot, i, word);
            }
        }
        pending = 0;
    }

    __device__ __forceinline__ Word at(int slot, int i) const {
        return {shared.low[slot][first + i], shared.high[slot][first + i]};
    }

    __device__ __forceinline__ void set(int slot, int i, const Word& word) {
        shared.low[slot][first + i] = word.low;
        shared.high[slot][first + i] = word.high;
    }

    __device__ __forceinline__ void add(int64_t exponent, const int64_t (&terms)[COLUMNS]) {
        const int64_t bin = bin_of(exponent);
        if (!keeps(bin)) return;
        const int slot = slot_of(bin), shift = shift_of(exponent);
#pragma unroll
        for (int i = 0; i < COLUMNS; i++) {
            Word word = at(slot, i);
            word.add(terms[i], shift);
            set(slot, i, word);
        }
        if (++pending == CARRY_EVERY) carry();
    }

    __device__ __forceinline__ void store(MivcExactSumNode* node) {
        carry();
        for (int slot = 0; slot < KEPT_BINS; slot++) {
#pragma unroll
            for (int i = 0; i < COLUMNS; i++) {
                const Word word = at(slot, i);
                node->low[slot][first + i] = word.low;
                node->high[slot][first + i] = word.high;
            }
        }
#pragma unroll
        for (int i = 0; i < COLUMNS; i++) {
            for (int kind = 0; kind < 3; kind++) node->specials[kind][first + i] = shared.specials[kind][first + i];
        }
        if (threadIdx.x == 0) {
            node->top = top;
            node->count = count;
        }
    }

    __device__ __forceinline__ void merge(const MivcExactSumNode* node) {
        count += node->count;
        const int64_t other = node->top;
        for (int64_t bin = other; other != NO_BIN && bin > other - KEPT_BINS; bin--) {
            if (!keeps(bin)) continue;
            const int slot = slot_of(bin);
#pragma unroll
            for (int i = 0; i < COLUMNS; i++) {
                Word word = at(slot, i);
                word.low += node->low[slot][first + i];
                word.high += node->high[slot][first + i];
                word.carry();
                set(slot, i, word);
            }
        }
#pragma unroll
        for (int i = 0; i < COLUMNS; i++) {
            for (int kind = 0; kind < 3; kind++) {
                int32_t& mine = shared.specials[kind][first + i];
                mine = max(mine, node->specials[kind][first + i]);
            }
        }
    }
};

// What row `row` of the bags is multiplied with.
__device__ __forceinline__ Row row_of(const MivcExactWeightedSum& p, const Part& part, int64_t bag, int64_t row) {
    constexpr Row NONE = {{0, 0}, 0, false};
    const auto* mask = pointer<const uint8_t>(p.mask);
    if (mask != nullptr && mask[row] == 0) return NONE;
    if (p.is_mean) return {{1, 0}, 0, false};
    const int64_t at = row * p.heads + part.head;
    if (p.scores != 0) {
        const float score = pointer<const float>(p.scores)[at];
        if (p.weights != 0 && blockIdx.y == 0) {
            const auto total = pointer<const MivcExactTotal>(p.totals)[bag * p.heads + part.head];
            pointer<float>(p.weights)[at] = weight_of(total, score);
        }
        return isfinite(score) ? Row{exponential_power(score), score, false} : NONE;
    }
    const float weight = pointer<const float>(p.weights)[at];
    if (weight == 0) return NONE;
    if (!isfinite(weight)) return {{weight, 0}, 0, true};
    return {power_of(weight), 0, false};
}

// A tile of rows from `first` on: what each is multiplied with, and its columns. Rows that take no part are not read.
template <typename T>
__device__ __forceinline__ void load_tile(const MivcExactWeightedSum& p, const Part& part, int64_t bag, int64_t first,
                                          int rows, Shared& shared, T* tile) {
    for (int row = threadIdx.x; row < rows; row += THREADS) shared.rows[row] = row_of(p, part, bag, first + row);
    __syncthreads();
    const T* values = pointer<const T>(p.values) + first * p.row_stride + part.head * p.head_stride + part.first_column;
    const int width = part.width();
    if (p.is_aligned) {
        constexpr int VECTOR = VECTOR_ELEMENTS<T>;
        const int vectors = width / VECTOR;
        for (int i = threadIdx.x; i < rows * vectors; i += THREADS) {
            const int row = i / vectors, column = i % vectors * VECTOR;
            const bool is_read = shared.rows[row].weight.mantissa != 0 && column < part.columns;
            copy_async(tile + row * MIVC_EXACT_COLUMNS + column, values + (is_read ? row * p.row_stride + column : 0),
                       is_read ? MIVC_VECTOR_BYTES : 0);
        }
        copy_async_commit();
        copy_async_wait<0>();
    } else {
        for (int i = threadIdx.x; i < rows * width; i += THREADS) {
            const int row = i / width, column = i % width;
            const bool is_read = shared.rows[row].weight.mantissa != 0 && column < part.columns;
            const T x = is_read ? values[row * p.row_stride + column] : from_f32<T>(0);
            tile[row * MIVC_EXACT_COLUMNS + column] = x;
        }
    }
    __syncthreads();
}

// Notes an infinity or a NaN of a column.
__device__ __forceinline__ void add_special(Shared& shared, int column, float term, float score) {
    const int kind = isnan(term) ? 2 : term > 0 ? 0 : 1;
    atomicMax(&shared.specials[kind][column], ordered(score));
}

// The bits of the greatest magnitude of the elements of a lane, as f32. Magnitudes compare as their bits do.
__device__ __forceinline__ uint32_t greatest_magnitude(const float* elements) {
    uint32_t greatest = 0;
#pragma unroll
    for (int i = 0; i < ELEMENTS_OF_LANE; i += 4) {
        const uint4 words = *reinterpret_cast<const uint4*>(elements + i);
        for (uint32_t word : {words.x, words.y, words.z, words.w}) greatest = max(greatest, word & 0x7fffffff);
    }
    return greatest;
}

template <typename T>
__device__ __forceinline__ uint32_t greatest_magnitude(const T* elements) {
    static_assert(sizeof(T) == 2 && ELEMENTS_OF_LANE == 8, "16 bytes");
    const uint4 words = *reinterpret_cast<const uint4*>(elements);
    uint32_t pair = 0;
    for (uint32_t word : {words.x, words.y, words.z, words.w}) pair = __vmaxu2(pair, word & 0x7fff7fff);
    const uint32_t greatest = max(pair & 0xffff, pair >> 16);
    return __float_as_uint(element_f32(greatest, false, T()));
}

// The greatest magnitude of each row, a warp for each. Where there is an infinity or a NaN, it is noted and becomes 0.
template <typename T>
__device__ __forceinline__ void measure(const Part& part, int rows, Shared& shared, T* tile) {
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, first = lane * ELEMENTS_OF_LANE;
    for (int row = warp; row < rows; row += WARPS) {
        T* elements = tile + row * MIVC_EXACT_COLUMNS;
        const Row& it = shared.rows[row];
        uint32_t magnitude = first < part.columns ? greatest_magnitude(elements + first) : 0;
        magnitude = __reduce_max_sync(0xffffffff, magnitude);
        if (magnitude >= __float_as_uint(INFINITY) || it.is_special) {
            magnitude = 0;
            for (int column = first; column < min(first + ELEMENTS_OF_LANE, part.columns); column++) {
                const float x = to_f32(elements[column]);
                if (it.is_special || !isfinite(x)) {
                    add_special(shared, column, x * it.weight.mantissa, it.score);
                    elements[column] = from_f32<T>(0);
                } else {
                    magnitude = max(magnitude, __float_as_uint(fabsf(x)));
                }
            }
            magnitude = __reduce_max_sync(0xffffffff, magnitude);
        }
        if (lane == 0) shared.magnitudes[row] = magnitude;
    }
    __syncthreads();
}

// Gives rows their scales, and an order by exponents; returns the greatest, NO_BIN where no row is left.
__device__ __forceinline__ int64_t sort_rows(int rows, Shared& shared) {
    int64_t greatest = NO_BIN;
    for (int i = threadIdx.x; i < EXPONENTS; i += THREADS) shared.counts[i] = 0;
    for (int row = threadIdx.x; row < rows; row += THREADS) {
        const Power weight = shared.rows[row].weight;
        const float magnitude = __uint_as_float(shared.magnitudes[row]);
        int64_t exponent = NO_BIN;
        if (weight.mantissa != 0 && magnitude != 0) {
            const Scale scale = scale_of(weight, magnitude);
            shared.rows[row].score = scale.scale;
            exponent = scale.exponent;
        }
        shared.exponents[row] = exponent;
        greatest = max(greatest, exponent);
    }
    for (int d = 16; d > 0; d /= 2) {
        greatest = max(greatest, int64_t(__shfl_xor_sync(0xffffffff, (long long)greatest, d)));
    }
    if (threadIdx.x % 32 == 0) shared.greatest_of_warp[threadIdx.x / 32] = greatest;
    __syncthreads();
#pragma unroll
    for (int warp = 0; warp < WARPS; warp++) greatest = max(greatest, shared.greatest_of_warp[warp]);

    // Where each exponent ends in the order; what is EXPONENTS below the greatest is in none of the bins that are kept.
    const auto below = [&](int row) {
        const int64_t exponent = shared.exponents[row];
        return exponent == NO_BIN || greatest - exponent >= EXPONENTS ? -1 : int(greatest - exponent);
    };
    for (int row = threadIdx.x; row < rows; row += THREADS) {
        if (below(row) >= 0) atomicAdd(&shared.counts[below(row)], 1);
    }
    __syncthreads();
    if (threadIdx.x < 32) {
        int before = 0;
        for (int start = 0; start < EXPONENTS; start += 32) {
            int sum = shared.counts[start + threadIdx.x];
            for (int d = 1; d < 32; d *= 2) {
                const int other = __shfl_up_sync(0xffffffff, sum, d);
                if (int(threadIdx.x) >= d) sum += other;
            }
            shared.ends[start + threadIdx.x] = before + sum;
            before += __shfl_sync(0xffffffff, sum, 31);
        }
    }
    __syncthreads();
    for (int row = threadIdx.x; row < rows; row += THREADS) {
        if (below(row) < 0) continue;
        const int place = shared.ends[below(row)] - atomicSub(&shared.counts[below(row)], 1);
        shared.entries[place] = {shared.rows[row].score, row};
    }
    __syncthreads();
    return greatest;
}

// Adds the rows of a tile, those of one exponent at a time.
template <typename T>
__device__ __forceinline__ void sum_rows(int64_t greatest, const Part& part, const Shared& shared, const T* tile,
                                         Bins& bins) {
    if (greatest == NO_BIN || bins.first >= part.columns) return;
    int start = 0;
    for (int below = 0; below < EXPONENTS; below++) {
        const int end = shared.ends[below];
        if (end == start) continue;
        uint32_t high[COLUMNS] = {}, low[COLUMNS] = {};
#pragma unroll 4
        for (int i = start; i < end; i++) {
            const Entry entry = shared.entries[i];
            T elements[COLUMNS];
            memcpy(elements, __builtin_assume_aligned(tile + entry.row * MIVC_EXACT_COLUMNS + bins.first, sizeof elements),
                   sizeof elements);
#pragma unroll
            for (int j = 0; j < COLUMNS; j++) add_limbs(entry.scale, to_f32(elements[j]), high[j], low[j]);
        }
        int64_t terms[COLUMNS];
#pragma unroll
        for (int j = 0; j < COLUMNS; j++) terms[j] = term_of_limbs(high[j], low[j], end - start);
        bins.add(greatest - below, terms);
        start = end;
    }
}

// What takes the place of the sum of a column with infinities or NaNs that weigh something; 0 where none does.
__device__ __forceinline__ float special_value(const Shared& shared, int column, const MivcExactTotal* total) {
    bool is_there[3];
#pragma unroll
    for (int kind = 0; kind < 3; kind++) {
        const int32_t score = shared.specials[kind][column];
        is_there[kind] = score != NO_SCORE && (total == nullptr || weight_of(*total, score_of_ordered(score)) != 0);
    }
    if (is_there[2] || (is_there[0] && is_there[1])) return NAN;
    return is_there[0] ? INFINITY : is_there[1] ? -INFINITY : 0;
}

template <typename O>
__device__ __forceinline__ void write(const MivcExactWeightedSum& p, const Work& work, const Part& part, Bins& bins) {
    const int64_t bag_head = work.bag * p.heads + part.head;
    const MivcExactTotal* total = p.scores == 0 ? nullptr : pointer<const MivcExactTotal>(p.totals) + bag_head;
    bins.carry();
    const int64_t top = bins.top == NO_BIN ? 0 : bins.top;
    const double divisor = total != nullptr ? total->sum : p.is_mean ? double(max(bins.count, int64_t(1))) : 1.0;
    const int64_t exponent = top * BIN_WIDTH - UNIT - (total != nullptr ? total->exponent : 0);
    const double factor = scaled(__ddiv_rn(1.0, divisor), exponent);
#pragma unroll
    for (int i = 0; i < COLUMNS; i++) {
        const int column = bins.first + i;
        if (column >= part.columns) continue;
        const double sum = sum_of(bins.at(slot_of(top), i).number(), bins.at(slot_of(top - 1), i).number(),
                                  bins.at(slot_of(top - 2), i).number());
        float result = __double2float_rn(__dmul_rn(sum, factor));
        const float special = special_value(bins.shared, column, total);
        if (special != 0) result = special;
        if (total != nullptr && total->max == -INFINITY) result = 0;
        if (total != nullptr && isnan(total->max)) result = NAN;
        pointer<O>(p.pooled)[bag_head * p.dim + part.first_column + column] = from_f32<O>(result);
    }
}

template <typename T>
__device__ __forceinline__ void weighted_sum(const MivcExactWeightedSum& p) {
    extern __shared__ __align__(16) unsigned char dynamic[];
    Shared& shared = *reinterpret_cast<Shared*>(dynamic + MIVC_EXACT_TILE_BYTES);
    T* tile = reinterpret_cast<T*>(dynamic);
    constexpr int ROWS = MIVC_EXACT_TILE_BYTES / MIVC_EXACT_COLUMNS / sizeof(T);

    const Work work = work_of_team(p.list, blockIdx.x);
    if (!work.any) return;
    const int64_t first_column = int64_t(blockIdx.y) * MIVC_EXACT_COLUMNS;
    const Part part = {blockIdx.z, first_column, int(min(p.dim - first_column, int64_t(MIVC_EXACT_COLUMNS))),
                       int64_t(blockIdx.z) * gridDim.y + blockIdx.y};
    Bins bins = {shared, int(threadIdx.x) * COLUMNS};
    bins.clear();
    for (int64_t first = work.first_row; first < work.last_row; first += ROWS) {
        const int rows = int(min(work.last_row - first, int64_t(ROWS)));
        __syncthreads();
        load_tile(p, part, work.bag, first, rows, shared, tile);
        for (int row = 0; p.is_mean && row < rows; row++) bins.count += shared.rows[row].weight.mantissa != 0;
        measure(part, rows, shared, tile);
        const int64_t greatest = sort_rows(rows, shared);
        sum_rows(greatest, part, shared, tile, bins);
    }
    __syncthreads();
    if (work.chunks > 1) {
        const auto node = [&](int64_t i) {
            const int64_t groups = gridDim.y;
            return pointer<MivcExactSumNode>(p.partials) + (i * p.heads + part.head) * groups + blockIdx.y;
        };
        bins.store(node(leaf_of(p.list, work)));
        const auto merge = [&](int64_t first_child, int64_t children, int64_t parent, bool is_root) {
            bins.clear();
            for (int64_t child = first_child; child < first_child + children; child++) bins.merge(node(child));
            if (!is_root) bins.store(node(parent));
        };
        if (!climb<BlockTeam>(p.list, work, part.tile, merge)) return;
    }
    if (p.outputs_are_f32) {
        write<float>(p, work, part, bins);
    } else {
        write<T>(p, work, part, bins);
    }
}

// Two blocks, as many as have room for their tiles: left to itself, ptxas makes room for more, and spills.
#define MIVC_KERNEL(suffix, T)                                                            \
    extern "C" __global__ void __launch_bounds__(THREADS, 2)                              \
        mivc_exact_weighted_sum_##suffix(const __grid_constant__ MivcExactWeightedSum p) {\
        weighted_sum<T>(p);                                                               \
    }

MIVC_KERNEL(f32, float)
MIVC_KERNEL(f16, __half)
MIVC_KERNEL(bf16, __nv_bfloat16)

}  // namespace mivc
