// Loops that do not end. Compiled with -DBUG=n; 0 is clean.

// out[i] = steps of the Collatz sequence from in[i] to 1, and 0 for 0. Blocks of 32. in, out: [32 blocks]; in has a 0.
extern "C" __global__ void collatz(const unsigned* in, int* out) {
    const int i = blockIdx.x * 32 + threadIdx.x;
    unsigned value = in[i];
    int steps = 0;
    while (BUG == 1 ? value != 1 : value > 1) {              // BUG 1
        value = value % 2 == 0 ? value / 2 : 3 * value + 1;  // BUG 1
        steps++;                                             // BUG 1
    }
    out[i] = steps;
}

// out[0] += the sum of in, under a lock. Blocks of 1 thread. in: [blocks]; lock: [1], 0; out: [1].
extern "C" __global__ void locked_sum(const int* in, int* lock, int* out) {
    while (atomicCAS(lock, 0, 1) != 0) {}  // BUG 2
    __threadfence();
    out[0] += in[blockIdx.x];
    __threadfence();
    if (BUG != 2) atomicExch(lock, 0);
}
