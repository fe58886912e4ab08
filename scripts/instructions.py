#!/usr/bin/env python3
"""Prints, as Markdown, instructions of the exact weighted sum for each element of bf16 and head, counted in machine code for sm_90.

The loops that rows, their magnitudes and their copies are in are found by an instruction that no smaller loop has so often.
In a turn of them a thread takes 16, 64 and 128 elements. What each exponent of a tile costs is the loop around the first,
less the loops within, over the 512 elements of a tile that a thread sums (128 rows of 4 columns); it is an upper limit, as
it counts branches that are seldom taken.
"""

import pathlib
import re
import subprocess
import tempfile

ROOT = pathlib.Path(__file__).resolve().parent.parent
SOURCE = ROOT / "kernels/exact/weighted_sum.cu"
FUNCTION = ".text.mivc_exact_weighted_sum_bf16"
ELEMENTS_OF_THREAD = 128 * 4


def disassembly():
    """Lines of machine code of the kernel."""
    def run(*command):
        return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout

    nvcc = run(ROOT / "scripts/find-nvcc.sh").strip()
    cuobjdump = run(ROOT / "scripts/cuda-toolchain.sh", "--disassembler").strip()
    with tempfile.TemporaryDirectory() as folder:
        cubin = f"{folder}/weighted_sum.cubin"
        run(nvcc, "-std=c++17", "-O3", "-arch=sm_90", "-cubin", "-o", cubin, SOURCE)
        text = run(pathlib.Path(cuobjdump).with_name("nvdisasm"), "-c", cubin)
    sections = re.split(r"\.section\s+", text)
    return next(section for section in sections if section.startswith(FUNCTION)).splitlines()


def loops(lines):
    """(first, last, instructions) of each loop, inner ones before outer ones, and all instructions."""
    instructions, labels, found = [], {}, []
    for line in lines:
        if label := re.match(r"(\.L_x_\d+):", line):
            labels[label.group(1)] = len(instructions)
        elif code := re.match(r"\s+/\*[0-9a-f]{4,5}\*/\s+(.*?);", line):
            instructions.append(code.group(1))
    for last, instruction in enumerate(instructions):
        target = re.search(r"\bBRA.*`\((\.L_x_\d+)\)", instruction)
        if target and labels[target.group(1)] <= last:
            first = labels[target.group(1)]
            found.append((first, last, instructions[first : last + 1]))
    return sorted(found, key=lambda loop: loop[1] - loop[0])


def main():
    found = loops(disassembly())

    def smallest(pattern):
        return next(loop for loop in found if sum(bool(re.search(pattern, code)) for code in loop[2]) >= 8)

    rows, magnitudes, copies = (smallest(pattern) for pattern in (r"\bFFMA\b", r"\bVHMNMX\b", r"\bLDGSTS\b"))
    runs = next(loop for loop in found if loop[0] < rows[0] and loop[1] > rows[1])
    inside = [loop for loop in found if runs[0] < loop[0] and loop[1] < runs[1]]
    of_run = len(runs[2]) - sum(len(loop[2]) for loop in inside)

    print("| instructions of an element | |\n| --- | ---: |")
    print(f"| rows, summed | {len(rows[2]) / 16:.2f} |")
    print(f"| magnitudes of rows | {len(magnitudes[2]) / 64:.2f} |")
    print(f"| copies to shared memory | {len(copies[2]) / 128:.2f} |")
    print(f"| each exponent of a tile, at most | {of_run / ELEMENTS_OF_THREAD:.2f} |")


if __name__ == "__main__":
    main()
