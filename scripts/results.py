#!/usr/bin/env python3
"""What a run on a GPU found: from its logs to JSON, and from that to the tables in README.md.

    results.py read LOG... --commit HASH --date DATE …    writes benches/results/<gpu>/<date>-<commit>.json
    results.py tables [--check]                           writes the newest of them to README.md, or compares only

A log is the output of a test program, of one under compute-sanitizer, or of benches; or log.txt of scripts/gpu-run.sh,
which has all of them. A table stands between <!-- results:NAME --> and <!-- /results -->.
"""

import argparse
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benches/results"
README = ROOT / "README.md"

UNITS = {"ns": "e-9", "µs": "e-6", "ms": "e-3", "s": "e0"}
NAME = re.compile(r"Benchmarking (\S+?)(?::|$)")
COPY = re.compile(r"(.+): copies (\S+) TB/s")
TIME = re.compile(r" +time: +\[(\S+) (\S+) (\S+) (\S+) (\S+) (\S+)\]$")
RATES = re.compile(
    r" +(?P<bytes>\S+) TB/s, (?P<share>\S+) % of the copy's; ((?P<flops>\S+) TFLOP/s; )?"
    r".* × the (?P<expected>\S+) µs expected of an H200, by (?P<bound>.+)"
)
COUNTS = re.compile(r"test result: .* (\d+) passed; (\d+) failed; (\d+) ignored;")

Json = dict[str, Any]


def parts_of(log: Path) -> Iterator[tuple[str, str]]:
    """Names and outputs of steps; a log that is not of several is named by its file."""
    text = log.read_text()
    if not text.startswith("==== "):
        yield log.stem, text
        return
    for part in re.split(r"^==== ", text, flags=re.MULTILINE)[1:]:
        title, _, output = part.partition("\n")
        yield title.partition(": ")[0].removeprefix("test "), output


def of_tests(name: str, output: str) -> Json:
    counts = dict(zip(("passed", "failed", "ignored"), map(int, COUNTS.search(output).groups())))
    if "COMPUTE-SANITIZER" in output:
        test, summary = re.search(r"^test (\S+)", output, re.MULTILINE), re.search(r"SUMMARY: (.*)", output)
        return {"tool": re.match(r"\w+", name)[0], "test": test[1], **counts, "summary": summary[1]}
    failures = re.findall(r"^    (\w+(?:::\w+)+)$", output.rpartition("\nfailures:\n")[2], re.MULTILINE)
    return {"program": name, **counts, "failures": failures}


def of_benches(output: str, programs: list[Json], rows: list[Json]) -> None:
    """Adds bench programs, each of which first says how fast the GPU copies, and their rows."""
    for line in output.splitlines():
        if named := NAME.match(line):
            name = named[1]
        elif copy := COPY.match(line):
            programs.append({"gpu": copy[1], "copy_bytes_per_second": float(copy[2] + "e12")})
        elif time := TIME.match(line):
            seconds = [float(time[i] + UNITS[time[i + 1]]) for i in (1, 3, 5)]
        elif rates := RATES.match(line):
            row = {"name": name, "program": len(programs) - 1, "seconds": seconds}
            row |= {"bytes_per_second": float(rates["bytes"] + "e12"), "share_of_copy": float(rates["share"] + "e-2")}
            if rates["flops"]:
                row["flops_per_second"] = float(rates["flops"] + "e12")
            rows.append(row | {"expected_seconds": float(rates["expected"] + "e-6"), "expected_bound": rates["bound"]})


def read(logs: list[Path], facts: Json) -> tuple[Path, Json]:
    tests, sanitizers, programs, rows = [], [], [], []
    for name, output in (part for log in logs for part in parts_of(log)):
        if COUNTS.search(output):
            outcome = of_tests(name, output)
            (sanitizers if "tool" in outcome else tests).append(outcome)
        else:
            of_benches(output, programs, rows)
    (gpu,) = {program.pop("gpu") for program in programs}
    path = RESULTS / gpu.split()[-1].lower() / f"{facts['date']}-{facts['commit'][:7]}.json"
    about = "seconds are low, median and high; a row's program is where it stands among bench_programs"
    measured = {"bench_programs": programs, "rows": rows}
    return path, {"gpu": gpu, **facts, "about": about, "tests": tests, "sanitizers": sanitizers, **measured}


