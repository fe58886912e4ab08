#!/usr/bin/env bash
# Packs what runs on a GPU machine that has no Rust: test programs, benches, the tool, the peers' script, and run.sh,
# which runs them. Argument: the archive, target/mivc-gpu.tar.gz without one. MIVC_CUDA_ARCHS: 80,90 without one.
set -euo pipefail
cd "$(dirname "$0")/.."
archive=${1:-target/mivc-gpu.tar.gz}
limit_mib=60
export MIVC_CUDA_ARCHS=${MIVC_CUDA_ARCHS:-80,90}

staging=$(mktemp -d)
trap 'rm -rf "$staging"' EXIT
bundle=$staging/mivc-gpu

# Builds, and puts each program where it is to lie: test/NAME, bench/NAME, bin/NAME, example/NAME. The profile keeps
# no debug information.
pack() {
    cargo "$@" --release --message-format=json-render-diagnostics |
        python3 -c '
import json, sys
for message in map(json.loads, sys.stdin):
    if message.get("executable"):
        print("{kind[0]}/{name}".format(**message["target"]), message["executable"])' |
        while read -r place program; do
            install -D "$program" "$bundle/$place"
        done
}
pack test --no-run --package mivc --features cli,cuda --test properties \
    --bench scores --bench gate --bench softmax --bench weighted_sum --bench max_mean --bench attention_pool \
    --bench expectations
pack test --no-run --package ptx-vm --test kernels
pack build --package mivc --features cli,cuda --example mivc-peer

# What the programs read, in the folders where they look for it: the virtual machine's kernels are compiled there.
mkdir -p "$bundle/target/release"
mv "$bundle/example" "$bundle/target/release/examples"
cp --parents ptx-vm/tests/kernels/*.cu ptx-vm/tests/kernels/*.cuh scripts/find-nvcc.sh \
    benches/peers/run.py benches/peers/candle/Cargo.lock examples/data/*.safetensors "$bundle"
install scripts/gpu-run.sh "$bundle/run.sh"
cat >"$bundle/build.json" <<JSON
{
  "commit": "$(git rev-parse HEAD)$([ -z "$(git status --porcelain)" ] || echo ' with changes')",
  "rustc": "$(rustc --version | cut -d' ' -f2)",
  "architectures": "$MIVC_CUDA_ARCHS"
}
JSON

mkdir -p "$(dirname "$archive")"
tar --create --gzip --file "$archive" --directory "$staging" mivc-gpu
bytes=$(stat --format %s "$archive")
echo "$archive: $((bytes >> 10)) KiB"
if [ "$bytes" -gt $((limit_mib << 20)) ]; then
    echo "more than $limit_mib MiB" >&2
    exit 1
fi
