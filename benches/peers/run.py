"""Compares mivc with PyTorch eager, torch.compile and candle on the CPU, or with PyTorch and PyG on a GPU.

All take turns (A B C D, A B C D, ...) in one run, on the same inputs and the same number of threads,
so that a machine that slows down slows down all of them. PyTorch runs in this process. The Rust
programs run beside it and are idle until it is their turn:

    PROGRAM [--device cpu|cuda] FEATURES [PARAMETERS]

Both files are safetensors. FEATURES holds `features` [B, n, D]; PARAMETERS holds `v`, `w`, optionally
`u`, and their biases, in f32. With parameters the program runs attention pool, without them max and
mean. For each line on stdin it runs once and prints the seconds that took; where the line is
`save PATH` it also writes the result there as raw little-endian f32.

On a GPU everything lies in its memory, and a turn is one call that is not timed and CALLS between two
events of CUDA, divided by CALLS.

A peer is timed only where its result agrees with that of mivc.
"""

import argparse
import json
import os
import platform
import re
import statistics
import struct
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy
import torch
from torch.nn import functional as F

try:
    import torch_geometric
    from torch_geometric.utils import scatter, softmax as softmax_of_bags
except ImportError:
    torch_geometric = None

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
PROGRAMS = {
    "mivc": ROOT / "target/release/examples/mivc-peer",
    "candle": HERE / "candle/target/release/mivc-peer-candle",
}

# The number of threads that PyTorch chooses for itself: physical cores, or OMP_NUM_THREADS.
THREADS = torch.get_num_threads()
# Calls between two events of a GPU, as in mivc_cuda.rs.
CALLS = 16
DTYPES = {"f32": torch.float32, "bf16": torch.bfloat16}
# Largest difference allowed, relative to the largest value of the same output. In bf16 the peers round scores, weights
# and activations, each by up to 2**-9.
TOLERANCE = {"f32": 1e-4, "bf16": 2**-6}


@dataclass(frozen=True)
class Shape:
    """`bags` bags of `length` instances of `dim` features; `hidden` is L of their attention."""

    bags: int
    length: int
    dim: int
    hidden: int

    def __str__(self):
        return f"{self.bags}x{self.length}x{self.dim}"


@dataclass(frozen=True)
class Case:
    operation: str
    shape: Shape
    dtype: str

    def outputs(self):
        """How many arrays [B, D] the operation gives."""
        return 2 if self.operation == "max-mean" else 1

    def __str__(self):
        hidden = f" L={self.shape.hidden}" if self.operation in [*MATRICES, "gate"] else ""
        return f"{self.operation} {self.shape}{hidden} {self.dtype}"


SHAPES = [Shape(100_000, 7, 768, 128), Shape(200, 500, 1024, 256), Shape(1, 100_000, 512, 128)]
OPERATIONS = {
    "cpu": [("gated-attention", ("f32", "bf16")), ("attention", ("f32",)), ("max-mean", ("f32", "bf16"))],
    "cuda": [(name, ("f32", "bf16")) for name in ("gated-attention", "attention", "max-mean")],
}


# Of the operations that have parameters.
MATRICES = {"gated-attention": ["v", "u"], "scores": ["v", "u"], "attention": ["v"]}


def cases(device):
    operations = OPERATIONS[device]
    return [Case(operation, shape, dtype) for operation, dtypes in operations for dtype in dtypes for shape in SHAPES]


# What PyTorch runs. Uniform bags are its best case: no loop, no ragged tensor, no scatter. In-place
# activations, where inference allows them, beat fresh tensors by a tenth; V and U stacked into one
# product, and an einsum in place of bmm, gain nothing.


def attention(x, p):
    return pool(x, scores(x, p))


def attention_widened(x, p):
    """For bf16 features on processors without bf16 products: those in f32 are then the faster ones."""
    return pool(x, scores(x.float(), {name: tensor.float() for name, tensor in p.items()}))


def scores(x, p):
    hidden = F.linear(x, p["v"], p["v_bias"]).tanh_()
    if "u" in p:
        hidden.mul_(F.linear(x, p["u"], p["u_bias"]).sigmoid_())
    return F.linear(hidden, p["w"], p["w_bias"])


def pool(x, scores):
    weights = torch.softmax(scores, dim=-2).to(x.dtype)
    return torch.bmm(weights.mT, x)


def max_mean(x, _):
    return x.max(dim=-2).values, x.mean(dim=-2)


def amax_mean(x, _):
    return x.amax(dim=-2), x.mean(dim=-2)


