"""Compares a step of training with PyTorch's autograd, eager and compiled, on the CPU: gradients and times.

As run.py: all take turns in one run, on the same inputs and the same number of threads. A step is attention pool,
keeping what its backward needs, and the gradients of features and parameters. mivc runs in a program of its own,

    PROGRAM --train FEATURES PARAMETERS

whose FEATURES also holds `d_pooled` [B, D], the gradient that comes in. For each line on stdin it runs one step and
prints the seconds of forward and backward; where the line is `save PATH` it also writes all gradients there as raw
little-endian f32: of the features, then of v, v_bias, u, u_bias, w and w_bias.

A peer is timed only where each of its gradients agrees with that of mivc.
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

import numpy
import torch
from torch.nn import functional as F

from run import DTYPES, THREADS, Case, Program, Shape, environment, log, make_inputs, take_turns, write_safetensors

SHAPES = [Shape(40, 500, 1024, 256), Shape(1, 20_000, 1024, 256), Shape(10_000, 7, 768, 128)]
OPERATIONS = [("gated-attention", ("f32", "bf16")), ("attention", ("f32",))]
NAMES = ["v", "v_bias", "u", "u_bias", "w", "w_bias"]
# Largest difference allowed of a gradient, relative to its largest value. In bf16 autograd rounds every activation and
# every gradient between the operations, each by up to 2**-9, and sums over instances in that type as well.
TOLERANCE = {"f32": 1e-4, "bf16": 2**-4}
PARTS = ["forward", "backward", "step"]


def attention(x, p):
    hidden = F.linear(x, p["v"], p["v_bias"]).tanh()
    if "u" in p:
        hidden = hidden * F.linear(x, p["u"], p["u_bias"]).sigmoid()
    weights = torch.softmax(F.linear(hidden, p["w"], p["w_bias"]), dim=-2)
    return torch.bmm(weights.mT, x)


class TorchStep:
    def __init__(self, function, x, params, d_pooled):
        self.function = function
        self.x = x.clone().requires_grad_()
        self.params = {name: tensor.clone().requires_grad_() for name, tensor in params.items()}
        self.d_pooled = d_pooled

    def run(self):
        inputs = [self.x] + [self.params[name] for name in NAMES if name in self.params]
        start = time.perf_counter()
        pooled = self.function(self.x, self.params)
        middle = time.perf_counter()
        gradients = torch.autograd.grad(pooled, inputs, self.d_pooled[:, None])
        return gradients, (middle - start, time.perf_counter() - middle)

    def seconds(self):
        return self.run()[1]

    def result(self, _):
        return [gradient.detach().float().numpy().ravel() for gradient in self.run()[0]]


class MivcStep(Program):
    """Its sizes are those of the gradients, in their order."""

    def __init__(self, files, sizes):
        super().__init__("mivc", ["--train", *files], outputs=None)
        self.sizes = sizes

    def ask(self, line):
        return tuple(map(float, self.answer(line).split()))

    def result(self, path):
        self.ask(f"save {path}")
        ends = numpy.cumsum(self.sizes)
        return numpy.split(numpy.fromfile(path, dtype="<f4"), ends[:-1])


def disagreement(results, expected, names, tolerance):
    """Which gradients differ, or None. That of w_bias is 0 but for rounding, and is held against that of w."""
    largest = {name: abs(gradient).max() for name, gradient in zip(names, expected)}
    wrong = []
    for name, result, gradient in zip(names, results, expected, strict=True):
        difference = abs(result - gradient).max()
        scale = max(largest[name], largest["w"]) if name == "w_bias" else largest[name]
        log(f"    d_{name}: largest difference {difference:.1e} of {scale:.1e}")
        if not difference <= tolerance * scale:
            wrong.append(f"d_{name} by {difference:.1e} of {scale:.1e}")
    return ", ".join(wrong) or None


def measure(case, rounds):
    torch._dynamo.reset()
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        x, params, files = make_inputs(case, directory)
        d_pooled = torch.randn(case.shape.bags, case.shape.dim).to(DTYPES[case.dtype])
        write_safetensors(files[0], {"features": x, "d_pooled": d_pooled})
        names = ["features"] + [name for name in NAMES if name in params]
        sizes = [x.numel()] + [params[name].numel() for name in names[1:]]
        mivc = stack.enter_context(MivcStep(files, sizes))
        expected = mivc.result(directory / "mivc")
        compiled = torch.compile(attention, dynamic=False)
        peers, failures = {"mivc": mivc}, {}
        for name, function in {"eager": attention, "compile": compiled}.items():
            peer = TorchStep(function, x, params, d_pooled)
            log(f"  {name}")
            try:
                failure = disagreement(peer.result(None), expected, names, TOLERANCE[case.dtype])
            except Exception as error:  # a missing compiler: named, not hidden
                failure = f"{type(error).__name__}: {error}".strip().splitlines()[0]
            if failure:
                failures[name] = failure
            else:
                peers[name] = peer
        return take_turns(peers, rounds), failures


def medians(times):
    """Of forward, backward and both, of each peer."""
    parts = {name: [*zip(*values), [sum(pair) for pair in values]] for name, values in times.items()}
    return {name: dict(zip(PARTS, map(statistics.median, of_peer))) for name, of_peer in parts.items()}


def table(results):
    lines = ["| step of training | mivc: forward, backward | backward : forward | backward: eager | compile | step: eager | compile |"]
    lines.append("| --- |" + " ---: |" * 6)
    for result in results:
        mine = result["median_s"]["mivc"]
        cells = [f"{1e3 * mine['forward']:.0f}, {1e3 * mine['backward']:.0f} ms", f"{mine['backward'] / mine['forward']:.2f}"]
        for part in ("backward", "step"):
            for peer in ("eager", "compile"):
                theirs = result["median_s"].get(peer)
                cells.append(f"{theirs[part] / mine[part]:.2f}×" if theirs else "")
        lines.append(f"| {result['case']} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="3 rounds instead of 9")
    parser.add_argument("--only", default="", metavar="SUBSTRING", help="cases whose name contains this")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the results here")
    arguments = parser.parse_args()
    every = [Case(name, shape, dtype) for name, dtypes in OPERATIONS for dtype in dtypes for shape in SHAPES]
    chosen = [case for case in every if arguments.only in str(case)]
    if not chosen:
        parser.error("--only: no such case; there are:\n  " + "\n  ".join(map(str, every)))
    if arguments.json:
        arguments.json.touch()

    torch.set_num_threads(THREADS)
    where = environment("cpu")
    log(json.dumps(where))
    results, failed = [], []
    for case in chosen:
        log(str(case))
        times, failures = measure(case, 3 if arguments.quick else 9)
        failed += [f"{case}: {name}: {failure}" for name, failure in failures.items()]
        results.append({"case": str(case), "median_s": medians(times), "failures": failures})
        if arguments.json:
            arguments.json.write_text(json.dumps(where | {"results": results}, indent=2) + "\n")

    print(f"{where['cpu']}, {THREADS} threads; torch {where['versions']['torch']}")
    print("Times are medians; a peer's column is its time divided by that of mivc.\n")
    print(table(results))
    if failed:
        sys.exit("\n".join(["not compared:", *failed]))


if __name__ == "__main__":
    main()
