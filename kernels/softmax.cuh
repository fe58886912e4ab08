// The normaliser of a softmax: of some scores, the greatest m and l = sum of exp(s - m).
#pragma once
#include "ptx.cuh"

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

}  // namespace mivc
