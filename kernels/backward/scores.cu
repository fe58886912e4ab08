// Backward of the scores, what is done for each row and unit. With t = tanh(x), s = sigma(y), or 1 without a gate:
//
//   dx[n, l] = sum over k of ds[n, k] w[k, l] (1 - t^2) s      dw[k, l] = sum over n of ds[n, k] t s
//   dy[n, l] = sum over k of ds[n, k] w[k, l] t s (1 - s)      dc[k] = sum over n of ds[n, k]
//   db_v = sum over n of dx, db_u = sum over n of dy
//
// t and s come from memory: a forward has kept them, or `scores` has just computed them again. dx and dy are what
// scores_features.cu and scores_matrices.cu multiply; they may take the place of t and s.
//
// Bound by memory: t, s, dx and dy once each. A thread owns a unit and walks MIVC_SCORES_BACKWARD_ROWS rows, whose sums
// it leaves as a part; `sum_parts` adds the parts in their order.
#include "../gate.cuh"
#include "slice.cuh"

namespace mivc {

// tanh of V h and sigma of U h of one unit.
struct Unit {
    float tanh;
    float sigma;
};

template <typename T>
__device__ __forceinline__ float activation(const MivcActivations& from, int64_t at) {
    return from.are_f32 ? pointer<const float>(from.at)[at] : to_f32(pointer<const T>(from.at)[at]);
}

template <typename T>
__device__ __forceinline__ Unit unit_at(const MivcScoresBackward& p, int64_t row, int64_t group, int64_t unit) {
    const MivcActivations& from = p.activations;
    const int64_t at = row * from.row_stride + group * from.group_stride + unit;
    const int64_t to_gate = p.packed.groups * from.group_stride;
    return {activation<T>(from, at), p.packed.is_gated ? activation<T>(from, at + to_gate) : 1.0f};
}

__device__ __forceinline__ int64_t matrices_of(const MivcPacked& packed) { return packed.is_gated ? 2 : 1; }

// L.
__device__ __forceinline__ int64_t hidden_of(const MivcPacked& packed) { return packed.columns / matrices_of(packed); }

__device__ __forceinline__ bool is_there(const MivcSlice& slice, int64_t row) {
    return !is_masked(slice, row) && is_in_bag(slice, row);
}

__device__ __forceinline__ void add_part(const MivcScoresBackward& p, uint64_t parts, int64_t i, float sum) {
    float* to = pointer<float>(parts) + i;
    *to = p.adds ? *to + sum : sum;
}

// The heads of a group.
struct Heads {
    int64_t first;
    int64_t last;

