"""Functions that extract and check the labels of a batch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import keras
import numpy as np
from keras import ops

if TYPE_CHECKING:
    from keras_fisher.backend.types import Tensor
    from keras_fisher.likelihoods import Likelihood


def get_labels(y: Any) -> Tensor | None:
    """Returns the labels of the single output, which Keras also accepts in a list or dictionary."""
    return next(iter(keras.tree.flatten(y)), None)


def fill_ignored_labels(likelihood: Likelihood, labels: Tensor) -> Tensor:
    """Returns labels with class 0 in place of those that the likelihood ignores."""
    counted = likelihood.counted(labels)
    return labels if counted is None else ops.where(counted, labels, ops.zeros_like(labels))


def get_symbolic_output(model: keras.Model) -> keras.KerasTensor | None:
    """Returns the symbolic output of a functional model; `None` for other models."""
    outputs = getattr(model, "outputs", None)
    return outputs[0] if outputs else None


def check_labels_of_fit(likelihood: Likelihood, name: str, y: Any, outputs: Tensor | None) -> None:
    """Raises for arrays of labels that the loss does not take, as classes or in their layout."""
    labels = get_labels(y)
    if not hasattr(labels, "__array__"):
        return
    _check_layout(likelihood, name, labels, outputs)
    check_classes(likelihood, name, y, outputs)


def _check_layout(likelihood: Likelihood, name: str, labels: Any, outputs: Tensor | None) -> None:
    """Raises for one-hot labels and a sparse loss, and the reverse."""
    takes_one_hot = getattr(likelihood, "takes_one_hot", None)
    if takes_one_hot is None or outputs is None or outputs.shape[-1] in (None, 1):
        return
    shape, classes = tuple(labels.shape), outputs.shape[-1]
    is_one_hot = len(shape) == len(outputs.shape) and shape[-1] == classes
    if takes_one_hot and not is_one_hot:
        raise ValueError(
            f"`{name}` must hold a number for each of the {classes} classes, for categorical "
            f"cross-entropy. Received: labels of shape {shape}. Compile with "
            "keras.losses.SparseCategoricalCrossentropy, or convert the labels with "
            "keras.utils.to_categorical"
        )
    if is_one_hot and not takes_one_hot:
        raise ValueError(
            f"`{name}` must hold one class for each example or position, for sparse categorical "
            f"cross-entropy. Received: labels of shape {shape}, a number for each of the "
            f"{classes} classes. Compile with keras.losses.CategoricalCrossentropy, or pass "
            "the classes, such as y.argmax(axis=-1)"
        )


def check_classes(likelihood: Likelihood, name: str, y: Any, outputs: Tensor | None) -> None:
    """Raises unless labels are classes of the outputs, actual or symbolic."""
    labels = get_labels(y)
    check_numbers(labels, name)
    bound = None if outputs is None else likelihood.class_bound(labels, outputs)
    if bound is None:
        return
    array = ops.convert_to_numpy(fill_ignored_labels(likelihood, labels))
    if array.size and not (array.min() >= 0 and array.max() < bound):
        raise ValueError(
            f"{describe_classes(bound, name)} Received: labels from {array.min()} to {array.max()}"
        )
    fractions = array[array != np.rint(array)]
    if fractions.size:
        raise ValueError(f"{describe_classes(bound, name)} Received: a label of {fractions[0]}")


def check_numbers(labels: Any, name: str) -> None:
    """Raises for labels that are strings or other objects."""
    if is_text(labels):
        dtype = getattr(labels, "dtype", None) or np.asarray(labels).dtype
        raise ValueError(
            f"`{name}` must hold numbers, such as an integer from 0 for each class. "
            f"Received: labels of dtype {dtype}"
        )


def is_text(data: Any) -> bool:
    """Whether an array, a tensor or a value holds strings or other objects instead of numbers."""
    dtype = getattr(data, "dtype", None)
    is_frame = dtype is None and hasattr(data, "__array__")
    if is_frame or getattr(dtype, "kind", None) == "O":  # object columns may hold numbers
        dtype = np.asarray(data).dtype
    is_value = isinstance(data, str | bytes)
    return is_value or dtype == "string" or getattr(dtype, "kind", None) in ("U", "S", "O")


def describe_classes(bound: int, name: str) -> str:
    """Describes the accepted labels, for error messages."""
    return (
        f"`{name}` must hold labels from 0 to {bound - 1}, whole numbers, one for each of the "
        f"{bound} outputs."
    )
