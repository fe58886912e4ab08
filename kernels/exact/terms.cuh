// What each row of an exact sum becomes by itself, bit for bit as src/exact/terms.rs has it. src/exact/mod.rs has the
// scheme.
#pragma once
#include "../numeric.cuh"

namespace mivc {

// A weight that is not 0: mantissa 2^exponent.
struct Power {
    float mantissa;
    int64_t exponent;
};

// Scores of this magnitude and above are at least 2^8 apart.
constexpr float FAR_SCORE = 2147483648.0f;
constexpr double LOG2_E = 1.4426950408889634, LN_2 = 0.6931471805599453;

__device__ __forceinline__ int64_t far_exponent(float score) {
    const int64_t floats = int64_t(__float_as_uint(fabsf(score)) - __float_as_uint(FAR_SCORE));
    const int64_t exponent = (int64_t(1) << 32) + (floats << 9);
    return score < 0 ? -exponent : exponent;
}

// e^score of a finite score. Each product and each sum is rounded by itself: fused, they would have other bits.
__device__ __forceinline__ Power exponential_power(float score) {
    if (fabsf(score) >= FAR_SCORE) return {1.0f, far_exponent(score)};
    const double y = __dmul_rn(double(score), LOG2_E);
    const double n = rint(y);
    const double z = __dmul_rn(__dsub_rn(y, n), LN_2);
    constexpr double TAYLOR[] = {1.0 / 40320, 1.0 / 5040, 1.0 / 720, 1.0 / 120, 1.0 / 24, 1.0 / 6, 0.5, 1.0, 1.0};
    double sum = 0;
#pragma unroll
    for (double coefficient : TAYLOR) sum = __dadd_rn(__dmul_rn(sum, z), coefficient);
    return {__double2float_rn(sum), __double2ll_rn(n)};
}

// x = mantissa 2^exponent with 1 <= |mantissa| < 2, of a normal number.
__device__ __forceinline__ int64_t split_exponent(double x) {
    return (__double_as_longlong(x) >> 52 & 0x7ff) - 1023;
}

__device__ __forceinline__ Power power_of(float weight) {
    const int64_t bits = __double_as_longlong(double(weight));
    const double mantissa = __longlong_as_double((bits & ~(int64_t(0x7ff) << 52)) | int64_t(1023) << 52);
    return {__double2float_rn(mantissa), split_exponent(double(weight))};
}

// x 2^exponent, of an x that is far from the ends of double.
__device__ __forceinline__ double scaled(double x, int64_t exponent) {
    const int64_t within = min(max(exponent, int64_t(-900)), int64_t(900));
    return __dmul_rn(x, __longlong_as_double((within + 1023) << 52));
}

// Bits of each of the two integers of a term, and what the exponent of a term counts from.
constexpr int LIMB = 22;
constexpr int64_t UNIT = 2 * LIMB - 1, LOWEST_EXPONENT = -105;
// Bits of mantissas as integers.
constexpr int MANTISSA = 24;

struct Scale {
    float scale;
    int64_t exponent;
};

// Of a row with this weight whose greatest magnitude is `greatest`, finite and not 0.
__device__ __forceinline__ Scale scale_of(const Power& weight, float greatest) {
    const double product = __dmul_rn(double(weight.mantissa), double(greatest));
    const int64_t exponent = max(split_exponent(product), LOWEST_EXPONENT);
    return {__double2float_rn(scaled(double(weight.mantissa), LIMB - 1 - exponent)), weight.exponent + exponent};
}

// The two numbers in whose binades the last place of a float is what is kept of a limb.
constexpr float HIGH_ZERO = 12582912.0f, LOW_ZERO = 3.0f;

// The limbs of p x as bits, each above its zero; what the zeros add up to is taken off once, in the end.
struct Limbs {
    uint32_t high;
    uint32_t low;
};

__device__ __forceinline__ Limbs limbs_of(float p, float x) {
    const float high = __fmaf_rn(p, x, HIGH_ZERO);
    // 3 less the integer, of so few bits that nothing is rounded.
    const float rest = __fsub_rn(HIGH_ZERO + LOW_ZERO, high);
    return {__float_as_uint(high), __float_as_uint(__fmaf_rn(p, x, rest))};
}

// The sum of the terms of `rows` rows.
__device__ __forceinline__ int64_t term_of_limbs(uint32_t high, uint32_t low, int rows) {
    const int32_t above = int32_t(high - rows * __float_as_uint(HIGH_ZERO));
    const int32_t below = int32_t(low - rows * __float_as_uint(LOW_ZERO));
    return (int64_t(above) << LIMB) + below;
}

}  // namespace mivc
