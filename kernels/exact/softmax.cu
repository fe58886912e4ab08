// The exact sum of the exponentials of each bag and head, and weights made of it.
//
// A warp takes a chunk of a bag and some neighbouring heads, as in softmax.cu. Its lanes find the greatest exponent first,
// so that all of them add to the same three bins, then add those up.
#include "bins.cuh"
#include "mass.cuh"
#include "terms.cuh"
#include "../softmax.cuh"
#include "../work_list.cuh"

namespace mivc {

constexpr int WARPS = MIVC_THREADS / 32;

// Sum of exponentials: bins from the greatest on.
struct Mass {
    float max = -INFINITY;
    int64_t top = NO_BIN;
    Word bins[KEPT_BINS] = {};

    __device__ __forceinline__ void raise(int64_t bin) {
        if (top == NO_BIN || bin - top >= KEPT_BINS) {
#pragma unroll
            for (Word& word : bins) word = {};
        } else {
            for (int64_t step = top; step < bin; step++) {
                bins[2] = bins[1];
                bins[1] = bins[0];
                bins[0] = {};
            }
        }
        top = bin;
    }

    // Adds to the bin that is `below` the greatest, where it is kept.
    __device__ __forceinline__ void add(int64_t below, const Word& word) {
#pragma unroll
        for (int i = 0; i < KEPT_BINS; i++) {
            if (i == below) {
                bins[i].low += word.low;
                bins[i].high += word.high;
            }
        }
    }

    __device__ __forceinline__ void carry() {
#pragma unroll
        for (Word& word : bins) word.carry();
    }

    // Of bins whose carries have been taken over, and so are its own then.
    __device__ __forceinline__ void merge(const Mass& other) {
        max = greatest(max, other.max);
        if (other.top == NO_BIN) return;
        if (top == NO_BIN || other.top > top) raise(other.top);
#pragma unroll
        for (int i = 0; i < KEPT_BINS; i++) add(top - other.top + i, other.bins[i]);
        carry();
    }
};

struct Partials {
    const MivcExactSoftmax& p;
    Lanes lanes;

    __device__ __forceinline__ MivcExactMassNode* at(int64_t node) const {
        return pointer<MivcExactMassNode>(p.partials) + node * p.heads + lanes.head;
    }

    // Lanes of the same head have the same.
    __device__ __forceinline__ void store(int64_t node, const Mass& mass) const {
        if (!lanes.any || lanes.row != 0) return;
        MivcExactMassNode* to = at(node);
        to->max = mass.max;
        to->top = mass.top;
#pragma unroll
        for (int i = 0; i < KEPT_BINS; i++) {
            to->low[i] = mass.bins[i].low;
            to->high[i] = mass.bins[i].high;
        }
    }

    __device__ __forceinline__ void merge(Mass& into, int64_t node) const {
        if (!lanes.any) return;
        const MivcExactMassNode* from = at(node);
        Mass other;
        other.max = from->max;
        other.top = from->top;
#pragma unroll
        for (int i = 0; i < KEPT_BINS; i++) other.bins[i] = {from->low[i], from->high[i]};
        into.merge(other);
    }
};

__device__ __forceinline__ float score_at(const MivcExactSoftmax& p, int64_t row, int64_t head) {
    const auto* mask = pointer<const uint8_t>(p.mask);
    if (mask != nullptr && mask[row] == 0) return -INFINITY;
    return pointer<const float>(p.scores)[row * p.heads + head];
}

__device__ __forceinline__ int64_t greatest_of_lanes(int64_t value, int distance) {
    for (int d = distance; d < 32; d *= 2) {
        value = max(value, int64_t(__shfl_xor_sync(0xffffffff, (long long)value, d)));
    }
    return value;
}

__device__ __forceinline__ int64_t sum_of_lanes(int64_t value, int distance) {
    for (int d = distance; d < 32; d *= 2) value += int64_t(__shfl_xor_sync(0xffffffff, (long long)value, d));
    return value;
}

// Of the rows of a chunk, in all lanes of a head.
__device__ __forceinline__ Mass mass_of(const MivcExactSoftmax& p, const Work& work, const Lanes& lanes) {
    const int64_t first = work.first_row + lanes.row, last = lanes.any ? work.last_row : 0;
    Mass mass;
    for (int64_t row = first; row < last; row += lanes.rows) {
        const float score = score_at(p, row, lanes.head);
        mass.max = greatest(mass.max, score);
        if (isfinite(score)) mass.top = max(mass.top, bin_of(exponential_power(score).exponent));
    }
    mass.max = greatest_of_lanes(mass.max, lanes.heads);
    mass.top = greatest_of_lanes(mass.top, lanes.heads);
    for (int64_t row = first; row < last; row += lanes.rows) {
        const float score = score_at(p, row, lanes.head);
        if (!isfinite(score)) continue;
        const Power power = exponential_power(score);
        Word word = {};
        word.add(int64_t(power.mantissa * float(1 << MANTISSA)), shift_of(power.exponent));
        mass.add(mass.top - bin_of(power.exponent), word);
    }
#pragma unroll
    for (Word& word : mass.bins) {
        word.carry();
        word.low = sum_of_lanes(word.low, lanes.heads);
        word.high = sum_of_lanes(word.high, lanes.heads);
        word.carry();
    }
    return mass;
}

extern "C" __global__ void __launch_bounds__(MIVC_THREADS)
    mivc_exact_softmax(const __grid_constant__ MivcExactSoftmax p) {
    const Work work = work_of_team(p.list, int64_t(blockIdx.x) * WARPS + threadIdx.x / 32);
    if (!work.any) return;
    const Lanes lanes(p.heads);
    Mass mass = mass_of(p, work, lanes);
    if (!merge_chunks<WarpTeam>(p.list, work, blockIdx.y, Partials{p, lanes}, mass)) return;
    if (!lanes.any || lanes.row != 0) return;

    const int64_t i = work.bag * p.heads + lanes.head;
    const int64_t top = mass.top == NO_BIN ? 0 : mass.top;
    const MivcExactTotal total = {sum_of(mass.bins[0].number(), mass.bins[1].number(), mass.bins[2].number()),
                                  top * BIN_WIDTH - MANTISSA, mass.max, 0};
    pointer<MivcExactTotal>(p.totals)[i] = total;
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
