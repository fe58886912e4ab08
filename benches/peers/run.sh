#!/bin/sh
# Installs the peers, builds both Rust programs, runs the comparison. Arguments go to run.py.
set -eu
here=$(cd "$(dirname "$0")" && pwd)

if ! "$here"/.venv/bin/python -c 'import torch, numpy' 2>/dev/null; then
    python3 -m venv "$here"/.venv
    "$here"/.venv/bin/pip install --requirement "$here"/requirements.txt
fi
cargo build --release --manifest-path "$here"/../../Cargo.toml --example mivc-peer
# candle chooses some of its vector code at compile time, so it gets to know the processor.
RUSTFLAGS=-Ctarget-cpu=native cargo build --release --manifest-path "$here"/candle/Cargo.toml --target-dir "$here"/candle/target

exec "$here"/.venv/bin/python "$here"/run.py "$@"
