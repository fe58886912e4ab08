// Weighted sum, and mean, of the values of each bag, in integers that no order changes.
//
// A block takes a chunk of a bag, one group of columns and one head. It brings a tile of rows to shared memory, finds the
// greatest magnitude of each row there, and with it the row's scale and exponent; sorts the rows by their exponents, and
// adds the sum of those of the same one to the bins of its columns, which lie in shared memory too.
//
// Bound by instructions or by memory: in the time that an element of bf16 takes at 4.3 TB/s, 132 multiprocessors begin at
// most 13.8 instructions for it, and fewer while blocks wait for their tiles. On sm_90 (scripts/instructions.py) it takes 5.9
// to be summed, 1.0 for the magnitude of its row, 1.1 to be copied, and up to 0.3 for each exponent that a tile has.
#include "rows.cuh"
#include "../work_list.cuh"

namespace mivc {

struct alignas(MIVC_VECTOR_BYTES) Shared {
    Sums sums;
    Order order;
    uint32_t taking_part[MOST_ROWS / 32];  // a bit of each row of the tile
};

static_assert(sizeof(Shared) % MIVC_VECTOR_BYTES == 0, "a tile is behind it");

// Which part of the output the block has.
struct Part {
    int64_t head;
    int64_t first_column;   // of the group
    int columns;            // in the group
    int64_t tile;           // counts the blocks that share a chunk

