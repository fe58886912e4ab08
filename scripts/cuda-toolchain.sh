#!/bin/sh
# Puts a CUDA 13.0 compiler into .cuda/ of this repository, from wheels on PyPI: no root, no toolkit, about 104 MB
# to fetch. Prints the path of its nvcc; returns at once where that is already there.
#
# With --disassembler, the same for cuobjdump, which reads what that compiler makes: about 3 MB.
set -eu
cd "$(dirname "$0")/.."

case "${1-}" in
'')
    installed=.cuda/nvidia
    program=cu13/bin/nvcc
    # A newer nvvm makes PTX that ptxas 13.0 rejects, so all five are pinned.
    pins='nvidia-cuda-nvcc==13.0.88
nvidia-nvvm==13.0.88
nvidia-cuda-crt==13.0.88
nvidia-cuda-runtime==13.0.96
nvidia-cuda-cccl==13.0.85'
    ;;
--disassembler)
    installed=.cuda/disassembler
    program=cu13/bin/cuobjdump
    # cuobjdump runs the nvdisasm beside it.
    pins='nvidia-cuda-cuobjdump==13.5.37
nvidia-cuda-nvdisasm==13.5.37'
    ;;
*)
    echo "usage: $0 [--disassembler]" >&2
    exit 2
    ;;
esac

partial=.cuda/partial
stamp=pins.txt

mkdir -p .cuda
exec 9>.cuda/lock
flock 9

if [ "$(cat $installed/$stamp 2>/dev/null)" != "$pins" ]; then
    echo "fetching $(basename $program) into .cuda/" >&2
    rm -rf $partial
    # shellcheck disable=SC2086 # one word per pin
    PIP_ROOT_USER_ACTION=ignore python3 -m pip install --quiet --no-deps --only-binary :all: --target $partial $pins >&2
    $partial/nvidia/$program --version >/dev/null
    echo "$pins" >$partial/nvidia/$stamp
    # The stamp comes with the rename: an interrupted run leaves nothing that looks complete.
    rm -rf $installed
    mv $partial/nvidia $installed
    rm -rf $partial
fi
echo "$PWD/$installed/$program"
