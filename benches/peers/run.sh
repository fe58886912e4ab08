#!/bin/sh
# Installs the peers, builds the Rust programs, runs the comparison. Arguments go to run.py; --device cuda compares on a
# GPU. With `train` in front of them, they go to train.py, which compares steps of training.
set -eu
here=$(cd "$(dirname "$0")" && pwd)

if ! "$here"/.venv/bin/python -c 'import torch, numpy' 2>/dev/null; then
    python3 -m venv "$here"/.venv
    "$here"/.venv/bin/pip install --requirement "$here"/requirements.txt
fi
case " $* " in
*" --device cuda "*)
    "$here"/.venv/bin/pip install --quiet torch_geometric==2.8.1
    cargo build --release --manifest-path "$here"/../../Cargo.toml --example mivc-peer --features cuda
    ;;
*)
    cargo build --release --manifest-path "$here"/../../Cargo.toml --example mivc-peer
    # It does not train. It chooses some of its vector code at compile time, so it gets to know the processor.
    [ "${1:-}" = train ] ||
        RUSTFLAGS=-Ctarget-cpu=native cargo build --release --manifest-path "$here"/candle/Cargo.toml --target-dir "$here"/candle/target
    ;;
esac

script=run.py
if [ "${1:-}" = train ]; then
    script=train.py
    shift
fi
exec "$here"/.venv/bin/python "$here"/$script "$@"
