#!/usr/bin/env python3
"""Small mutations of the kernels, each of which a test in the virtual machine must catch, and no test what is not one.

Needs the test programs and the kernels' PTX: cargo test --all-features --test properties --no-run.
With names of kernels as arguments, those of these alone.
Puts the PTX of each mutation in the place of the kernels' own, and that back in the end. Exit status 1 where one is
not caught, or a test fails without one.
"""

import pathlib
import re
import signal
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parent.parent

# The kernel's source, the file that is changed, what stands there once, what it becomes, the test.
MUTATIONS = [
    ("scores", "scores.cu", "copy_async_wait<STAGES - 2>();", "copy_async_wait<STAGES - 1>();", "a wait", "agreement::scores::bf16::vm"),
    ("attention_pool", "attention_pool.cu", "copy_async_wait<STAGES - 2>();", "copy_async_wait<STAGES - 1>();", "a wait for columns", "agreement::attention_pool::bf16::vm-one-pass"),
    ("attention_pool", "attention_pool.cu", "copy_async_wait<ROW_STEPS_AHEAD - 1>();", "copy_async_wait<ROW_STEPS_AHEAD>();", "a wait for rows", "agreement::attention_pool::bf16::vm-one-pass"),
    ("scores", "product.cuh", "chunk ^ (line / 2 % CHUNKS)", "chunk & (line / 2 % CHUNKS)", "an index", "agreement::scores::f16::vm"),
    ("scores", "product.cuh", "mask[row] != 0;", "mask[row] != 1;", "a mask", "edges::masked::scores::f32::vm"),
    ("scores", "product.cuh", "if (row < last_row &&", "if (row > last_row &&", "a bound", "agreement::scores::f32::vm-plain"),
    ("scores", "scores.cu", "first_row + line < p.features.instances; }", "first_row + line <= p.features.instances; }", "a bound", "agreement::scores::f32::vm"),
    ("scores", "gate.cuh", "exp2_approximate(-LOG2_E * x)", "exp2_approximate(+LOG2_E * x)", "a sign", "agreement::scores::bf16::vm"),
    ("softmax", "work_list.cuh", "is_leader() { return threadIdx.x % 32 == 0; }", "is_leader() { return threadIdx.x % 32 == 1; }", "a barrier's leader", "agreement::softmax::vm"),
    ("softmax", "softmax.cuh", "expf(score - max)", "expf(score + max)", "a sign", "agreement::softmax::vm"),
    ("weighted_sum", "weighted_sum.cu", "        weights[row][head] = weight;\n    }\n    __syncthreads();", "        weights[row][head] = weight;\n    }\n    __syncwarp();", "a barrier", "agreement::weighted_sum::f32::vm"),
    ("weighted_sum", "work_list.cuh", "== children - 1;", "== children - 2;", "an index", "agreement::weighted_sum::bf16::vm"),
    ("attention_pool", "attention_pool.cu", "what is read here.\n        __syncthreads();", "what is read here.", "a barrier", "agreement::attention_pool::bf16::vm-one-pass"),
    ("attention_pool", "attention_pool.cuh", "factors[lane * heads + head] = factor;", "factors[lane * heads + head] = 1;", "a factor", "agreement::attention_pool::f16::vm-one-pass"),
    ("prepare", "prepare.cu", "run.rows + rows > most_rows", "run.rows + rows > 2 * most_rows", "a bound", "batch::attention_pool::f16::vm-one-pass"),
    ("attention_pool_sm90", "sm90/attention_pool.cu", "wait_for_products<0>();", "wait_for_products<1>();", "a wait", "agreement::attention_pool::bf16::vm-sm90"),
    ("attention_pool_sm90", "sm90/attention_pool.cu", "wait_for_products<1>();", "wait_for_products<2>();", "a wait", "agreement::attention_pool::bf16::vm-sm90"),
    ("attention_pool_sm90", "sm90/attention_pool.cu", "if (is_first && in_slab == 0) wait", "if (is_first && in_slab == 1) wait", "a wait", "agreement::attention_pool::f16::vm-sm90"),
    ("attention_pool_sm90", "sm90/attention_pool.cu", "barrier, (1 << CLUSTER) - 1)", "barrier, 1 << rank)", "blocks of a multicast", "agreement::attention_pool::f16::vm-sm90"),
    ("attention_pool_sm90", "sm90/attention_pool.cu", "initialise(barriers.empty[i], CLUSTER);", "initialise(barriers.empty[i], 1);", "arrivals", "agreement::attention_pool::bf16::vm-sm90"),
    ("attention_pool_sm90", "sm90/attention_pool.cu", "if (pass > 0) sync_threads", "if (pass > 1) sync_threads", "a turn", "agreement::attention_pool::bf16::vm-sm90"),
    ("attention_pool_sm90", "sm90/attention_pool.cu", "[chunk % OF_LINE ^ line % 8]", "[chunk % OF_LINE]", "a swizzle", "agreement::attention_pool::f16::vm-sm90"),
    ("state", "state.cu", "    __syncthreads();\n", "", "a barrier", "state::merge::vm"),
    ("state", "state.cu", "__fadd_rn(__fmul_rn(joined.share, one[i]), __fmul_rn(joined.other_share, z[i]))", "joined.share * one[i] + joined.other_share * z[i]", "a rounding", "state::merge::vm"),
    ("state", "state.cu", "if (joined.share != 0)", "if (true)", "a share of 0", "state::merge::vm"),
    ("state", "state.cu", "if (joined.other_share == 0) return;", "", "a share of 0", "state::merge::vm"),
    ("state", "state.cu", "column < p.dim;", "column <= p.dim;", "a bound", "state::merge::vm"),
    ("gate_backward", "gate.cuh", "sigmoid * (1.0f - sigmoid)", "sigmoid * (1.0f + sigmoid)", "a sign", "backward::gate::f32::vm"),
    ("gate_backward", "backward/gradient.cuh", "before[row][i] + gradient[i]", "gradient[i]", "a sum", "backward::adds_gate::f16::vm"),
    ("softmax_backward", "backward/softmax.cu", "if (work.chunks > 1) {", "if (work.chunks > 2) {", "a bound", "backward::softmax::vm"),
    ("softmax_backward", "backward/softmax.cu", "mean -= pointer", "mean += pointer", "a sign", "backward::softmax::vm"),
    ("softmax_backward", "work_list.cuh", "nodes_of(work.chunks) - 1;", "nodes_of(work.chunks) - 2;", "a node", "backward::softmax::vm"),
    ("softmax_backward", "backward/softmax.cu", "mask[row] == 0) return;", "mask[row] == 2) return;", "a mask", "backward::softmax::vm"),
    ("weighted_sum_backward", "backward/weighted_sum.cu", "weight == 0 ? 0 : gradient", "gradient", "a weight of 0", "backward::weighted_sum::f32::vm"),
    ("weighted_sum_backward", "backward/weighted_sum.cu", "is_upper ? lower : upper, distance", "is_upper ? upper : lower, distance", "a shuffle", "backward::weighted_sum::bf16::vm"),
    ("weighted_sum_backward", "backward/weighted_sum.cu", "start += ROWS * WARPS", "start += 2 * ROWS * WARPS", "a step", "backward::weighted_sum::f16::vm"),
    ("weighted_sum_backward", "backward/weighted_sum.cu", "has_weight[i] || !p.d_values.adds", "!p.d_values.adds", "what is added", "backward::adds_weighted_sum::f32::vm"),
    ("max_mean_backward", "backward/max_mean.cu", "ties[i] += their_ties;", "ties[i] = their_ties;", "a count", "backward::ties::f32::vm"),
    ("max_mean_backward", "backward/max_mean.cu", "|| (isnan(x) && isnan(max))", "", "NaN", "backward::ties::f16::vm"),
    ("max_mean_backward", "backward/max_mean.cu", "if (is_whole) partials.store", "if (!is_whole) partials.store", "a team", "backward::max_mean::bf16::vm"),
    ("max_mean_backward", "backward/max_mean.cu", "float(partial.count)", "float(partial.count + 1)", "a count", "backward::max_mean::f32::vm"),
    ("pack_backward", "backward/pack.cu", "(group * p.hidden + unit) * p.dim + d", "group * p.hidden * p.dim + d", "an index", "backward::scores::f32::vm"),
    ("scores_backward", "backward/scores.cu", "p.adds ? *to + sum : sum", "*to + sum", "what was there", "backward::scores::f32::vm"),
    ("scores_backward", "backward/scores.cu", "if (d_score != 0) sums", "sums", "0 times NaN", "backward::nothing_flows::bf16::vm"),
    ("scores_backward", "backward/scores.cu", "if (flows && is_unit) {", "if (is_unit) {", "0 times NaN", "backward::nothing_flows::f32::vm"),
    ("scores_backward", "backward/scores.cu", "!is_masked(slice, row) && is_in_bag(slice, row)", "is_in_bag(slice, row)", "a mask", "backward::masked_pool::f32::vm"),
    ("scores_backward", "backward/slice.cuh", "slice.first + row < ranges[slice.bags];", "true;", "a bound", "device_offsets::any_values_of_attention_pool_backward::vm"),
    ("scores_backward", "backward/scores.cu", "i / it.row_elements * it.row_stride", "i / it.row_elements * it.row_elements", "an index", "backward::scores::f32::vm"),
    ("scores_features_backward", "backward/scores_features.cu", "const bool flows = rows.flows[line];", "const bool flows = true;", "0 times infinity", "backward::masked_pool::f32::vm"),
    ("scores_features_backward", "backward/slice.cuh", "ranges[middle] <= slice.first + row", "ranges[middle] < slice.first + row", "a bound", "backward::attention_pool::bf16::vm"),
    ("scores_features_backward", "product.cuh", "wait() { copy_async_wait<STAGES - 2>(); }", "wait() { copy_async_wait<STAGES - 1>(); }", "a wait", "backward::scores::f16::vm"),
    ("scores_matrices_backward", "backward/scores_matrices.cu", "        copy_async_wait<STAGES - 2>();", "        copy_async_wait<STAGES - 1>();", "a wait", "backward::scores::bf16::vm"),
    ("scores_matrices_backward", "backward/scores_matrices.cu", "        __syncthreads();\n        fetch_next();", "        fetch_next();", "a barrier", "backward::scores::f32::vm"),
    ("scores_matrices_backward", "backward/scores_matrices.cu", "&& flows[row * p.groups] ? p.dim", "? p.dim", "0 times NaN", "backward::nothing_flows::bf16::vm"),
    ("scores_matrices_backward", "backward/scores_matrices.cu", "if (d < p.dim) part[d]", "part[d]", "a bound", "backward::scores::f16::vm"),
    ("softmax_exact", "exact/sum_in_registers.cuh", "if (i == below) ", "if (i == below + 1) ", "a bin", "agreement::softmax::vm-exact"),
    ("softmax_exact", "exact/sum_in_registers.cuh", "sum.top = greatest_of_lanes(sum.top, lanes.heads);", "", "the greatest of a warp", "exact::softmax::vm-exact"),
    ("softmax_exact", "exact/softmax.cu", "to.max = mass.max + 0.0f;", "to.max = 0;", "a greatest score", "state::any_grouping::f32::vm-exact"),
    ("softmax_backward_exact", "exact/softmax_backward.cu", "specials |= node.specials;", "", "infinities of a chunk", "exact::softmax_backward_of_infinities::vm-exact"),
    ("softmax_backward_exact", "exact/softmax_backward.cu", "sum.exponent() - UNIT", "sum.exponent() - UNIT + 1", "a power of two", "exact::same_on_every_instruction_set::f32::vm-exact"),
    ("weighted_sum_exact", "exact/weighted_sum.cu", "        // Then all threads are done with the tile before, too.\n        __syncthreads();", "", "a barrier", "exact::same_on_every_instruction_set::f32::vm-exact"),
    ("weighted_sum_exact", "exact/sums_in_shared.cuh", "                clear_slot(top_slot);", "", "bins that leave", "exact::same_on_every_instruction_set::f32::vm-exact"),
    ("weighted_sum_exact", "exact/sums_in_shared.cuh", "return top_slot - below + (top_slot < below ? KEPT_BINS : 0);", "return below;", "where a bin is", "exact::same_on_every_instruction_set::bf16::vm-exact"),
    ("weighted_sum_exact", "exact/terms.cuh", "__fsub_rn(HIGH_ZERO + LOW_ZERO, high)", "__fsub_rn(HIGH_ZERO, high)", "a zero", "agreement::weighted_sum::bf16::vm-exact"),
    ("weighted_sum_exact", "exact/bins.cuh", "is_there[PLUS_INFINITY] && is_there[MINUS_INFINITY]", "is_there[PLUS_INFINITY] && is_there[NOT_A_NUMBER]", "opposite infinities", "exact::same_on_every_instruction_set::f32::vm-exact"),
    ("weighted_sum_exact", "exact/weighted_sum.cu", "mask[row] == 0) return NONE;", "mask[row] == 2) return NONE;", "a mask", "edges::masked::max_mean::f32::vm-exact"),
    ("weighted_sum_exact", "exact/rows.cuh", "order.entries[i] = {0, 0};", ";", "what runs are filled up with", "exact::same_on_every_instruction_set::f16::vm-exact"),
    ("weighted_sum_exact", "exact/rows.cuh", "greatest = __hmax2_nan(greatest, __habs2(pair));", "greatest = __hmax2(greatest, __habs2(pair));", "a NaN", "exact::same_on_every_instruction_set::bf16::vm-exact"),
    ("weighted_sum_exact", "exact/weighted_sum.cu", "Word word = {count << MANTISSA, 0};", "Word word = {count, 0};", "a count", "exact::mean_onto::f32::vm-exact"),
    ("params_exact", "exact/params.cu", "(order == 0 && !is_former)", "order == 0", "equal entries", "exact::scores_backward_of_equals::f32::vm-exact"),
    ("params_exact", "exact/params.cu", "for (int64_t column = 0; column < p.dim; column++) {", "for (int64_t column = 0; column < p.dim - 1; column++) {", "features that differ late", "exact::scores_backward_of_equals::f32::vm-exact"),
    ("params_exact", "exact/params.cu", "for (int64_t head = 1; head < p.heads; head++) {", "for (int64_t head = 2; head < p.heads; head++) {", "another head", "exact::scores_backward_of_equals::bf16::vm-exact"),
    ("params_exact", "exact/params.cu", "is_masked(p.slice, row) || !is_in_bag(p.slice, row)", "!is_in_bag(p.slice, row)", "a mask", "backward::scores::f32::vm-exact"),
    ("params_exact", "exact/params.cu", "        __syncthreads();\n        if (is_there) {", "        if (is_there) {", "a barrier", "exact::scores_backward::f16::vm-exact"),
]