    __device__ __forceinline__ explicit Part(int64_t dim)
        : head(blockIdx.z),
          first_column(int64_t(blockIdx.y) * MIVC_EXACT_COLUMNS),
          columns(int(min(dim - first_column, int64_t(MIVC_EXACT_COLUMNS)))),
          tile(head * gridDim.y + blockIdx.y) {}
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

// Brings rows of a tile, a warp each, from `from` on. One that takes no part is not read: it is 0, and so is what lies
// beyond the group.
template <typename T>
__device__ __forceinline__ void load_tile(const MivcExactWeightedSum& p, const Part& part, const T* from, int rows,
                                          const uint32_t* taking_part, T* tile) {
    constexpr int AT_ONCE = 32 * VECTOR_ELEMENTS<T>;
    const int warp = threadIdx.x / 32, column = threadIdx.x % 32 * VECTOR_ELEMENTS<T>;
    const T* first = from;
    from += warp * p.row_stride + column;
    T* to = tile + warp * LINE<T> + column;
    for (int start = 0; start < rows; start += 32) {
        uint32_t is_read[MIVC_EXACT_COLUMNS / AT_ONCE];
#pragma unroll
        for (int i = 0; i < MIVC_EXACT_COLUMNS / AT_ONCE; i++) {
            is_read[i] = column + i * AT_ONCE < part.columns ? taking_part[start / 32] >> warp : 0;
        }
#pragma unroll
        for (int row = 0; row < 32; row += WARPS) {
#pragma unroll
            for (int i = 0; i < MIVC_EXACT_COLUMNS / AT_ONCE; i++) {
                // Nothing is read where there is nothing, but an address must be one.
                const bool is_there = is_read[i] >> row & 1;
                copy_async(to + (start + row) * LINE<T> + i * AT_ONCE, is_there ? from + i * AT_ONCE : first,
                           is_there ? MIVC_VECTOR_BYTES : 0);
            }
            from += WARPS * p.row_stride;
        }
    }
    copy_async_commit();
    copy_async_wait<0>();
}

// The same where rows cannot be read 16 bytes at a time.
template <typename T>
__device__ __forceinline__ void load_tile_of_elements(const MivcExactWeightedSum& p, const Part& part, const T* from,
                                                      int rows, const uint32_t* taking_part, T* tile) {
    for (int i = threadIdx.x; i < rows * MIVC_EXACT_COLUMNS; i += THREADS) {
        const int row = i / MIVC_EXACT_COLUMNS, column = i % MIVC_EXACT_COLUMNS;
        const bool is_read = (taking_part[row / 32] >> row % 32 & 1) && column < part.columns;
        tile[row * LINE<T> + column] = is_read ? from[row * p.row_stride + column] : from_f32<T>(0);
    }
}

// Adds the rows of a chunk, a tile at a time.
template <typename T>
__device__ __forceinline__ void sum_chunk(const MivcExactWeightedSum& p, const Part& part, const Work& work, T* tile,
                                          Shared& shared, Bins& bins) {
    constexpr int N = ROWS_OF_THREAD<T>;
    const T* values = pointer<const T>(p.values) + part.head * p.head_stride + part.first_column;
    for (int64_t first = work.first_row; first < work.last_row; first += TILE_ROWS<T>) {
        const int rows = int(min(work.last_row - first, int64_t(TILE_ROWS<T>)));
        Row mine[N];
#pragma unroll
        for (int i = 0; i < N; i++) {
            const int row = i * THREADS + threadIdx.x;
            mine[i] = row < rows ? row_of(p, part, work.bag, first + row) : Row{{0, 0}, 0, false};
            const uint32_t taking_part = __ballot_sync(0xffffffff, mine[i].weight.mantissa != 0);
            if (threadIdx.x % 32 == 0) shared.taking_part[row / 32] = taking_part;
        }
        // Then all threads are done with the tile before, too.
        __syncthreads();
        const T* from = values + first * p.row_stride;
        if (p.is_aligned) {
            load_tile(p, part, from, rows, shared.taking_part, tile);
        } else {
            load_tile_of_elements(p, part, from, rows, shared.taking_part, tile);
        }
        __syncthreads();
        if (p.is_mean) {
            for (int i = 0; i < TILE_ROWS<T> / 32; i++) bins.count += __popc(shared.taking_part[i]);
        }
        Scale scales[N];
#pragma unroll
        for (int i = 0; i < N; i++) {
            scales[i] = measure(mine[i], part.columns, tile + (i * THREADS + threadIdx.x) * LINE<T>, shared.sums);
        }
        const int64_t greatest = sort_rows<T>(scales, shared.order);
        sum_rows(greatest, shared.order, tile, bins);
    }
}

// Of so many scores of 0, as those of a mean are.
__device__ __forceinline__ MivcExactMassNode mass_of_mean(int64_t count) {
    if (count == 0) return {{}, NO_BIN, -INFINITY, 0};
    Word word = {count << MANTISSA, 0};
    word.carry();
    return {{word.parts()}, 0, 0, 0};
}

template <typename O>
__device__ __forceinline__ void write(const MivcExactWeightedSum& p, const Part& part, int64_t bag_head, Bins& bins) {
    const MivcExactTotal* total = p.scores == 0 ? nullptr : pointer<const MivcExactTotal>(p.totals) + bag_head;
    bins.carry();
    const double divisor = total != nullptr ? total->sum : p.is_mean ? double(max(bins.count, int64_t(1))) : 1.0;
    const int64_t exponent = bins.exponent() - UNIT - (total != nullptr ? total->exponent : 0);
    const double factor = scaled(__ddiv_rn(1.0, divisor), exponent);
#pragma unroll 1
    for (int i = 0; i < COLUMNS; i++) {
        const int column = bins.first + i;
        if (column >= part.columns) continue;
        float result = __double2float_rn(__dmul_rn(bins.sum(i), factor));
        const float special = bins.special(i, total);
        if (special != 0) result = special;
        if (total != nullptr && total->max == -INFINITY) result = 0;
        if (total != nullptr && isnan(total->max)) result = NAN;
        pointer<O>(p.pooled)[bag_head * p.dim + part.first_column + column] = from_f32<O>(result);
    }
}

template <typename T>
__device__ __forceinline__ void weighted_sum(const MivcExactWeightedSum& p) {
    extern __shared__ __align__(16) unsigned char dynamic[];
    static_assert(sizeof(Shared) + TILE_BYTES<T> <= MIVC_EXACT_SHARED_BYTES, "what a launch asks for");
    Shared& shared = *reinterpret_cast<Shared*>(dynamic);
    T* tile = reinterpret_cast<T*>(dynamic + sizeof(Shared));

    const Work work = work_of_team(p.list, blockIdx.x);
    if (!work.any) return;
    const Part part(p.dim);
    Bins bins(shared.sums);
    sum_chunk(p, part, work, tile, shared, bins);

    const auto node = [&](uint64_t nodes, int64_t i) -> MivcExactSumNode& {
        return pointer<MivcExactSumNode>(nodes)[(i * p.heads + part.head) * gridDim.y + blockIdx.y];
    };
    if (work.chunks > 1) {
        bins.store(node(p.partials, leaf_of(p.list, work)));
        const auto merge = [&](int64_t first_child, int64_t children, int64_t parent, bool is_root) {
            bins.clear();
            for (int64_t i = first_child; i < first_child + children; i++) bins.merge(node(p.partials, i));
            if (!is_root) bins.store(node(p.partials, parent));
        };
        if (!climb<BlockTeam>(p.list, work, part.tile, merge)) return;
    }
    const int64_t bag_head = work.bag * p.heads + part.head;
    if (p.sums != 0) bins.store(node(p.sums, work.bag));
    if (p.masses != 0 && blockIdx.y == 0 && threadIdx.x == 0) {
        pointer<MivcExactMassNode>(p.masses)[bag_head] = mass_of_mean(bins.count);
    }
    if (p.pooled == 0) return;
    if (p.outputs_are_f32) {
        write<float>(p, part, bag_head, bins);
    } else {
        write<T>(p, part, bag_head, bins);
    }
}

// Two blocks, as many as have room for their tiles on sm_90; elsewhere there is one. Left to itself, ptxas makes room for
// more, and spills.
#define MIVC_KERNEL(suffix, T)                                                            \
    extern "C" __global__ void __launch_bounds__(THREADS, 2)                              \
        mivc_exact_weighted_sum_##suffix(const __grid_constant__ MivcExactWeightedSum p) {\
        weighted_sum<T>(p);                                                               \
    }

MIVC_KERNEL(f32, float)
MIVC_KERNEL(f16, __half)
MIVC_KERNEL(bf16, __nv_bfloat16)

}  // namespace mivc
