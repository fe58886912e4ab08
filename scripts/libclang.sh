#!/bin/sh
# Puts libclang from PyPI into .cuda/libclang/ of this repository, for bindgen, and prints its folder: what
# LIBCLANG_PATH is to be. Returns at once where it is already there.
set -eu
cd "$(dirname "$0")/.."
pin='libclang==18.1.1'
installed=.cuda/libclang
partial=.cuda/libclang.partial

mkdir -p .cuda
exec 9>.cuda/lock
flock 9
if [ "$(cat $installed/pin.txt 2>/dev/null)" != "$pin" ]; then
    rm -rf $partial
    PIP_ROOT_USER_ACTION=ignore python3 -m pip install --quiet --no-deps --only-binary :all: --target $partial $pin >&2
    echo "$pin" >$partial/pin.txt
    rm -rf $installed
    mv $partial $installed
fi
echo "$PWD/$installed/clang/native"
