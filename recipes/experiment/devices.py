"""What a recipe trains on."""

from __future__ import annotations

import contextlib
import dataclasses
from typing import Any

KINDS = ("one", "mirrored", "multiworker")


@dataclasses.dataclass(frozen=True)
class Devices:
    """One device; more than that is the backends' own.

    Attributes:
        workers: How many processes train together.
        is_chief: Whether this process is the one among them that writes.
    """

    workers: int = 1
    is_chief: bool = True

    @property
    def replicas(self) -> int:
        """How many devices train together."""
        return 1

    def scope(self) -> contextlib.AbstractContextManager[Any]:
        """Where models are made and trained."""
        return contextlib.nullcontext()

    def check_alike(self, value: int, meaning: str) -> None:
        """Raises on every worker if they have different values."""
