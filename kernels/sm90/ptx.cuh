// Every instruction of sm_90a that has no CUDA C++ spelling, one named function each.
#pragma once
#include "../abi.h"
#include "../ptx.cuh"

namespace mivc::sm90 {

// ---- barriers in shared memory, which count arrivals and bytes ----

__device__ __forceinline__ void initialise(uint64_t& barrier, uint32_t arrivals) {
    asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(shared_address(&barrier)), "r"(arrivals) : "memory");
}

// Shows the other blocks of the cluster, and the copy engine, barriers that were initialised.
__device__ __forceinline__ void fence_initialised() {
    asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
}

__device__ __forceinline__ void arrive(uint64_t& barrier) {
    asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(shared_address(&barrier)) : "memory");
}

// At the barrier in the same place of block `rank` of the cluster.
__device__ __forceinline__ void arrive_at(uint64_t& barrier, uint32_t rank) {
    asm volatile(
        "{\n\t.reg .b32 remote;\n\t"
        "mapa.shared::cluster.u32 remote, %0, %1;\n\t"
        "mbarrier.arrive.release.cluster.shared::cluster.b64 _, [remote];\n\t}" ::"r"(shared_address(&barrier)),
        "r"(rank)
        : "memory");
}

// Arrives, and lets the phase wait for so many bytes.
__device__ __forceinline__ void arrive_and_expect(uint64_t& barrier, uint32_t bytes) {
    asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(shared_address(&barrier)), "r"(bytes)
                 : "memory");
}

// Until the phase of that parity is over.
__device__ __forceinline__ void wait(uint64_t& barrier, uint32_t parity) {
    asm volatile(
        "{\n\t.reg .pred over;\n\t"
        "wait:\n\t"
        "mbarrier.try_wait.parity.acquire.cluster.shared::cta.b64 over, [%0], %1;\n\t"
        "@!over bra wait;\n\t}" ::"r"(shared_address(&barrier)),
        "r"(parity)
        : "memory");
}

// ---- barriers of some of a block's threads ----

__device__ __forceinline__ void sync_threads(int barrier, int threads) {
    asm volatile("bar.sync %0, %1;" ::"r"(barrier), "r"(threads) : "memory");
}

// Counts this warp in without waiting.
__device__ __forceinline__ void arrive_threads(int barrier, int threads) {
    asm volatile("bar.arrive %0, %1;" ::"r"(barrier), "r"(threads) : "memory");
}

// ---- clusters ----

__device__ __forceinline__ uint32_t cluster_rank() {
    uint32_t rank;
    asm volatile("mov.u32 %0, %%cluster_ctarank;" : "=r"(rank));
    return rank;
}

__device__ __forceinline__ void sync_cluster() {
    asm volatile("barrier.cluster.arrive.release.aligned;\n\tbarrier.cluster.wait.acquire.aligned;" ::: "memory");
}

// ---- copies of boxes of tensors ----

__device__ __forceinline__ void prefetch_map(const MivcTensorMap& map) {
    asm volatile("prefetch.tensormap [%0];" ::"l"(&map) : "memory");
}

// The box that begins at column x of row y. What lies outside of the tensor is 0.
__device__ __forceinline__ void copy_box(void* to, const MivcTensorMap& map, int x, int y, uint64_t& barrier) {
    asm volatile(
        "cp.async.bulk.tensor.2d.shared::cluster.global.tile.mbarrier::complete_tx::bytes [%0], [%1, {%2, %3}], [%4];" ::
            "r"(shared_address(to)),
        "l"(&map), "r"(x), "r"(y), "r"(shared_address(&barrier))
        : "memory");
}

// The same, to the same place in each block of the cluster that `blocks` has a bit for, and to its barrier.
__device__ __forceinline__ void copy_box_to(void* to, const MivcTensorMap& map, int x, int y, uint64_t& barrier,
                                            uint16_t blocks) {
    asm volatile(
        "cp.async.bulk.tensor.2d.shared::cluster.global.tile.mbarrier::complete_tx::bytes.multicast::cluster "
        "[%0], [%1, {%2, %3}], [%4], %5;" ::"r"(shared_address(to)),
        "l"(&map), "r"(x), "r"(y), "r"(shared_address(&barrier)), "h"(blocks)
        : "memory");
}

// ---- warps and their registers ----

// True in one lane.
__device__ __forceinline__ bool elect_one() {
    uint32_t elected;
    asm volatile(
        "{\n\t.reg .pred elected;\n\t"
        "elect.sync _|elected, 0xffffffff;\n\t"
        "selp.u32 %0, 1, 0, elected;\n\t}"
        : "=r"(elected)::"memory");
    return elected;
}

