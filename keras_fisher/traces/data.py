"""The data to measure on: arrays, or a dataset of batches."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import keras
import numpy as np

from keras_fisher.utils import arguments

Batch = tuple[Any, Any, Any]
"""Inputs, labels and sample weights; `None` where there are none."""
ENDLESS = -1
"""The number of batches of an endless dataset, as TensorFlow's `cardinality` gives it."""


def check_data(data: Any, num_examples: int | None, batch_size: int, needs_labels: bool) -> None:
    """Checks as much as is possible without reading the data.

    Raises:
        TypeError: if a number is not an integer, or `data` is neither `(x, y)` nor a dataset.
        ValueError: if a number is below 1, or the data is sparse, empty or endless, holds fewer
            examples than `num_examples`, or lacks required labels.
    """
    arguments.check_integer("batch_size", batch_size, low=1)
    if num_examples is not None:
        arguments.check_integer("num_examples", num_examples, low=1)
    if isinstance(data, tuple | list):
        _check_arrays(data, num_examples, needs_labels)
    else:
        _check_dataset(data, num_examples, needs_labels)


def check_rereadable(data: Any, name: str = "data") -> None:
    """Raises if the argument called `name` can be read only once, like a generator."""
    if isinstance(data, Iterator):
        raise TypeError(
            f"`{name}` must be `(x, y)` or a dataset that can be read again and again. "
            f"Received: a {type(data).__name__}"
        )


def count_batches(data: Any) -> int:
    """Returns the number of batches of a dataset; `ENDLESS` or, if it is unknown, -2."""
    if not isinstance(data, keras.utils.PyDataset):
        cardinality = getattr(data, "cardinality", None)
        return -2 if cardinality is None else int(cardinality())
    try:
        return ENDLESS if data.num_batches is None else data.num_batches
    except NotImplementedError:
        return -2


def batches(data: Any, num_examples: int | None, batch_size: int) -> Iterator[Batch]:
    """Yields all examples of checked data, or the first `num_examples`, in batches.

    Raises:
        ValueError: if a dataset is empty, holds fewer examples than that, or does not consist of
            batches.
    """
    found = 0
    for batch in _read(data, batch_size):
        size = _common_length(batch)
        if num_examples is not None:
            size = min(size, num_examples - found)
        if size:
            found += size
            yield batch if size == length(batch[0]) else _rows(batch, 0, size)
        if found == num_examples:
            return
    if not found:
        raise ValueError(_EMPTY)
    if num_examples is not None:
        raise ValueError(_describe_too_few(num_examples, found))


def minibatches(data: Any, num_examples: int | None, batch_size: int) -> Iterator[Batch]:
    """Yields the same examples in mini-batches of equal size; drops a smaller last one.

    Raises:
        ValueError: if mini-batches of a dataset differ in size before the last one.
    """
    first, other = None, None
    for batch in batches(data, num_examples, batch_size):
        size = length(batch[0])
        first = first or size
        if other is not None or size > first:
            raise ValueError(
                "`data` must have mini-batches of equal size, except for a smaller last one. "
                f"Received: sizes {first} and {other or size}"
            )
        if size == first:
            yield batch
        else:
            other = size


_EMPTY = "`data` must hold at least one example. Received: none"
_NO_BATCH = (
    "`data` must hold examples along the first axis. Received: a scalar, as in a dataset that is "
    "not batched"
)


def _describe_too_few(num_examples: int, found: int) -> str:
    return (
        "`num_examples` must be at most the number of examples in `data`. "
        f"Received: num_examples={num_examples} and {found} examples"
    )


def _check_arrays(data: Any, num_examples: int | None, needs_labels: bool) -> None:
    if len(data) not in (1, 2, 3):
        raise ValueError(
            "`data` must be `(x, y)` or a dataset of such batches, such as a tf.data.Dataset, a "
            "keras.utils.PyDataset or a torch DataLoader. "
            f"Received: a {type(data).__name__} of {len(data)}"
        )
    x, y, _ = batch = _parts(data)
    _check_dense(batch)
    for leaf in keras.tree.flatten(batch):
        if leaf is not None and not hasattr(leaf, "shape"):
            raise TypeError(
                "`data` must be `(x, y)`, arrays or structures of arrays. "
                f"Received: {type(leaf).__name__} where an array should be"
            )
    if not _shapes(x):
        raise ValueError(f"`data` must hold inputs. Received: x={x!r}")
    if needs_labels and not _shapes(y):
        raise ValueError("`data` must hold labels. Received: only x")
    if len(_shapes(y)) > 1:
        raise ValueError(
            "`data` must be `(x, y)`, with one array of labels, or a dataset. Received: "
            f"{len(_shapes(y))} arrays of labels. Concatenate batches in a list into two arrays"
        )
    found = _common_length(batch)
    if not found:
        raise ValueError(_EMPTY)
    if num_examples is not None and num_examples > found:
        raise ValueError(_describe_too_few(num_examples, found))


