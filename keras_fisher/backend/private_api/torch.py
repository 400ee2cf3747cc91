"""Private APIs of PyTorch, and of Keras's PyTorch backend."""

import contextlib
from collections.abc import Mapping
from typing import Any
from unittest import mock

import torch
from keras.src.backend.torch.core import CustomGradientFunction
from torch.nn.utils.stateless import _reparametrize_module

from keras_fisher.backend.types import Tensor


def use_differentiable_custom_gradients() -> contextlib.AbstractContextManager[Any]:
    """Makes gradients of `keras.ops.custom_gradient` differentiable in the context.

    Keras computes what the gradient function refers to without recording it, so that it looks
    constant to a second differentiation. Here it is computed again, and recorded.
    """
    return mock.patch.object(CustomGradientFunction, "backward", staticmethod(_differentiate))


def replace_tensors(
    module: torch.nn.Module, tensors: Mapping[str, Tensor]
) -> contextlib.AbstractContextManager[Any]:
    """Gives a module other parameters and buffers in the context.

    `torch.func.functional_call` does the same for one call of the module itself. A layer may also
    call its parts, or read its weights.
    """
    return _reparametrize_module(module, dict(tensors), tie_weights=True)


class WrittenWeightNorm(torch.overrides.TorchFunctionMode):
    """Computes `torch.nn.utils.weight_norm` in the context by plain operations.

    The second derivative of its own operation takes the norms for constants.
    """

    def __torch_function__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        if function is not torch._weight_norm:
            return function(*args, **(kwargs or {}))
        return _normalise_weight(*args, **(kwargs or {}))


def _normalise_weight(v: Tensor, g: Tensor, dim: int = 0) -> Tensor:
    return v * (g / torch.norm_except_dim(v, 2, dim))


def _differentiate(ctx: Any, grad_output: Tensor) -> tuple[Tensor | None, ...]:
    with torch.enable_grad():
        _, find_gradients = ctx.forward_fn(*ctx.saved_tensors)
    found = find_gradients(*ctx.saved_tensors, upstream=grad_output)
    return (None, *(found if isinstance(found, tuple) else (found,)))
