"""Running a recipe on JAX: its devices."""

from __future__ import annotations

import contextlib
import dataclasses
from typing import Any

import jax
import keras

from experiment.devices import Devices
from experiment.errors import SettingsError

LOST_CONNECTION: tuple[type[BaseException], ...] = ()


@dataclasses.dataclass(frozen=True)
class Parallel(Devices):
    """All devices of this machine, which share each mini-batch."""

    @property
    def replicas(self) -> int:
        return len(jax.devices())

    def scope(self) -> contextlib.AbstractContextManager[Any]:
        return keras.distribution.DataParallel().scope()


def choose_devices(kind: str) -> Devices:
    """The devices of a kind."""
    if kind == "one":
        return Devices()
    if kind == "mirrored":
        return Parallel()
    raise SettingsError(
        "`--distribute` must be one or mirrored with the JAX backend. Received: multiworker"
    )
