// Merges what another state has seen of the same bags into a state, in place: m, l and the normalised z of each bag
// and head. The rules are those of src/state.rs.
//
// A block takes a bag and head, so that a barrier is enough between reading m and l and writing them. z is read and
// written 16 bytes at once where alignment allows; where the other side has no share, it is not touched.
#include "softmax.cuh"

namespace mivc {

// Both sides of a bag and head together, and how much of l each has. Which comes first decides no bit: products are
// rounded before they are added, where a fused multiply-add would round one alone.
struct Joined {
    Normaliser all;
    float share;
    float other_share;

    __device__ __forceinline__ Joined(const Normaliser& one, const Normaliser& other) {
        all.max = greatest(one.max, other.max);
        const float scaled = __fmul_rn(one.sum, exponential(one.max, all.max));
        const float other_scaled = __fmul_rn(other.sum, exponential(other.max, all.max));
        all.sum = __fadd_rn(scaled, other_scaled);
        share = scaled == 0 ? 0 : scaled / all.sum;
        other_share = other_scaled == 0 ? 0 : other_scaled / all.sum;
    }
};

template <int N>
__device__ __forceinline__ void merge(const MivcStateMerge& p) {
    const int64_t row = blockIdx.x;
    float* const max = pointer<float>(p.max) + row;
    float* const sum = pointer<float>(p.sum) + row;
    const Joined joined({*max, *sum},
                        {pointer<const float>(p.other_max)[row], pointer<const float>(p.other_sum)[row]});
    // Nothing new: not even the sign of a zero changes.
    if (joined.other_share == 0) return;

    float* const mine = pointer<float>(p.pooled) + row * p.dim;
    const float* const others = pointer<const float>(p.other_pooled) + row * p.dim;
    for (int64_t column = int64_t(threadIdx.x) * N; column < p.dim; column += MIVC_THREADS * N) {
        const auto other = Elements<float, N>::load_once(others + column);
        float z[N];
#pragma unroll
        for (int i = 0; i < N; i++) z[i] = other[i];
        // A share of 0 is left out, not multiplied: 0 * infinity must not arise.
        if (joined.share != 0) {
            const auto one = Elements<float, N>::load(mine + column);
#pragma unroll
            for (int i = 0; i < N; i++) {
                z[i] = __fadd_rn(__fmul_rn(joined.share, one[i]), __fmul_rn(joined.other_share, z[i]));
            }
        }
        store(mine + column, z);
    }
    __syncthreads();
    if (threadIdx.x != 0) return;
    *max = joined.all.max;
    *sum = joined.all.sum;
}

extern "C" __global__ void __launch_bounds__(MIVC_THREADS)
    mivc_state_merge(const __grid_constant__ MivcStateMerge p) {
    merge<1>(p);
}

extern "C" __global__ void __launch_bounds__(MIVC_THREADS)
    mivc_state_merge_vector(const __grid_constant__ MivcStateMerge p) {
    merge<VECTOR_ELEMENTS<float>>(p);
}

}  // namespace mivc
