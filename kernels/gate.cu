// Gated sigmoid weighting: g = tanh(x) * sigma(y), element by element.
//
// Bound by memory: 16 bytes of each at once where alignment allows.
#include "gate.cuh"
#include "numeric.cuh"

namespace mivc {

template <typename T, int N>
__device__ __forceinline__ void gate(const MivcGate& p) {
    const int64_t start = (int64_t(blockIdx.x) * MIVC_THREADS + threadIdx.x) * N;
    if (start >= p.elements) return;
    const auto x = Elements<T, N>::load_once(pointer<const T>(p.x) + start);
    const auto y = Elements<T, N>::load_once(pointer<const T>(p.y) + start);
    float g[N];
#pragma unroll
    for (int i = 0; i < N; i++) g[i] = gate(x[i], y[i]);
    store(pointer<T>(p.g) + start, g);
}

#define MIVC_KERNEL(name, T, N)                                                                               \
    extern "C" __global__ void __launch_bounds__(MIVC_THREADS) name(const __grid_constant__ MivcGate p) {     \
        gate<T, N>(p);                                                                                        \
    }
#define MIVC_KERNELS(suffix, T)         \
    MIVC_KERNEL(mivc_gate_##suffix, T, 1) \
    MIVC_KERNEL(mivc_gate_##suffix##_vector, T, VECTOR_ELEMENTS<T>)

MIVC_KERNELS(f32, float)
MIVC_KERNELS(f16, __half)
MIVC_KERNELS(bf16, __nv_bfloat16)

}  // namespace mivc
