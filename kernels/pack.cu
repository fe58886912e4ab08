// Lays out the parameters of attention for `scores`: V and U rounded to the type of the features, their columns
// interleaved and padded with zeros. Runs once per parameters.
#include "numeric.cuh"

namespace mivc {

// Where column `column` of the product comes from.
struct Source {
    bool any;        // false for padding
    bool is_gate;    // of U
    int64_t unit;    // [groups * hidden]
};

__device__ __forceinline__ Source source_of(const MivcPacked& packed, int64_t column) {
    const int64_t group = column / packed.group_columns, in_group = column % packed.group_columns;
    const int matrices = packed.is_gated ? 2 : 1;
    const int64_t hidden = packed.columns / matrices;
    return {in_group < packed.columns, in_group % matrices == 1, group * hidden + in_group / matrices};
}

template <typename T>
__device__ __forceinline__ void pack(const MivcPack& p) {
    const MivcPacked& packed = p.packed;
    const int64_t first = int64_t(blockIdx.x) * MIVC_THREADS + threadIdx.x;
    const int64_t step = int64_t(gridDim.x) * MIVC_THREADS;
    const int64_t columns = packed.groups * packed.group_columns;
    for (int64_t i = first; i < columns * packed.padded_dim; i += step) {
        const Source source = source_of(packed, i / packed.padded_dim);
        const int64_t d = i % packed.padded_dim;
        float value = 0;
        if (source.any && d < packed.dim) {
            value = pointer<const float>(source.is_gate ? p.u : p.v)[source.unit * packed.dim + d];
        }
        pointer<T>(packed.matrix)[i] = from_f32<T>(value);
    }
    for (int64_t i = first; i < columns; i += step) {
        const Source source = source_of(packed, i);
        const auto* bias = pointer<const float>(source.is_gate ? p.u_bias : p.v_bias);
        pointer<float>(packed.column_bias)[i] = source.any && bias != nullptr ? bias[source.unit] : 0;
    }
    for (int64_t i = first; i < packed.heads * packed.group_columns; i += step) {
        const int64_t head = i / packed.group_columns;
        const Source source = source_of(packed, i % packed.group_columns);
        const int64_t hidden = packed.columns / (packed.is_gated ? 2 : 1);
        const bool has_weight = source.any && !source.is_gate;
        pointer<float>(packed.column_weights)[i] =
            has_weight ? pointer<const float>(p.w)[head * hidden + source.unit] : 0;
    }
    for (int64_t head = first; head < packed.heads; head += step) {
        pointer<float>(packed.score_bias)[head] = p.w_bias == 0 ? 0 : pointer<const float>(p.w_bias)[head];
    }
}

#define MIVC_KERNEL(name, T)                                                                                  \
    extern "C" __global__ void __launch_bounds__(MIVC_THREADS) name(const __grid_constant__ MivcPack p) {     \
        pack<T>(p);                                                                                           \
    }
MIVC_KERNEL(mivc_pack_f32, float)
MIVC_KERNEL(mivc_pack_f16, __half)
MIVC_KERNEL(mivc_pack_bf16, __nv_bfloat16)

}  // namespace mivc
