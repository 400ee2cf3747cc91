"""Running a recipe on JAX: its devices, and the memory that it keeps."""

from __future__ import annotations

import contextlib
import dataclasses
import gc
from collections.abc import Set
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


def registered() -> Set[str]:
    """Nothing: JAX forgets what it has compiled with the functions that it compiled."""
    return frozenset()


def forget_graphs(known: Set[str]) -> None:
    """Lets go of the models that are done with."""
    gc.collect()
