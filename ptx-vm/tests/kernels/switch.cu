// A dense switch, of which nvcc 13.0 makes a tree of comparisons for compute_80.

// Runs a little program per thread: value = x[i], then per step `value = value OP operand`.
//   0 add  1 subtract  2 multiply  3 divide (operand not 0)  4 remainder (likewise)  5 shift left by operand % 32
//   6 rotate right by operand % 32  7 and  8 or, not  9 number of ones plus operand; others leave it alone
// operations, operands: [n, steps]; x, out: [n] u32; a grid that covers n.
extern "C" __global__ void interpret(const unsigned* x, const int* operations, const unsigned* operands, unsigned* out,
                                     int steps, int n) {
    const int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n) return;
    unsigned value = x[i];
    for (int step = 0; step < steps; step++) {
        const unsigned operand = operands[i * steps + step];
        switch (operations[i * steps + step]) {
            case 0: value += operand; break;
            case 1: value -= operand; break;
            case 2: value *= operand; break;
            case 3: value /= operand; break;
            case 4: value %= operand; break;
            case 5: value <<= operand % 32; break;
            case 6: value = __funnelshift_r(value, value, operand); break;
            case 7: value &= operand; break;
            case 8: value |= ~operand; break;
            case 9: value = __popc(value) + operand; break;
        }
    }
    out[i] = value;
}
