// Backward of the gate g = tanh(x) * sigma(y): dx = dg * (1 - tanh^2(x)) * sigma(y), dy = dg * tanh(x) * sigma(y) *
// (1 - sigma(y)), element by element.
//
// Bound by memory: of each element, x, y and dg are read once and each gradient that is asked for is written once, and
// read before where it is added to. 16 bytes of each at once where alignment allows. Both gradients come of one tanh
// and one sigma, which are computed again: to keep them would take more bytes than x and y.
#include "../gate.cuh"
#include "gradient.cuh"

namespace mivc {

// All gradients of a gate are of the type of its arguments.
template <typename T, int N, typename GradientOf>
__device__ __forceinline__ void write_some(const MivcGradient& gradient, int64_t start, const GradientOf& gradient_of) {
    if (gradient.to == 0) return;
    write_rows<N>(pointer<T>(gradient.to) + start, 0, gradient.adds, {true}, gradient_of);
}

template <typename T, int N>
__device__ __forceinline__ void gate_backward(const MivcGateBackward& p) {
    const int64_t start = (int64_t(blockIdx.x) * MIVC_THREADS + threadIdx.x) * N;
    if (start >= p.elements) return;
    const auto x = Elements<T, N>::load_once(pointer<const T>(p.x) + start);
    const auto y = Elements<T, N>::load_once(pointer<const T>(p.y) + start);
    const auto d_g = Elements<T, N>::load_once(pointer<const T>(p.d_g) + start);
    GateSlopes slopes[N];
#pragma unroll
    for (int i = 0; i < N; i++) slopes[i] = gate_slopes(tanhf(x[i]), sigmoid(y[i]));
    write_some<T, N>(p.d_x, start, [&](int, float (&to)[N]) {
#pragma unroll
        for (int i = 0; i < N; i++) to[i] = d_g[i] * slopes[i].x;
    });
    write_some<T, N>(p.d_y, start, [&](int, float (&to)[N]) {
#pragma unroll
        for (int i = 0; i < N; i++) to[i] = d_g[i] * slopes[i].y;
    });
}

#define MIVC_KERNEL(name, T, N)                                                                                   \
    extern "C" __global__ void __launch_bounds__(MIVC_THREADS) name(const __grid_constant__ MivcGateBackward p) { \
        gate_backward<T, N>(p);                                                                                   \
    }
#define MIVC_KERNELS(suffix, T)                    \
    MIVC_KERNEL(mivc_gate_backward_##suffix, T, 1) \
    MIVC_KERNEL(mivc_gate_backward_##suffix##_vector, T, VECTOR_ELEMENTS<T>)

MIVC_KERNELS(f32, float)
MIVC_KERNELS(f16, __half)
MIVC_KERNELS(bf16, __nv_bfloat16)

}  // namespace mivc
