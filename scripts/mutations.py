#!/usr/bin/env python3
"""Small mutations of the kernels, each of which a test in the virtual machine must catch, and no test what is not one.

Needs the test programs and the kernels' PTX: cargo test --all-features --test properties --no-run.
Puts the PTX of each mutation in the place of the kernels' own, and that back in the end. Exit status 1 where one is
not caught, or a test fails without one.
"""

import pathlib
import re
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parent.parent

# The kernel's source, the file that is changed, what stands there once, what it becomes, the test.
MUTATIONS = [
    ("scores", "product.cuh", "copy_async_wait<STAGES - 2>();", "copy_async_wait<STAGES - 1>();", "a wait", "agreement::scores::bf16::vm"),
    ("scores", "product.cuh", "chunk ^ (line / 2 % CHUNKS)", "chunk & (line / 2 % CHUNKS)", "an index", "agreement::scores::f16::vm"),
    ("scores", "product.cuh", "mask[row] != 0);", "mask[row] != 1);", "a mask", "edges::masked::scores::f32::vm"),
    ("scores", "product.cuh", "return row < p.instances", "return row > p.instances", "a bound", "agreement::scores::f32::vm-plain"),
    ("scores", "scores.cu", "if (row >= p.instances) break;", "if (row > p.instances) break;", "a bound", "agreement::scores::f32::vm"),
    ("scores", "gate.cuh", "exp2_approximate(-LOG2_E * x)", "exp2_approximate(+LOG2_E * x)", "a sign", "agreement::scores::bf16::vm"),
    ("softmax", "work_list.cuh", "is_leader() { return threadIdx.x % 32 == 0; }", "is_leader() { return threadIdx.x % 32 == 1; }", "a barrier's leader", "agreement::softmax::vm"),
    ("softmax", "softmax.cuh", "expf(score - max)", "expf(score + max)", "a sign", "agreement::softmax::vm"),
    ("weighted_sum", "weighted_sum.cu", "        weights[row][head] = weight;\n    }\n    __syncthreads();", "        weights[row][head] = weight;\n    }\n    __syncwarp();", "a barrier", "agreement::weighted_sum::f32::vm"),
    ("weighted_sum", "work_list.cuh", "== children - 1;", "== children - 2;", "an index", "agreement::weighted_sum::bf16::vm"),
    ("state", "state.cu", "    __syncthreads();\n", "", "a barrier", "state::merge::vm"),
    ("state", "state.cu", "__fadd_rn(__fmul_rn(joined.share, one[i]), __fmul_rn(joined.other_share, z[i]))", "joined.share * one[i] + joined.other_share * z[i]", "a rounding", "state::merge::vm"),
    ("state", "state.cu", "if (joined.share != 0)", "if (true)", "a share of 0", "state::merge::vm"),
    ("state", "state.cu", "if (joined.other_share == 0) return;", "", "a share of 0", "state::merge::vm"),
    ("state", "state.cu", "column < p.dim;", "column <= p.dim;", "a bound", "state::merge::vm"),
]


def program(name):
    found = [path for path in (ROOT / "target/debug/deps").glob(f"{name}-*") if not path.suffix]
    return max(found, key=lambda path: path.stat().st_mtime)


def kernels_folder(properties):
    text = properties.read_bytes()
    return pathlib.Path(re.search(rb"/[\w/.-]*?/out/kernels", text).group().decode())


def main():
    properties = program("properties")
    folder = kernels_folder(properties)
    nvcc = subprocess.run([ROOT / "scripts/find-nvcc.sh"], check=True, capture_output=True, text=True).stdout.strip()
    wrong = 0
    for kernel, file, before, after, what, test in MUTATIONS:
        ptx = folder / f"{kernel}.ptx"
        own = ptx.read_bytes()
        with tempfile.TemporaryDirectory() as copy:
            subprocess.run(["cp", "-r", ROOT / "kernels", copy], check=True)
            path = pathlib.Path(copy) / "kernels" / file
            text = path.read_text()
            assert text.count(before) == 1, f"{file}: {before}"
            path.write_text(text.replace(before, after))
            command = [nvcc, "-std=c++17", "-O3", "-lineinfo", "-arch=compute_80", "-ptx", "-o", ptx]
            # In a folder without tests/, where proptest can keep no failing case.
            failure_before = failure(properties, test, copy)
            try:
                subprocess.run([*command, path.parent / f"{kernel}.cu"], check=True)
                failure_after = failure(properties, test, copy)
            finally:
                ptx.write_bytes(own)
        is_right = failure_before is None and failure_after is not None
        wrong += not is_right
        last = [code.split("\n")[-1].strip() for code in (before, after)]
        print(f"{'caught' if is_right else 'WRONG '} {file}, {what}: {last[0]} -> {last[1]}\n"
              f"       {test}: {failure_before or failure_after}", flush=True)
    sys.exit(1 if wrong else 0)


def failure(properties, test, folder):
    """How the test fails first, if it does; what follows only makes the case smaller."""
    environment = {"PROPTEST_CASES": "24", "RUST_BACKTRACE": "0"}
    run = subprocess.Popen([properties, "--exact", test], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                           env=environment, cwd=folder)
    try:
        for line in run.stdout:
            if "panicked at" in line:
                return next(run.stdout).strip()
            if line.startswith("Test failed:"):
                return line.strip()
            if line.startswith("test result: ok. 1 passed"):
                return None
        raise RuntimeError(f"{test} did not run")
    finally:
        run.kill()


if __name__ == "__main__":
    main()
