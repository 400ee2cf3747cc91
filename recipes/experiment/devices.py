"""What a recipe trains on: one device, all of one machine, or several machines together."""

from __future__ import annotations

import dataclasses
import json
import os

import tensorflow as tf

from experiment.errors import SettingsError

KINDS = ("one", "mirrored", "multiworker")
EXAMPLE = {
    "cluster": {"worker": ["host0:12345", "host1:12345"]},
    "task": {"type": "worker", "index": 0},
}


@dataclasses.dataclass(frozen=True)
class Devices:
    """A strategy of tf.distribute, and this process's part in it.

    Attributes:
        strategy: What models are made under.
        workers: How many processes train together.
        is_chief: Whether this process is the one among them that writes.
    """

    strategy: tf.distribute.Strategy = dataclasses.field(default_factory=tf.distribute.get_strategy)
    workers: int = 1
    is_chief: bool = True

    def check_alike(self, value: int, meaning: str) -> None:
        """Raises on every worker if they have different values."""
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
        return Devices(tf.distribute.MirroredStrategy())
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
    return Devices(tf.distribute.MultiWorkerMirroredStrategy(), workers, is_chief=task == chief)