def _check_dense(structure: Any) -> None:
    for leaf in keras.tree.flatten(structure):
        if arguments.is_sparse(leaf):
            raise ValueError(
                "`data` must hold dense arrays, whose examples can be taken one by one. "
                f"Received: {type(leaf).__name__}. Convert it with tf.sparse.to_dense"
            )


def _check_dataset(data: Any, num_examples: int | None, needs_labels: bool) -> None:
    is_other = isinstance(data, dict | str | bytes) or hasattr(data, "dtype")
    if is_other or not hasattr(data, "__iter__"):
        raise TypeError(
            "`data` must be `(x, y)` or a dataset of such batches, such as a tf.data.Dataset, a "
            "keras.utils.PyDataset or a torch DataLoader. "
            f"Received: {type(data).__name__}"
        )
    spec = getattr(data, "element_spec", None)
    _check_dense(spec)
    shapes = _shapes(spec)
    if needs_labels and spec is not None and not _shapes(_parts(spec)[1]):
        raise ValueError("`data` must hold labels. Received: batches of only x")
    if any(shape.rank == 0 for shape in shapes):
        raise ValueError(_NO_BATCH)
    number = count_batches(data)
    if number == 0:
        raise ValueError(_EMPTY)
    if number == ENDLESS and num_examples is None:
        raise ValueError(
            "`data` must be finite, or `num_examples` given. Received: an endless dataset"
        )
    sizes = {shape[0] for shape in shapes}
    if number < 0 or num_examples is None or not sizes or None in sizes:
        return
    if num_examples > number * max(sizes):
        raise ValueError(_describe_too_few(num_examples, number * max(sizes)))


def _read(data: Any, batch_size: int) -> Iterator[Batch]:
    if not isinstance(data, tuple | list):
        for batch in data:
            _check_dense(batch)
            yield _parts(batch)
        return
    arrays = _parts(data)
    total = length(arrays[0])
    for start in range(0, total, batch_size):
        yield _rows(arrays, start, min(start + batch_size, total))


def _parts(batch: Any) -> Batch:
    """Returns the inputs, labels and sample weights; `None` where there are none."""
    return keras.utils.unpack_x_y_sample_weight(tuple(batch) if isinstance(batch, list) else batch)


def _rows(structure: Any, start: int, end: int) -> Any:
    def cut(array: Any) -> Any:
        return None if array is None else _cast_to_floatx(array[start:end])

    return keras.tree.map_structure(cut, structure)


def _cast_to_floatx(array: Any) -> Any:
    """Casts floating-point arrays to Keras's default precision, as `fit` does."""
    if isinstance(array, np.ndarray) and np.issubdtype(array.dtype, np.floating):
        return array.astype(keras.config.floatx())
    return array


def length(x: Any) -> int:
    """Returns the number of examples in a structure of arrays."""
    return len(next(leaf for leaf in keras.tree.flatten(x) if leaf is not None))


def _common_length(batch: Batch) -> int:
    """Returns the batch size; raises if the arrays disagree."""
    shapes = _shapes(batch)
    if any(len(shape) == 0 for shape in shapes):
        raise ValueError(_NO_BATCH)
    lengths = sorted({int(shape[0]) for shape in shapes})
    if len(lengths) > 1:
        raise ValueError(
            "`data` must hold inputs, labels and sample weights of one length. "
            f"Received: lengths {', '.join(map(str, lengths))}"
        )
    return lengths[0]


def _shapes(structure: Any) -> list[Any]:
    """Returns the shapes in a structure of arrays or specifications; `None` leaves have none."""
    leaves = keras.tree.flatten(structure)
    return [leaf.shape for leaf in leaves if hasattr(leaf, "shape")]
