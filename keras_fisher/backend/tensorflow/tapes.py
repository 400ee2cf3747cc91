"""What all derivatives by TensorFlow's tapes share."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import keras
import tensorflow as tf

from keras_fisher.backend.tensorflow.ops import (
    exact_gradients,
    exact_moments,
    no_second_derivative,
    right_gradients,
)


def squared_norm(tensors: Sequence[Any]) -> Any:
    """Returns the sum of squares over all `tensors`, at least float32; `None` counts as zero."""
    squares = [2.0 * tf.nn.l2_loss(promoted(t)) for t in tensors if t is not None]
    if not squares:
        raise ValueError(
            "A gradient norm needs outputs that depend on what the gradient is taken with respect "
            "to (trainable weights, or floating-point inputs for 'gp_x'). Received: none that do"
        )
    return tf.add_n(squares)


@contextlib.contextmanager
def exactly() -> Iterator[None]:
    """Replaces what TensorFlow differentiates wrongly twice, and refuses it where it is once."""
    with exact_moments(), exact_gradients(), right_gradients():
        yield


def second_gradient(
    tape: tf.GradientTape, target: Any, weights: list[Any], direction: Any = None
) -> list[Any]:
    """Differentiates a gradient; zeros where a weight is unconnected."""
    zero = tf.UnconnectedGradients.ZERO
    try:
        with exact_gradients():
            return dense(tape.gradient(target, weights, direction, unconnected_gradients=zero))
    except LookupError as error:
        raise no_second_derivative(error) from error


def dense(tensors: Sequence[Any]) -> list[Any]:
    """Sums the duplicate rows of sparse gradients (of embeddings) into dense tensors."""
    return [tf.convert_to_tensor(t) if isinstance(t, tf.IndexedSlices) else t for t in tensors]


def zeros_for_none(tensors: Sequence[Any], like: Sequence[Any]) -> list[Any]:
    """The tensors; zeros shaped like a weight in the place of each `None`."""
    return [tf.zeros_like(value(v)) if t is None else t for t, v in zip(tensors, like, strict=True)]


def scaled(scalar: Any, scale: Any) -> Any:
    """A scalar times a loss scale, which may be `None` for 1."""
    return scalar if scale is None else scalar * cast_like(scale, scalar)


def unscaled(tensors: Sequence[Any], scale: Any) -> list[Any]:
    """Tensors divided by a loss scale, at least float32."""
    wide = [None if t is None else promoted(t) for t in tensors]
    if scale is None:
        return wide
    return [None if t is None else t / cast_like(scale, t) for t in wide]


def promoted(tensor: Any) -> Any:
    """A tensor as float32, or wider if it was."""
    return tf.cast(tensor, keras.backend.result_type(tensor.dtype, "float32"))


def cast_like(scale: Any, tensor: Any) -> Any:
    """A scalar in the dtype of a tensor."""
    return tf.cast(scale, tensor.dtype)


def value(variable: Any) -> Any:
    """A variable's value; a tensor as it is."""
    return tf.convert_to_tensor(variable)


def sources(variables: Sequence[Any]) -> list[Any]:
    """What a tape can watch: the `tf.Variable` inside each Keras variable; tensors as they are."""
    return [v.value if isinstance(v, keras.Variable) else v for v in variables]
