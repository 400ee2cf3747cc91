"""Modules of `torch.nn` as layers, in passes that change nothing."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import keras
import torch

from keras_fisher.backend.private_api.keras import list_torch_modules, read_own_value
from keras_fisher.backend.private_api.torch import replace_tensors
from keras_fisher.backend.types import Tensor


@contextlib.contextmanager
def keep_modules(model: keras.Layer) -> Iterator[None]:
    """Leaves the buffers and the inputs of modules unchanged, and makes them read the scope."""
    with copy_inputs(model), make_stateless(model):
        yield


@contextlib.contextmanager
def copy_inputs(model: keras.Layer) -> Iterator[None]:
    """Gives modules copies of their inputs, on which they may work in place.

    Several passes of a step have the same inputs.
    """
    with contextlib.ExitStack() as stack:
        for layer in list_torch_modules(model):
            hook = layer.module.register_forward_pre_hook(_copy, with_kwargs=True)
            stack.callback(hook.remove)
        yield


def _copy(module: torch.nn.Module, *given: Any) -> Any:
    return keras.tree.map_structure(
        lambda leaf: leaf.clone() if isinstance(leaf, torch.Tensor) else leaf, given
    )


@contextlib.contextmanager
def make_stateless(model: keras.Layer) -> Iterator[None]:
    """Makes modules read their parameters from Keras's stateless scope, and keep their buffers.

    A module knows nothing of the scope: it would use its own parameters, and update its statistics
    once more.
    """
    layers = list_torch_modules(model)
    values = [_read_values(layer) for layer in layers]  # before any module has other ones
    with contextlib.ExitStack() as stack:
        for layer, tensors in zip(layers, values, strict=True):
            stack.enter_context(replace_tensors(layer.module, tensors))
        yield


def _read_values(layer: keras.layers.TorchModuleWrapper) -> dict[str, Tensor]:
    """Returns the scope's values of a module's parameters, and copies of its buffers."""
    variables = {id(read_own_value(variable)): variable for variable in layer.variables}
    parameters = dict(layer.module.named_parameters())
    for name, parameter in parameters.items():
        if id(parameter) not in variables:
            raise ValueError(
                "The parameters of a torch module must be there when its layer is built, and stay "
                f"the same. Received: the layer {layer.name!r}, whose parameter {name!r} is new"
            )
    return {
        **{name: variables[id(parameter)].value for name, parameter in parameters.items()},
        **{name: buffer.clone() for name, buffer in layer.module.named_buffers()},
    }
