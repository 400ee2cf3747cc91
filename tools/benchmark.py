"""Measures what training and measuring cost; prints a table and writes a JSON file.

    python tools/benchmark.py                            # all sections
    python tools/benchmark.py fisher pytorch --repeats 21
    python tools/benchmark.py --quick                    # tiny sizes: does everything still run?
    KERAS_BACKEND=jax python tools/benchmark.py training --networks SimpleCNN

Sections:
    training   every way to compute the penalty, in epochs of plain `fit`
    fisher     the exact per-example Fisher trace over a plain forward and backward pass
    hessian    a probe of the Hessian trace over a plain forward and backward pass
    steps      plain and penalised steps over the same steps written by hand in PyTorch
    pytorch    traces and eigenvalues over those of BackPACK, torch.func, hessian-eigenthings and
               curvlinops, on the same network and data (pip install -e '.[benchmark]')
    memory     peak memory of a step with the penalty over that of a plain one
    pipelines  the batches of each data set over plain training of SimpleCNN, which takes them
    first_steps  the time until the first steps and traces end, over that of a plain model
    alternatives  the methods of recipes/alternatives.py over cross-entropy, on CIFAR-10

Times are ratios of things that take turns in one process: the median over the rounds, the smallest
and the largest. "passes" is the ratio of the numbers of passes through the network. Networks are
random and run on the device that the backend finds; on a CPU TensorFlow takes two threads. A
section that cannot run on the backend or the device says so. The file is rewritten after every
row, so that an interrupted benchmark keeps what it measured.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.metadata
import json
import os
import platform
from collections.abc import Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
# Sections start processes that share the device.
os.environ.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")
os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")

from benchmarks.alternatives import alternatives
from benchmarks.backend import BACKEND, THREADS, limit_threads
from benchmarks.first_steps import first_steps
from benchmarks.measurement import Row, SectionSkipped, Settings
from benchmarks.networks import NETWORKS
from benchmarks.pipelines import pipelines
from benchmarks.pytorch import PACKAGES, pytorch
from benchmarks.steps import steps
from benchmarks.traces import fisher, hessian
from benchmarks.training import memory, training

SECTIONS = {
    section.__name__: section
    for section in (
        training,
        fisher,
        hessian,
        steps,
        pytorch,
        memory,
        pipelines,
        first_steps,
        alternatives,
    )
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command line."""
    given = parse_arguments(arguments)
    is_quick = given.quick
    settings = Settings(
        networks=given.networks or (["SimpleCNN"] if is_quick else list(NETWORKS)),
        repeats=given.repeats or (1 if is_quick else 9),
        is_quick=is_quick,
        examples=given.examples,
        steps_per_execution=given.steps_per_execution,
    )
    limit_threads()
    rows: list[dict[str, Any]] = []
    for name in given.sections or SECTIONS:
        try:
            for row in SECTIONS[name](settings):
                rows.append({"section": name, **row._asdict()})
                write(given.output, settings, rows)
        except SectionSkipped as reason:
            rows.append({"section": name, **Row("", "skipped", str(reason))._asdict()})
            write(given.output, settings, rows)
    print(table(rows))


def parse_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("sections", nargs="*", metavar="SECTION", help="default: all")
    add("--networks", nargs="+", choices=NETWORKS, help="default: all; SimpleCNN if quick")
    add("--repeats", type=int, help="rounds in which each is timed once; default: 9; 1 if quick")
    add("--examples", type=int, default=128, help="examples of the section fisher; default: 128")
    add("--steps-per-execution", type=int, default=1, help="in the section training; default: 1")
    add("--quick", action="store_true", help="take few examples and few ways")
    add("--output", type=Path, default=Path("runs/benchmark.json"), help="the JSON file")
    given = parser.parse_args(arguments)
    if unknown := sorted({*given.sections} - {*SECTIONS}):
        parser.error(f"`SECTION` must be one of {', '.join(SECTIONS)}. Received: {unknown}")
    for name in ("repeats", "examples", "steps_per_execution"):
        number = getattr(given, name)
        if number is not None and number < 1:
            parser.error(f"`--{name.replace('_', '-')}` must be at least 1. Received: {number}")
    return given


def write(path: Path, settings: Settings, rows: Sequence[dict[str, Any]]) -> None:
    """Replaces the JSON file."""
    report = {"environment": environment(), "settings": settings._asdict(), "rows": rows}
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    part.write_text(json.dumps(report, indent=2) + "\n")
    part.replace(path)


def environment() -> dict[str, Any]:
    versions = {}
    for package in ("keras-fisher", "keras", "tensorflow", "jax", *PACKAGES.values()):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[package] = importlib.metadata.version(package)
    return {
        "backend": BACKEND,
        "python": platform.python_version(),
        "machine": platform.machine(),
        "cores": os.cpu_count(),
        "load": os.getloadavg()[0],
        "threads": THREADS,
        "versions": versions,
    }


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Markdown."""
    keys = ("section", "network", "quantity", "result")
    lines = [f"| {' | '.join(('section', 'network', 'measured', 'result'))} |", "|---|---|---|---|"]
    return "\n".join([*lines, *(f"| {' | '.join(row[key] for key in keys)} |" for row in rows)])


if __name__ == "__main__":
    main()