    __device__ __forceinline__ Heads(const MivcPacked& packed, int64_t group)
        : first(group * (packed.heads / packed.groups)), last(first + packed.heads / packed.groups) {}
};

// ---- dx and dy ----

template <typename T>
__device__ __forceinline__ void d_columns(const MivcScoresBackward& p) {
    const MivcActivations& to = p.d_columns;
    const int64_t unit = int64_t(blockIdx.y) * MIVC_THREADS + threadIdx.x, group = blockIdx.z;
    if (unit >= to.group_stride) return;
    const int64_t hidden = hidden_of(p.packed), matrices = matrices_of(p.packed);
    const Heads heads(p.packed, group);
    const int64_t first_row = int64_t(blockIdx.x) * MIVC_SCORES_BACKWARD_ROWS;
    const int64_t last_row = min(first_row + MIVC_SCORES_BACKWARD_ROWS, p.slice.rows);
    const bool is_unit = unit < hidden;
    float x_sum = 0, y_sum = 0;
    for (int64_t row = first_row; row < last_row; row++) {
        float d_unit = 0;
        bool flows = false;
        if (is_there(p.slice, row)) {
            for (int64_t head = heads.first; head < heads.last; head++) {
                const float d_score = pointer<const float>(p.d_scores)[row * p.packed.heads + head];
                // 0 times infinity is not there.
                if (d_score == 0) continue;
                flows = true;
                if (!is_unit) break;
                const float w = pointer<const float>(
                    p.packed.column_weights)[head * p.packed.group_columns + unit * matrices];
                d_unit = fmaf(d_score, w, d_unit);
            }
        }
        if (unit == 0) pointer<uint8_t>(p.slice.flows)[row * p.packed.groups + group] = flows;
        float d_x = 0, d_y = 0;
        if (flows && is_unit) {
            const auto [tanh, sigma] = unit_at<T>(p, row, group, unit);
            const GateSlopes slopes = gate_slopes(tanh, sigma);
            d_x = d_unit * slopes.x;
            d_y = d_unit * slopes.y;
        }
        float* at = pointer<float>(to.at) + row * to.row_stride + group * to.group_stride + unit;
        at[0] = d_x;
        if (p.packed.is_gated) at[p.packed.groups * to.group_stride] = d_y;
        x_sum += d_x;
        y_sum += d_y;
    }
    if (!is_unit || p.partial_bias == 0) return;
    const int64_t units = p.packed.groups * hidden, part = blockIdx.x * matrices * units + group * hidden + unit;
    add_part(p, p.partial_bias, part, x_sum);
    if (p.packed.is_gated) add_part(p, p.partial_bias, part + units, y_sum);
}

// ---- dw and dc ----

// c is as the weight of one more unit, which is always 1.
template <typename T>
__device__ __forceinline__ void d_w(const MivcScoresBackward& p) {
    const int64_t hidden = hidden_of(p.packed);
    const int64_t unit = int64_t(blockIdx.y) * MIVC_THREADS + threadIdx.x;
    if (unit > hidden) return;
    constexpr int HEADS = MIVC_SCORES_BACKWARD_HEADS;
    const int64_t heads_of_group = p.packed.heads / p.packed.groups, blocks_of_group = (heads_of_group + HEADS - 1) / HEADS;
    const int64_t group = blockIdx.z / blocks_of_group;
    const int64_t first_head = Heads(p.packed, group).first + blockIdx.z % blocks_of_group * HEADS;
    const int heads = int(min(Heads(p.packed, group).last - first_head, int64_t(HEADS)));
    const int64_t first_row = int64_t(blockIdx.x) * MIVC_SCORES_BACKWARD_ROWS;
    const int64_t last_row = min(first_row + MIVC_SCORES_BACKWARD_ROWS, p.slice.rows);
    float sums[HEADS] = {};
    for (int64_t row = first_row; row < last_row; row++) {
        if (!is_there(p.slice, row)) continue;
        float activation = 1;
        if (unit < hidden) {
            const auto [tanh, sigma] = unit_at<T>(p, row, group, unit);
            activation = tanh * sigma;
        }
#pragma unroll
        for (int head = 0; head < HEADS; head++) {
            if (head >= heads) continue;
            const float d_score = pointer<const float>(p.d_scores)[row * p.packed.heads + first_head + head];
            if (d_score != 0) sums[head] = fmaf(d_score, activation, sums[head]);
        }
    }
#pragma unroll
    for (int head = 0; head < HEADS; head++) {
        if (head >= heads) continue;
        add_part(p, p.partial_w, (blockIdx.x * p.packed.heads + first_head + head) * (hidden + 1) + unit, sums[head]);
    }
}

#define MIVC_KERNEL(name, function, T)                                                                              \
    extern "C" __global__ void __launch_bounds__(MIVC_THREADS) name(const __grid_constant__ MivcScoresBackward p) { \
        function<T>(p);                                                                                             \
    }
#define MIVC_KERNELS(suffix, T)                                 \
    MIVC_KERNEL(mivc_scores_d_columns_##suffix, d_columns, T)   \
    MIVC_KERNEL(mivc_scores_d_w_##suffix, d_w, T)

MIVC_KERNELS(f32, float)
MIVC_KERNELS(f16, __half)
MIVC_KERNELS(bf16, __nv_bfloat16)

// ---- sums of parts ----

extern "C" __global__ void __launch_bounds__(MIVC_THREADS) mivc_sum_parts(const __grid_constant__ MivcSumParts p) {
    const MivcParts& it = p.of[blockIdx.y];
    const int64_t i = int64_t(blockIdx.x) * MIVC_THREADS + threadIdx.x;
    if (it.gradient.to == 0 || i >= it.rows * it.row_elements) return;
    const auto* part = pointer<const float>(it.parts) + i / it.row_elements * it.row_stride + i % it.row_elements;
    float sum = 0;
    for (int64_t n = 0; n < it.count; n++) sum += part[n * it.part_stride];
    write_one(it.gradient, i, sum);
}

}  // namespace mivc
