#!/usr/bin/env python3
"""Prints, as Markdown, registers, shared memory and blocks per multiprocessor of the kernels of attention pool.

Compiles them for sm_80 and sm_90, and those for sm_90a, and reads what ptxas says of each (-Xptxas -v). Shared memory
that a launch asks for is computed as src/launch/attention_pool/{one_pass,sm90}.rs and src/launch/pack.rs do, of one head.
"""

import pathlib
import re
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parent.parent
KERNELS = ROOT / "kernels"
DIMS = (512, 768, 1024, 1536)

# Of a multiprocessor: shared memory in KiB, of which a block may ask for all but one; and threads. Both have 65536
# registers, given out to a warp by 256, and take 1 KiB of shared memory for themselves for each block.
SHARED_KIB = {80: 164, 90: 228}
THREADS = 2048
REGISTERS, REGISTERS_AT_ONCE = 65536, 256
MOST_BLOCKS = 32

# Of a block of attention pool in one pass, which share rows.
WARPS_ACROSS = 4

# Of columns, for sm_90a.
LEAST_STAGES = 3

SIZES = {
    name: int(value)
    for name, value in re.findall(r"#define MIVC_(\w+) (\d+)\n", (KERNELS / "abi.h").read_text())
}


def compile_kernels(nvcc, source, architecture):
    """Registers and static shared memory of each kernel."""
    with tempfile.TemporaryDirectory() as folder:
        command = [nvcc, "-std=c++17", "-O3", "-lineinfo", f"-arch=sm_{architecture}", "-cubin", "-Xptxas=-v"]
        command += ["-o", f"{folder}/{pathlib.Path(source).name}.cubin", KERNELS / f"{source}.cu"]
        done = subprocess.run(command, stderr=subprocess.PIPE, text=True)
    if done.returncode != 0:
        sys.exit(done.stderr)
    kernels = {}
    for report in done.stderr.split("Compiling entry function '")[1:]:
        registers = int(re.search(r"Used (\d+) registers", report).group(1))
        shared = re.search(r"(\d+) bytes smem", report)
        kernels[report.split("'")[0]] = registers, int(shared.group(1)) if shared else 0
    return kernels


