#!/bin/sh
# Installs the peers, builds both Rust programs, runs the comparison. Arguments go to run.py.
set -eu
cd "$(dirname "$0")"

if ! .venv/bin/python -c 'import torch, numpy' 2>/dev/null; then
    python3 -m venv .venv
    .venv/bin/pip install --requirement requirements.txt
fi
cargo build --release --manifest-path ../../Cargo.toml --example mivc-peer
# candle chooses some of its vector code at compile time, so it gets to know the processor.
RUSTFLAGS=-Ctarget-cpu=native cargo build --release --manifest-path candle/Cargo.toml --target-dir candle/target

exec .venv/bin/python run.py "$@"
