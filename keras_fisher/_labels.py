"""The labels of a batch: where they are, and whether they are classes of the model."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import ops

from keras_fisher import autodiff
from keras_fisher.likelihoods import Likelihood


def only_labels(y: Any) -> Any:
    """The labels of the one output, which Keras accepts in a list or dictionary too."""
    return next(iter(keras.tree.flatten(y)), None)


def checked_labels(likelihood: Likelihood, y: Any, outputs: Any) -> Any:
    """Returns `y`, in a graph that fails where a label lies outside the classes."""
    labels = only_labels(y)
    check_numbers(labels)
    bound = likelihood.class_bound(labels, outputs)
    if bound is None:
        return y
    values = counted_labels(likelihood, labels)
    checked = autodiff.checked_below(labels, values, bound, _outside_classes(bound))
    return keras.tree.pack_sequence_as(y, [checked])


def counted_labels(likelihood: Likelihood, labels: Any) -> Any:
    """Returns labels with a class, 0, in the place of those that the likelihood ignores."""
    counted = likelihood.counted(labels)
    return labels if counted is None else ops.where(counted, labels, ops.zeros_like(labels))


def known_outputs(model: keras.Model) -> Any:
    """The symbolic output of a functional model; `None` for others, whose is not known."""
    outputs = getattr(model, "outputs", None)
    return outputs[0] if outputs else None


def check_classes(likelihood: Likelihood, y: Any, outputs: Any) -> None:
    """Refuses labels that are no classes of outputs, or of symbols of them."""
    labels = only_labels(y)
    check_numbers(labels)
    bound = None if outputs is None else likelihood.class_bound(labels, outputs)
    if bound is None:
        return
    array = ops.convert_to_numpy(counted_labels(likelihood, labels))
    if array.size and not (array.min() >= 0 and array.max() < bound):
        raise ValueError(
            f"{_outside_classes(bound)} Received: labels from {array.min()} to {array.max()}"
        )
    fractions = array[array != np.rint(array)]
    if fractions.size:
        raise ValueError(f"{_outside_classes(bound)} Received: a label of {fractions[0]}")


def check_numbers(labels: Any) -> None:
    """Refuses labels that are strings or other objects."""
    dtype = getattr(labels, "dtype", None)
    if dtype is None or getattr(dtype, "kind", None) == "O":  # a data frame, or a column of one
        dtype = np.asarray(labels).dtype
    if dtype == "string" or getattr(dtype, "kind", None) in ("U", "S", "O"):
        raise ValueError(
            "`y` must hold numbers, such as an integer from 0 for each class. "
            f"Received: labels of dtype {dtype}"
        )


def _outside_classes(bound: int) -> str:
    return (
        f"`y` must hold labels from 0 to {bound - 1}, whole numbers, one for each of the {bound} "
        "outputs."
    )