def blocks(architecture, registers, threads, shared_bytes):
    """Blocks of a multiprocessor; 0 where one does not fit."""
    of_multiprocessor = SHARED_KIB[architecture] << 10
    if shared_bytes > of_multiprocessor - 1024:
        return 0
    of_warp = -(-32 * registers // REGISTERS_AT_ONCE) * REGISTERS_AT_ONCE
    by_registers = REGISTERS // of_warp // (threads // 32)
    return min(by_registers, of_multiprocessor // (shared_bytes + 1024), THREADS // threads, MOST_BLOCKS)


def one_pass_shared_bytes(rows, dim, element_bytes):
    """Stages of columns, what warps exchange, the rows' scores, and the rows in slices."""
    depth = SIZES["TILE_DEPTH_BYTES"]
    columns = SIZES["TILE_STAGES"] * SIZES["POOL_COLUMNS"] * depth
    exchange = SIZES["POOL_HEADS_AT_ONCE"] * WARPS_ACROSS * rows * 4
    steps = -(-dim * element_bytes // depth)
    return columns + exchange + rows * 4 + steps * (rows * depth + SIZES["POOL_SLICE_GAP"])


def scores_shared_bytes(tile):
    rows, columns, across = (SIZES[f"{tile}_TILE_{name}"] for name in ("ROWS", "COLUMNS", "ACROSS"))
    stage = (rows + columns) * SIZES["TILE_DEPTH_BYTES"]
    return SIZES["TILE_STAGES"] * stage + SIZES["SCORES_HEADS_AT_ONCE"] * across * rows * 4


def one_pass(kernel):
    """Threads, and for each D the shared memory, of a kernel that keeps features."""
    rows = int(kernel.rsplit("_", 1)[1])
    element_bytes = 4 if "_f32_" in kernel else 2
    return SIZES["POOL_THREADS"], [one_pass_shared_bytes(rows, dim, element_bytes) for dim in DIMS]


def two_passes(kernel):
    """Threads, and the shared memory that does not depend on D, of the others."""
    if kernel.startswith("mivc_scores_"):
        tile = kernel.rsplit("_", 1)[1].upper()
        if tile == "MEDIUM" and "_f32_" in kernel:
            tile = "MEDIUM_F32"
        return SIZES[f"{tile}_TILE_THREADS"], [scores_shared_bytes(tile)]
    return SIZES["PREPARE_THREADS" if kernel == "mivc_prepare" else "THREADS"], [0]


def sm90_tile(kernel, dim):
    """Shared memory of a block, and stages of columns; nothing where no tile fits."""
    rows = int(kernel.rsplit("_", 1)[1])
    slab = SIZES["POOL_SM90_SLAB_BYTES"]
    slabs = -(-dim * 2 // slab)
    fixed = slabs * rows * slab + (2 * rows + SIZES["MERGE_RADIX"]) * 4 + SIZES["POOL_SM90_STATIC_BYTES"]
    stage = SIZES["POOL_SM90_STAGE_BYTES"]
    stages = min((SHARED_KIB[90] * 1024 - 1024 - fixed) // stage, SIZES["POOL_SM90_MOST_STAGES"])
    if slabs > SIZES["POOL_SM90_MOST_SLABS"] or stages < LEAST_STAGES:
        return None
    return fixed + stages * stage, stages


def print_sm90_rows(kernels):
    """A line for each kernel of sm_90a, of which a multiprocessor has one block: shared memory and stages for each D."""
    at_launch = {name: registers for name, (registers, _) in kernels.items()}
    of_warps = f"{SIZES['POOL_SM90_PRODUCER_REGISTERS']} / {SIZES['POOL_SM90_CONSUMER_REGISTERS']}"
    for kernel in sorted(at_launch, key=in_order):
        tiles = [sm90_tile(kernel, dim) for dim in DIMS]
        cells = [f"{tile[0] / 1024:.3g} KiB, {tile[1]}" if tile else "–" for tile in tiles]
        name = kernel.removeprefix("mivc_")
        print(f"| `{name}` | {SIZES['POOL_SM90_THREADS']} | {at_launch[kernel]} | {of_warps} | {' | '.join(cells)} |")


def in_order(kernel):
    """Types together, and of a type, tiles by their rows."""
    name, _, rows = kernel.rpartition("_")
    return (name, int(rows)) if rows.isdigit() else (kernel, 0)


def print_rows(compiled, sizes, are_wanted):
    """A line for each kernel: its name, registers, shared memory, and blocks of each architecture."""
    of_first, *_ = compiled.values()
    for kernel in sorted(filter(are_wanted, of_first), key=in_order):
        threads, dynamic = sizes(kernel)
        used = {architecture: kernels[kernel] for architecture, kernels in compiled.items()}
        registers = " / ".join(str(registers) for registers, _ in used.values())
        cells = []
        for shared in dynamic:
            fits = [blocks(architecture, its[0], threads, shared + its[1]) for architecture, its in used.items()]
            cells.append(f"{(shared + used[80][1]) / 1024:.3g} KiB: {' / '.join(str(it) if it else '–' for it in fits)}")
        print(f"| `{kernel.removeprefix('mivc_')}` | {threads} | {registers} | {' | '.join(cells)} |")


def main():
    found = subprocess.run([ROOT / "scripts/find-nvcc.sh"], stdout=subprocess.PIPE, text=True)
    if found.returncode != 0:
        sys.exit("no nvcc: scripts/cuda-toolchain.sh fetches one")
    nvcc = found.stdout.strip()
    sources = ("attention_pool", "prepare", "scores", "softmax", "weighted_sum")
    compiled = {source: {it: compile_kernels(nvcc, source, it) for it in SHARED_KIB} for source in sources}

    print("sm_80 / sm_90. Beside the shared memory of a block, blocks of a multiprocessor; – where one does not fit.\n")
    print("| one pass | threads | registers | " + " | ".join(f"D = {dim}" for dim in DIMS) + " |")
    print("| --- | ---: | ---: | " + " | ".join("---" for _ in DIMS) + " |")
    print_rows(compiled["attention_pool"], one_pass, lambda kernel: not kernel.endswith("_weights"))
    print("\n| sm_90a | threads | registers | producer / consumers | " + " | ".join(f"D = {dim}" for dim in DIMS) + " |")
    print("| --- | ---: | ---: | ---: | " + " | ".join("---" for _ in DIMS) + " |")
    print_sm90_rows(compile_kernels(nvcc, "sm90/attention_pool", "90a"))
    print("\n| two passes | threads | registers | any D |")
    print("| --- | ---: | ---: | --- |")
    for source in sources[1:]:
        print_rows(compiled[source], two_passes, is_of_attention_pool)


def is_of_attention_pool(kernel):
    """Not the weights of `softmax`; and what sums a feature at a time is for rows that are not aligned."""
    return kernel != "mivc_softmax_weights" and ("weighted_sum" not in kernel or kernel.endswith("_vector"))


if __name__ == "__main__":
    main()
