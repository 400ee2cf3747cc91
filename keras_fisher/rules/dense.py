"""Dense and einsum layers: outer products of input and output gradient."""

from __future__ import annotations

import math
import string
from collections.abc import Sequence
from typing import NamedTuple

import keras
from keras import ops

from keras_fisher.backend.types import Tensor
from keras_fisher.rules import lora
from keras_fisher.rules.gradients import Outer, WeightGradients, sum_to
from keras_fisher.rules.registry import register


@register(keras.layers.Dense)
def dense(layer: keras.layers.Dense, inputs: Tensor, gradient: Tensor) -> WeightGradients:
    """The kernel gets sum_t x_t g_t^T, over the axes t between the first and the last."""
    x, g = _flatten(ops.cast(inputs, gradient.dtype)), _flatten(gradient)
    if layer.lora_enabled:
        weights = lora.list_adapter_gradients(layer, layer.lora_kernel_a, layer.lora_kernel_b, x, g)
    else:
        weights = [(layer.kernel, Outer(x, g))]
    if layer.bias is not None:
        weights.append((layer.bias, ops.sum(g, axis=1)))
    return weights


@register(keras.layers.EinsumDense)
def einsum_dense(
    layer: keras.layers.EinsumDense, inputs: Tensor, gradient: Tensor
) -> WeightGradients:
    """As for `dense`, with an equation: sums over the labels t that the kernel lacks."""
    x_labels, kernel_labels, g_labels = _labels(layer.equation, inputs, gradient)
    x = _Labelled(ops.cast(inputs, gradient.dtype), x_labels)
    g = _Labelled(gradient, g_labels)
    if layer.lora_enabled:
        weights = _list_adapter_gradients(layer, x, kernel_labels, g)
    else:
        weights = [(layer.kernel, _einsum_outer(x, kernel_labels, g, layer.kernel.shape))]
    if layer.bias is not None:
        weights.append((layer.bias, sum_to(gradient, layer.bias.shape)))
    return weights


class _Labelled(NamedTuple):
    """A tensor, and a letter for each of its axes."""

    tensor: Tensor
    labels: str


def _list_adapter_gradients(
    layer: keras.layers.EinsumDense, x: _Labelled, kernel_labels: str, g: _Labelled
) -> WeightGradients:
    """Low-rank adapters along the last axis of the kernel, which must be an output axis only."""
    a, b = layer.lora_kernel_a, layer.lora_kernel_b
    last = kernel_labels[-1]
    if last in x.labels:
        raise NotImplementedError("the last axis of the kernel is one of the input")
    rank = next(c for c in string.ascii_lowercase if c not in x.labels + kernel_labels + g.labels)
    a_labels, low_labels = kernel_labels[:-1] + rank, g.labels.replace(last, rank)
    b_with_scale = lora.scale(layer) * ops.cast(b, g.tensor.dtype)
    by_low = ops.einsum(f"{g.labels},{rank}{last}->{low_labels}", g.tensor, b_with_scale)
    a_with_scale = lora.scale(layer) * ops.cast(a, g.tensor.dtype)
    low = ops.einsum(f"{x.labels},{a_labels}->{low_labels}", x.tensor, a_with_scale)
    by_a = _einsum_outer(x, a_labels, _Labelled(by_low, low_labels), a.shape)
    by_b = _einsum_outer(_Labelled(low, low_labels), rank + last, g, b.shape)
    return [(a, by_a), (b, by_b)]


def _einsum_outer(x: _Labelled, kernel_labels: str, g: _Labelled, shape: Sequence[int]) -> Outer:
    """Returns the gradient with respect to a kernel of the given shape."""
    tensor, x_labels, g_labels = x.tensor, x.labels, g.labels
    x_only = [i for i, a in enumerate(x_labels) if a not in kernel_labels + g_labels]
    tensor = ops.sum(tensor, axis=tuple(x_only)) if x_only else tensor
    x_labels = "".join(a for a in x_labels if a in kernel_labels + g_labels)
    batch = x_labels[0]
    if batch != g_labels[0] or batch in kernel_labels:
        raise NotImplementedError("the first axis of input and output is not the batch")
    if not set(kernel_labels) <= set(x_labels + g_labels):
        raise NotImplementedError("an axis of the kernel is in neither input nor output")
    if not set(g_labels) <= set(x_labels + kernel_labels):
        raise NotImplementedError("an axis of the output is in neither input nor kernel")
    groups = [a for a in kernel_labels if a in x_labels and a in g_labels]
    left = [a for a in kernel_labels if a in x_labels and a not in groups]
    right = [a for a in kernel_labels if a in g_labels and a not in groups]
    summed = [a for a in x_labels[1:] if a in g_labels and a not in groups]
    sizes = dict(zip(kernel_labels, shape, strict=True))

    def assemble(product: Tensor) -> Tensor:
        labels = [*groups, *left, *right]
        product = ops.reshape(product, (-1, *(sizes[a] for a in labels)))
        return ops.transpose(product, (0, *(1 + labels.index(a) for a in kernel_labels)))

    return Outer(
        _arrange(tensor, x_labels, groups, summed, left),
        _arrange(g.tensor, g_labels, groups, summed, right),
        assemble,
    )


def _flatten(x: Tensor) -> Tensor:
    """Reshapes to (batch, T, features)."""
    return ops.reshape(x, (-1, math.prod(x.shape[1:-1]), x.shape[-1]))


def _labels(equation: str, inputs: Tensor, gradient: Tensor) -> tuple[str, str, str]:
    """Returns the labels of input, kernel and output, with an ellipsis expanded."""
    left, g_labels = equation.replace(" ", "").split("->")
    x_labels, kernel_labels = left.split(",")
    unused = (a for a in "ABCDEFGHIJKLMNOPQRSTUVWXYZ" if a not in equation)
    covered = len(inputs.shape) - len(x_labels.replace("...", ""))
    spelt = "".join(next(unused) for _ in range(covered))
    return x_labels.replace("...", spelt), kernel_labels, g_labels.replace("...", spelt)


def _arrange(
    x: Tensor, labels: str, groups: list[str], summed: list[str], own: list[str]
) -> Tensor:
    """Transposes and reshapes to (batch, groups, T, features)."""
    x = ops.transpose(x, (0, *(labels.index(a) for a in [*groups, *summed, *own])))
    ends = (len(groups), len(groups) + len(summed))
    shape = x.shape[1:]
    parts = (shape[: ends[0]], shape[ends[0] : ends[1]], shape[ends[1] :])
    return ops.reshape(x, (-1, *(math.prod(part) for part in parts)))
