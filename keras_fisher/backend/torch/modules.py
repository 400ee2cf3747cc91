"""Modules of `torch.nn` as layers, at other values of their parameters."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import keras

from keras_fisher.backend.private_api.keras import list_all_layers, read_own_value
from keras_fisher.backend.private_api.torch import replace_tensors
from keras_fisher.backend.types import Tensor


@contextlib.contextmanager
def make_stateless(model: keras.Model) -> Iterator[None]:
    """Makes modules read their parameters from Keras's stateless scope, and keep their buffers.

    A module knows nothing of the scope: it would use its own parameters, and update its statistics
    once more.
    """
    layers = [
        layer
        for layer in list_all_layers(model)
        if isinstance(layer, keras.layers.TorchModuleWrapper)
    ]
    values = [_read_values(layer) for layer in layers]  # before any module has other ones
    with contextlib.ExitStack() as stack:
        for layer, tensors in zip(layers, values, strict=True):
            stack.enter_context(replace_tensors(layer.module, tensors))
        yield


def _read_values(layer: keras.layers.TorchModuleWrapper) -> dict[str, Tensor]:
    """Returns the scope's values of a module's parameters, and copies of its buffers."""
    variables = {id(read_own_value(variable)): variable for variable in layer.variables}
    parameters = layer.module.named_parameters()
    return {
        **{name: variables[id(parameter)].value for name, parameter in parameters},
        **{name: buffer.clone() for name, buffer in layer.module.named_buffers()},
    }
