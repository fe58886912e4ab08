#!/usr/bin/env bash
# Runs what gpu-bundle.sh packed: tests, compute-sanitizer on some of them, benches, peers.
#
#     ./run.sh [WORD...]    the steps whose names contain one of the words; without one, all
#
# Writes results.json and log.txt to $OUT, or to ./results. Exit status: 0, 1 where a step failed, 3 without a GPU.
set -uo pipefail

if ! nvidia-smi -L 2>/dev/null | grep -q ^GPU; then
    echo "no GPU" >&2
    exit 3
fi
out=${OUT:-results}
mkdir -p "$out" && out=$(cd "$out" && pwd) && cd "$(dirname "$0")" && : >"$out/log.txt" || exit 1

words=("$@")
steps=
status=0

# Arguments: a name, a limit in seconds, the command.
step() {
    local name=$1 limit=$2
    shift 2
    is_wanted "$name" || return 0
    local output start=$SECONDS
    output=$(mktemp)
    timeout --kill-after=10 "$limit" "$@" >"$output" 2>&1 </dev/null
    local code=$? seconds=$((SECONDS - start))
    [ $code = 0 ] || status=1
    echo "$name: exit code $code, $seconds s"
    { echo "==== $name: $*" && cat "$output"; } >>"$out/log.txt"
    note "\"name\": \"$name\", \"exit_code\": $code, \"seconds\": $seconds$(counts "$output"), \"tail\": $(tail -n 40 "$output" | json)"
    rm "$output"
    return $code
}

is_wanted() {
    [ ${#words[@]} = 0 ] && return
    local word
    for word in "${words[@]}"; do
        [[ $1 == *"$word"* ]] && return
    done
    return 1
}

# Of a test program's last line.
counts() {
    sed -n 's/^test result: .* \([0-9]*\) passed; \([0-9]*\) failed; \([0-9]*\) ignored;.*/, "passed": \1, "failed": \2, "ignored": \3/p' "$1"
}

# Text as a JSON string.
json() {
    printf '"%s"' "$(iconv -c -t UTF-8 | tr -d '\000-\010\013-\037' | sed 's/[\\"]/\\&/g; s/\t/\\t/g; s/$/\\n/' | tr -d '\n')"
}

smi() {
    nvidia-smi --id=0 --query-gpu="$1" --format=csv,noheader
}

# Adds a step to the results, which are whole after each, should this script be stopped.
note() {
    steps+="${steps:+,}
    {$1}"
    cat >"$out/results.json" <<JSON
{
  "machine": $machine,
  "build": $(cat build.json),
  "steps": [$steps
  ]
}
JSON
}

machine=$(
    cat <<JSON
{
    "gpu": "$(smi name)",
    "driver": "$(smi driver_version)",
    "clocks_now": {"sm": "$(smi clocks.sm)", "memory": "$(smi clocks.mem)"},
    "clocks_max": {"sm": "$(smi clocks.max.sm)", "memory": "$(smi clocks.max.mem)"},
    "cpu": "$(sed -n 's/^model name\s*: //p' /proc/cpuinfo | head -n 1)",
    "threads": $(nproc)
  }
JSON
)

# The folders that the tests had where they were compiled.
export CARGO_MANIFEST_DIR=$PWD/ptx-vm CARGO_TARGET_TMPDIR=$PWD/target/tmp
export CRITERION_HOME=$PWD/target/criterion
export MIVC_REQUIRE_GPU=1
PATH+=:/usr/local/cuda/bin

step "test properties" 600 test/properties gpu
MIVC_REPEATS=250 PROPTEST_CASES=4 step "test 250 repeats" 600 test/properties run_to_run:: --skip ::cpu --skip ::vm
# What a kernel leaves behind when it fails may fail all those after it: then each runs by itself.
if ! step "test kernels" 600 test/kernels gpu; then
    for test in $(test/kernels --list gpu | sed -n 's/: test$//p'); do
        step "test kernel $test" 60 test/kernels --exact "$test"
    done
fi
pool=(bin/mivc pool examples/data/bags_gated.safetensors --device cuda -o target/pooled.safetensors)
step "tool max-mean" 60 "${pool[@]}" --pooling max-mean
step "tool attention" 60 "${pool[@]}" --pooling gated-attention --params examples/data/attention_gated.safetensors

# Each operation, on a few cases of the property that puts the most shapes to it: under the tools a launch
# takes many times as long.
some_properties=(agreement::max_mean::f32::gpu agreement::scores::bf16::gpu agreement::attention_pool::{f32,bf16}::gpu
    agreement::attention_pool::{f32,bf16}::gpu-one-pass agreement::weighted_sum::bf16::gpu agreement::softmax::gpu
    agreement::weighted_sum::{f32,bf16}::gpu-exact agreement::{softmax,attention_pool::f16}::gpu-exact
    exact::{softmax_backward,scores_backward_of_equals::bf16,mean_onto::f32}::gpu-exact
    agreement::gate::f16::gpu backward::{max_mean,weighted_sum,attention_pool}::{f32,bf16}::gpu backward::softmax::gpu
    backward::gate::f16::gpu)
[ "$(smi compute_cap)" = 9.0 ] && some_properties+=(agreement::attention_pool::{f16,bf16}::gpu-sm90)
for tool in memcheck racecheck initcheck synccheck; do
    sanitizer=(compute-sanitizer --tool "$tool" --error-exitcode 1)
    for property in "${some_properties[@]}"; do
        PROPTEST_CASES=4 step "$tool $property" 120 "${sanitizer[@]}" test/properties --exact "$property"
    done
    step "$tool kernels" 120 "${sanitizer[@]}" test/kernels --test-threads 1 gpu
done

# What a model expects, and then the GPU rows alone: those of the processor need no machine with a GPU.
step "bench/expectations" 60 bench/expectations
for bench in scores gate softmax weighted_sum max_mean; do
    step "bench/$bench" 300 "bench/$bench" --bench /cuda
done
# Many rows, of up to 10 GB: a step for each type and bags, so that none is long.
for dtype in f32 f16 bf16; do
    for bags in 100000x7 200x5000 1x1000000; do
        step "bench/attention_pool $dtype $bags" 300 bench/attention_pool --bench "/cuda-.*-L.*/${bags}x.*/$dtype\$"
    done
done
step "bench/attention_pool steps of training" 300 bench/attention_pool --bench "/cuda-.*(forward|backward)"

# By shape, as their JSON is written case by case.
if python3 -c 'import torch, numpy' 2>/dev/null; then
    for shape in 100000x7x768 200x500x1024 1x100000x512; do
        step "peers $shape" 600 python3 benches/peers/run.py --device cuda --only "$shape" --json "$out/peers-$shape.json"
    done
elif is_wanted "peers"; then
    echo "peers: left out, python3 has no torch or no numpy"
    note '"name": "peers", "left_out": "python3 has no torch or no numpy"'
fi
exit $status
