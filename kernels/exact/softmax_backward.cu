// Backward of the softmax with an exact sum of a[i] da[i]: the products are rounded, their sum is not.
#include "sum_in_registers.cuh"
#include "../backward/softmax.cuh"

namespace mivc {

__device__ __forceinline__ uint32_t bit_of(Special kind) { return kind == SPECIALS ? 0 : 1u << kind; }

struct Mean {
    using Node = MivcExactMeanNode;
    Sum sum;
    uint32_t specials = 0;  // a bit of each Special among the products

    // All lanes of the warp take part.
    __device__ __forceinline__ static Mean of_rows(const MivcSoftmaxBackward& p, const Work& work, const Lanes& lanes) {
        const int64_t first = work.first_row + lanes.row, last = lanes.any ? work.last_row : 0;
        const auto product = [&](int64_t row) {
            const Weight weight(p, row, lanes.head);
            return weight.value == 0 ? 0 : __fmul_rn(weight.value, weight.gradient);
        };
        Mean mean;
        for (int64_t row = first; row < last; row += lanes.rows) mean.specials |= bit_of(special_of(product(row)));
        for (int d = lanes.heads; d < 32; d *= 2) mean.specials |= __shfl_xor_sync(0xffffffff, mean.specials, d);
        mean.sum = sum_of_rows(first, last, lanes, UNIT - MANTISSA, [&](int64_t row) {
            const float x = product(row);
            return x == 0 || !isfinite(x) ? Power{0, 0} : power_of(x);
        });
        return mean;
    }

    __device__ __forceinline__ void store(Node& node) const {
        sum.store(node.top, node.bins);
        node.specials = specials;
        node.unused = 0;
    }

    __device__ __forceinline__ void merge(const Node& node) {
        sum.merge(node.top, node.bins);
        specials |= node.specials;
    }

    __device__ __forceinline__ float value() const {
        if (specials != 0) {
            const bool is_there[SPECIALS] = {(specials & bit_of(PLUS_INFINITY)) != 0,
                                             (specials & bit_of(MINUS_INFINITY)) != 0,
                                             (specials & bit_of(NOT_A_NUMBER)) != 0};
            return value_of(is_there);
        }
        return __double2float_rn(__dmul_rn(sum_of(sum.bins), scaled(1, sum.exponent() - UNIT)));
    }
};

extern "C" __global__ void __launch_bounds__(MIVC_THREADS)
    mivc_exact_softmax_backward(const __grid_constant__ MivcSoftmaxBackward p) {
    softmax_backward<Mean>(p);
}

extern "C" __global__ void __launch_bounds__(MIVC_THREADS)
    mivc_exact_softmax_backward_long(const __grid_constant__ MivcSoftmaxBackward p) {
    softmax_backward_long<Mean>(p);
}

}  // namespace mivc
