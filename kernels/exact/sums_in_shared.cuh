// The sums of a group of columns in the shared memory of a block. A thread owns COLUMNS neighbouring columns from the tile
// to the output, so that nobody waits for anybody there.
#pragma once
#include "bins.cuh"
#include "mass.cuh"

namespace mivc {

constexpr int THREADS = MIVC_EXACT_THREADS, WARPS = THREADS / 32;
constexpr int COLUMNS = MIVC_EXACT_COLUMNS / THREADS;
// Additions after which carries are taken over.
constexpr int CARRY_EVERY = 1 << 14;
// Of a special that has not come up, below every score.
constexpr int32_t NO_SCORE = INT32_MIN;

struct Sums {
    Word words[KEPT_BINS][COLUMNS][THREADS];         // of each thread's columns, side by side with the other threads'
    int32_t specials[SPECIALS][MIVC_EXACT_COLUMNS];  // the greatest score, as an integer of the same order
};

__device__ __forceinline__ int32_t ordered(float score) {
    const int32_t bits = __float_as_int(score);
    return bits >= 0 ? bits : bits ^ 0x7fffffff;
}

__device__ __forceinline__ float score_of_ordered(int32_t ordered) {
    return __int_as_float(ordered >= 0 ? ordered : ordered ^ 0x7fffffff);
}

// Notes an infinity or a NaN of a column.
__device__ __forceinline__ void add_special(Sums& sums, int column, float term, float score) {
    // Of +0 and -0, the former.
    atomicMax(&sums.specials[special_of(term)][column], ordered(score + 0.0f));
}

// The columns of a thread, and what all threads of the block know of them.
struct Bins {
    Sums& sums;
    int first;              // of the thread's columns
    int64_t top = NO_BIN;
    int top_slot = 0;       // where the greatest bin is; the next lower ones are before it, around the corner
    int pending = 0;        // additions since carries were taken over
    int64_t count = 0;      // rows that are there

    __device__ __forceinline__ explicit Bins(Sums& sums) : sums(sums), first(int(threadIdx.x) * COLUMNS) { clear(); }

    // Of the bin that is `below` the greatest.
    __device__ __forceinline__ int slot(int below) const {
        return top_slot - below + (top_slot < below ? KEPT_BINS : 0);
    }

    __device__ __forceinline__ Word& at(int slot, int i) const { return sums.words[slot][i][threadIdx.x]; }

    __device__ __forceinline__ void clear_slot(int slot) {
#pragma unroll
        for (int i = 0; i < COLUMNS; i++) at(slot, i) = {};
    }

    __device__ __forceinline__ void clear() {
        for (int slot = 0; slot < KEPT_BINS; slot++) clear_slot(slot);
#pragma unroll
        for (int i = 0; i < COLUMNS; i++) {
            for (int kind = 0; kind < SPECIALS; kind++) sums.specials[kind][first + i] = NO_SCORE;
        }
        top = NO_BIN;
        pending = 0;
        count = 0;
    }

    // How far a bin is below the greatest, which it becomes if it is above it.
    __device__ __forceinline__ int64_t below_top(int64_t bin) {
        if (top == NO_BIN) top = bin;
        if (bin > top) {
            const int entering = int(min(bin - top, int64_t(KEPT_BINS)));
#pragma unroll 1
            for (int i = 0; i < entering; i++) {
                top_slot = top_slot == KEPT_BINS - 1 ? 0 : top_slot + 1;
                clear_slot(top_slot);
            }
            top = bin;
        }
        return top - bin;
    }

    __device__ __forceinline__ void add(int64_t exponent, const int64_t (&terms)[COLUMNS]) {
        const int64_t below = below_top(bin_of(exponent));
        if (below >= KEPT_BINS) return;
        const int to = slot(int(below)), shift = shift_of(exponent);
#pragma unroll
        for (int i = 0; i < COLUMNS; i++) {
            Word word = at(to, i);
            word.add(terms[i], shift);
            at(to, i) = word;
        }
        if (++pending == CARRY_EVERY) carry();
    }

    __device__ __forceinline__ void carry() {
#pragma unroll 1
        for (int slot = 0; slot < KEPT_BINS; slot++) {
#pragma unroll
            for (int i = 0; i < COLUMNS; i++) at(slot, i).carry();
        }
        pending = 0;
    }

    __device__ __forceinline__ void store(MivcExactSumNode& node) {
        carry();
        for (int below = 0; below < KEPT_BINS; below++) {
#pragma unroll
            for (int i = 0; i < COLUMNS; i++) node.bins[below][first + i] = at(slot(below), i).parts();
        }
        for (int kind = 0; kind < SPECIALS; kind++) {
#pragma unroll
            for (int i = 0; i < COLUMNS; i++) node.specials[kind][first + i] = sums.specials[kind][first + i];
        }
        if (threadIdx.x == 0) {
            node.top = top;
            node.count = count;
        }
    }

    __device__ __forceinline__ void merge(const MivcExactSumNode& node) {
        count += node.count;
        const int64_t below = node.top == NO_BIN ? KEPT_BINS : below_top(node.top);
        for (int bin = 0; bin < KEPT_BINS - below; bin++) {
#pragma unroll
            for (int i = 0; i < COLUMNS; i++) {
                Word word = at(slot(int(below) + bin), i);
                word.add(node.bins[bin][first + i]);
                word.carry();
                at(slot(int(below) + bin), i) = word;
            }
        }
        for (int kind = 0; kind < SPECIALS; kind++) {
#pragma unroll
            for (int i = 0; i < COLUMNS; i++) {
                int32_t& mine = sums.specials[kind][first + i];
                mine = max(mine, node.specials[kind][first + i]);
            }
        }
    }

    // The exponent that sums go with.
    __device__ __forceinline__ int64_t exponent() const { return (top == NO_BIN ? 0 : top) * BIN_WIDTH; }

    // Of the thread's i-th column. Carries have been taken over.
    __device__ __forceinline__ double sum(int i) const {
        const Word bins[KEPT_BINS] = {at(slot(0), i), at(slot(1), i), at(slot(2), i)};
        return sum_of(bins);
    }

    // What takes the place of a sum with infinities or NaNs that weigh something; 0 where none does.
    __device__ __forceinline__ float special(int i, const MivcExactTotal* total) const {
        bool is_there[SPECIALS];
#pragma unroll
        for (int kind = 0; kind < SPECIALS; kind++) {
            const int32_t score = sums.specials[kind][first + i];
            is_there[kind] = score != NO_SCORE && (total == nullptr || weight_of(*total, score_of_ordered(score)) != 0);
        }
        return value_of(is_there);
    }
};

}  // namespace mivc
