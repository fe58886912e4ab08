// The normaliser of a softmax: of some scores, the greatest m and l = sum of exp(s - m).
#pragma once
#include "numeric.cuh"

namespace mivc {

// The greater; NaN where either is NaN or +inf, which makes a bag NaN.
__device__ __forceinline__ float greatest(float a, float b) {
    const float result = maximum(a, b);
    return result == INFINITY ? NAN : result;
}

// exp(s - m); 0 where s is -inf, whatever m is.
__device__ __forceinline__ float exponential(float score, float max) {
    return score == -INFINITY ? 0.0f : expf(score - max);
}

struct Normaliser {
    float max = -INFINITY;
    float sum = 0;

    __device__ __forceinline__ void merge(const Normaliser& other) {
        const float both = greatest(max, other.max);
        sum = sum * exponential(max, both) + other.sum * exponential(other.max, both);
        max = both;
    }

    // Rather than exp(s - lse): log l would be lost beside an m of 1e30.
    __device__ __forceinline__ float weight(float score) const {
        const float e = exponential(score, max);
        return e == 0 ? 0 : e / sum;
    }
};

// How the lanes of a warp share rows and heads: `heads` lanes side by side, a power of two.
struct Lanes {
    int heads;
    int64_t head;
    int row;   // the lane's first
    int rows;  // from row to row
    bool any;

    __device__ __forceinline__ explicit Lanes(int64_t all_heads) {
        const int lane = threadIdx.x % 32;
        heads = 1;
        while (heads < 32 && heads < all_heads) heads *= 2;
        head = int64_t(blockIdx.y) * heads + lane % heads;
        row = lane / heads;
        rows = 32 / heads;
        any = head < all_heads;
    }
};

// Of the values of the lanes that are `distance`, 2 `distance`, ... from each other.
__device__ __forceinline__ float greatest_of_lanes(float value, int distance) {
    for (int d = distance; d < 32; d *= 2) value = greatest(value, __shfl_xor_sync(0xffffffff, value, d));
    return value;
}

__device__ __forceinline__ float sum_of_lanes(float value, int distance) {
    for (int d = distance; d < 32; d *= 2) value += __shfl_xor_sync(0xffffffff, value, d);
    return value;
}

// Of score(first), score(first + step), ... of each lane and of those lanes that it shares a head with, which are
// `distance`, 2 `distance`, ... from it. All lanes of the warp take part.
template <typename Score>
__device__ __forceinline__ Normaliser normalise(int64_t first, int64_t last, int step, int distance,
                                                const Score& score) {
    Normaliser all;
    for (int64_t row = first; row < last; row += step) all.max = greatest(all.max, score(row));
    all.max = greatest_of_lanes(all.max, distance);
    for (int64_t row = first; row < last; row += step) all.sum += exponential(score(row), all.max);
    all.sum = sum_of_lanes(all.sum, distance);
    return all;
}

// Where m, l and the logsumexp of bags and heads go; lse is left out where its address is 0.
struct NormaliserOutputs {
    uint64_t max;
    uint64_t sum;
    uint64_t lse;

    __device__ __forceinline__ void store(int64_t i, const Normaliser& all) const {
        pointer<float>(max)[i] = all.max;
        pointer<float>(sum)[i] = all.sum;
        if (lse != 0) pointer<float>(lse)[i] = all.sum == 0 ? -INFINITY : all.max + logf(all.sum);
    }
};

}  // namespace mivc
