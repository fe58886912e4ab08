// Every instruction that has no CUDA C++ spelling, one named function each. No asm elsewhere.
#pragma once
#include <cstdint>

namespace mivc {

// The greater; NaN where either is NaN, and +0 above -0 (IEEE 754-2019 maximum).
__device__ __forceinline__ float maximum(float a, float b) {
    float result;
    asm("max.NaN.f32 %0, %1, %2;" : "=f"(result) : "f"(a), "f"(b));
    return result;
}

// 16 bytes that are read once: they need not stay in the first-level cache.
__device__ __forceinline__ uint4 load_once(const uint4* address) {
    uint4 v;
    asm("ld.global.nc.L1::no_allocate.v4.u32 {%0, %1, %2, %3}, [%4];"
        : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
        : "l"(address));
    return v;
}

// Orders this thread's accesses to memory, and what it has seen of others', for the whole device.
__device__ __forceinline__ void fence_device() {
    asm volatile("fence.acq_rel.gpu;" ::: "memory");
}

}  // namespace mivc
