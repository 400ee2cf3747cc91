"""The devices of a recipe: one device, all devices of a machine, or several machines."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
from typing import Any, Literal

import keras

from experiment.errors import SettingsError

BACKEND = keras.backend.backend()
ON_TENSORFLOW = BACKEND == "tensorflow"
if ON_TENSORFLOW:
    import tensorflow as tf
elif BACKEND == "jax":
    import jax

Distribution = Literal["one", "mirrored", "multiworker"]
# The kinds that each backend has.
KINDS = {
    "tensorflow": ("one", "mirrored", "multiworker"),
    "jax": ("one", "mirrored"),
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

    def check_same(self, value: int, meaning: str) -> None:
        """Raises on every worker if their values differ."""


class JaxDevices(Devices):
    """All devices of this machine, which split each mini-batch."""

    @property
    def replicas(self) -> int:
        return len(jax.devices())

    def scope(self) -> contextlib.AbstractContextManager[Any]:
        return keras.distribution.DataParallel().scope()


@dataclasses.dataclass(frozen=True)
class StrategyDevices(Devices):
    """The devices of a `tf.distribute` strategy, and the role of this process."""

    strategy: Any = None

    @property
    def replicas(self) -> int:
        return self.strategy.num_replicas_in_sync

    def scope(self) -> contextlib.AbstractContextManager[Any]:
        return self.strategy.scope()

    def check_same(self, value: int, meaning: str) -> None:
        if self.workers == 1:
            return
        own = self.strategy.run(tf.function(tf.identity), args=(tf.constant([int(value)]),))
        values = sorted({*self.strategy.gather(own, axis=0).numpy().tolist()})
        if len(values) > 1:
            raise SettingsError(
                "`--out` must be a folder that all workers share. "
                f"Received: one in which they find {meaning} to be {values}"
            )


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
    workers, is_chief = read_cluster()
    strategy = tf.distribute.MultiWorkerMirroredStrategy()
    return StrategyDevices(workers, is_chief, strategy)


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
