// The exact sum of one column, in registers, and how the lanes of a warp add one up.
#pragma once
#include "bins.cuh"
#include "terms.cuh"
#include "../softmax.cuh"

namespace mivc {

struct Sum {
    int64_t top = NO_BIN;
    Word bins[KEPT_BINS] = {};  // from the greatest down

    __device__ __forceinline__ void raise(int64_t bin) {
        if (top == NO_BIN || bin - top >= KEPT_BINS) {
#pragma unroll
            for (Word& word : bins) word = {};
        } else {
            for (int64_t step = top; step < bin; step++) {
                bins[2] = bins[1];
                bins[1] = bins[0];
                bins[0] = {};
            }
        }
        top = bin;
    }

    // Adds to the bin that is `below` the greatest, where it is kept.
    __device__ __forceinline__ void add(int64_t below, const MivcExactWord& word) {
#pragma unroll
        for (int i = 0; i < KEPT_BINS; i++) {
            if (i == below) bins[i].add(word);
        }
    }

    // Adds a term to its bin, which is not above the greatest.
    __device__ __forceinline__ void add_term(const Power& power, int64_t unit) {
        const int64_t exponent = power.exponent + unit;
        Word word = {};
        word.add(int64_t(power.mantissa * float(1 << MANTISSA)), shift_of(exponent));
        add(top - bin_of(exponent), word.parts());
    }

    __device__ __forceinline__ void carry() {
#pragma unroll
        for (Word& word : bins) word.carry();
    }

    // Of bins whose carries have been taken over, and so are its own then.
    __device__ __forceinline__ void merge(int64_t other_top, const MivcExactWord (&other)[KEPT_BINS]) {
        if (other_top == NO_BIN) return;
        if (top == NO_BIN || other_top > top) raise(other_top);
#pragma unroll
        for (int i = 0; i < KEPT_BINS; i++) add(top - other_top + i, other[i]);
        carry();
    }

    __device__ __forceinline__ void store(int64_t& to_top, MivcExactWord (&to)[KEPT_BINS]) const {
        to_top = top;
#pragma unroll
        for (int i = 0; i < KEPT_BINS; i++) to[i] = bins[i].parts();
    }

    // The exponent that the sum goes with.
    __device__ __forceinline__ int64_t exponent() const { return (top == NO_BIN ? 0 : top) * BIN_WIDTH; }
};

__device__ __forceinline__ int64_t sum_of_lanes(int64_t value, int distance) {
    for (int d = distance; d < 32; d *= 2) value += int64_t(__shfl_xor_sync(0xffffffff, (long long)value, d));
    return value;
}

// Of term_of(row) 2^unit of the rows of a chunk, in all lanes of a head; those of which the mantissa is 0 are left out.
// The greatest bin comes first, so that all lanes add to the same three.
template <typename TermOf>
__device__ __forceinline__ Sum sum_of_rows(int64_t first, int64_t last, const Lanes& lanes, int64_t unit,
                                           const TermOf& term_of) {
    Sum sum;
    for (int64_t row = first; row < last; row += lanes.rows) {
        const Power term = term_of(row);
        if (term.mantissa != 0) sum.top = max(sum.top, bin_of(term.exponent + unit));
    }
    sum.top = greatest_of_lanes(sum.top, lanes.heads);
    for (int64_t row = first; row < last; row += lanes.rows) {
        const Power term = term_of(row);
        if (term.mantissa != 0) sum.add_term(term, unit);
    }
#pragma unroll
    for (Word& word : sum.bins) {
        word.carry();
        word.low = sum_of_lanes(word.low, lanes.heads);
        word.high = sum_of_lanes(word.high, lanes.heads);
        word.carry();
    }
    return sum;
}

}  // namespace mivc
