// Backward of the softmax, of means that are summed in either order. Warps, lanes and chunks are those of the softmax itself.
#pragma once
#include "../softmax.cuh"
#include "../work_list.cuh"
#include "gradient.cuh"

namespace mivc {

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

// Means of chunks in memory, as Mean::Node.
template <typename Mean>
struct Partials {
    const MivcSoftmaxBackward& p;
    Lanes lanes;

    __device__ __forceinline__ typename Mean::Node* at(int64_t node) const {
        return pointer<typename Mean::Node>(p.partial_means) + node * p.heads + lanes.head;
    }

    // Lanes of the same head have the same.
    __device__ __forceinline__ void store(int64_t node, const Mean& mean) const {
        if (lanes.any && lanes.row == 0) mean.store(*at(node));
    }

    __device__ __forceinline__ void merge(Mean& into, int64_t node) const {
        if (lanes.any) into.merge(*at(node));
    }
};

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

// Bags of one chunk; of the others, the mean, which is kept. Mean::of_rows(p, work, lanes) is that of a chunk.
template <typename Mean>
__device__ __forceinline__ void softmax_backward(const MivcSoftmaxBackward& p) {
    const Work work = work_of_team(p.list, int64_t(blockIdx.x) * (MIVC_THREADS / 32) + threadIdx.x / 32);
    if (!work.any) return;
    const Lanes lanes(p.heads);
    Mean mean;
    if (p.d_weights != 0) {
        mean = Mean::of_rows(p, work, lanes);
        const Partials<Mean> partials = {p, lanes};
        const bool is_whole = merge_chunks<WarpTeam>(p.list, work, blockIdx.y, partials, mean);
        if (work.chunks > 1) {
            if (is_whole) partials.store(root_of(p.list, work), mean);
            return;
        }
    }
    write_rows(p, work, lanes, mean.value());
}

// The chunks of bags that have several.
template <typename Mean>
__device__ __forceinline__ void softmax_backward_long(const MivcSoftmaxBackward& p) {
    const Work work = work_of_team(p.list, int64_t(blockIdx.x) * (MIVC_THREADS / 32) + threadIdx.x / 32);
    if (!work.any || work.chunks == 1) return;
    const Lanes lanes(p.heads);
    Mean mean;
    Partials<Mean>{p, lanes}.merge(mean, root_of(p.list, work));
    write_rows(p, work, lanes, mean.value());
}

}  // namespace mivc
