"""Modules of `torch.nn` as layers, at other values of their parameters."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator
from typing import Any
from unittest import mock

import keras
import torch

from keras_fisher.backend.private_api.keras import list_all_layers, read_own_value


@contextlib.contextmanager
def make_stateless(model: keras.Model) -> Iterator[None]:
    """Makes modules read their parameters from Keras's stateless scope, and keep their buffers.

    A module knows nothing of the scope: it would use its own parameters, and update its statistics
    once more.
    """
    with contextlib.ExitStack() as stack:
        for layer in list_all_layers(model):
            if isinstance(layer, keras.layers.TorchModuleWrapper):
                call = functools.partial(_call_at_scope, layer)
                stack.enter_context(mock.patch.dict(vars(layer), call=call))
        yield


def _call_at_scope(
    layer: keras.layers.TorchModuleWrapper,
    *arguments: Any,
    training: bool | None = None,
    **options: Any,
) -> Any:
    """Does what the `call` of the layer does, at the scope's values."""
    layer.train(training is not False)
    module = layer.module
    variables = {id(read_own_value(variable)): variable for variable in layer.variables}
    parameters = {name: variables[id(p)].value for name, p in module.named_parameters()}
    buffers = {name: buffer.clone() for name, buffer in module.named_buffers()}
    return torch.func.functional_call(module, {**parameters, **buffers}, arguments, options)
