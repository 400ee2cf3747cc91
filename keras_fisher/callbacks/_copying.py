"""Callbacks that can be copied, as hyper-parameter searches do for every trial."""

from __future__ import annotations

import copy
from typing import Any

import keras


class CopyableCallback(keras.callbacks.Callback):
    """A callback whose copies share its data, and start without a model."""

    def __getstate__(self) -> dict[str, Any]:
        """What a copy takes along."""
        return {**self.__dict__, "_model": None}

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        # A tf.data.Dataset has no deep copy, and arrays need none.
        return copy.copy(self)
