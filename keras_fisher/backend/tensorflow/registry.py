"""Temporary changes to TensorFlow's registry of gradients, and its cache of kernels.

Tapes, loops and forward accumulators all use the registry.
"""

from __future__ import annotations

import contextlib
import threading
import weakref
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import keras
import tensorflow as tf

from keras_fisher.backend.private_api.tensorflow import (
    FuncGraph,
    clear_kernel_cache,
    list_gradients,
)
from keras_fisher.backend.types import Tensor

Gradient = Callable[..., Any]

# The prefix of TensorFlow's names for gradients of `tf.custom_gradient` in a graph.
_CUSTOM = "CustomGradient-"


class Replacement:
    """Replaces values in TensorFlow; counts its users, so that threads may overlap.

    Args:
        values: For each value, the module, class or dict that holds it, its name there, and its
            replacement.
    """

    def __init__(self, *values: tuple[Any, str, Any]) -> None:
        self._values = values
        self._originals: Sequence[Any] = ()
        self._lock, self._inside = threading.Lock(), 0

    @contextlib.contextmanager
    def replace(self) -> Iterator[None]:
        with self._lock:
            if self._inside == 0:
                self._originals = [_exchange(*value) for value in self._values]
            self._inside += 1
        try:
            yield
        finally:
            with self._lock:
                self._inside -= 1
                if self._inside == 0:
                    pairs = zip(self._values, self._originals, strict=True)
                    for (holder, name, _), original in pairs:
                        _exchange(holder, name, original)


def name_gradient(operation: str, gradient: Gradient) -> tuple[Any, str, Gradient]:
    """Returns the arguments of a `Replacement` for an operation's gradient."""
    return list_gradients()[operation], "type", gradient


def free_with_graphs() -> contextlib.AbstractContextManager[None]:
    """Frees the gradients of `tf.custom_gradient` together with their graphs.

    Every trace registers each of them, for example those of Keras's optimizers or of `silu`, under
    a new name, and TensorFlow keeps it and its whole graph forever. Otherwise the memory of a
    process that trains one model after another keeps growing.
    """
    return _REGISTRATION.replace()


class KernelCache:
    """Frees the kernels of functions compiled by deleted models.

    TensorFlow keeps the kernels of all called functions forever: about 2 MiB for each small model
    that a process trains and deletes.
    """

    def __init__(self) -> None:
        self._has_ended = False

    def free_with(self, model: keras.Model) -> None:
        """Frees the kernels of deleted models, and registers this model for later."""
        if self._has_ended:
            self._has_ended = False
            clear_kernel_cache()
        # Not immediately: garbage collection may interrupt other operations.
        weakref.finalize(model, self._note_end).atexit = False

    def _note_end(self) -> None:
        self._has_ended = True


def _register(registration: tf.RegisterGradient, gradient: Gradient) -> Gradient:
    """Acts as `tf.RegisterGradient.__call__`, but keeps a weak reference to graphs' gradients."""
    name, graph = registration._op_type, tf.compat.v1.get_default_graph()
    if not name.startswith(_CUSTOM) or not isinstance(graph, FuncGraph):
        return _register_for_ever(registration, gradient)
    held = weakref.ref(gradient, lambda _: list_gradients().pop(name, None))

    def apply_gradient(operation: tf.Operation, *gradients: Tensor) -> Any:
        function = held()
        if function is None:
            raise LookupError(f"The graph of gradient {name} has ended")
        return function(operation, *gradients)

    # Outer graphs may later differentiate the graph of a loop or a function inside them.
    while isinstance(graph, FuncGraph):
        graph._keras_fisher_gradients = [*getattr(graph, "_keras_fisher_gradients", ()), gradient]
        graph = graph.outer_graph
    _register_for_ever(registration, apply_gradient)
    return gradient


def _exchange(holder: Any, name: str, value: Any) -> Any:
    """Sets a value, and returns the previous one."""
    if isinstance(holder, dict):
        original, holder[name] = holder[name], value
        return original
    original = getattr(holder, name)
    setattr(holder, name, value)
    return original


KERNELS = KernelCache()
_register_for_ever = tf.RegisterGradient.__call__
_REGISTRATION = Replacement((tf.RegisterGradient, "__call__", _register))
