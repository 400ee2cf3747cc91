"""Running a recipe on TensorFlow: its devices, and the memory that it keeps."""

from __future__ import annotations

import dataclasses
import json
import os
from typing import Any

import tensorflow as tf
from tensorflow.python.eager import context

from experiment.devices import Devices
from experiment.errors import SettingsError

# What training fails with when another worker has stopped.
LOST_CONNECTION: tuple[type[BaseException], ...] = (
    tf.errors.UnavailableError,
    tf.errors.AbortedError,
)
EXAMPLE = {
    "cluster": {"worker": ["host0:12345", "host1:12345"]},
    "task": {"type": "worker", "index": 0},
}


@dataclasses.dataclass(frozen=True)
class Replicas(Devices):
    """A strategy of tf.distribute, and this process's part in it.

    Attributes:
        strategy: What models are made under.
    """

    strategy: Any = None

    @property
    def replicas(self) -> int:
        return self.strategy.num_replicas_in_sync

    def scope(self) -> Any:
        return self.strategy.scope()

    def check_alike(self, value: int, meaning: str) -> None:
        if self.workers == 1:
            return
        of_each = self.strategy.run(_given, args=(tf.constant([int(value)]),))
        values = sorted({*self.strategy.gather(of_each, axis=0).numpy().tolist()})
        if len(values) > 1:
            raise SettingsError(
                "`--out` must be a folder that all workers share. "
                f"Received: one in which they find {meaning} to be {values}"
            )


@tf.function
def _given(values: tf.Tensor) -> tf.Tensor:
    return values


def choose_devices(kind: str) -> Devices:
    """The devices of a kind; call it before TensorFlow has computed anything."""
    if kind == "one":
        return Devices()
    if kind == "mirrored":
        return Replicas(strategy=tf.distribute.MirroredStrategy())
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
    strategy = tf.distribute.MultiWorkerMirroredStrategy()
    return Replicas(workers, is_chief=task == chief, strategy=strategy)


def forget_numbers() -> None:
    """Lets go of the tensors of Python numbers.

    TensorFlow keeps one of every different number that is turned into a tensor, as TensorBoard's
    callback does with each value that it writes.
    """
    context.context()._clear_caches()
