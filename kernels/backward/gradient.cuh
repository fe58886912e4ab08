// Gradients: those of outputs, which come in f32 or in another type, and those of inputs, which are written or added to
// what is there, in either type. They are f32 in between, and rounded once.
#pragma once
#include "../numeric.cuh"

namespace mivc {

// N neighbouring elements as f32, 16 bytes at once where there are as many. They may be read again.
template <typename T, int N>
__device__ __forceinline__ void load(const T* from, float (&to)[N]) {
    constexpr int TOGETHER = N == 1 ? 1 : VECTOR_ELEMENTS<T>;
    static_assert(N % TOGETHER == 0, "whole vectors");
#pragma unroll
    for (int start = 0; start < N; start += TOGETHER) {
        const auto part = Elements<T, TOGETHER>::load(from + start);
#pragma unroll
        for (int i = 0; i < TOGETHER; i++) to[start + i] = part[i];
    }
}

// The same from an array of f32, or of T.
template <typename T, int N>
__device__ __forceinline__ void load_upstream(uint64_t from, bool is_f32, int64_t start, float (&to)[N]) {
    if (is_f32) {
        load(pointer<const float>(from) + start, to);
    } else {
        load(pointer<const T>(from) + start, to);
    }
}

// Writes gradient_of(row, to), N neighbouring elements of each of ROWS rows, `stride` apart, or adds them, where a row
// is there. All that is added to is read before the first is written, so that the loads are under way together.
template <int N, int ROWS, typename G, typename GradientOf>
__device__ __forceinline__ void write_rows(G* to, int64_t stride, bool adds, const bool (&is_there)[ROWS],
                                           const GradientOf& gradient_of) {
    float before[ROWS][N];
    if (adds) {
#pragma unroll
        for (int row = 0; row < ROWS; row++) {
            if (is_there[row]) load(to + row * stride, before[row]);
        }
    }
#pragma unroll
    for (int row = 0; row < ROWS; row++) {
        if (!is_there[row]) continue;
        float gradient[N];
        gradient_of(row, gradient);
        if (adds) {
#pragma unroll
            for (int i = 0; i < N; i++) gradient[i] = before[row][i] + gradient[i];
        }
        store(to + row * stride, gradient);
    }
}

// The same in the type of the gradient, T or f32.
template <typename T, int N, int ROWS, typename GradientOf>
__device__ __forceinline__ void write_gradient(const MivcGradient& gradient, int64_t start, int64_t stride,
                                               const bool (&is_there)[ROWS], const GradientOf& gradient_of) {
    if (gradient.is_f32) {
        write_rows<N>(pointer<float>(gradient.to) + start, stride, gradient.adds, is_there, gradient_of);
    } else {
        write_rows<N>(pointer<T>(gradient.to) + start, stride, gradient.adds, is_there, gradient_of);
    }
}

// One element of an f32 gradient.
__device__ __forceinline__ void write_one(const MivcGradient& gradient, int64_t i, float value) {
    float* to = pointer<float>(gradient.to) + i;
    *to = gradient.adds ? *to + value : value;
}

}  // namespace mivc
