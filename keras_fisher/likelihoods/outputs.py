"""Outputs as Keras's losses see them, and labels in their shape."""

from __future__ import annotations

import itertools

import keras
from keras import ops

from keras_fisher import backend
from keras_fisher.backend.types import Tensor


def promote(outputs: Tensor) -> Tensor:
    """Casts outputs in half precision to float32."""
    outputs = ops.convert_to_tensor(outputs)
    half = keras.backend.standardize_dtype(outputs.dtype) in ("float16", "bfloat16")
    return ops.cast(outputs, "float32") if half else outputs


def read_logits(outputs: Tensor, from_logits: bool) -> tuple[Tensor, bool]:
    """Returns the outputs as Keras's losses see them, and whether they are logits.

    A softmax or sigmoid activation stores its logits on the tensor, where TensorFlow's losses read
    them, whatever `from_logits` says. Without them, the loss takes the logarithm of a clipped
    probability, which has no gradient where the model is nearly certain.
    """
    # The losses first cast outputs of another type, which drops the stored logits.
    is_cast = keras.backend.standardize_dtype(outputs.dtype) != keras.config.floatx()
    can_read = backend.LOSSES_READ_LOGITS and not is_cast
    logits = getattr(outputs, "_keras_logits", None) if can_read else None
    if logits is not None:
        outputs, from_logits = logits, True
    return promote(outputs), from_logits


def clip(p: Tensor) -> Tensor:
    """Clips probabilities as Keras's losses do."""
    epsilon = keras.config.epsilon()
    return ops.clip(p, epsilon, 1.0 - epsilon)


def align_labels(labels: Tensor, outputs: Tensor) -> Tensor:
    """Returns labels in the shape of the outputs; raises instead of broadcasting them."""
    given, labels = tuple(labels.shape), ops.cast(labels, outputs.dtype)
    if len(labels.shape) == len(outputs.shape) - 1:
        labels = ops.expand_dims(labels, -1)
    elif len(labels.shape) == len(outputs.shape) + 1 and labels.shape[-1] == 1:
        labels = ops.squeeze(labels, axis=-1)
    pairs = itertools.zip_longest(labels.shape, outputs.shape, fillvalue=0)
    if any(None not in pair and pair[0] != pair[1] for pair in pairs):
        raise ValueError(
            "`y` must hold a number for each output. "
            f"Received: labels of shape {given} for outputs of shape {tuple(outputs.shape)}"
        )
    return labels
