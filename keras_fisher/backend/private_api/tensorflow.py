"""Private APIs of TensorFlow."""

from __future__ import annotations

from typing import Any

from tensorflow.python.eager import context as eager_context
from tensorflow.python.eager.record import record_operation, stop_recording
from tensorflow.python.framework import ops
from tensorflow.python.framework.func_graph import FuncGraph

__all__ = [
    "FuncGraph",  # identifies the graphs of functions and loops
    "clear_kernel_cache",
    "list_gradients",
    "look_up_gradient",
    "record_operation",  # records an operation with a custom gradient on the tapes
    "stop_recording",
]


def list_gradients() -> dict[str, dict[str, Any]]:
    """Returns the registry of gradients; no public API replaces or removes its entries.

    Tapes, loops and forward accumulators all use it.
    """
    return ops.gradient_registry._registry


def look_up_gradient(operation: str) -> Any:
    """Returns the gradient registered for a kind of operation; `None` if it has none.

    Raises:
        LookupError: if nothing is registered.
    """
    return ops.gradient_registry.lookup(operation)


def clear_kernel_cache() -> None:
    """Frees the kernels of all called functions, which TensorFlow never frees."""
    eager_context.context().clear_kernel_cache()
