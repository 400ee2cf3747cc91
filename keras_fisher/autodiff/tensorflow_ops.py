"""TensorFlow operations with other derivatives than TensorFlow's own, for the time of a trace.

`exact_moments` and `exact_pooling` are right where TensorFlow is wrong; `quick_convolutions` is
quick where it is slow. A `tf.function` that was traced outside keeps TensorFlow's own.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from typing import Any

import tensorflow as tf


def exact_moments() -> contextlib.AbstractContextManager[None]:
    """Makes `tf.nn.moments`, and Keras's layers built on it, right when differentiated twice.

    TensorFlow's own computes the variance around `stop_gradient(mean)`. The first derivative does
    not depend on that; the second does, so that batch, layer and group normalisation are silently
    wrong in a nested tape.
    """
    return _MOMENTS.replaced()


def exact_pooling() -> contextlib.AbstractContextManager[None]:
    """Makes `tf.nn.max_pool` right when differentiated twice in a graph.

    Where input and output have the same shape (strides of 1 and "same" padding), the operation that
    is TensorFlow's second derivative may write its result over the gradient that it still reads:
    windows that overlap then get silently wrong values. Padding beforehand makes the shapes differ.
    """
    return _MAX_POOL.replaced()


def quick_convolutions() -> contextlib.AbstractContextManager[None]:
    """Makes all derivatives of `tf.nn.convolution` forward convolutions, where it is on a CPU.

    On processors for which TensorFlow leaves oneDNN off, its gradient with respect to the input of
    a convolution takes up to thirty times as long as the convolution itself, although it is one:
    that of the output gradient with the kernel turned round. This covers two spatial axes, strides
    and dilation of 1, no groups, and "same" padding of odd kernels or "valid".
    """
    return _CONVOLUTION.replaced()


class _Replacement:
    """Replaces a function of `tf.nn`; counts who is inside, so that threads may overlap."""

    def __init__(self, name: str, function: Callable[..., Any]) -> None:
        self.original: Any = None
        self._name, self._function = name, function
        self._lock, self._inside = threading.Lock(), 0

    @contextlib.contextmanager
    def replaced(self) -> Iterator[None]:
        with self._lock:
            if self._inside == 0:
                self.original = getattr(tf.nn, self._name)
                setattr(tf.nn, self._name, self._function)
            self._inside += 1
        try:
            yield
        finally:
            with self._lock:
                self._inside -= 1
                if self._inside == 0:
                    setattr(tf.nn, self._name, self.original)


def _moments(
    x: Any, axes: Any, shift: Any = None, keepdims: bool = False, name: str | None = None
) -> tuple[Any, Any]:
    """Mean and variance of `x` over `axes`, differentiable any number of times."""
    del shift
    with tf.name_scope(name or "moments"):
        wide = tf.cast(x, tf.float32) if x.dtype == tf.float16 else x
        mean = tf.reduce_mean(wide, axes, keepdims=True)
        variance = tf.reduce_mean(tf.math.squared_difference(wide, mean), axes, keepdims=True)
        if not keepdims:
            mean, variance = tf.squeeze(mean, axes), tf.squeeze(variance, axes)
        return tf.cast(mean, x.dtype), tf.cast(variance, x.dtype)


def _convolution(
    input: Any,
    filters: Any,
    strides: Any = None,
    padding: str = "VALID",
    data_format: str | None = None,
    dilations: Any = None,
    name: str | None = None,
) -> Any:
    """`tf.nn.convolution`, by way of `_convolve` where that covers it."""
    covered = (
        len(input.shape) == 4
        and data_format in (None, "NHWC")
        and _all_ones(strides)
        and _all_ones(dilations)
        and input.shape[-1] == filters.shape[2]
        and (padding == "VALID" or all(size % 2 for size in filters.shape[:2]))
        and not tf.config.get_visible_devices("GPU")
    )
    if covered:
        return _convolve(tf.convert_to_tensor(input), tf.convert_to_tensor(filters), padding)
    return _CONVOLUTION.original(input, filters, strides, padding, data_format, dilations, name)


def _all_ones(values: Any) -> bool:
    return values is None or set(tf.nest.flatten(values)) == {1}


# "FULL" has an output wherever kernel and input overlap. The transpose of a convolution is the one
# with the kernel turned round and the padding of this table.
_TRANSPOSED = {"SAME": "SAME", "VALID": "FULL", "FULL": "VALID"}


def _convolve(x: Any, kernel: Any, padding: str) -> Any:
    """A convolution whose gradients are `_convolve` and `_correlate` again."""

    @tf.custom_gradient
    def convolve(x: Any, kernel: Any) -> Any:
        def gradient(g: Any) -> tuple[Any, Any]:
            back = _convolve(g, _turned(kernel), _TRANSPOSED[padding])
            return back, _correlate(x, g, kernel.shape, padding)

        x_padded, op_padding = _padded(x, kernel.shape, padding)
        return tf.nn.conv2d(x_padded, kernel, 1, op_padding), gradient

    return convolve(x, kernel)


def _correlate(x: Any, g: Any, kernel_shape: tf.TensorShape, padding: str) -> Any:
    """The gradient of `_convolve` with respect to its kernel, linear in x and in g."""

    @tf.custom_gradient
    def correlate(x: Any, g: Any) -> Any:
        def gradient(z: Any) -> tuple[Any, Any]:
            return _convolve(g, _turned(z), _TRANSPOSED[padding]), _convolve(x, z, padding)

        x_padded, op_padding = _padded(x, kernel_shape, padding)
        kernel_gradient = tf.compat.v1.nn.conv2d_backprop_filter(
            x_padded, kernel_shape, g, [1, 1, 1, 1], op_padding
        )
        return kernel_gradient, gradient

    return correlate(x, g)


def _padded(x: Any, kernel_shape: tf.TensorShape, padding: str) -> tuple[Any, str]:
    if padding != "FULL":
        return x, padding
    high, wide = kernel_shape[0] - 1, kernel_shape[1] - 1
    return tf.pad(x, [[0, 0], [high, high], [wide, wide], [0, 0]]), "VALID"


def _turned(kernel: Any) -> Any:
    """The kernel turned round, with its input and output channels exchanged."""
    return tf.transpose(tf.reverse(kernel, [0, 1]), [0, 1, 3, 2])


def _max_pool(
    input: Any, ksize: Any, strides: Any, padding: Any, data_format: Any = None, name: Any = None
) -> Any:
    """Pools after padding with the lowest number, which no window gives."""
    rank = len(input.shape) - 2
    is_first = data_format is not None and data_format.startswith("NC")
    is_risky = padding == "SAME" and rank <= 2 and not is_first
    if is_risky and _spatial(strides, rank) == [1] * rank and len(_spatial(ksize, rank)) == rank:
        around = [((size - 1) // 2, size // 2) for size in _spatial(ksize, rank)]
        input = tf.pad(input, [(0, 0), *around, (0, 0)], constant_values=input.dtype.min)
        padding = "VALID"
    return _MAX_POOL.original(input, ksize, strides, padding, data_format, name)


def _spatial(sizes: Any, rank: int) -> list[int]:
    """One number for each spatial axis."""
    return [sizes] * rank if isinstance(sizes, int) else list(sizes)


_MOMENTS = _Replacement("moments", _moments)
_MAX_POOL = _Replacement("max_pool", _max_pool)
_CONVOLUTION = _Replacement("convolution", _convolution)
