"""Batches that are made when they are asked for by their position."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import keras


class Batches(keras.utils.PyDataset):
    """Batches `(x, y)`, each made on the device when it is asked for by its position.

    Args:
        batch: From a position, the batch.
        num_batches: How many there are; `None` for no end.
    """

    def __init__(self, batch: Callable[[int], tuple[Any, Any]], num_batches: int | None) -> None:
        super().__init__()
        self._batch, self._num_batches = batch, num_batches

    @property
    def num_batches(self) -> int | None:
        """How many batches there are; `None` for no end."""
        return self._num_batches

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        return self._batch(index)

    def __iter__(self) -> Iterator[tuple[Any, Any]]:
        index = 0
        while self._num_batches is None or index < self._num_batches:
            yield self[index]
            index += 1

    def skip(self, count: int) -> Batches:
        """The batches after the first `count`."""
        rest = None if self._num_batches is None else max(self._num_batches - count, 0)
        return Batches(lambda index: self._batch(index + count), rest)

    def take(self, count: int) -> Batches:
        """The first `count` batches."""
        few = count if self._num_batches is None else min(count, self._num_batches)
        return Batches(self._batch, few)
