"""Running a model without a trace."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import keras

from keras_fisher.backend.private_api.keras import list_all_layers
from keras_fisher.backend.types import Tensor
from keras_fisher.utils.stateless import Stateless


def call_unchanged(
    model: keras.layers.Layer,
    *arguments: Any,
    values: Sequence[tuple[keras.Variable, Any]] = (),
    **options: Any,
) -> Any:
    """Returns what the model returns; no variable, loss or random state of it moves.

    Layers of a `keras.RematScope` keep their activations: run again in the backward pass, their
    calls could not be recorded (and TensorFlow cannot do it in a graph).

    Args:
        model: What to call.
        *arguments: What to call it with.
        values: Pairs of a variable and the value to read it as.
        **options: What else to call it with.
    """
    with contextlib.ExitStack() as stack:
        stack.enter_context(Stateless(values))
        for layer in list_all_layers(model):
            if layer._remat_mode is not None:
                stack.enter_context(replace_attribute(layer, "_remat_mode", None))
        return model(*arguments, **options)


@contextlib.contextmanager
def replace_attribute(layer: Any, name: str, value: Tensor) -> Iterator[None]:
    """Gives a layer another attribute for a while, past Keras's tracking of attributes."""
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
