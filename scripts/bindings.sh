#!/bin/sh
# Makes src/launch/abi.rs from kernels/abi.h.
set -eu
cd "$(dirname "$0")/.."
LIBCLANG_PATH=$(scripts/libclang.sh) cargo run --quiet -p bindings