def program(name):
    found = [path for path in (ROOT / "target/debug/deps").glob(f"{name}-*") if not path.suffix]
    return max(found, key=lambda path: path.stat().st_mtime)


def kernels_folder(properties):
    text = properties.read_bytes()
    return pathlib.Path(re.search(rb"/[\w/.-]*?/out/kernels", text).group().decode())


def main():
    wanted = sys.argv[1:]
    # So that the kernel is put back.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("stopped"))
    properties = program("properties")
    folder = kernels_folder(properties)
    nvcc = subprocess.run([ROOT / "scripts/find-nvcc.sh"], check=True, capture_output=True, text=True).stdout.strip()
    wrong, passes = 0, {}
    for kernel, file, before, after, what, test in MUTATIONS:
        if wanted and kernel not in wanted:
            continue
        ptx = folder / f"{kernel}.ptx"
        own = ptx.read_bytes()
        with tempfile.TemporaryDirectory() as copy:
            subprocess.run(["cp", "-r", ROOT / "kernels", copy], check=True)
            path = pathlib.Path(copy) / "kernels" / file
            text = path.read_text()
            assert text.count(before) == 1, f"{file}: {before}"
            path.write_text(text.replace(before, after))
            # Some are in a folder that their names end with.
            folders = [folder for folder in ("sm90", "backward", "exact") if kernel.endswith(f"_{folder}")]
            source = f"{folders[0]}/{kernel.removesuffix('_' + folders[0])}.cu" if folders else f"{kernel}.cu"
            architecture = "compute_90a" if folders == ["sm90"] else "compute_80"
            command = [nvcc, "-std=c++17", "-O3", "-lineinfo", f"-arch={architecture}", "-ptx", "-o", ptx]
            # In a folder without tests/, where proptest can keep no failing case.
            if test not in passes:
                passes[test] = failure(properties, test, copy)
            failure_before = passes[test]
            try:
                subprocess.run([*command, pathlib.Path(copy) / "kernels" / source], check=True)
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
    # Products of a backward, and integers of whole tiles, take the virtual machine long.
    is_slow = re.match("backward::(scores|attention_pool|nothing_flows|masked_pool)|.*-exact", test)
    environment = {"PROPTEST_CASES": "16" if is_slow else "96", "PROPTEST_MAX_SHRINK_ITERS": "0", "RUST_BACKTRACE": "0"}
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
