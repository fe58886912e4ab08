#!/bin/sh
# Prints the first nvcc of 12.8 or later among NVCC, CUDA_HOME, CUDA_PATH, PATH, /usr/local/cuda and .cuda/ of this
# repository (cuda-toolchain.sh puts it there). Exit status 1 where there is none.
set -eu
root=$(cd "$(dirname "$0")/.." && pwd)

# "Cuda compilation tools, release 13.0, V13.0.88" is 1300
version() {
    "$1" --version 2>/dev/null | sed -n 's/.* release \([0-9]*\)\.\([0-9]*\),.*/\1 \2/p' | awk '{ print 100 * $1 + $2 }'
}

for nvcc in \
    "${NVCC:-}" \
    "${CUDA_HOME:+$CUDA_HOME/bin/nvcc}" \
    "${CUDA_PATH:+$CUDA_PATH/bin/nvcc}" \
    "$(command -v nvcc || true)" \
    /usr/local/cuda/bin/nvcc \
    "$root/.cuda/nvidia/cu13/bin/nvcc"; do
    found=$([ -z "$nvcc" ] || version "$nvcc")
    if [ "${found:-0}" -ge 1208 ]; then
        echo "$nvcc"
        exit
    fi
done
exit 1
