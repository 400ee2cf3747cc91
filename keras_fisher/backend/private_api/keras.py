"""Private APIs of Keras."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator, Sequence
from types import FrameType
from typing import Any

import keras
from keras.src.backend import get_keras_mask, set_keras_mask
from keras.src.backend.common.global_state import get_global_attribute
from keras.src.backend.common.stateless_scope import in_stateless_scope
from keras.src.random.seed_generator import GLOBAL_SEED_GENERATOR, global_seed_generator

# Marks a `build` that Keras calls only after tracing `call`, because shapes do not give dtypes.
from keras.src.utils.python_utils import default as build_after_call

from keras_fisher.backend.types import Tensor

__all__ = [
    "build_after_call",
    "disable_rematerialisation",
    "find_callback_list",
    "find_calling_layer",
    "find_unseeded_generator",
    "get_layout",
    "get_mask",
    "get_step_variable",
    "is_rematerialised",
    "is_stateless",
    "list_all_layers",
    "list_inner_layers",
    "preserve_losses",
    "read_own_value",
    "record_epoch_summaries",
    "record_summaries",
    "set_mask",
]


def get_layout(variable: keras.Variable) -> Any:
    """Returns how a variable is spread over devices, or `None`; Keras's optimizers read it too."""
    return getattr(variable, "_layout", None)


def get_mask(tensor: Tensor) -> Tensor | None:
    """Returns the mask of a tensor, or `None`; JAX's tensors cannot hold it as an attribute."""
    return get_keras_mask(tensor)


def set_mask(tensor: Tensor, mask: Tensor | None) -> None:
    """Sets the mask of a tensor."""
    set_keras_mask(tensor, mask)


def find_calling_layer() -> keras.Layer | None:
    """Returns the outermost layer in the current call; layers do not know their parents."""
    context = get_global_attribute("current_call_ctx")
    return None if context is None else context.entry_layer


def is_stateless() -> bool:
    """Whether the current call changes no variable, as in a model's training step on JAX.

    Keras calls that model's `call` directly, so that there is no outermost layer.
    """
    return in_stateless_scope()


def find_callback_list(callback: keras.callbacks.Callback) -> keras.callbacks.CallbackList | None:
    """Returns the list that calls a callback; Keras gives callbacks only their model.

    Callbacks that read `logs` before a writer silently miss its values, and writers need the list
    to find the TensorBoard callback whose file they share.
    """
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        caller = frame.f_locals.get("self")
        if isinstance(caller, keras.callbacks.CallbackList) and any(
            each is callback for each in caller.callbacks
        ):
            return caller
        frame = frame.f_back
    return None


def find_unseeded_generator(create: bool) -> keras.random.SeedGenerator | None:
    """Returns the generator of unseeded draws, whose state a second forward pass resets.

    Args:
        create: Whether to create one if there has been no such draw yet.
    """
    found = get_global_attribute(GLOBAL_SEED_GENERATOR)
    return global_seed_generator() if found is None and create else found


def get_step_variable(optimizer: keras.optimizers.Optimizer) -> keras.Variable | int:
    """Returns the number of steps that an optimizer has taken, 0 if it does not count.

    With gradient accumulation, `iterations` counts the updates, of several steps each.
    """
    return getattr(optimizer, "_iterations", 0)


def list_all_layers(layer: keras.Layer) -> list[keras.Layer]:
    """Returns a layer and all layers inside it; `Model.layers` stops at the first level."""
    return list(layer._flatten_layers())


def list_torch_modules(layer: keras.Layer) -> list[keras.layers.TorchModuleWrapper]:
    """Returns a layer and all layers inside it that wrap a module of PyTorch."""
    wrapper = keras.layers.TorchModuleWrapper
    return [inner for inner in list_all_layers(layer) if isinstance(inner, wrapper)]


def list_inner_layers(layer: keras.Layer) -> list[keras.Layer]:
    """Returns the layers directly inside a layer; only models list them publicly."""
    return list(layer._flatten_layers(include_self=False, recursive=False))


@contextlib.contextmanager
def preserve_losses(layer: keras.Layer) -> Iterator[None]:
    """Restores the losses of layers' latest calls, which calling the model clears."""
    kept = [(inner, inner._losses[:]) for inner in layer._flatten_layers()]
    try:
        yield
    finally:
        for inner, losses in kept:
            inner._losses[:] = losses


def is_rematerialised(layers: Sequence[keras.Layer]) -> bool:
    """Whether a layer was created in a `keras.RematScope`."""
    return any(layer._remat_mode is not None for layer in layers)


@contextlib.contextmanager
def disable_rematerialisation(layers: Sequence[keras.Layer]) -> Iterator[None]:
    """Ignores `keras.RematScope`, whose layers compute their outputs again in the backward pass."""
    modes = {layer: layer._remat_mode for layer in layers if layer._remat_mode is not None}
    try:
        for layer in modes:
            vars(layer)["_remat_mode"] = None  # bypasses Keras's tracking
        yield
    finally:
        for layer, mode in modes.items():
            vars(layer)["_remat_mode"] = mode


def read_own_value(variable: keras.Variable) -> Tensor:
    """Returns the value of a variable outside every scope, such as a parameter of PyTorch."""
    return variable._value


@contextlib.contextmanager
def record_summaries(board: keras.callbacks.TensorBoard) -> Iterator[Any]:
    """Writes into the file of a TensorBoard callback, and yields TensorFlow's summary operations.

    TensorBoard reads one file of a folder at a time, and never returns to an earlier one. With
    `update_freq=n`, the callback enables summaries only for every n-th batch.
    """
    with board._train_writer.as_default(), board.summary.record_if(True):
        yield board.summary


def record_epoch_summaries(board: keras.callbacks.TensorBoard) -> None:
    """Makes a TensorBoard callback write the next `epoch_*` values.

    With `update_freq=n`, it writes them only if the epoch's last step is a multiple of n.
    """
    if board.update_freq == "epoch":
        return
    board._pop_writer()
    contexts = (
        board._train_writer.as_default(board._global_train_batch),
        board.summary.record_if(True),
    )
    for context in contexts:
        context.__enter__()
    board._prev_summary_state.append(contexts)  # `_pop_writer` closes them
