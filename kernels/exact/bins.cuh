// Bins of exact sums: integers of 48 lower and 64 upper bits, of which the three greatest are kept. As src/exact/bins.rs.
#pragma once
#include <cstdint>

#include "../abi.h"

namespace mivc {

constexpr int KEPT_BINS = 3;
constexpr int LOW_BITS = 48;
constexpr int64_t LOW_MASK = (int64_t(1) << LOW_BITS) - 1;
constexpr int BIN_WIDTH = 32;
// The greatest bin where there are no terms.
constexpr int64_t NO_BIN = INT64_MIN;

__device__ __forceinline__ int64_t bin_of(int64_t exponent) { return exponent >> 5; }
__device__ __forceinline__ int shift_of(int64_t exponent) { return int(exponent & (BIN_WIDTH - 1)); }

// One bin of one column.
struct alignas(16) Word {
    int64_t low;
    int64_t high;

    __device__ __forceinline__ void add(int64_t term, int shift) {
        low += (term << shift) & LOW_MASK;
        high += term >> (LOW_BITS - shift);
    }

    __device__ __forceinline__ void add(const MivcExactWord& other) {
        low += other.low;
        high += other.high;
    }

    __device__ __forceinline__ void carry() {
        high += low >> LOW_BITS;
        low &= LOW_MASK;
    }

    __device__ __forceinline__ MivcExactWord parts() const { return {low, high}; }

    __device__ __forceinline__ double number() const {
        return __dadd_rn(__dmul_rn(double(high), 281474976710656.0), double(low));
    }
};

__device__ __forceinline__ int64_t greatest_of_lanes(int64_t value, int distance) {
    for (int d = distance; d < 32; d *= 2) {
        value = max(value, int64_t(__shfl_xor_sync(0xffffffff, (long long)value, d)));
    }
    return value;
}

// What takes the place of a sum that infinities or NaNs are in.
enum Special { PLUS_INFINITY, MINUS_INFINITY, NOT_A_NUMBER, SPECIALS };

__device__ __forceinline__ Special special_of(float x) {
    return isnan(x) ? NOT_A_NUMBER : !isinf(x) ? SPECIALS : x > 0 ? PLUS_INFINITY : MINUS_INFINITY;
}

// 0 where there are none.
__device__ __forceinline__ float value_of(const bool (&is_there)[SPECIALS]) {
    if (is_there[NOT_A_NUMBER] || (is_there[PLUS_INFINITY] && is_there[MINUS_INFINITY])) return NAN;
    return is_there[PLUS_INFINITY] ? INFINITY : is_there[MINUS_INFINITY] ? -INFINITY : 0;
}

// Of the bins from the greatest down, over 2^(BIN_WIDTH times the greatest).
__device__ __forceinline__ double sum_of(const Word (&bins)[KEPT_BINS]) {
    constexpr double TWO_MINUS_32 = 1.0 / 4294967296.0;
    const double lower = __dadd_rn(__dmul_rn(bins[1].number(), TWO_MINUS_32),
                                   __dmul_rn(bins[2].number(), TWO_MINUS_32 * TWO_MINUS_32));
    return __dadd_rn(bins[0].number(), lower);
}

}  // namespace mivc
