// The exact sum of the exponentials of each bag and head, and weights made of it.
//
// A warp takes a chunk of a bag and some neighbouring heads, as in softmax.cu.
#include "sum_in_registers.cuh"
#include "mass.cuh"
#include "../work_list.cuh"

namespace mivc {

constexpr int WARPS = MIVC_THREADS / 32;

// Sum of exponentials.
struct Mass {
    float max = -INFINITY;
    Sum exponentials;
};

struct Partials {
    const MivcExactSoftmax& p;
    Lanes lanes;

    __device__ __forceinline__ MivcExactMassNode* at(int64_t node) const {
        return pointer<MivcExactMassNode>(p.partials) + node * p.heads + lanes.head;
    }

    // Lanes of the same head have the same.
    __device__ __forceinline__ void store(int64_t node, const Mass& mass) const {
        if (lanes.any && lanes.row == 0) store(*at(node), mass);
    }

    __device__ __forceinline__ static void store(MivcExactMassNode& to, const Mass& mass) {
        // Of +0 and -0, the former.
        to.max = mass.max + 0.0f;
        to.unused = 0;
        mass.exponentials.store(to.top, to.bins);
    }

    __device__ __forceinline__ void merge(Mass& into, int64_t node) const {
        if (!lanes.any) return;
        const MivcExactMassNode& from = *at(node);
        into.max = greatest(into.max, from.max);
        into.exponentials.merge(from.top, from.bins);
    }
};

__device__ __forceinline__ float score_at(const MivcExactSoftmax& p, int64_t row, int64_t head) {
    const auto* mask = pointer<const uint8_t>(p.mask);
    if (mask != nullptr && mask[row] == 0) return -INFINITY;
    return pointer<const float>(p.scores)[row * p.heads + head];
}

// Of the rows of a chunk, in all lanes of a head.
__device__ __forceinline__ Mass mass_of(const MivcExactSoftmax& p, const Work& work, const Lanes& lanes) {
    const int64_t first = work.first_row + lanes.row, last = lanes.any ? work.last_row : 0;
    Mass mass;
    for (int64_t row = first; row < last; row += lanes.rows) {
        mass.max = greatest(mass.max, score_at(p, row, lanes.head));
    }
    mass.max = greatest_of_lanes(mass.max, lanes.heads);
    mass.exponentials = sum_of_rows(first, last, lanes, 0, [&](int64_t row) {
        const float score = score_at(p, row, lanes.head);
        return isfinite(score) ? exponential_power(score) : Power{0, 0};
    });
    return mass;
}

extern "C" __global__ void __launch_bounds__(MIVC_THREADS)
    mivc_exact_softmax(const __grid_constant__ MivcExactSoftmax p) {
    const Work work = work_of_team(p.list, int64_t(blockIdx.x) * WARPS + threadIdx.x / 32);
    if (!work.any) return;
    const Lanes lanes(p.heads);
    Mass mass = mass_of(p, work, lanes);
    const Partials partials = {p, lanes};
    if (!merge_chunks<WarpTeam>(p.list, work, blockIdx.y, partials, mass)) return;
    if (!lanes.any || lanes.row != 0) return;

    const int64_t i = work.bag * p.heads + lanes.head;
    const MivcExactTotal total = {sum_of(mass.exponentials.bins), mass.exponentials.exponent() - MANTISSA, mass.max, 0};
    pointer<MivcExactTotal>(p.totals)[i] = total;
    if (p.masses != 0) partials.store(pointer<MivcExactMassNode>(p.masses)[i], mass);
    const double relative = relative_sum(total);
    if (p.max != 0) pointer<float>(p.max)[i] = total.max;
    if (p.sum != 0) pointer<float>(p.sum)[i] = __double2float_rn(relative);
    if (p.lse != 0) {
        const double lse = double(total.max) + log(relative);
        pointer<float>(p.lse)[i] = total.max == -INFINITY ? -INFINITY : __double2float_rn(lse);
    }
}

extern "C" __global__ void __launch_bounds__(MIVC_THREADS)
    mivc_exact_softmax_weights(const __grid_constant__ MivcExactSoftmax p) {
    const Work work = work_of_team(p.list, int64_t(blockIdx.x) * WARPS + threadIdx.x / 32);
    const Lanes lanes(p.heads);
    if (!work.any || !lanes.any) return;
    const MivcExactTotal total = pointer<const MivcExactTotal>(p.totals)[work.bag * p.heads + lanes.head];
    for (int64_t row = work.first_row + lanes.row; row < work.last_row; row += lanes.rows) {
        pointer<float>(p.weights)[row * p.heads + lanes.head] = weight_of(total, score_at(p, row, lanes.head));
    }
}

}  // namespace mivc
