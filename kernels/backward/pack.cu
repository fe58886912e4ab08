// Lays out V and U for the backward of the scores: for each feature a line of all units of V, group after group, and
// then of U. Rounded to the type of the features, as the forward has them, and kept as f32. Runs once per parameters.
#include "../numeric.cuh"

namespace mivc {

template <typename T>
__device__ __forceinline__ void pack_backward(const MivcPackBackward& p) {
    const int64_t step = int64_t(gridDim.x) * MIVC_THREADS;
    for (int64_t i = int64_t(blockIdx.x) * MIVC_THREADS + threadIdx.x; i < p.padded_dim * p.padded_depth; i += step) {
        const int64_t d = i / p.padded_depth, line_of_groups = i % p.padded_depth / p.group_stride;
        const int64_t unit = i % p.padded_depth % p.group_stride, group = line_of_groups % p.groups;
        const int64_t matrix = line_of_groups / p.groups;
        const auto* from = pointer<const float>(matrix == 0 ? p.v : p.u);
        float value = 0;
        if (d < p.dim && unit < p.hidden && matrix < 2 && from != nullptr) {
            value = to_f32(from_f32<T>(from[(group * p.hidden + unit) * p.dim + d]));
        }
        pointer<float>(p.by_feature)[i] = value;
    }
}

#define MIVC_KERNEL(name, T)                                                                                      \
    extern "C" __global__ void __launch_bounds__(MIVC_THREADS) name(const __grid_constant__ MivcPackBackward p) { \
        pack_backward<T>(p);                                                                                      \
    }
MIVC_KERNEL(mivc_pack_backward_f32, float)
MIVC_KERNEL(mivc_pack_backward_f16, __half)
MIVC_KERNEL(mivc_pack_backward_bf16, __nv_bfloat16)

}  // namespace mivc