template <int REGISTERS>
__device__ __forceinline__ void give_registers() {
    asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(REGISTERS));
}

template <int REGISTERS>
__device__ __forceinline__ void take_registers() {
    asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(REGISTERS));
}

// ---- products by four warps ----

// Lines of a swizzled matrix whose lines are as long as the swizzle: 128 or 64 bytes. A group of eight lines follows the
// other.
template <int LINE_BYTES>
__device__ __forceinline__ uint64_t matrix_at(const void* start) {
    static_assert(LINE_BYTES == 128 || LINE_BYTES == 64, "a swizzle");
    constexpr uint64_t SWIZZLE = LINE_BYTES == 128 ? 1 : 2, GROUP_BYTES = 8 * LINE_BYTES;
    return uint64_t((shared_address(start) & 0x3ffff) >> 4) | uint64_t(1) << 16 | (GROUP_BYTES >> 4) << 32 |
           SWIZZLE << 62;
}

// Shows the matrix units what was written to registers.
__device__ __forceinline__ void fence_products() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }

__device__ __forceinline__ void commit_products() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }

// Until at most GROUPS are under way.
template <int GROUPS>
__device__ __forceinline__ void wait_for_products() {
    asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(GROUPS) : "memory");
}

// Keeps the compiler from moving what is done to registers across here.
__device__ __forceinline__ void keep_here(float (&registers)[16][4]) {
#pragma unroll
    for (int i = 0; i < 64; i++) asm volatile("" : "+f"(registers[i / 4][i % 4])::"memory");
}

// d += a b: 64 lines of a by 128 lines of b, 32 bytes deep. Fragment j are the columns from 8 j on; a lane of a warp has
// of them what it has of mma.sync's.
#define MIVC_MULTIPLY_ADD(name, instruction)                                                                          \
    __device__ __forceinline__ void name(float (&d)[16][4], uint64_t a, uint64_t b) {                                 \
        asm volatile(                                                                                                 \
            instruction " {"                                                                                          \
            "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "                                  \
            "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, "                        \
            "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, "                        \
            "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63"                          \
            "}, %64, %65, 1, 1, 1, 0, 0;"                                                                             \
            : "+f"(d[0][0]), "+f"(d[0][1]), "+f"(d[0][2]), "+f"(d[0][3]),                                             \
              "+f"(d[1][0]), "+f"(d[1][1]), "+f"(d[1][2]), "+f"(d[1][3]),                                             \
              "+f"(d[2][0]), "+f"(d[2][1]), "+f"(d[2][2]), "+f"(d[2][3]),                                             \
              "+f"(d[3][0]), "+f"(d[3][1]), "+f"(d[3][2]), "+f"(d[3][3]),                                             \
              "+f"(d[4][0]), "+f"(d[4][1]), "+f"(d[4][2]), "+f"(d[4][3]),                                             \
              "+f"(d[5][0]), "+f"(d[5][1]), "+f"(d[5][2]), "+f"(d[5][3]),                                             \
              "+f"(d[6][0]), "+f"(d[6][1]), "+f"(d[6][2]), "+f"(d[6][3]),                                             \
              "+f"(d[7][0]), "+f"(d[7][1]), "+f"(d[7][2]), "+f"(d[7][3]),                                             \
              "+f"(d[8][0]), "+f"(d[8][1]), "+f"(d[8][2]), "+f"(d[8][3]),                                             \
              "+f"(d[9][0]), "+f"(d[9][1]), "+f"(d[9][2]), "+f"(d[9][3]),                                             \
              "+f"(d[10][0]), "+f"(d[10][1]), "+f"(d[10][2]), "+f"(d[10][3]),                                         \
              "+f"(d[11][0]), "+f"(d[11][1]), "+f"(d[11][2]), "+f"(d[11][3]),                                         \
              "+f"(d[12][0]), "+f"(d[12][1]), "+f"(d[12][2]), "+f"(d[12][3]),                                         \
              "+f"(d[13][0]), "+f"(d[13][1]), "+f"(d[13][2]), "+f"(d[13][3]),                                         \
              "+f"(d[14][0]), "+f"(d[14][1]), "+f"(d[14][2]), "+f"(d[14][3]),                                         \
              "+f"(d[15][0]), "+f"(d[15][1]), "+f"(d[15][2]), "+f"(d[15][3])                                          \
            : "l"(a), "l"(b));                                                                                        \
    }
MIVC_MULTIPLY_ADD(multiply_add_f16, "wgmma.mma_async.sync.aligned.m64n128k16.f32.f16.f16")
MIVC_MULTIPLY_ADD(multiply_add_bf16, "wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16")
#undef MIVC_MULTIPLY_ADD

}  // namespace mivc::sm90
