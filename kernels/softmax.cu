// Softmax over the instances of each bag: a = exp(s - m) / l, with m the greatest score and l = sum of exp(s - m).
//
// A warp takes a chunk of a bag and some neighbouring heads, so that bags of a few instances need no block each. Its
// lanes read whole rows of scores side by side: a lane has one head, and every so many rows counted from the bag's own
// first. `softmax` leaves m and l of each bag; `softmax_weights` reads the scores again for the weights, as m and l of
// a long bag are not known before.
#include "softmax.cuh"
#include "work_list.cuh"

namespace mivc {

constexpr int WARPS = MIVC_THREADS / 32;

struct Partials {
    const MivcSoftmax& p;
    Lanes lanes;

    // Lanes of the same head have the same.
    __device__ __forceinline__ void store(int64_t node, const Normaliser& partial) const {
        if (!lanes.any || lanes.row != 0) return;
        pointer<float>(p.partial_max)[node * p.heads + lanes.head] = partial.max;
        pointer<float>(p.partial_sum)[node * p.heads + lanes.head] = partial.sum;
    }

    __device__ __forceinline__ void merge(Normaliser& into, int64_t node) const {
        if (!lanes.any) return;
        into.merge({pointer<float>(p.partial_max)[node * p.heads + lanes.head],
                    pointer<float>(p.partial_sum)[node * p.heads + lanes.head]});
    }
};

__device__ __forceinline__ float score_at(const MivcSoftmax& p, int64_t row, int64_t head) {
    const auto* mask = pointer<const uint8_t>(p.mask);
    if (mask != nullptr && mask[row] == 0) return -INFINITY;
    return pointer<const float>(p.scores)[row * p.heads + head];
}

// Eight blocks: left to itself, ptxas makes room for ten, and spills.
extern "C" __global__ void __launch_bounds__(MIVC_THREADS, 8) mivc_softmax(const __grid_constant__ MivcSoftmax p) {
    const Work work = work_of_team(p.list, int64_t(blockIdx.x) * WARPS + threadIdx.x / 32);
    if (!work.any) return;
    const Lanes lanes(p.heads);
    const int64_t last_row = lanes.any ? work.last_row : 0;
    Normaliser all = normalise(work.first_row + lanes.row, last_row, lanes.rows, lanes.heads,
                               [&](int64_t row) { return score_at(p, row, lanes.head); });
    if (!merge_chunks<WarpTeam>(p.list, work, blockIdx.y, Partials{p, lanes}, all)) return;
    if (!lanes.any || lanes.row != 0) return;
    NormaliserOutputs{p.max, p.sum, p.lse}.store(work.bag * p.heads + lanes.head, all);
}

extern "C" __global__ void __launch_bounds__(MIVC_THREADS)
    mivc_softmax_weights(const __grid_constant__ MivcSoftmax p) {
    const Work work = work_of_team(p.list, int64_t(blockIdx.x) * WARPS + threadIdx.x / 32);
    const Lanes lanes(p.heads);
    if (!work.any || !lanes.any) return;
    const int64_t i = work.bag * p.heads + lanes.head;
    const Normaliser all = {pointer<const float>(p.max)[i], pointer<const float>(p.sum)[i]};
    for (int64_t row = work.first_row + lanes.row; row < work.last_row; row += lanes.rows) {
        pointer<float>(p.weights)[row * p.heads + lanes.head] = all.weight(score_at(p, row, lanes.head));
    }
}

}  // namespace mivc
