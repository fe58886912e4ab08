// Backward of the softmax: ds[n] = a[n] * (da[n] - mean + dlse), mean = sum of a[i] * da[i] over the bag.
//
// Bound by memory, as little as there is: a and da are read twice and ds is written once, 20 bytes of each instance and
// head, and 4 more where it is added to. Warps, lanes and chunks are those of the softmax itself. A bag of one chunk is
// finished by the warp that has summed its mean, which finds a and da in cache: from memory they come once. Of longer
// bags the mean is kept, and `softmax_backward_long` reads a and da again. Without da there is no mean, and one pass
// does for all: 8 bytes.
#include "../softmax.cuh"
#include "../work_list.cuh"
#include "gradient.cuh"

namespace mivc {

constexpr int WARPS = MIVC_THREADS / 32;

// Means of chunks in memory.
struct Partials {
    const MivcSoftmaxBackward& p;
    Lanes lanes;

    __device__ __forceinline__ float* at(int64_t node) const {
        return pointer<float>(p.partial_means) + node * p.heads + lanes.head;
    }

    // Lanes of the same head have the same.
    __device__ __forceinline__ void store(int64_t node, float mean) const {
        if (lanes.any && lanes.row == 0) *at(node) = mean;
    }

    __device__ __forceinline__ void merge(float& into, int64_t node) const {
        if (lanes.any) into += *at(node);
    }
};

// The weight of an instance and its gradient. One that is masked has weight 0, and is not read.
struct Weight {
    float value = 0;
    float gradient = 0;

    __device__ __forceinline__ Weight(const MivcSoftmaxBackward& p, int64_t row, int64_t head) {
        const auto* mask = pointer<const uint8_t>(p.mask);
        if (mask != nullptr && mask[row] == 0) return;
        value = pointer<const float>(p.weights)[row * p.heads + head];
        if (p.d_weights != 0) gradient = pointer<const float>(p.d_weights)[row * p.heads + head];
    }
};

// The mean of the rows of a chunk. All lanes of the warp take part.
__device__ __forceinline__ float mean_of_rows(const MivcSoftmaxBackward& p, const Work& work, const Lanes& lanes) {
    const int64_t last_row = lanes.any ? work.last_row : 0;
    float mean = 0;
    for (int64_t row = work.first_row + lanes.row; row < last_row; row += lanes.rows) {
        const Weight weight(p, row, lanes.head);
        // 0 times infinity is not there.
        if (weight.value != 0) mean = fmaf(weight.value, weight.gradient, mean);
    }
    return sum_of_lanes(mean, lanes.heads);
}

__device__ __forceinline__ void write_rows(const MivcSoftmaxBackward& p, const Work& work, const Lanes& lanes,
                                           float mean) {
    if (!lanes.any) return;
    if (p.d_lse != 0) mean -= pointer<const float>(p.d_lse)[work.bag * p.heads + lanes.head];
    for (int64_t row = work.first_row + lanes.row; row < work.last_row; row += lanes.rows) {
        const Weight weight(p, row, lanes.head);
        const float d_score = weight.value == 0 ? 0 : weight.value * (weight.gradient - mean);
        write_one(p.d_scores, row * p.heads + lanes.head, d_score);
    }
}

extern "C" __global__ void __launch_bounds__(MIVC_THREADS, 8)
    mivc_softmax_backward(const __grid_constant__ MivcSoftmaxBackward p) {
    const Work work = work_of_team(p.list, int64_t(blockIdx.x) * WARPS + threadIdx.x / 32);
    if (!work.any) return;
    const Lanes lanes(p.heads);
    float mean = 0;
    if (p.d_weights != 0) {
        mean = mean_of_rows(p, work, lanes);
        const Partials partials = {p, lanes};
        const bool is_whole = merge_chunks<WarpTeam>(p.list, work, blockIdx.y, partials, mean);
        if (work.chunks > 1) {
            if (is_whole) partials.store(root_of(p.list, work), mean);
            return;
        }
    }
    write_rows(p, work, lanes, mean);
}

// The chunks of bags that have several.
extern "C" __global__ void __launch_bounds__(MIVC_THREADS)
    mivc_softmax_backward_long(const __grid_constant__ MivcSoftmaxBackward p) {
    const Work work = work_of_team(p.list, int64_t(blockIdx.x) * WARPS + threadIdx.x / 32);
    if (!work.any || work.chunks == 1) return;
    const Lanes lanes(p.heads);
    float mean = 0;
    Partials{p, lanes}.merge(mean, root_of(p.list, work));
    write_rows(p, work, lanes, mean);
}

}  // namespace mivc
