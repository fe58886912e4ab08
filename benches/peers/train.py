"""Compares steps of training with PyTorch's autograd, eager and compiled, on the CPU: gradients and times.

As run.py: all take turns in one run, on the same inputs and the same number of threads. A step is an operation that
keeps what its backward needs, and the gradients of all its inputs and parameters. mivc runs in a program of its own,

    PROGRAM --train OPERATION TYPE INPUTS [PARAMETERS]

whose INPUTS also hold the gradients that come in, `d_` and the name of an output. For each line on stdin it runs one
step and prints the seconds of forward and backward; where the line is `save PATH` it also writes all gradients there as
raw little-endian f32: of the inputs, then of v, v_bias, u, u_bias, w and w_bias.

A peer is timed only where each of its gradients agrees with that of mivc.
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy
import torch
from torch.nn import functional as F

from run import DTYPES, THREADS, Case, Program, Shape, environment, log, make_inputs, take_turns, write_safetensors

SHAPES = [Shape(40, 500, 1024, 256), Shape(1, 20_000, 1024, 256), Shape(10_000, 7, 768, 128)]
NAMES = ["v", "v_bias", "u", "u_bias", "w", "w_bias"]
# Largest difference allowed of a gradient, relative to its largest value. In bf16 autograd rounds every activation and
# every gradient between the operations, each by up to 2**-9, and sums over instances in that type as well.
TOLERANCE = {"f32": 1e-4, "bf16": 2**-4}
PARTS = ["forward", "backward", "step"]


def scores_of(x, p):
    hidden = F.linear(x, p["v"], p["v_bias"]).tanh()
    if "u" in p:
        hidden = hidden * F.linear(x, p["u"], p["u_bias"]).sigmoid()
    return F.linear(hidden, p["w"], p["w_bias"])


def sum_of(weights, x):
    return torch.bmm(weights.to(x.dtype).mT, x)[:, 0]


def features(case, x):
    return {"features": x}


def x_and_y(case, x):
    return {name: torch.randn(*x.shape[:2], case.shape.hidden).to(x.dtype) for name in ("x", "y")}


def scores_alone(case, x):
    return {"scores": torch.randn(*x.shape[:2], 1)}


def weights_and_features(case, x):
    return {"weights": torch.softmax(torch.randn(*x.shape[:2], 1), dim=-2), "features": x}


@dataclass(frozen=True)
class Operation:
    """What PyTorch computes of inputs, by name, and parameters: outputs by name. Where ties are, amax shares."""

    dtypes: tuple[str, ...]
    inputs: Callable
    function: Callable


def attention(i, p):
    return {"pooled": sum_of(torch.softmax(scores_of(i["features"], p), dim=-2), i["features"])}


OPERATIONS = {
    "gated-attention": Operation(("f32", "bf16"), features, attention),
    "attention": Operation(("f32",), features, attention),
    "scores": Operation(("f32",), features, lambda i, p: {"scores": scores_of(i["features"], p)}),
    "gate": Operation(("f32", "bf16"), x_and_y, lambda i, _: {"g": i["x"].tanh() * i["y"].sigmoid()}),
    "softmax": Operation(("f32",), scores_alone, lambda i, _: {"weights": torch.softmax(i["scores"], dim=-2)}),
    "weighted-sum": Operation(
        ("f32", "bf16"), weights_and_features, lambda i, _: {"pooled": sum_of(i["weights"], i["features"])}
    ),
    "max-mean": Operation(
        ("f32", "bf16"),
        features,
        lambda i, _: {"max": i["features"].amax(dim=-2), "mean": i["features"].mean(dim=-2)},
    ),
}


class TorchStep:
    def __init__(self, function, inputs, params, upstream):
        self.function = function
        self.inputs, self.params = (
            {name: tensor.clone().requires_grad_() for name, tensor in tensors.items()} for tensors in (inputs, params)
        )
        self.upstream = upstream

    def run(self):
        leaves = [*self.inputs.values()] + [self.params[name] for name in NAMES if name in self.params]
        start = time.perf_counter()
        outputs = self.function(self.inputs, self.params)
        middle = time.perf_counter()
        gradients = torch.autograd.grad([*outputs.values()], leaves, [self.upstream[f"d_{name}"] for name in outputs])
        return gradients, (middle - start, time.perf_counter() - middle)

    def seconds(self):
        return self.run()[1]

    def result(self, _):
        return [gradient.detach().float().numpy().ravel() for gradient in self.run()[0]]


class MivcStep(Program):
    """Its sizes are those of the gradients, in their order."""

    def __init__(self, arguments, sizes):
        super().__init__("mivc", ["--train", *arguments], outputs=None)
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
    operation = OPERATIONS[case.operation]
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        x, params, files = make_inputs(case, directory)
        inputs = operation.inputs(case, x)
        outputs = operation.function(inputs, params)
        upstream = {f"d_{name}": torch.randn(output.shape).to(output.dtype) for name, output in outputs.items()}
        write_safetensors(files[0], inputs | upstream)
        names = [*inputs] + [name for name in NAMES if name in params]
        sizes = [(inputs | params)[name].numel() for name in names]
        mivc = stack.enter_context(MivcStep([case.operation, case.dtype, *files], sizes))
        expected = mivc.result(directory / "mivc")
        compiled = torch.compile(operation.function, dynamic=False)
        peers, failures = {"mivc": mivc}, {}
        for name, function in {"eager": operation.function, "compile": compiled}.items():
            peer = TorchStep(function, inputs, params, upstream)
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
        cells = [", ".join(f"{1e3 * mine[part]:.3g}" for part in PARTS[:2]) + " ms", f"{mine['backward'] / mine['forward']:.2f}"]
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
    every = [Case(name, shape, dtype) for name, it in OPERATIONS.items() for dtype in it.dtypes for shape in SHAPES]
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
