"""Memory that TensorFlow would keep from one run to the next."""

from __future__ import annotations

import gc

from tensorflow.python.framework import ops

CUSTOM = "CustomGradient-"


def forget_graphs() -> None:
    """Lets go of the graphs of models that are done with.

    TensorFlow registers the gradient of each `tf.custom_gradient` in a graph (Keras's optimizers
    have them) by a new name and for ever, and with it the whole graph: a process that trains one
    model after another grows with each. Nothing may be differentiated afterwards that was traced
    before.
    """
    registered = ops.gradient_registry._registry
    for name in [name for name in registered if name.startswith(CUSTOM)]:
        del registered[name]
    gc.collect()
