"""How things are timed: in turns, in one process, on two threads."""

from __future__ import annotations

import ctypes
import gc
import multiprocessing
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

THREADS = 2

# A measurement takes something's time: it returns the seconds and what was computed.
Measurement = Callable[[], tuple[float, Any]]


def use_cpu() -> None:
    """Leaves out a GPU, and sets the number of threads."""
    import tensorflow as tf  # timing alone does not need it

    tf.config.set_visible_devices([], "GPU")
    tf.config.threading.set_intra_op_parallelism_threads(THREADS)
    tf.config.threading.set_inter_op_parallelism_threads(THREADS)


def timed(function: Callable[[], Any]) -> Measurement:
    """The wall time of a call, and what it returned."""

    def measurement() -> tuple[float, Any]:
        start = time.perf_counter()
        value = function()
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


def in_fresh_process(function: Callable[..., Any], *arguments: Any) -> Any:
    """What a function returns that is called in a process of its own."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(function, *arguments).result()


def resident_mib(field: str) -> float:
    """The memory of this process in MiB: now ("VmRSS") or at its largest ("VmHWM")."""
    # On Linux `ru_maxrss` starts from that of the process which started this one.
    status = Path("/proc/self/status").read_text()
    return int(status.split(f"{field}:")[1].split()[0]) / 1024


def forget_peak() -> None:
    """Gives freed memory back to the system, and starts "VmHWM" from what is left."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")
