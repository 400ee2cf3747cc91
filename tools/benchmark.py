"""What training and measuring cost: measures it, prints one table and writes one JSON file.

    python tools/benchmark.py                            # all sections but the comparisons
    python tools/benchmark.py --compare                  # those too
    python tools/benchmark.py --only fisher --repeats 21
    python tools/benchmark.py --quick                    # does everything still run? two minutes

Sections:
    training     every way to compute the penalty, in epochs of plain `fit`, for five networks
    fisher       the exact per-example Fisher trace against a plain forward and backward pass
    hessian      a probe of the Hessian trace against a plain forward and backward pass
    torch        the penalised step in PyTorch; both traces against BackPACK, torch.func, PyHessian
                 and curvlinops, on the same network and data (a comparison)
    memory       the Fisher trace of 5,000 CIFAR-10 images: wall time and peak memory
    step_memory  peak memory of a step with the penalty against that of a plain one
    precision    the penalty and its gradient in mixed_bfloat16 against float32
    input        the batches of each data set against plain training of SimpleCNN, which eats them
    replicas     a step of 128 examples on 2 and 4 virtual devices of this machine against one

Times are compared as ratios of things that take turns in one run: the median over the rounds, with
the smallest and the largest. "passes" is the ratio of the numbers of passes through the network.
All networks run on the CPU, with two threads, at their initial weights. The file is written anew
after every row, so that a run that is cut off keeps what it measured.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import importlib.metadata
import json
import os
import platform
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

from benchmarks.rows import Row, SectionSkipped, table
from benchmarks.sections import COMPARISONS, SECTIONS
from benchmarks.subjects import NETWORKS, only
from benchmarks.timing import THREADS, use_cpu
from benchmarks.torch_process import PACKAGES

QUICK_NETWORKS = ["SimpleCNN"]


def main() -> None:
    arguments = parse_arguments()
    use_cpu()
    only(arguments.networks)
    rows: list[Row] = []
    for row in measured(arguments.only, arguments.repeats, arguments.quick):
        rows.append(row)
        write(arguments, rows)
    print(table(rows))


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", nargs="+", choices=SECTIONS, help="sections to run")
    parser.add_argument(
        "--networks",
        nargs="+",
        choices=NETWORKS,
        help="networks, where a section has several (default: all; SimpleCNN if quick)",
    )
    parser.add_argument(
        "--compare", action="store_true", help="run the comparisons with other packages too"
    )
    parser.add_argument(
        "--repeats",
        type=int,
        help="rounds in which each thing is timed once (default: 9; 1 if quick)",
    )
    parser.add_argument(
        "--quick", action="store_true", help="take one network, few examples and few ways"
    )
    parser.add_argument(
        "--output", type=Path, default=Path("runs/benchmark.json"), help="where the JSON file goes"
    )
    arguments = parser.parse_args()
    if arguments.repeats is None:
        arguments.repeats = 1 if arguments.quick else 9
    if arguments.networks is None:
        arguments.networks = QUICK_NETWORKS if arguments.quick else list(NETWORKS)
    if arguments.repeats < 1:
        parser.error(f"`--repeats` must be at least 1. Received: {arguments.repeats}")
    if arguments.only is None:
        arguments.only = [name for name in SECTIONS if arguments.compare or name not in COMPARISONS]
    return arguments


def measured(sections: Iterable[str], repeats: int, quick: bool) -> Iterator[Row]:
    for section in sections:
        try:
            yield from SECTIONS[section](repeats, quick)
        except SectionSkipped as reason:
            yield Row(section, "", "skipped", str(reason))


def write(arguments: argparse.Namespace, rows: list[Row]) -> None:
    report = {
        "environment": environment(),
        "repeats": arguments.repeats,
        "quick": arguments.quick,
        "rows": [dataclasses.asdict(row) for row in rows],
    }
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    part = arguments.output.with_suffix(".part")
    part.write_text(json.dumps(report, indent=2) + "\n")
    part.replace(arguments.output)


def environment() -> dict[str, Any]:
    versions = {}
    for package in ("keras-fisher", "keras", "tensorflow", *PACKAGES):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[package] = importlib.metadata.version(package)
    return {
        "python": platform.python_version(),
        "machine": platform.machine(),
        "cores": os.cpu_count(),
        "load": os.getloadavg()[0],
        "threads": THREADS,
        "versions": versions,
    }


if __name__ == "__main__":
    main()
