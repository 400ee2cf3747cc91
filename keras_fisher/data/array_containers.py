"""Batches as a `keras.utils.PyDataset`, computed on the device on request."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_fisher import backend
from keras_fisher.backend import random
from keras_fisher.backend.types import Tensor
from keras_fisher.data.labels import check_labels


class Batches(keras.utils.PyDataset):
    """Batches `(x, y)`, each computed on request.

    Args:
        batch: A function from a position to the batch.
        num_batches: The number of batches; `None` if they are endless.
        source: The dataset that the batches are computed from, which may change between epochs.
    """

    def __init__(
        self,
        batch: Callable[[int], tuple[Tensor, Tensor]],
        num_batches: int | None,
        source: keras.utils.PyDataset | None = None,
    ) -> None:
        super().__init__()
        self._batch, self._num_batches, self._source = batch, num_batches, source

    @property
    def num_batches(self) -> int | None:
        """The number of batches; `None` if they are endless."""
        return self._num_batches

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        return self._batch(index)

    def on_epoch_begin(self) -> None:
        if self._source is not None:
            self._source.on_epoch_begin()

    def on_epoch_end(self) -> None:
        if self._source is not None:
            self._source.on_epoch_end()

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        index = 0
        while self._num_batches is None or index < self._num_batches:
            yield self[index]
            index += 1

    def skip(self, count: int) -> Batches:
        """Returns the batches after the first `count`."""
        rest = None if self._num_batches is None else max(self._num_batches - count, 0)
        return Batches(lambda index: self._batch(index + count), rest, self._source)

    def take(self, count: int) -> Batches:
        """Returns the first `count` batches."""
        few = count if self._num_batches is None else min(count, self._num_batches)
        return Batches(self._batch, few, self._source)


def make_epochs(
    make_batch: Callable[..., tuple[Tensor, Tensor]],
    arrays: tuple[np.ndarray, np.ndarray],
    batch_size: int,
    seed: int,
    first_epoch: int,
) -> Batches:
    """Returns endless batches, with a new order in each epoch.

    Args:
        make_batch: A function from the arrays, the rows of the batch, its position in the epoch
            and the three seeds of the epoch to the batch.
        arrays: Images and labels, put on the device once.
        batch_size: The number of examples in a batch.
        seed: The seed of all epochs.
        first_epoch: The epoch to begin with.
    """
    on_device, num_examples = tuple(map(ops.convert_to_tensor, arrays)), len(arrays[0])
    steps = math.ceil(num_examples / batch_size)

    @functools.lru_cache(maxsize=1)
    def draw_order(epoch: int) -> Tensor:
        return random.draw_order(random.make_stream_seeds(seed, epoch)[0], num_examples)

    @backend.compile_function
    def take(
        arrays: tuple[Tensor, Tensor], rows: Tensor, epoch: int | Tensor, position: int | Tensor
    ) -> tuple[Tensor, Tensor]:
        return make_batch(arrays, rows, position, random.make_stream_seeds(seed, epoch))

    def batch(index: int) -> tuple[Tensor, Tensor]:
        epoch, position = divmod(index, steps)
        epoch += first_epoch
        size = min(batch_size, num_examples - position * batch_size)
        rows = ops.slice(draw_order(epoch), (position * batch_size,), (size,))
        return take(on_device, rows, epoch, position)

    return Batches(batch, None)


def make_evaluation(
    function: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]],
    arrays: tuple[np.ndarray, np.ndarray],
    batch_size: int,
) -> Batches:
    """Returns one pass over the arrays, in order, with `function` applied to each batch."""
    images, labels = map(ops.convert_to_tensor, arrays)

    def batch(index: int) -> tuple[Tensor, Tensor]:
        rows = slice(index * batch_size, (index + 1) * batch_size)
        return function(images[rows], labels[rows])

    return Batches(batch, math.ceil(len(labels) / batch_size))


def map_batches(
    function: Callable[[int, tuple[Tensor, Tensor]], tuple[Tensor, Tensor]],
    batches: keras.utils.PyDataset,
) -> Batches:
    """Applies a function of position and batch to each batch."""
    return Batches(lambda index: function(index, batches[index]), batches.num_batches, batches)


def check_batches(dataset: Any) -> None:
    """Raises unless `dataset` yields batches `(x, y)` with floating-point x."""
    if not isinstance(dataset, keras.utils.PyDataset):
        raise TypeError(
            f"`dataset` must be a keras.utils.PyDataset. Received: {type(dataset).__name__}"
        )
    batch = dataset[0]
    is_pair = isinstance(batch, tuple | list) and len(batch) == 2
    if not is_pair or not all(hasattr(part, "dtype") for part in batch):
        kinds = keras.tree.map_structure(lambda part: type(part).__name__, batch)
        raise ValueError(f"`dataset` must yield pairs (x, y) of arrays. Received: {kinds}")
    x, _ = batch
    if not keras.backend.is_float_dtype(keras.backend.standardize_dtype(x.dtype)):
        raise TypeError(f"`dataset` must yield floating-point x. Received: x of dtype {x.dtype}")


def check_classes(y: Tensor, num_classes: int) -> Tensor:
    """Returns a batch of labels; raises unless they are classes."""
    check_labels("`dataset`", ops.convert_to_numpy(y), num_classes)
    return y


def get_label_spec(dataset: keras.utils.PyDataset) -> Tensor:
    """Returns labels of the shape and the dtype of the batches' labels."""
    return dataset[0][1]
