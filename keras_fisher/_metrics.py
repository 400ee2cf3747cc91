"""Metrics that the models of this package report."""

from __future__ import annotations

from typing import Any

import keras


class LatestValue(keras.metrics.Metric):
    """Reports the last value it was given; a new epoch does not reset it."""

    def __init__(self, name: str) -> None:
        super().__init__(name=name, dtype="float32")
        # Replicas all have the same.
        self.latest = self.add_variable(
            (), "zeros", "float32", aggregation="only_first_replica", name="latest"
        )

    def update_state(self, value: Any) -> None:
        """Keeps `value`."""
        self.latest.assign(value)

    def result(self) -> Any:
        """Returns the last value."""
        return keras.ops.convert_to_tensor(self.latest)

    def reset_state(self) -> None:
        """Does nothing: between recomputations the last value stays the current one."""
