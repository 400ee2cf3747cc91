"""TensorFlow's registry of gradients, changed for the time of a trace.

The registry belongs to TensorFlow's internals. It is used because tapes, loops and forward
accumulators all look there, and because nothing public replaces or removes what it holds.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from tensorflow.python.framework import ops as tf_ops

Gradient = Callable[..., Any]


class Replacement:
    """Replaces values in TensorFlow; counts who is inside, so that threads may overlap.

    Args:
        values: For each value, the module, class or dict that holds it, its name there, and what
            replaces it.
    """

    def __init__(self, *values: tuple[Any, str, Any]) -> None:
        self._values = values
        self._originals: Sequence[Any] = ()
        self._lock, self._inside = threading.Lock(), 0

    @contextlib.contextmanager
    def replaced(self) -> Iterator[None]:
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


def gradient_of(operation: str) -> Gradient:
    """Returns the gradient that is registered now."""
    return tf_ops.gradient_registry.lookup(operation)


def gradient_entry(operation: str, gradient: Gradient) -> tuple[Any, str, Gradient]:
    """Returns the gradient of an operation, for a `Replacement`."""
    return _entries()[operation], "type", gradient


def _exchange(holder: Any, name: str, value: Any) -> Any:
    """Puts a value in the place of another, which it returns."""
    if isinstance(holder, dict):
        original, holder[name] = holder[name], value
        return original
    original = getattr(holder, name)
    setattr(holder, name, value)
    return original


def _entries() -> dict[str, Any]:
    return tf_ops.gradient_registry._registry