# The same for bags of any lengths, as rows [N, D] and the first row of each bag, or the bag of each row.


def attention_segments(x, p, bags):
    """By torch's own sums of segments."""
    s = scores(x, p).float()
    largest = torch.segment_reduce(s, "max", offsets=bags.offsets)
    e = (s - largest[bags.of_row]).exp_()
    weights = e / torch.segment_reduce(e, "sum", offsets=bags.offsets)[bags.of_row]
    return torch.segment_reduce(x * weights.to(x.dtype), "sum", offsets=bags.offsets)


def attention_index_add(x, p, bags):
    """By scattered maxima and sums."""
    s = scores(x, p).float()[:, 0]
    largest = s.new_full((bags.count,), -torch.inf).scatter_reduce_(0, bags.of_row, s, "amax")
    e = (s - largest[bags.of_row]).exp_()
    weights = e / e.new_zeros(bags.count).index_add_(0, bags.of_row, e)[bags.of_row]
    return x.new_zeros(bags.count, x.shape[1]).index_add_(0, bags.of_row, x * weights[:, None].to(x.dtype))


def attention_pyg(x, p, bags):
    weights = softmax_of_bags(scores(x, p).float(), bags.of_row, num_nodes=bags.count)
    return scatter(x * weights.to(x.dtype), bags.of_row, dim_size=bags.count, reduce="sum")


class BagsOfRows:
    def __init__(self, shape, device):
        self.count = shape.bags
        self.offsets = torch.arange(shape.bags + 1, device=device) * shape.length
        self.of_row = torch.arange(shape.bags, device=device).repeat_interleave(shape.length)


def segment_peers(case, x, params):
    """As torch_peers, for bags of any lengths."""
    if case.operation == "max-mean":
        return
    bags, rows = BagsOfRows(case.shape, x.device), x.reshape(-1, case.shape.dim)
    functions = {"segment_reduce": attention_segments, "index_add": attention_index_add}
    if torch_geometric:
        functions["PyG"] = attention_pyg
    for name, function in functions.items():
        yield name, partial(function, rows, params, bags)
    yield "compile, index_add", partial(torch.compile(attention_index_add, dynamic=False), rows, params, bags)


def torch_peers(case, x, params):
    """Names and functions without arguments; those that cannot be compiled raise when first called."""
    if case.operation == "max-mean":
        functions = {", max": max_mean, ", amax": amax_mean}
        x = x[0] if case.shape.bags == 1 else x
    elif case.dtype == "bf16" and not x.is_cuda:
        functions = {"": attention, ", f32 products": attention_widened}
    else:
        functions = {"": attention}
    for suffix, function in functions.items():
        yield f"eager{suffix}", partial(function, x, params)
    for suffix, function in functions.items():
        yield f"compile{suffix}", partial(torch.compile(function, dynamic=False), x, params)


class TorchPeer:
    def __init__(self, function, outputs):
        self.function = function
        self.outputs = outputs

    def result(self, _):
        output = self.function()
        output = torch.stack(output) if isinstance(output, tuple) else output
        return output.float().cpu().numpy().reshape(self.outputs, -1)

    def seconds(self):
        start = time.perf_counter()
        self.function()
        return time.perf_counter() - start


class CudaPeer(TorchPeer):
    def seconds(self):
        self.function()  # not timed: the device comes to this process from another
        return seconds_on_gpu(self.function)


def seconds_on_gpu(function):
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    for _ in range(CALLS):
        function()
    end.record()
    end.synchronize()
    return start.elapsed_time(end) / 1e3 / CALLS


class Program:
    """One of the Rust programs, waiting on its stdin."""

    def __init__(self, name, arguments, outputs):
        self.outputs = outputs
        environment = os.environ | {"RAYON_NUM_THREADS": str(THREADS)}
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        self.process = subprocess.Popen([PROGRAMS[name], *arguments], text=True, env=environment, **pipes)

    def answer(self, line):
        print(line, file=self.process.stdin, flush=True)
        answer = self.process.stdout.readline()
        if not answer:
            raise RuntimeError(f"ended with status {self.process.wait()}")
        return answer

    def ask(self, line):
        return float(self.answer(line))

    def result(self, path):
        self.ask(f"save {path}")
        return numpy.fromfile(path, dtype="<f4").reshape(self.outputs, -1)

    def seconds(self):
        return self.ask("run")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.__exit__(None, None, None)  # closes the pipes, which ends the program, and waits


