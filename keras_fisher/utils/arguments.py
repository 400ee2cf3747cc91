"""Checks of arguments. Each error names the argument, its value and the accepted values."""

from __future__ import annotations

import math
import os
from collections.abc import Collection, Sequence
from numbers import Real
from typing import Any

import keras
import numpy as np

_LARGEST_SEED = 2**32 - 1  # in Keras and NumPy


def check_integer(name: str, value: Any, low: int, high: float = math.inf) -> int:
    """Returns `value` as an `int`; raises unless it is an integer in `[low, high]`."""
    accepted = f"an integer >= {low}" if high == math.inf else f"an integer in [{low}, {high}]"
    message = f"`{name}` must be {accepted}. Received: {name}={value!r} ({type(value).__name__})"
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)):
        raise TypeError(message)
    if not low <= value <= high:
        raise ValueError(message)
    return int(value)


def check_real(name: str, value: Any, accepted: str = "a number") -> float:
    """Returns `value` as a `float`; raises unless it is a real number.

    Arrays and tensors of shape () are accepted, unless they are symbolic.
    """
    number = _item(value)
    if isinstance(number, bool) or not isinstance(number, Real):
        raise TypeError(
            f"`{name}` must be {accepted}. Received: {name}={value!r} ({type(value).__name__})"
        )
    return float(number)


def _item(value: Any) -> Any:
    """Returns the item of an array or a tensor of shape (), or any other value unchanged."""
    if getattr(value, "shape", None) != ():
        return value
    try:
        return np.asarray(value).item()
    # A symbolic tensor of TensorFlow or JAX, or one of PyTorch that requires a gradient.
    except (NotImplementedError, RuntimeError, TypeError, ValueError):
        return value


def check_bool(name: str, value: Any) -> bool:
    """Returns `value` as a `bool`; raises unless it is one."""
    if not isinstance(value, (bool, np.bool_)):
        raise TypeError(f"`{name}` must be True or False. Received: {name}={value!r}")
    return bool(value)


def check_channels_last() -> None:
    """Raises unless channels are the last axis of images."""
    given = keras.config.image_data_format()
    if given != "channels_last":
        raise ValueError(
            "`keras.config.image_data_format()` must be 'channels_last', the layout of the data "
            f"sets and networks of keras_fisher. Received: {given!r}"
        )


def check_positive(name: str, value: Any) -> float:
    """Returns `value` as a `float`; raises unless it is positive and finite."""
    number = check_real(name, value, "a number, positive and finite")
    if not 0 < number < math.inf:
        raise ValueError(f"`{name}` must be positive and finite. Received: {name}={value}")
    return number


def check_non_negative(name: str, value: Any, accepted: str = "at least 0 and finite") -> float:
    """Returns `value` as a `float`; raises unless it is non-negative and finite."""
    number = check_real(name, value, f"a number, {accepted}")
    if not 0 <= number < math.inf:
        raise ValueError(f"`{name}` must be {accepted}. Received: {name}={value}")
    return number


def check_count_or_share(name: str, value: Any) -> int | float | None:
    """Returns `value`; raises unless it is an integer >= 1, a share in (0, 1] or `None`.

    Returns `None` for the share 1.0.
    """
    message = (
        f"`{name}` must be an integer >= 1, a share in (0, 1] or None. "
        f"Received: {name}={value!r} ({type(value).__name__})"
    )
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float, np.integer, np.floating)):
        raise TypeError(message)
    is_count = isinstance(value, (int, np.integer))
    if not (value >= 1 if is_count else 0 < value <= 1):
        raise ValueError(message)
    if is_count:
        return int(value)
    return None if value == 1 else float(value)


def check_seed(seed: Any) -> int | None:
    """Validates `seed`; `None` draws one at random."""
    return None if seed is None else check_given_seed(seed)


def check_given_seed(seed: Any, name: str = "seed") -> int:
    """Returns `seed` as an `int`; raises unless it is an integer of at most 32 bits."""
    return check_integer(name, seed, low=0, high=_LARGEST_SEED)


def check_path(name: str, value: Any) -> str:
    """Returns `value` as a `str`; raises unless it is a path."""
    path = os.fspath(value) if isinstance(value, os.PathLike) else value
    if not isinstance(path, str) or not path:
        raise TypeError(
            f"`{name}` must be a path, a str or os.PathLike. "
            f"Received: {name}={value!r} ({type(value).__name__})"
        )
    return path


def is_sparse(value: Any) -> bool:
    """Whether `value` is a sparse tensor, its `tf.TypeSpec`, or a sparse SciPy or JAX array."""
    kind = getattr(value, "value_type", value)
    is_sparse_torch = getattr(kind, "is_sparse", False) is True
    return is_sparse_torch or hasattr(kind, "dense_shape") or hasattr(kind, "todense")


def check_array(name: str, value: Any) -> np.ndarray:
    """Returns `value` as an array; raises unless it is an array of examples."""
    try:
        array = np.asarray(value)
    except ValueError as error:
        raise ValueError(f"`{name}` must be an array. Received: {error}") from None
    if not array.ndim:
        raise ValueError(f"`{name}` must be an array of examples. Received: {name}={value!r}")
    return array


def check_lengths(name: str, array: np.ndarray, y: np.ndarray) -> None:
    """Raises unless an array and its labels have the same number of examples, at least one."""
    if not len(array) == len(y) > 0:
        raise ValueError(
            f"`{name}` and `y` must hold the same number of examples, and at least one. "
            f"Received: {len(array)} in {name} and {len(y)} in y"
        )


def check_integer_labels(y: np.ndarray) -> None:
    """Raises unless `y` holds one integer for each example."""
    if y.ndim != 1 or not np.issubdtype(y.dtype, np.integer):
        raise ValueError(
            f"`y` must hold integer labels, shape (n,). Received: dtype {y.dtype}, shape {y.shape}"
        )


def check_mean(loss: Any, accepted: Sequence[str], why: str) -> None:
    """Raises if a compiled loss, in any form that Keras accepts, has another reduction."""
    reduction = getattr(keras.tree.flatten(loss)[0], "reduction", accepted[0])
    if reduction not in accepted:
        raise ValueError(
            "`loss` must be a mean over the batch (reduction='sum_over_batch_size'), "
            f"{why}. Received: reduction={reduction!r}"
        )


def check_choice(name: str, value: Any, accepted: Collection[str]) -> str:
    """Returns `value`; raises unless it is one of the `accepted` strings."""
    if isinstance(value, str) and value in accepted:
        return value
    choices = ", ".join(repr(choice) for choice in accepted)
    raise ValueError(f"`{name}` must be one of {choices}. Received: {name}={value!r}")


def check_gradients(name: str, model: keras.Model) -> None:
    """Raises if the gradient of a trainable weight is not one, as in float8 layers."""
    for weight in model.trainable_weights:
        if getattr(weight, "overwrite_with_gradient", False):
            raise ValueError(
                f"`{name}` must not be quantised to float8: the new scales of its layers take the "
                f"place of gradients, which have no norm. Received: the weight {weight.path!r}"
            )
