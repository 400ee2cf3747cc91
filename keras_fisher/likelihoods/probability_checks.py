"""Warnings for outputs that a loss treats as probabilities although they are not."""

from __future__ import annotations

from typing import Any

import keras
from keras import activations, layers, ops

from keras_fisher import backend
from keras_fisher.backend.types import Tensor
from keras_fisher.likelihoods.likelihood import Likelihood
from keras_fisher.utils.messages import warn_once

_TOLERANCE = 1e-3  # half precision rounds
_MESSAGE = (
    "The loss or likelihood of {name!r} takes outputs for probabilities, and {why}. Compile with "
    "from_logits=True (keras.losses.SparseCategoricalCrossentropy(from_logits=True), say) if they "
    "are logits, or end the model with an activation."
)


def find_unverified(likelihood: Likelihood | None, model: keras.Model) -> str | None:
    """Returns the name of a model if only the values of its outputs can be checked.

    Returns `None` if the last layer decides (warns if it is linear), or if outputs are logits.
    """
    if getattr(likelihood, "from_logits", True):
        return None
    last = _last_layer(model)
    # Mixed precision uses a linear `Activation` to cast the previous layer's outputs to float32.
    activation = None if type(last) is layers.Activation else getattr(last, "activation", None)
    if activation is activations.linear:
        warn_once(_MESSAGE.format(name=model.name, why=f"its last layer, {last.name!r}, is linear"))
    known = (activations.linear, activations.sigmoid, activations.softmax)
    return None if activation in known else model.name


def warn_of_activation(likelihood: Likelihood | None, model: keras.Model) -> None:
    """Warns once if a given likelihood takes probabilities for logits.

    Where Keras's losses read the logits behind an activation, the likelihood does so too.
    """
    activation = getattr(_last_layer(model), "activation", None)
    is_probability = activation in (activations.sigmoid, activations.softmax)
    takes_logits = getattr(likelihood, "from_logits", False) and not backend.LOSSES_READ_LOGITS
    if is_probability and takes_logits:
        warn_once(
            f"The likelihood of {model.name!r} takes outputs for logits, and its last layer ends "
            "with a softmax or sigmoid. Pass "
            f"likelihood={type(likelihood).__name__}(from_logits=False), or remove the activation."
        )


def find_outside(outputs: Tensor) -> Tensor:
    """Returns whether any number of a tensor is outside [0, 1]; ignores NaN."""
    low, high = ops.min(outputs, initial=0.0), ops.max(outputs, initial=1.0)
    return ops.logical_or(low < -_TOLERANCE, high > 1.0 + _TOLERANCE)


def warn_of_values(model_name: str) -> None:
    """Warns once that outputs of a model are outside [0, 1]."""
    warn_once(_MESSAGE.format(name=model_name, why="they are not all from 0 to 1"))


def _last_layer(model: keras.Operation) -> Any:
    """Returns the layer or operation that computes a model's output; `None` if unknown."""
    if isinstance(model, keras.Sequential):
        last = model.layers[-1] if model.layers else None
    elif getattr(model, "outputs", None):
        last = model.operations[-1]  # operations are sorted
    elif isinstance(model, layers.Wrapper):
        last = model.layer
    else:
        return None if isinstance(model, keras.Model) else model
    return _last_layer(last)
