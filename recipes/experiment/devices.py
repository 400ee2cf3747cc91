"""The devices of a recipe: one device, all devices of a machine, or several machines."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import platform
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

import keras
import numpy as np

from experiment.errors import SettingsError

BACKEND = keras.backend.backend()
ON_TENSORFLOW = BACKEND == "tensorflow"
if ON_TENSORFLOW:
    import tensorflow as tf
elif BACKEND == "jax":
    import jax
    from jax.experimental import multihost_utils

    from keras_fisher.data.containers import map_batches

Distribution = Literal["one", "mirrored", "multiworker"]
# The kinds that each backend has.
KINDS = {
    "tensorflow": ("one", "mirrored", "multiworker"),
    "jax": ("one", "mirrored", "multiworker"),
    "torch": ("one",),
}
# The errors raised by training when another worker has stopped.
CONNECTION_ERRORS: tuple[type[BaseException], ...] = ()
if ON_TENSORFLOW:
    CONNECTION_ERRORS = (tf.errors.UnavailableError, tf.errors.AbortedError)
EXAMPLE = {
    "cluster": {"worker": ["host0:12345", "host1:12345"]},
    "task": {"type": "worker", "index": 0},
}


@dataclasses.dataclass(frozen=True)
class Devices:
    """One device; subclasses have several.

    Attributes:
        workers: The number of processes that train together.
        is_chief: Whether this process is the one that writes files.
    """

    workers: int = 1
    is_chief: bool = True

    @property
    def replicas(self) -> int:
        """The number of devices that train together."""
        return 1

    def scope(self) -> contextlib.AbstractContextManager[Any]:
        """The scope in which to create models."""
        return contextlib.nullcontext()

    def training_scope(self) -> contextlib.AbstractContextManager[Any]:
        """The scope in which to train them."""
        return contextlib.nullcontext()

    def check_same(self, value: int, meaning: str) -> None:
        """Raises on every worker if their values differ; waits for all workers."""
        values = sorted({*self._gather(int(value))})
        if len(values) > 1:
            raise SettingsError(
                "`--out` must be a folder that all workers share. "
                f"Received: one in which they find {meaning} to be {values}"
            )

    def take_part(self, batches: Any) -> Any:
        """Returns what this worker passes to Keras of batches that all workers read."""
        return batches

    def take_part_of_arrays(self, arrays: Any, batch_size: int) -> tuple[Any, int]:
        """Returns the arrays that this worker passes to Keras, and the size of batches of them."""
        return arrays, batch_size

    def _gather(self, value: int) -> Iterable[int]:
        """Returns the values of all workers."""
        return [value]


class JaxDevices(Devices):
    """All devices of this machine or of several, which split each mini-batch."""

    @property
    def replicas(self) -> int:
        return len(jax.devices())

    def scope(self) -> contextlib.AbstractContextManager[Any]:
        return keras.distribution.DataParallel(auto_shard_dataset=False).scope()

    def training_scope(self) -> contextlib.AbstractContextManager[Any]:
        return self.scope()

    def take_part(self, batches: Any) -> Any:
        def take(_: int, batch: tuple[Any, Any]) -> tuple[Any, Any]:
            x, y = batch
            rows = self._rows(0, len(y))
            return x[rows], y[rows]

        return map_batches(take, batches)

    def take_part_of_arrays(self, arrays: Any, batch_size: int) -> tuple[Any, int]:
        length = len(arrays[1])
        starts = range(0, length, batch_size)
        rows = [self._rows(start, min(batch_size, length - start)) for start in starts]
        own = tuple(np.concatenate([array[part] for part in rows]) for array in arrays)
        return own, batch_size // self.workers

    def _rows(self, start: int, size: int) -> slice:
        """Returns this worker's rows of a batch."""
        if size % self.replicas:
            raise SettingsError(
                "`--distribute` needs batches that the number of devices divides, "
                f"{self.replicas}. Received: a batch of {size} examples. Choose `--batch-size`, "
                "`--num-train` and `--validation-size` to fit"
            )
        part = size // self.workers
        start += jax.process_index() * part
        return slice(start, start + part)

    def _gather(self, value: int) -> Iterable[int]:
        return multihost_utils.process_allgather(np.array([value])).ravel().tolist()


@dataclasses.dataclass(frozen=True)
class StrategyDevices(Devices):
    """The devices of a `tf.distribute` strategy, and the role of this process."""

    strategy: Any = None

    @property
    def replicas(self) -> int:
        return self.strategy.num_replicas_in_sync

    def scope(self) -> contextlib.AbstractContextManager[Any]:
        return self.strategy.scope()

    def _gather(self, value: int) -> Iterable[int]:
        if self.workers == 1:
            return [value]
        own = self.strategy.run(tf.function(tf.identity), args=(tf.constant([value]),))
        return self.strategy.gather(own, axis=0).numpy().tolist()


def takes_single_steps(kind: Distribution) -> bool:
    """Whether Keras accepts only `steps_per_execution=1`."""
    return kind != "one" or BACKEND == "torch"


def choose_devices(kind: Distribution) -> Devices:
    """Returns the devices of the given kind; call it before any computation."""
    if kind == "one":
        return Devices()
    if kind not in KINDS[BACKEND]:
        raise SettingsError(
            f"`--distribute` must be {' or '.join(KINDS[BACKEND])} with the {BACKEND} backend. "
            f"Received: {kind}"
        )
    if kind == "mirrored":
        return (
            StrategyDevices(strategy=tf.distribute.MirroredStrategy())
            if ON_TENSORFLOW
            else JaxDevices()
        )
    if not ON_TENSORFLOW:
        join_jax_processes()
        return JaxDevices(jax.process_count(), jax.process_index() == 0)
    workers, is_chief = read_cluster()
    strategy = tf.distribute.MultiWorkerMirroredStrategy()
    return StrategyDevices(workers, is_chief, strategy)


def keep_compiled(out: Path) -> None:
    """With JAX, keeps compiled functions in a recipe's folder, for later runs and processes.

    Each machine has its own, because the compiled code is that of its processor.
    """
    if BACKEND == "jax" and getattr(jax.config, "jax_compilation_cache_dir", None) is None:
        folder = out.resolve() / f"compiled-{platform.node()}"
        jax.config.update("jax_compilation_cache_dir", str(folder))


def join_jax_processes() -> None:
    """Connects this process with the others."""
    try:
        keras.distribution.initialize()
    except (RuntimeError, ValueError) as error:
        names = ("JOB_ADDRESSES", "NUM_PROCESSES", "PROCESS_ID")
        variables = ", ".join(f"KERAS_DISTRIBUTION_{name}" for name in names)
        raise SettingsError(
            f"`--distribute multiworker` needs the environment variables {variables}, "
            "such as host0:12345, 2 and 0, unless JAX finds the other processes itself. "
            f"Received: {error}"
        ) from error


def read_cluster() -> tuple[int, bool]:
    """Returns the number of workers in TF_CONFIG, and whether this process is their chief."""
    try:
        config = json.loads(os.environ["TF_CONFIG"])
        task = (config["task"]["type"], int(config["task"]["index"]))
        chief = ("chief" if "chief" in config["cluster"] else "worker", 0)
        workers = sum(len(config["cluster"].get(job, [])) for job in ("chief", "worker"))
    except (KeyError, TypeError, ValueError):
        raise SettingsError(
            "`--distribute multiworker` needs the environment variable TF_CONFIG, such as "
            f"{json.dumps(EXAMPLE)}. Received: {os.environ.get('TF_CONFIG')}"
        ) from None
    return workers, task == chief
