"""Time and memory, and the rows of the table."""

from __future__ import annotations

import ctypes
import gc
import multiprocessing
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from tqdm import tqdm

from benchmarks.backend import has_gpu, limit_threads, wait_for

# Takes the time of something: returns the seconds, and what was computed.
Measurement = Callable[[], tuple[float, Any]]


class Settings(NamedTuple):
    """The options of the command line."""

    networks: Sequence[str]
    repeats: int
    is_quick: bool
    examples: int
    steps_per_execution: int


class Row(NamedTuple):
    """A row of the table; `numbers` goes into the JSON file alone."""

    network: str
    quantity: str
    result: str
    numbers: Mapping[str, Any] = {}


class SectionSkipped(Exception):
    """A section cannot run here; the message says why."""


def ratio_row(
    network: str,
    quantity: str,
    seconds: np.ndarray,
    reference: np.ndarray,
    passes: float | None = None,
) -> Row:
    """A ratio of two times, each of shape (rounds,): the median, the smallest and the largest.

    `passes` is the ratio of the numbers of passes through the network.
    """
    ratios = seconds / reference
    median, low, high = (float(part(ratios)) for part in (np.median, np.min, np.max))
    times = {"seconds": seconds.tolist(), "reference_seconds": reference.tolist()}
    counted = "" if passes is None else f"; passes: {passes:.2f}"
    return Row(
        network,
        quantity,
        f"{median:.2f} ({low:.2f} to {high:.2f}){counted}",
        {"median": median, "min": low, "max": high, "passes": passes, **times},
    )


def time_call(function: Callable[[], Any]) -> Measurement:
    """Measures the wall time of a call."""

    def measurement() -> tuple[float, Any]:
        start = time.perf_counter()
        value = function()
        wait_for(value)
        return time.perf_counter() - start, value

    return measurement


def take_turns(
    measurements: Sequence[Measurement], repeats: int, title: str
) -> tuple[np.ndarray, list[list[Any]]]:
    """Returns the seconds, of shape (measurements, repeats), and the values of each measurement."""
    rounds = [  # The first compiles and warms up.
        [measure() for measure in measurements] for _ in tqdm(range(1 + repeats), desc=title)
    ]
    turns = list(zip(*rounds[1:], strict=True))
    seconds = np.array([[taken for taken, _ in results] for results in turns])
    return seconds, [[value for _, value in results] for results in turns]


def call_in_process(function: Callable[..., Any], *arguments: Any) -> Any:
    """Calls a function in a process of its own."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, context, initializer=limit_threads) as pool:
        return pool.submit(function, *arguments).result()


def check_memory_is_measured() -> None:
    """Raises unless the memory of computations is that of this process, on Linux."""
    if has_gpu() or not Path("/proc/self/clear_refs").exists():
        raise SectionSkipped("only memory of a CPU on Linux is measured")


def resident_mib(field: str) -> float:
    """The memory of this process in MiB: now ("VmRSS") or at its largest ("VmHWM")."""
    # On Linux `ru_maxrss` starts from that of the process which started this one.
    status = Path("/proc/self/status").read_text()
    return int(status.split(f"{field}:")[1].split()[0]) / 1024


def growth_mib(function: Callable[[], Any]) -> float:
    """The largest memory in MiB that a call takes beyond what there was."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")  # restarts "VmHWM"
    before = resident_mib("VmRSS")
    wait_for(function())
    return resident_mib("VmHWM") - before