def write(path: Path, results: Json) -> None:
    """An entry of a list is a line."""
    parts = []
    for key, value in results.items():
        text = json.dumps(value, ensure_ascii=False)
        if isinstance(value, list):
            text = "[\n    " + ",\n    ".join(json.dumps(entry, ensure_ascii=False) for entry in value) + "\n  ]"
        parts.append(f'  "{key}": {text}')
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("{\n" + ",\n".join(parts) + "\n}\n")


def table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] + ["---:"] * (len(head) - 1), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def shape_of(name: str) -> str:
    """Bags × instances, without what follows."""
    return "×".join(name.split("/")[2].split("x")[:2])


PROGRAMS = {
    "properties": "properties",
    "sm90": "properties, with the kernels for sm_90a",
    "kernels": "kernels that the virtual machine is tested with",
}


def table_of_tests(results: Json) -> str:
    tests, sanitizers = results["tests"], results["sanitizers"]
    rows = [[PROGRAMS.get(it["program"], it["program"]), str(it["passed"]), str(it["failed"])] for it in tests]
    if sanitizers:
        clean = sum(it["failed"] == 0 and it["summary"].startswith("0 ") for it in sanitizers)
        tools = ", ".join(dict.fromkeys(it["tool"] for it in sanitizers))
        properties = len({it["test"] for it in sanitizers})
        rows.append([f"{tools}, each on {properties} properties", str(clean), str(len(sanitizers) - clean)])
    where = f"{results['gpu']}, {results['date']}, `{results['commit'][:7]}`"
    return table([where, "passed", "failed"], rows)


def machine(results: Json) -> str:
    copies = [program["copy_bytes_per_second"] / 1e12 for program in results["bench_programs"]]
    return (
        f"One {results['gpu']}, driver {results['driver']}, nvcc {results['nvcc']}, {results['date']}, commit "
        f"`{results['commit'][:7]}`, {results['benches']}. It copies {min(copies):.2f} TB/s, read and written."
    )


PATHS = {"-in-one-pass": "one pass", "-in-two-passes": "two passes", "-sm90": "sm_90a"}
POOLED = re.compile(r"(?P<gate>gated|ungated)-L(?P<hidden>\d+)(-(?P<heads>\d+)-heads)?")


def pooled(rows: list[Json]) -> dict[tuple[str, str, str], dict[str, float]]:
    """By type, case and bags, the seconds of each path. One that is named by no path is the one that the library took,
    and has the others beside it. Steps of training are left out."""
    names = {(row["program"], row["name"]) for row in rows}
    found: dict[tuple[str, str, str], dict[str, float]] = {}
    for row in rows:
        _, case, dims, dtype = row["name"].split("/")
        suffix = next((it for it in PATHS if case.endswith(it)), None)
        is_one_pass = (row["program"], row["name"].replace(case, f"{case}-in-two-passes")) in names
        path = PATHS[suffix] if suffix else "one pass" if is_one_pass else "two passes"
        it = POOLED.search(case)
        if it is None:
            continue
        heads = f", {it['heads']} heads" if it["heads"] else ""
        label = f"{it['gate']} D={dims.split('x')[2]} L={it['hidden']}{heads}"
        found.setdefault((dtype, label, shape_of(row["name"])), {}).setdefault(path, row["seconds"][1])
    return found


def tables_of_attention_pool(results: Json) -> str:
    found = pooled([row for row in results["rows"] if row["name"].startswith("attention_pool/")])
    parts = [machine(results)]
    for dtype in ("bf16", "f16", "f32"):
        of_dtype = {key[1:]: times for key, times in found.items() if key[0] == dtype}
        if not of_dtype:
            continue
        paths = [path for path in PATHS.values() if any(path in times for times in of_dtype.values())]
        labels, shapes = (list(dict.fromkeys(keys)) for keys in zip(*of_dtype))
        rows = [[label] + [cell_of_paths(of_dtype[label, shape], paths) for shape in shapes] for label in labels]
        parts.append(table([f"{dtype}, ms: {' / '.join(paths)}"] + shapes, rows))
    return "\n\n".join(parts)


