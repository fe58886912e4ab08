// Backward of the softmax: ds[n] = a[n] * (da[n] - mean + dlse), mean = sum of a[i] * da[i] over the bag.
//
// Bound by memory, as little as there is: a and da are read twice and ds is written once, 20 bytes of each instance and
// head, and 4 more where it is added to. A bag of one chunk is finished by the warp that has summed its mean, which finds
// a and da in cache: from memory they come once. Of longer bags the mean is kept, and `softmax_backward_long` reads a and
// da again. Without da there is no mean, and one pass does for all: 8 bytes.
#include "softmax.cuh"

namespace mivc {

struct Mean {
    using Node = float;
    float sum = 0;

    // All lanes of the warp take part.
    __device__ __forceinline__ static Mean of_rows(const MivcSoftmaxBackward& p, const Work& work, const Lanes& lanes) {
        const int64_t last_row = lanes.any ? work.last_row : 0;
        float sum = 0;
        for (int64_t row = work.first_row + lanes.row; row < last_row; row += lanes.rows) {
            const Weight weight(p, row, lanes.head);
            // 0 times infinity is not there.
            if (weight.value != 0) sum = fmaf(weight.value, weight.gradient, sum);
        }
        return {sum_of_lanes(sum, lanes.heads)};
    }

    __device__ __forceinline__ void store(Node& node) const { node = sum; }
    __device__ __forceinline__ void merge(Node node) { sum += node; }
    __device__ __forceinline__ float value() const { return sum; }
};

extern "C" __global__ void __launch_bounds__(MIVC_THREADS, 8)
    mivc_softmax_backward(const __grid_constant__ MivcSoftmaxBackward p) {
    softmax_backward<Mean>(p);
}

extern "C" __global__ void __launch_bounds__(MIVC_THREADS)
    mivc_softmax_backward_long(const __grid_constant__ MivcSoftmaxBackward p) {
    softmax_backward_long<Mean>(p);
}

}  // namespace mivc
