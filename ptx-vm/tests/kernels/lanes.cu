// Lanes that a mask names and that do not come, and the reverse. Compiled with -DBUG=n; 0 is clean. Where lanes wait for
// each other at different places, both are marked.
// All kernels: one block of 32 threads; in, out: [32].

// out[t] = in[t] + in[t + 8] for t < 8; the others are left alone.
extern "C" __global__ void half_a_warp(const int* in, int* out) {
    const int t = threadIdx.x;
    if (t < 16) {
        const unsigned mask = BUG == 1 ? 0xffffffff : 0x0000ffff;
        const int value = in[t];
        const int sum = value + __shfl_down_sync(mask, value, 8, 16);  // BUG 1
        if (t < 8) out[t] = sum;
    }
    __syncwarp();  // BUG 1
}

// out[t] = in[t] + in[t ^ 1].
extern "C" __global__ void caller_not_in_mask(const int* in, int* out) {
    const int t = threadIdx.x;
    const unsigned mask = BUG == 2 ? 0x0000ffff : 0xffffffff;
    const int value = in[t];
    out[t] = value + __shfl_xor_sync(mask, value, 1);  // BUG 2
}

// out[t] = in[15 - t] for t < 16, in[t] for the others.
extern "C" __global__ void source_not_there(const int* in, int* out) {
    const int t = threadIdx.x;
    int value = in[t];
    if (t < 16) value = __shfl_sync(0x0000ffff, value, BUG == 3 ? 31 - t : 15 - t);  // BUG 3
    out[t] = value;
}

// out[t] = how many of in[t & ~15 .. t | 15] are positive: the halves go different ways and vote each for itself.
extern "C" __global__ void diverged_votes(const int* in, int* out) {
    const int t = threadIdx.x;
    const int value = in[t];
    if (t < 16) {
        const unsigned mask = BUG == 4 ? 0x0001ffff : 0x0000ffff;
        out[t] = __popc(__ballot_sync(mask, value > 0));  // BUG 4
    } else {
        out[t] = __popc(__ballot_sync(0xffff0000, value > 0));
    }
    __syncwarp();  // BUG 4
}

// out[t] = how many of in[0..24] are positive for t < 24, in[t] for the others, which exit before the vote: nobody
// waits for a lane that has exited, but none may read from it.
extern "C" __global__ void exited_lanes(const int* in, int* out) {
    const int t = threadIdx.x;
    const int value = in[t];
    out[t] = value;
    if (t >= 24) return;
    const int positive = __popc(__ballot_sync(0xffffffff, value > 0));
    out[t] = BUG == 5 ? __shfl_sync(0xffffffff, positive, t + 8) : positive;  // BUG 5
}
