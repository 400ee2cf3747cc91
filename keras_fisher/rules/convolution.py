"""Convolutions: outer products of input patches and output gradient, summed over positions.

A gradient with respect to a kernel needs, for every offset of the kernel, the input shifted by that
offset. The shifted copies are concatenated, so that one matrix product per example covers all
offsets. The output gradient can be shifted instead, along all axes or along some. With few
positions, the squared norm follows from the inner products between positions, without copies.
Copying is slower than multiplying, so the rule chooses the method that writes the fewest numbers.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import keras
import numpy as np
from keras import ops

from keras_fisher.backend.types import Tensor
from keras_fisher.rules.gradients import Outer, WeightGradients
from keras_fisher.rules.registry import register


class _Window(NamedTuple):
    """The geometry of a kernel: one number for each spatial axis."""

    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    dilation: tuple[int, ...]
    before: tuple[int, ...]  # padding before the input

    @classmethod
    def create(
        cls, layer: keras.layers.Layer, size: Sequence[int], steps: Sequence[int]
    ) -> _Window:
        """Returns the window of a layer that reads `size` positions and writes `steps`."""
        reach = [(k - 1) * d for k, d in zip(layer.kernel_size, layer.dilation_rate, strict=True)]
        if layer.padding == "causal":
            before = reach
        elif layer.padding == "same":
            before = [
                max((n_out - 1) * s + r + 1 - n, 0) // 2
                for n_out, s, r, n in zip(steps, layer.strides, reach, size, strict=True)
            ]
        else:
            before = [0] * len(reach)
        return cls(layer.kernel_size, layer.strides, layer.dilation_rate, tuple(before))


@register(keras.layers.Conv1D, keras.layers.Conv2D, keras.layers.Conv3D)
def convolution(layer: keras.layers.Layer, inputs: Tensor, gradient: Tensor) -> WeightGradients:
    """At offset k of the kernel, d l / d kernel[k] = sum_t x[stride t + dilation k] g[t]^T."""
    x, g = _move_channels_last(layer, inputs), _move_channels_last(layer, gradient)
    window = _Window.create(layer, x.shape[1:-1], g.shape[1:-1])
    return [(layer.kernel, _kernel_gradient(x, g, window, layer.groups)), *_bias(layer, g)]


@register(keras.layers.Conv1DTranspose, keras.layers.Conv2DTranspose, keras.layers.Conv3DTranspose)
def transposed_convolution(
    layer: keras.layers.Layer, inputs: Tensor, gradient: Tensor
) -> WeightGradients:
    """A convolution from output gradient to input: the two are swapped."""
    x, g = _move_channels_last(layer, inputs), _move_channels_last(layer, gradient)
    window = _Window.create(layer, g.shape[1:-1], x.shape[1:-1])
    return [(layer.kernel, _kernel_gradient(g, x, window, groups=1)), *_bias(layer, g)]


@register(keras.layers.DepthwiseConv1D, keras.layers.DepthwiseConv2D)
def depthwise_convolution(
    layer: keras.layers.Layer, inputs: Tensor, gradient: Tensor
) -> WeightGradients:
    """A convolution with as many groups as input channels."""
    x, g = _move_channels_last(layer, inputs), _move_channels_last(layer, gradient)
    return [(layer.kernel, _depthwise_gradient(layer, x, g)), *_bias(layer, g)]


@register(keras.layers.SeparableConv1D, keras.layers.SeparableConv2D)
def separable_convolution(
    layer: keras.layers.Layer, inputs: Tensor, gradient: Tensor
) -> WeightGradients:
    """A depthwise convolution, followed by a dense layer over channels."""
    x, g = _move_channels_last(layer, inputs), _move_channels_last(layer, gradient)
    pointwise = ops.cast(ops.squeeze(layer.pointwise_kernel, tuple(range(layer.rank))), g.dtype)
    between = ops.depthwise_conv(
        x,
        ops.cast(layer.depthwise_kernel, x.dtype),
        strides=layer.strides,
        padding=layer.padding,
        dilation_rate=layer.dilation_rate,
        data_format="channels_last",
    )
    between = ops.reshape(between, (-1, math.prod(g.shape[1:-1]), pointwise.shape[0]))
    g_between = ops.matmul(g, ops.transpose(pointwise))
    outer = Outer(between, _flatten(g, layer.rank), _make_reshape(layer.pointwise_kernel.shape))
    return [
        (layer.depthwise_kernel, _depthwise_gradient(layer, x, g_between)),
        (layer.pointwise_kernel, outer),
        *_bias(layer, g),
    ]


def _kernel_gradient(
    x: Tensor, g: Tensor, window: _Window, groups: int
) -> Outer | _PositionProducts:
    """Returns a kernel's gradient, shape (*window.kernel, x channels / groups, g channels)."""
    if groups > 1:
        shape = (*window.kernel, x.shape[-1] // groups, g.shape[-1])
        return _grouped_gradient(x, g, window, groups, shape)
    products = _PositionProducts(x, g, window)
    fewest = _count_copied(x, g, window, _choose_shifts(x, g, window))
    return products if products.size < fewest else _shifted_gradient(x, g, window)


class _PositionProducts:
    """Per-example gradients whose squared norms are computed from inner products of positions.

    With p_t the input patch of output position t,

        ||sum_t p_t g_t^T||^2 = sum_ts (p_t . p_s) (g_t . g_s),

    and p_t . p_s is a sum, over the offsets of the kernel, of inner products of input positions.

    Args:
        x: The input, shape `(batch, *positions, channels)`.
        g: The output gradient, shape `(batch, *positions, channels)`.
        window: The geometry of the kernel.
    """

    def __init__(self, x: Tensor, g: Tensor, window: _Window) -> None:
        self._x, self._g, self._window = x, g, window
        self._size, self._steps = x.shape[1:-1], g.shape[1:-1]
        self._paddings = _paddings(window, self._size, self._steps)

    @property
    def size(self) -> int:
        """The number of values computed per example."""
        total = math.prod(self._size) ** 2 + math.prod(self._steps) ** 2
        for axis, (before, after) in enumerate(self._paddings):
            n, steps = self._size[axis] + before + after, self._steps[axis]
            others = math.prod(self._steps[:axis]) * math.prod(self._size[axis + 1 :])
            total += (n**2 + self._window.kernel[axis] * steps**2) * others**2
        return total

    def squared_norms(self) -> Tensor:
        """Returns the squared norm of each example's gradient, shape `(batch,)`."""
        return ops.sum(self._multiply_patches() * _multiply_positions(self._g), axis=(1, 2))

    def gradient(self) -> Tensor:
        """Returns each example's gradient in the layout of the weight."""
        return _shifted_gradient(self._x, self._g, self._window).gradient()

    def _multiply_patches(self) -> Tensor:
        """Returns inner products of input patches, shape (batch, T, T), axis by axis."""
        products = _multiply_positions(self._x)
        for axis, (k, s, d, _) in enumerate(zip(*self._window, strict=True)):
            n, padding, inner = self._size[axis], self._paddings[axis], self._size[axis + 1 :]
            between = math.prod(inner) * math.prod(self._steps[:axis])
            products = ops.reshape(products, (-1, n, between, n, math.prod(inner)))
            if any(padding):
                products = ops.pad(products, ((0, 0), padding, (0, 0), padding, (0, 0)))
            along = [_make_slice(offset, s, d, self._steps[axis]) for offset in range(k)]
            products = sum(products[:, offset, :, offset] for offset in along)
        positions = math.prod(self._steps)
        return ops.reshape(products, (-1, positions, positions))


def _multiply_positions(x: Tensor) -> Tensor:
    """Returns inner products of the positions of x, shape (batch, T, T)."""
    flat = _flatten(x, len(x.shape) - 2)
    return ops.matmul(flat, ops.swapaxes(flat, -1, -2))


def _grouped_gradient(
    x: Tensor, g: Tensor, window: _Window, groups: int, shape: tuple[int, ...]
) -> Outer:
    """Returns the gradient of a kernel of the given `shape`, from the shifted input."""
    patches = _patches(x, window, g.shape[1:-1])
    left, right = _split_groups(patches, groups), _split_groups(ops.expand_dims(g, -2), groups)
    features, filters = x.shape[-1] // groups, g.shape[-1] // groups

    def assemble(product: Tensor) -> Tensor:
        product = ops.reshape(product, (-1, groups, math.prod(window.kernel), features, filters))
        return ops.reshape(ops.transpose(product, (0, 2, 3, 1, 4)), (-1, *shape))

    return Outer(left, right, assemble)


def _positions(x: Tensor, g: Tensor, is_of_g: Sequence[bool]) -> list[int]:
    """Returns the positions along each axis; `is_of_g` says where the output gradient shifts."""
    return [x.shape[1 + i] if yes else g.shape[1 + i] for i, yes in enumerate(is_of_g)]


def _count_copied(x: Tensor, g: Tensor, window: _Window, is_of_g: Sequence[bool]) -> int:
    of_x, of_g = (math.prod(_restrict(window, is_of_g, which).kernel) for which in (False, True))
    return math.prod(_positions(x, g, is_of_g)) * (of_x * x.shape[-1] + of_g * g.shape[-1])


def _choose_shifts(x: Tensor, g: Tensor, window: _Window) -> tuple[bool, ...]:
    """Returns, for each axis, whether to shift the output gradient; with strides, never."""
    choices = (False,) if max(window.strides) > 1 else (False, True)
    return min(
        itertools.product(choices, repeat=len(window.kernel)),
        key=lambda is_of_g: _count_copied(x, g, window, is_of_g),
    )


def _shifted_gradient(x: Tensor, g: Tensor, window: _Window) -> Outer:
    """Shifts, along each axis, the input, or the output gradient in the opposite direction."""
    rank = len(window.kernel)
    is_of_g = _choose_shifts(x, g, window)
    steps = _positions(x, g, is_of_g)
    reach = [(k - 1) * d for k, d in zip(window.kernel, window.dilation, strict=True)]
    back = window._replace(before=tuple(r - b for r, b in zip(reach, window.before, strict=True)))
    left = _patches(x, _restrict(window, is_of_g, False), steps)
    right = _patches(g, _restrict(back, is_of_g, True), steps)

    def assemble(product: Tensor) -> Tensor:
        of_x, of_g = (_restrict(window, is_of_g, which).kernel for which in (False, True))
        product = ops.reshape(product, (-1, *of_x, x.shape[-1], *of_g, g.shape[-1]))
        product = ops.flip(product, axis=tuple(range(rank + 2, 2 * rank + 2)))
        pairs = [axis for i in range(1, rank + 1) for axis in (i, i + rank + 1)]
        product = ops.transpose(product, (0, *pairs, rank + 1, 2 * rank + 2))
        return ops.reshape(product, (-1, *window.kernel, x.shape[-1], g.shape[-1]))

    return Outer(_flatten(left, rank), _flatten(right, rank), assemble)


def _restrict(window: _Window, chosen: Sequence[bool], which: bool) -> _Window:
    """Returns the window on axes whose `chosen` equals `which`, with size 1 on other axes."""
    still = (1, 1, 1, 0)
    axes = zip(zip(*window, strict=True), chosen, strict=True)
    return _Window(*zip(*(own if yes == which else still for own, yes in axes), strict=True))


def _depthwise_gradient(layer: keras.layers.Layer, x: Tensor, g: Tensor) -> Outer:
    """Returns the gradient of a kernel of shape (*kernel, channels, depth_multiplier)."""
    window = _Window.create(layer, x.shape[1:-1], g.shape[1:-1])
    shape = (*window.kernel, x.shape[-1], layer.depth_multiplier)
    return _grouped_gradient(x, g, window, x.shape[-1], shape)


def _patches(x: Tensor, window: _Window, steps: Sequence[int]) -> Tensor:
    """Returns the input at every offset, shape (batch, *steps, offsets, channels)."""
    offsets, channels = math.prod(window.kernel), x.shape[-1]
    if offsets == max(window.strides) == 1:
        return ops.reshape(x, (-1, *steps, 1, channels))
    paddings = _paddings(window, x.shape[1:-1], steps)
    padded = ops.pad(x, ((0, 0), *paddings, (0, 0))) if any(map(any, paddings)) else x
    size = padded.shape[1:-1]
    flat = ops.reshape(padded, (-1, math.prod(size), channels))
    patches = ops.take(flat, _index_positions(window, size, steps), axis=1)
    return ops.reshape(patches, (-1, *steps, offsets, channels))


def _index_positions(window: _Window, size: Sequence[int], steps: Sequence[int]) -> np.ndarray:
    """Returns the flat indices of the positions read at each step and offset of the kernel."""
    rank, coordinates = len(size), []
    for axis, (k, s, d, _) in enumerate(zip(*window, strict=True)):
        shape = [1] * (2 * rank)
        shape[axis], shape[rank + axis] = steps[axis], k
        read = s * np.arange(steps[axis])[:, np.newaxis] + d * np.arange(k)
        coordinates.append(read.reshape(shape))
    return np.ravel_multi_index(np.broadcast_arrays(*coordinates), size).ravel()


def _paddings(window: _Window, size: Sequence[int], steps: Sequence[int]) -> list[tuple[int, int]]:
    """Returns the padding before and after `size` positions that `steps` windows need."""
    paddings = []
    for axis, (k, s, d, before) in enumerate(zip(*window, strict=True)):
        end = (steps[axis] - 1) * s + (k - 1) * d + 1
        paddings.append((before, max(0, end - before - size[axis])))
    return paddings


def _make_slice(offset: int, stride: int, dilation: int, steps: int) -> slice:
    start = offset * dilation
    return slice(start, start + (steps - 1) * stride + 1, stride)


def _split_groups(patches: Tensor, groups: int) -> Tensor:
    """Reshapes to (batch, groups, T, offsets * channels / groups)."""
    t, (offsets, channels) = math.prod(patches.shape[1:-2]), patches.shape[-2:]
    if groups == 1:
        return ops.reshape(patches, (-1, 1, t, offsets * channels))
    split = ops.reshape(patches, (-1, t, offsets, groups, channels // groups))
    split = ops.transpose(split, (0, 3, 1, 2, 4))
    return ops.reshape(split, (-1, groups, t, offsets * (channels // groups)))


def _flatten(x: Tensor, rank: int) -> Tensor:
    """Reshapes to (batch, T, features): flattens the `rank` spatial axes and those after them."""
    shape = x.shape[1:]
    return ops.reshape(x, (-1, math.prod(shape[:rank]), math.prod(shape[rank:])))


def _make_reshape(shape: Sequence[int]) -> Callable[[Tensor], Tensor]:
    return lambda product: ops.reshape(product, (-1, *shape))


def _move_channels_last(layer: keras.layers.Layer, x: Tensor) -> Tensor:
    return x if layer.data_format == "channels_last" else ops.moveaxis(x, 1, -1)


def _bias(layer: keras.layers.Layer, g: Tensor) -> WeightGradients:
    if layer.bias is None:
        return []
    return [(layer.bias, ops.sum(g, axis=tuple(range(1, len(g.shape) - 1))))]
