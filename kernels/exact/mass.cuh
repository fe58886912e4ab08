// What a sum of exponentials comes to: sum 2^exponent. As `Total` of src/exact/sum.rs.
#pragma once
#include "terms.cuh"

namespace mivc {

// Sum of exp(score - max): 0 where no score is above -inf, NaN where one is NaN or +inf.
__device__ __forceinline__ double relative_sum(const MivcExactTotal& total) {
    if (isnan(total.max)) return total.max;
    if (total.max == -INFINITY) return 0;
    const Power greatest = exponential_power(total.max);
    return __ddiv_rn(total.sum, scaled(double(greatest.mantissa), greatest.exponent - total.exponent));
}

// exp(score) over the sum: 0 at score -inf or where it underflows, NaN where a score of the bag is NaN or +inf.
__device__ __forceinline__ float weight_of(const MivcExactTotal& total, float score) {
    if (score == -INFINITY) return 0;
    if (isnan(total.max)) return total.max;
    const Power power = exponential_power(score);
    return __double2float_rn(__ddiv_rn(scaled(double(power.mantissa), power.exponent - total.exponent), total.sum));
}

}  // namespace mivc