def make_inputs(case, directory):
    """Features and parameters, the same on every machine and in every run, and the files of them."""
    torch.manual_seed(0)
    shape, dtype = case.shape, DTYPES[case.dtype]
    x = torch.randn(shape.bags, shape.length, shape.dim).to(dtype)
    files = [directory / "features"]
    write_safetensors(files[0], {"features": x})
    if case.operation not in MATRICES:
        return x, {}, files

    # Scores that spread by about 1, so that the softmax has something to do.
    params = {}
    for name in MATRICES[case.operation]:
        params[name] = torch.randn(shape.hidden, shape.dim) / shape.dim**0.5
        params[f"{name}_bias"] = 0.1 * torch.randn(shape.hidden)
    params["w"] = 3 * torch.randn(1, shape.hidden) / shape.hidden**0.5
    params["w_bias"] = torch.tensor([0.1])
    files.append(directory / "parameters")
    write_safetensors(files[1], params)
    return x, {name: tensor.to(dtype) for name, tensor in params.items()}, files


def write_safetensors(path, tensors):
    names = {torch.float32: "F32", torch.bfloat16: "BF16"}
    header, end = {}, 0
    for name, tensor in tensors.items():
        start, end = end, end + tensor.nbytes
        header[name] = {"dtype": names[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for tensor in tensors.values():
            file.write(tensor.view(torch.uint8).numpy().data)


def measure(case, rounds, device):
    """Times by name, and what went wrong by name."""
    torch._dynamo.reset()
    if device == "cuda":
        torch.cuda.empty_cache()
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        x, params, files = make_inputs(case, directory)
        outputs = case.outputs()
        mivc = stack.enter_context(Program("mivc", ["--device", device, *files], outputs))
        expected = mivc.result(directory / "mivc")

        x, params = x.to(device), {name: tensor.to(device) for name, tensor in params.items()}
        functions = dict(torch_peers(case, x, params))
        if device == "cuda":
            functions |= segment_peers(case, x, params)
        kind = CudaPeer if device == "cuda" else TorchPeer
        candidates = {name: kind(function, outputs) for name, function in functions.items()}
        peers, failures = {"mivc": mivc}, {}
        if device == "cuda":
            if case.operation != "max-mean" and not torch_geometric:
                failures["PyG"] = "not installed"
        elif PROGRAMS["candle"].exists():
            candidates["candle"] = stack.enter_context(Program("candle", files, outputs))
        else:
            failures["candle"] = "not built"
        for name, peer in candidates.items():
            failure = disagreement(name, peer, expected, TOLERANCE[case.dtype], directory / "peer")
            if failure:
                log(f"  {name}: {failure}")
                failures[name] = failure
            else:
                peers[name] = peer
        return take_turns(peers, rounds), failures


def disagreement(name, peer, expected, tolerance, path):
    """Why a peer cannot be compared, or None."""
    try:
        result = peer.result(path)
    except Exception as error:  # a missing compiler, an operation that a peer lacks: named, not hidden
        return f"{type(error).__name__}: {error}".strip().splitlines()[0]
    if result.shape != expected.shape:
        return f"disagrees: {result.size} results, mivc {expected.size}"
    # One row per output, each held against its own size: a mean is far smaller than a maximum.
    differences = abs(result - expected).max(axis=1)
    allowed = tolerance * abs(expected).max(axis=1)
    log(f"  {name}: largest difference {listed(differences)}, allowed {listed(allowed)}")
    # Not `differences > allowed`: a NaN must not pass.
    agrees = (differences <= allowed).all()
    return None if agrees else f"disagrees by {listed(differences)}, allowed {listed(allowed)}"


def listed(values):
    return " and ".join(f"{value:.1e}" for value in values)


def take_turns(peers, rounds):
    times = {name: [] for name in peers}
    for _ in range(rounds):
        for name, peer in peers.items():
            # Threads of the one before spin for a moment before they sleep.
            time.sleep(0.01)
            times[name].append(peer.seconds())
    return times


def log(line):
    print(line, file=sys.stderr, flush=True)


def command(*arguments):
    return subprocess.run(arguments, cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()


def built():
    """Commit and compiler of mivc: scripts/gpu-bundle.sh leaves them beside what it packs."""
    note = ROOT / "build.json"
    if note.exists():
        return json.loads(note.read_text())
    changed = command("git", "status", "--porcelain", "--untracked-files=no")
    return {
        "commit": command("git", "rev-parse", "HEAD") + (" with changes" if changed else ""),
        "rustc": command("rustc", "--version").split()[1],
    }


def gpu():
    """What there is, and its ceilings: of a copy, read and written, and of a product of bf16."""
    bytes_of_copy, size = 1 << 30, 8192
    source = torch.empty(bytes_of_copy, dtype=torch.uint8, device="cuda")
    destination = torch.empty_like(source)
    a, b = (torch.randn(size, size, device="cuda").bfloat16() for _ in range(2))
    copy, product = partial(destination.copy_, source), partial(torch.matmul, a, b)
    for function in copy, product:
        function()
    return {
        "gpu": torch.cuda.get_device_name(),
        "driver": command("nvidia-smi", "--id=0", "--query-gpu=driver_version", "--format=csv,noheader"),
        "copy_bytes_per_second": 2 * bytes_of_copy / seconds_on_gpu(copy),
        "bf16_flops_per_second": 2 * size**3 / seconds_on_gpu(product),
    }


def environment(device):
    cpuinfo = Path("/proc/cpuinfo")
    model = re.search(r"model name\s*: (.*)", cpuinfo.read_text()) if cpuinfo.exists() else None
    build = built()
    if device == "cuda":
        where = gpu()
        versions = {"cuda": torch.version.cuda, "pyg": torch_geometric and torch_geometric.__version__}
    else:
        where = {}
        lock = (HERE / "candle/Cargo.lock").read_text()
        versions = {"candle": re.search(r'name = "candle-core"\nversion = "(.*)"', lock)[1]}
    return where | {
        "cpu": model[1] if model else platform.processor(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "cores": os.cpu_count(),
        "threads": THREADS,
        "commit": build["commit"],
        "versions": {
            "rustc": build["rustc"],
            "python": platform.python_version(),
            "torch": torch.__version__,
        }
        | versions,
    }


def table(results):
    """Markdown: the median of mivc in ms, and of each peer how many times that it took."""
    peers = list(dict.fromkeys(name for result in results for name in result["ratios"]))
    lines = ["| case | mivc, ms | " + " | ".join(peers) + " |", "| --- |" + " ---: |" * (1 + len(peers))]
    for result in results:
        ratios = [f"{result['ratios'][name]:.2f}×" if name in result["ratios"] else "" for name in peers]
        lines.append(f"| {result['case']} | {result['median_ms']['mivc']:.2f} | " + " | ".join(ratios) + " |")
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", choices=OPERATIONS, default="cpu")
    parser.add_argument("--quick", action="store_true", help="3 rounds instead of 9")
    parser.add_argument("--only", default="", metavar="SUBSTRING", help="cases whose name contains this")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the results here")
    arguments = parser.parse_args()
    every = cases(arguments.device)
    chosen = [case for case in every if arguments.only in str(case)]
    if not chosen:
        parser.error("--only: no such case; there are:\n  " + "\n  ".join(map(str, every)))
    if arguments.device == "cuda" and not torch.cuda.is_available():
        sys.exit("torch finds no GPU")

    if arguments.json:
        arguments.json.touch()  # an hour later is too late to learn that it cannot be written

    torch.set_num_threads(THREADS)
    with torch.inference_mode():
        where = environment(arguments.device)
    log(json.dumps(where))
    results = []
    for case in chosen:
        log(str(case))
        with torch.inference_mode():
            times, failures = measure(case, 3 if arguments.quick else 9, arguments.device)
        medians = {name: statistics.median(values) for name, values in times.items()}
        for name, values in times.items():
            log(f"  {name}: min {1e3 * min(values):.2f} ms, median {1e3 * medians[name]:.2f} ms")
        results.append({
            "case": str(case),
            "median_ms": {name: 1e3 * median for name, median in medians.items()},
            "min_ms": {name: 1e3 * min(values) for name, values in times.items()},
            "ratios": {name: median / medians["mivc"] for name, median in medians.items() if name != "mivc"},
            "failures": failures,
        })
        if arguments.json:  # what was measured stays, should the rest not come to pass
            arguments.json.write_text(json.dumps(where | {"results": results}, indent=2) + "\n")

    versions = ", ".join(f"{name} {version}" for name, version in where["versions"].items())
    print(f"{where.get('gpu', where['cpu'])}, {THREADS} threads; {versions}")
    print("Times are medians; a peer's column is its time divided by that of mivc.\n")
    for outputs in (1, 2):
        rows = [result for case, result in zip(chosen, results) if case.outputs() == outputs]
        if rows:
            print(table(rows), end="\n\n")
    for result in results:
        for name, failure in result["failures"].items():
            print(f"{result['case']}: {name} not timed: {failure}")


if __name__ == "__main__":
    main()
