"""Functions shared by all derivatives with TensorFlow's tapes."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

import keras
import tensorflow as tf

from keras_fisher.backend.tensorflow.ops import (
    make_derivative_error,
    refuse_wrong_gradients,
    replace_gradients,
    replace_moments,
)
from keras_fisher.backend.types import Tensor, make_unconnected_error


def squared_norm(tensors: Sequence[Tensor | None]) -> Tensor:
    """Returns the sum of squares over all `tensors`, at least float32; `None` counts as zero."""
    return sum_present([None if t is None else square(t) for t in tensors])


def square(tensor: Tensor) -> Tensor:
    """Returns the sum of squares, at least float32."""
    return 2.0 * tf.nn.l2_loss(promote(tensor))


def sum_present(scalars: Sequence[Tensor | None]) -> Tensor:
    """Returns the sum of the scalars that are not `None`.

    Raises:
        ValueError: if all are `None`.
    """
    present = [scalar for scalar in scalars if scalar is not None]
    if not present:
        raise make_unconnected_error()
    return tf.add_n(present)


@contextlib.contextmanager
def use_exact_gradients() -> Iterator[None]:
    """Corrects TensorFlow's wrong second derivatives; raises for wrong first derivatives."""
    with replace_moments(), replace_gradients(), refuse_wrong_gradients():
        yield


def differentiate_again(
    tape: tf.GradientTape, target: Tensor, weights: list[Tensor], direction: Tensor | None = None
) -> list[Tensor]:
    """Differentiates a gradient; returns zeros for unconnected weights."""
    zero = tf.UnconnectedGradients.ZERO
    try:
        with replace_gradients():
            return densify(tape.gradient(target, weights, direction, unconnected_gradients=zero))
    except LookupError as error:
        raise make_derivative_error(error) from error


def densify(tensors: Sequence[Tensor | None]) -> list[Tensor | None]:
    """Sums the duplicate rows of sparse gradients (of embeddings) into dense tensors."""
    return [tf.convert_to_tensor(t) if isinstance(t, tf.IndexedSlices) else t for t in tensors]


def fill_unconnected(tensors: Sequence[Tensor | None], like: Sequence[Tensor]) -> list[Tensor]:
    """Returns the tensors, with zeros of the weight's shape in place of `None`."""
    return [tf.zeros_like(value(v)) if t is None else t for t, v in zip(tensors, like, strict=True)]


def scale_by(scalar: Tensor, scale: Tensor | None) -> Tensor:
    """Multiplies a scalar by a loss scale, which may be `None` for 1."""
    return scalar if scale is None else scalar * cast_like(scale, scalar)


def unscale(tensors: Sequence[Tensor | None], scale: Tensor | None) -> list[Tensor | None]:
    """Divides tensors by a loss scale; the results are at least float32."""
    wide = [None if t is None else promote(t) for t in tensors]
    if scale is None:
        return wide
    return [None if t is None else t / cast_like(scale, t) for t in wide]


def promote(tensor: Tensor) -> Tensor:
    """Casts a tensor to float32 unless it is wider."""
    return tf.cast(tensor, keras.backend.result_type(tensor.dtype, "float32"))


def cast_like(scale: Tensor, tensor: Tensor) -> Tensor:
    """Casts a scalar to the dtype of a tensor."""
    return tf.cast(scale, tensor.dtype)


def value(variable: keras.Variable | Tensor) -> Tensor:
    """Returns a variable's value, or a tensor unchanged."""
    return tf.convert_to_tensor(variable)


def list_sources(variables: Sequence[keras.Variable | Tensor]) -> list[Tensor]:
    """Returns tape sources: the `tf.Variable` of each Keras variable, or tensors unchanged."""
    return [v.value if isinstance(v, keras.Variable) else v for v in variables]
