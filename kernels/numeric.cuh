// Element types: from addresses and bits to f32, and back.
#pragma once
#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include "abi.h"
#include "ptx.cuh"

namespace mivc {

template <typename T>
__device__ __forceinline__ T* pointer(uint64_t address) {
    return reinterpret_cast<T*>(address);
}

template <typename T>
constexpr int VECTOR_ELEMENTS = MIVC_VECTOR_BYTES / sizeof(T);

__device__ __forceinline__ float to_f32(float x) { return x; }
__device__ __forceinline__ float to_f32(__half x) { return __half2float(x); }
__device__ __forceinline__ float to_f32(__nv_bfloat16 x) { return __bfloat162float(x); }

template <typename T>
__device__ __forceinline__ T from_f32(float x);
template <>
__device__ __forceinline__ float from_f32<float>(float x) { return x; }
template <>
__device__ __forceinline__ __half from_f32<__half>(float x) { return __float2half_rn(x); }
template <>
__device__ __forceinline__ __nv_bfloat16 from_f32<__nv_bfloat16>(float x) { return __float2bfloat16_rn(x); }

// Of the two elements of a word, the one at the lower address or the other.
__device__ __forceinline__ float element_f32(uint32_t word, bool is_second, __half) {
    __half2 both;
    memcpy(&both, &word, sizeof both);
    return is_second ? __high2float(both) : __low2float(both);
}
__device__ __forceinline__ float element_f32(uint32_t word, bool is_second, __nv_bfloat16) {
    return __uint_as_float(is_second ? word & 0xffff0000 : word << 16);
}
__device__ __forceinline__ float element_f32(uint32_t word, bool, float) { return __uint_as_float(word); }

// N neighbouring elements: a vector of 16 bytes, which is read in one access, or a single element. A vector stays words
// until an element of it is used: taken apart where it is loaded, it would be waited for before the next load begins.
template <typename T, int N>
struct Elements {
    static_assert(N == 1 || N == VECTOR_ELEMENTS<T>, "one access is 16 bytes or one element");
    static constexpr int OF_WORD = N == 1 ? 1 : sizeof(uint32_t) / sizeof(T);
    std::conditional_t<N == 1, T, uint32_t> words[N / OF_WORD];

    __device__ __forceinline__ static Elements load_once(const T* address) {
        if constexpr (N == 1) {
            return {{*address}};
        } else {
            return of_bits(mivc::load_once(reinterpret_cast<const uint4*>(address)));
        }
    }

    // Of what the kernel itself writes, or reads again.
    __device__ __forceinline__ static Elements load(const T* address) {
        if constexpr (N == 1) {
            return {{*address}};
        } else {
            return of_bits(*reinterpret_cast<const uint4*>(address));
        }
    }

    __device__ __forceinline__ static Elements of_bits(const uint4 bits) {
        return {{bits.x, bits.y, bits.z, bits.w}};
    }

    __device__ __forceinline__ void set(int i, T element) {
        memcpy(reinterpret_cast<T*>(words) + i, &element, sizeof element);
    }

    __device__ __forceinline__ float operator[](int i) const {
        if constexpr (N == 1) {
            return to_f32(words[0]);
        } else {
            return element_f32(words[i / OF_WORD], i % OF_WORD == 1, T());
        }
    }
};

// Writes N neighbouring elements, 16 bytes at once where there are as many.
template <typename T, int N, typename From>
__device__ __forceinline__ void store(T* address, const From (&from)[N]) {
    constexpr int TOGETHER = N * sizeof(T) >= MIVC_VECTOR_BYTES ? VECTOR_ELEMENTS<T> : 1;
    static_assert(N % TOGETHER == 0, "whole vectors");
#pragma unroll
    for (int start = 0; start < N; start += TOGETHER) {
        T converted[TOGETHER];
#pragma unroll
        for (int i = 0; i < TOGETHER; i++) {
            if constexpr (sizeof(From) == 8) {
                converted[i] = from[start + i];
            } else {
                converted[i] = from_f32<T>(from[start + i]);
            }
        }
        if constexpr (TOGETHER == 1) {
            address[start] = converted[0];
        } else {
            uint4 bits;
            memcpy(&bits, converted, sizeof bits);
            *reinterpret_cast<uint4*>(address + start) = bits;
        }
    }
}

}  // namespace mivc
