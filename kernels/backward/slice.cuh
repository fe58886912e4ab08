// Rows that the backward of the scores takes at once.
#pragma once
#include "gradient.cuh"

namespace mivc {

// Whether a row is in any bag. Those that are not lie before the first bag and behind the last.
__device__ __forceinline__ bool is_in_bag(const MivcSlice& slice, int64_t row) {
    const auto* ranges = pointer<const int64_t>(slice.ranges);
    if (ranges == nullptr) return true;
    return slice.first + row >= ranges[0] && slice.first + row < ranges[slice.bags];
}

__device__ __forceinline__ bool is_masked(const MivcSlice& slice, int64_t row) {
    const auto* mask = pointer<const uint8_t>(slice.mask);
    return mask != nullptr && mask[row] == 0;
}

// The bag of a row that is in one: the last that begins no later, which is not empty.
__device__ __forceinline__ int64_t bag_of(const MivcSlice& slice, int64_t row) {
    const auto* ranges = pointer<const int64_t>(slice.ranges);
    int64_t first = 0, last = slice.bags;  // the bag is one of first .. last - 1
    while (last - first > 1) {
        const int64_t middle = (first + last) / 2;
        if (ranges[middle] <= slice.first + row) first = middle;
        else last = middle;
    }
    return first;
}

}  // namespace mivc
