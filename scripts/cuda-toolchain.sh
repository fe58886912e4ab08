#!/bin/sh
# Puts a CUDA 13.0 compiler into .cuda/ of this repository, from wheels on PyPI: no root, no toolkit, about 104 MB
# to fetch. Prints the path of its nvcc; returns at once where that is already there.
set -eu
cd "$(dirname "$0")/.."

# A newer nvvm makes PTX that ptxas 13.0 rejects, so all five are pinned.
pins='nvidia-cuda-nvcc==13.0.88
nvidia-nvvm==13.0.88
nvidia-cuda-crt==13.0.88
nvidia-cuda-runtime==13.0.96
nvidia-cuda-cccl==13.0.85'

installed=.cuda/nvidia
partial=.cuda/partial
stamp=pins.txt

mkdir -p .cuda
exec 9>.cuda/lock
flock 9

if [ "$(cat $installed/$stamp 2>/dev/null)" != "$pins" ]; then
    echo 'fetching a CUDA 13.0 compiler into .cuda/' >&2
    rm -rf $partial
    # shellcheck disable=SC2086 # one word per pin
    PIP_ROOT_USER_ACTION=ignore python3 -m pip install --quiet --no-deps --only-binary :all: --target $partial $pins >&2
    $partial/nvidia/cu13/bin/nvcc --version >/dev/null
    echo "$pins" >$partial/nvidia/$stamp
    # The stamp comes with the rename: an interrupted run leaves nothing that looks complete.
    rm -rf $installed
    mv $partial/nvidia $installed
    rm -rf $partial
fi
echo "$PWD/$installed/cu13/bin/nvcc"
