// Backward of the softmax with an exact sum of a[i] da[i]: the products are rounded, their sum is not.
#include "column.cuh"
#include "../backward/softmax.cuh"

namespace mivc {

// Infinities and NaNs among the products.
enum Special : uint32_t { PLUS_INFINITY = 1, MINUS_INFINITY = 2, NOT_A_NUMBER = 4 };

__device__ __forceinline__ uint32_t special_of(float x) {
    return isnan(x) ? NOT_A_NUMBER : !isinf(x) ? 0 : x > 0 ? PLUS_INFINITY : MINUS_INFINITY;
}

struct Mean {
    using Node = MivcExactMeanNode;
    Column sum;
    uint32_t specials = 0;

    // All lanes of the warp take part.
    __device__ __forceinline__ static Mean of_rows(const MivcSoftmaxBackward& p, const Work& work, const Lanes& lanes) {
        const int64_t first = work.first_row + lanes.row, last = lanes.any ? work.last_row : 0;
        const auto product = [&](int64_t row) {
            const Weight weight(p, row, lanes.head);
            return weight.value == 0 ? 0 : __fmul_rn(weight.value, weight.gradient);
        };
        Mean mean;
        for (int64_t row = first; row < last; row += lanes.rows) mean.specials |= special_of(product(row));
        for (int d = lanes.heads; d < 32; d *= 2) mean.specials |= __shfl_xor_sync(0xffffffff, mean.specials, d);
        mean.sum = column_of(first, last, lanes, UNIT - MANTISSA, [&](int64_t row) {
            const float x = product(row);
            return x == 0 || special_of(x) != 0 ? Power{0, 0} : power_of(x);
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
        if (specials == PLUS_INFINITY) return INFINITY;
        if (specials == MINUS_INFINITY) return -INFINITY;
        if (specials != 0) return NAN;
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
