"""Memory that TensorFlow would keep from one run to the next."""

from __future__ import annotations

import gc
from collections.abc import Set

from tensorflow.python.eager import context
from tensorflow.python.framework import ops

CUSTOM = "CustomGradient-"


def registered() -> set[str]:
    """The names of all gradients that are registered now."""
    return set(ops.gradient_registry._registry)


def forget_graphs(known: Set[str]) -> None:
    """Lets go of the graphs of models that are done with.

    TensorFlow registers the gradient of each `tf.custom_gradient` in a graph (Keras's optimizers
    have them) by a new name and for ever, and with it the whole graph: a process that trains one
    model after another grows with each. Nothing may be differentiated afterwards that was traced
    since the gradients `known` were all there were.
    """
    for name in registered() - known:
        if name.startswith(CUSTOM):
            del ops.gradient_registry._registry[name]
    gc.collect()


def forget_numbers() -> None:
    """Lets go of the tensors of Python numbers.

    TensorFlow keeps one, 0.7 KB, of every different number that is turned into a tensor, as
    TensorBoard's callback does with each value that it writes.
    """
    context.context()._clear_caches()
