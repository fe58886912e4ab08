// tanh(x) and the gate tanh(x) * sigma(y), in f32.
#pragma once
#include "ptx.cuh"

namespace mivc {

// 1 / (1 + e^-x), by two approximate instructions: within 2e-7, whatever x is. 0 below -88.
__device__ __forceinline__ float sigmoid(float x) {
    constexpr float LOG2_E = 1.44269504f;
    return reciprocal_approximate(1.0f + exp2_approximate(-LOG2_E * x));
}

__device__ __forceinline__ float gate(float x, float y) { return tanhf(x) * sigmoid(y); }

// The derivatives of a gate by x and by y.
struct GateSlopes {
    float x;
    float y;
};

// Of tanh(x) and sigma(y).
__device__ __forceinline__ GateSlopes gate_slopes(float tanh, float sigmoid) {
    return {fmaf(-tanh, tanh, 1.0f) * sigmoid, tanh * sigmoid * (1.0f - sigmoid)};
}

}  // namespace mivc
