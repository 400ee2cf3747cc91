"""Calling a model without changing it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import keras

from keras_fisher import backend
from keras_fisher.backend.private_api.keras import disable_rematerialisation, list_all_layers
from keras_fisher.backend.types import Values
from keras_fisher.utils.stateless import Stateless


def call_unchanged(
    model: keras.layers.Layer,
    *arguments: Any,
    values: Values = (),
    **options: Any,
) -> Any:
    """Returns the model's outputs without changing its variables, losses or random states.

    It switches off `keras.RematScope`, because calls that run again in the backward pass cannot be
    recorded (and TensorFlow cannot run them again in a graph).

    Args:
        model: The model or layer to call.
        *arguments: The positional arguments of the call.
        values: Pairs of a variable and its value during the call.
        **options: The keyword arguments of the call.
    """
    with leave_unchanged(model, values):
        return model(*arguments, **options)


@contextlib.contextmanager
def leave_unchanged(
    model: keras.layers.Layer, values: Values = (), collect_losses: bool = False
) -> Iterator[None]:
    """Is the context of `call_unchanged`; it may collect the losses that layers add."""
    with (
        Stateless(values, collect_losses),
        disable_rematerialisation(list_all_layers(model)),
        backend.keep_modules(model),
    ):
        yield


@contextlib.contextmanager
def replace_attribute(layer: keras.layers.Layer, name: str, value: Any) -> Iterator[None]:
    """Replaces an attribute of a layer within a `with` block, bypassing Keras's tracking."""
    attributes = vars(layer)
    had, before = name in attributes, attributes.get(name)
    attributes[name] = value
    try:
        yield
    finally:
        if had:
            attributes[name] = before
        else:
            del attributes[name]