def cell_of_paths(times: dict[str, float], paths: list[str]) -> str:
    """The least is bold."""
    texts = [f"{1e3 * times[path]:#.3g}" if path in times else "–" for path in paths]
    fastest = min(times, key=times.get)
    return " / ".join(f"**{text}**" if path == fastest else text for path, text in zip(paths, texts))


# Of criterion's groups and cases, what the table calls them and the types that it has, of which f16 is left out
# where it is as bf16.
OPERATIONS = {
    "gate/cuda": ("gate", ("f32", "bf16")),
    "max_mean/cuda": ("max and mean", ("f32", "f16", "bf16")),
    "weighted_sum/cuda": ("weighted sum", ("f32", "f16", "bf16")),
    "softmax/cuda": ("softmax", ("f32",)),
    "scores/cuda-gated": ("scores, gated", ("f32", "bf16")),
    "scores/cuda-ungated": ("scores, ungated", ("bf16",)),
    "scores/cuda-gated-8-heads": ("scores, gated, 8 heads", ("bf16",)),
}


def table_of_operations(results: Json) -> str:
    cells: dict[str, dict[str, str]] = {}
    for row in results["rows"]:
        group, _, case = row["name"].rpartition("/")[0].rpartition("/")
        dtype = row["name"].rpartition("/")[2]
        label, dtypes = OPERATIONS.get(group, ("", ()))
        if dtype not in dtypes:
            continue
        if label == "softmax":
            heads = case.split("x")[2]
            label += f", {heads} head{'s' if heads != '1' else ''}"
        micros, share = 1e6 * row["seconds"][1], 100 * row["share_of_copy"]
        time = f"{micros:.0f}" if micros >= 100 else f"{micros:#.3g}"
        rate = f"{row['flops_per_second'] / 1e12:.0f} TFLOP/s" if "flops_per_second" in row else f"{share:.2g} %"
        cells.setdefault(f"{label}, {dtype}", {})[shape_of(row["name"])] = f"{time}, {rate}"
    order = [label for label, _ in OPERATIONS.values()]
    labels = sorted(cells, key=lambda label: max(i for i, start in enumerate(order) if label.startswith(start)))
    shapes = list(dict.fromkeys(shape for of_label in cells.values() for shape in of_label))
    return table(["µs"] + shapes, [[label] + [cells[label].get(shape, "–") for shape in shapes] for label in labels])


TABLES = {
    "tests": table_of_tests,
    "attention-pool": tables_of_attention_pool,
    "operations": table_of_operations,
}


def with_tables(text: str, results: Json) -> str:
    for name, make in TABLES.items():
        place = re.compile(rf"(<!-- results:{name} -->\n).*?(<!-- /results -->)", re.DOTALL)
        content = f"\n{make(results)}\n\n"
        text, places = place.subn(lambda found: found[1] + content + found[2], text)
        if places != 1:
            sys.exit(f"README.md has {places} places for {name}")
    return text


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    reads = commands.add_parser("read", help="logs to JSON")
    reads.add_argument("logs", nargs="+", type=Path, metavar="LOG")
    for fact in ("commit", "date", "driver", "nvcc", "architectures"):
        reads.add_argument(f"--{fact}", required=True)
    reads.add_argument("--cores", type=int, required=True, help="of the host")
    reads.add_argument("--benches", default="criterion", help="how they were run")
    writes = commands.add_parser("tables", help="the newest JSON to README.md")
    writes.add_argument("--check", action="store_true", help="fail where README.md would change")
    arguments = vars(parser.parse_args())

    if arguments.pop("command") == "read":
        path, results = read(arguments.pop("logs"), arguments)
        write(path, results)
        print(path.relative_to(ROOT))
        return
    newest = max(RESULTS.glob("*/*.json"), key=lambda path: path.name)
    before = README.read_text()
    after = with_tables(before, json.loads(newest.read_text()))
    if arguments["check"] and after != before:
        sys.exit(f"README.md is not what {newest.relative_to(ROOT)} says: make results")
    if after != before:
        README.write_text(after)


if __name__ == "__main__":
    main()
