"""Functions shared by all derivatives with PyTorch's autograd."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import keras
import torch
from keras import ops
from torch.nn.attention import SDPBackend, sdpa_kernel

from keras_fisher.backend.private_api.torch import (
    WrittenWeightNorm,
    use_differentiable_custom_gradients,
)
from keras_fisher.backend.types import Tensor, make_unconnected_error

# How PyTorch words that an operation, or a compiled graph, cannot be differentiated twice.
_NO_SECOND_DERIVATIVE = ("is not implemented", "does not currently support double backward")


def squared_norm(tensors: Sequence[Tensor | None]) -> Tensor:
    """Returns the sum of squares over all `tensors`, at least float32; `None` counts as zero."""
    squares = [torch.sum(torch.square(promote(t))) for t in tensors if t is not None]
    if not squares:
        raise make_unconnected_error()
    return torch.stack(squares).sum()


@contextlib.contextmanager
def use_twice_differentiable_kernels() -> Iterator[None]:
    """Computes in the context by operations that have right second derivatives.

    PyTorch's fused kernels of attention have none, and that of weight normalisation a wrong one.
    """
    with sdpa_kernel(SDPBackend.MATH), WrittenWeightNorm():
        yield


def find_gradient(value: Tensor, sources: Sequence[Tensor], **options: Any) -> list[Tensor | None]:
    """Returns d value / d sources; `None` for unconnected sources.

    Raises:
        RuntimeError: in `torch.inference_mode`, where all sources look unconnected.
    """
    if torch.is_inference_mode_enabled():
        raise RuntimeError(
            "Gradients cannot be taken in torch.inference_mode(), which records none. Leave it, or "
            "use torch.no_grad() instead."
        )
    if not value.requires_grad:
        return [None for _ in sources]
    is_differentiated = options.get("create_graph", False)
    with use_differentiable_custom_gradients() if is_differentiated else contextlib.nullcontext():
        return list(torch.autograd.grad(value, list(sources), allow_unused=True, **options))


def differentiate_again(
    target: Tensor | Sequence[Tensor], sources: Sequence[Tensor], **options: Any
) -> list[Tensor]:
    """Differentiates a gradient; returns zeros for unconnected sources.

    Raises:
        NotImplementedError: if an operation has no second derivative.
    """
    try:
        found = torch.autograd.grad(target, list(sources), allow_unused=True, **options)
    except RuntimeError as error:
        if not any(words in str(error) for words in _NO_SECOND_DERIVATIVE):
            raise
        raise NotImplementedError(
            "An operation of the model has no second derivative in PyTorch: in training use "
            "gradient='finite_difference' (and, for an LSTM or GRU on a GPU, use_cudnn=False). "
            f"PyTorch says: {error}"
        ) from error
    return fill_unconnected(found, sources)


def fill_unconnected(tensors: Sequence[Tensor | None], like: Sequence[Tensor]) -> list[Tensor]:
    """Returns the tensors, with zeros of the source's shape in place of `None`."""
    return [
        torch.zeros_like(v, requires_grad=False) if t is None else t
        for t, v in zip(tensors, like, strict=True)
    ]


def scale_by(scalar: Tensor, scale: Tensor | None) -> Tensor:
    """Multiplies a scalar by a loss scale, which may be `None` for 1."""
    return scalar if scale is None else scalar * scale.to(scalar.dtype)


def unscale(tensors: Sequence[Tensor | None], scale: Tensor | None) -> list[Tensor | None]:
    """Divides tensors by a loss scale; the results are at least float32."""
    wide = [None if t is None else promote(t) for t in tensors]
    if scale is None:
        return wide
    return [None if t is None else t / scale.to(t.dtype) for t in wide]


def promote(tensor: Tensor) -> Tensor:
    """Casts a tensor to float32 unless it is wider."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))


def list_sources(variables: Sequence[keras.Variable | Tensor]) -> list[Tensor]:
    """Returns the parameter of each Keras variable, or tensors unchanged."""
    return [v.value if isinstance(v, keras.Variable) else v for v in variables]


def make_leaves(tensors: Sequence[Tensor]) -> list[Tensor]:
    """Returns tensors with the same values to differentiate with respect to."""
    return [ops.convert_to_tensor(tensor).detach().requires_grad_() for tensor in tensors]


def detach(structure: Any) -> Any:
    """Frees the graph behind the tensors of a structure."""
    return keras.tree.map_structure(
        lambda leaf: leaf.detach() if isinstance(leaf, torch.Tensor) else leaf, structure
    )
