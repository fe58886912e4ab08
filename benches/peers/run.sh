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
    ;;
esac

if [ "${1:-}" = train ]; then
    shift
    exec "$here"/.venv/bin/python "$here"/train.py "$@"
fi
case " $* " in
*" --device cuda "*) ;;
*)
    # candle chooses some of its vector code at compile time, so it gets to know the processor.
    RUSTFLAGS=-Ctarget-cpu=native cargo build --release --manifest-path "$here"/candle/Cargo.toml --target-dir "$here"/candle/target
    ;;
esac
exec "$here"/.venv/bin/python "$here"/run.py "$@"
