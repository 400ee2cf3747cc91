"""Recording of the inputs and outputs of layers while a model runs."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import keras
from keras import ops

from keras_fisher.backend import Tap
from keras_fisher.backend.private_api.keras import get_mask, list_inner_layers
from keras_fisher.backend.types import Tensor
from keras_fisher.rules import Rule, find
from keras_fisher.traces.per_example.forward import replace_attribute

# Layers that call inner layers in a loop, where they cannot be recorded.
_WHOLE = (keras.layers.RNN, keras.layers.SpectralNormalization, keras.layers.TimeDistributed)


class Unit(NamedTuple):
    """A layer that is recorded as a whole, its rule (if any) and its trainable weights."""

    layer: keras.layers.Layer
    rule: Rule | None
    weights: list[keras.Variable]


class Call(NamedTuple):
    """One call of a unit's layer.

    Attributes:
        unit: The unit of the layer.
        args: Its positional arguments.
        kwargs: Its keyword arguments.
        masks: Keras's mask of each argument, in flattened order; `None` without one.
        tapped: The tensors whose gradient is needed: for a unit with a rule and an activation, the
            value before the activation; otherwise all differentiable outputs.
        batched: Whether the first axis of each argument is that of the batch, in flattened order;
            `None` where it is unknown.
    """

    unit: Unit
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    masks: list[Tensor | None]
    tapped: list[Tensor]
    batched: Sequence[bool | None] = ()

    @property
    def inputs(self) -> Any:
        """The first argument."""
        return self.args[0] if self.args else next(iter(self.kwargs.values()))

    def select_arguments(self) -> dict[str, Any]:
        """Returns the other arguments that the unit's rule has a parameter for."""
        names = _further_parameters(self.unit.rule)
        if not names:
            return {}
        call = inspect.signature(type(self.unit.layer).call)
        given = call.bind(self.unit.layer, *self.args, **self.kwargs).arguments
        return {name: given[name] for name in names if name in given}


def _further_parameters(rule: Rule | None) -> list[str]:
    parameters = [] if rule is None else list(inspect.signature(rule).parameters.values())
    any_number = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return [p.name for p in parameters[3:] if p.kind not in any_number]


def is_differentiable(output: Tensor) -> bool:
    """Whether an output of a layer is a floating-point tensor, rather than a mask or `None`."""
    dtype = getattr(output, "dtype", None)
    return dtype is not None and keras.backend.is_float_dtype(dtype)


def list_units(model: keras.layers.Layer) -> list[Unit]:
    """Returns the units that hold the trainable weights of a model, each once."""
    found: dict[int, Unit] = {}
    _collect(model, {id(weight) for weight in model.trainable_weights}, found)
    return list(found.values())


def _collect(layer: keras.layers.Layer, trained: set[int], found: dict[int, Unit]) -> None:
    # A frozen layer has no `trainable_weights`, but the model may train weights inside it.
    weights = [weight for weight in layer.weights if id(weight) in trained]
    if not weights:
        return
    rule = find(layer) if layer.quantization_mode is None else None
    inner = list_inner_layers(layer)
    held = {id(weight) for sublayer in inner for weight in sublayer.weights}
    owns = any(id(weight) not in held for weight in weights)
    if rule is not None or owns or isinstance(layer, _WHOLE):
        found[id(layer)] = Unit(layer, rule, weights)
        return
    for sublayer in inner:
        _collect(sublayer, trained, found)


@contextlib.contextmanager
def record_calls(units: Sequence[Unit], tap: Tap) -> Iterator[list[Call]]:
    """Records the calls of the units' layers, in the order in which they return."""
    calls: list[Call] = []
    with contextlib.ExitStack() as stack:
        for unit in units:
            stack.enter_context(replace_attribute(unit.layer, "call", _recorder(unit, tap, calls)))
        yield calls


def _recorder(unit: Unit, tap: Tap, calls: list[Call]) -> Callable[..., Any]:
    original = unit.layer.call

    def call(*args: Any, **kwargs: Any) -> Any:
        tapped: list[Tensor] = []

        def record(output: Tensor) -> Tensor:
            if not is_differentiable(output):
                return output
            tapped.append(tap(output))
            return tapped[-1]

        masks = [get_mask(argument) for argument in keras.tree.flatten((args, kwargs))]
        recorded = Call(unit, args, kwargs, masks, tapped)
        if unit.rule is None:
            outputs = keras.tree.map_structure(record, original(*args, **kwargs))
        else:
            outputs = _call_with_rule(recorded, original, record)
        calls.append(recorded)
        return outputs

    return call


def _call_with_rule(call: Call, original: Callable[..., Any], record: Tap) -> Any:
    layer = call.unit.layer

    def record_shaped(tensor: Tensor) -> Tensor:
        return record(_restore_shape(tensor, layer, call.inputs))

    activation = getattr(layer, "activation", None)
    if not callable(activation):
        return record_shaped(original(*call.args, **call.kwargs))
    with replace_attribute(layer, "activation", lambda tensor: activation(record_shaped(tensor))):
        return original(*call.args, **call.kwargs)


def _restore_shape(output: Tensor, layer: keras.layers.Layer, inputs: Any) -> Tensor:
    """Restores the static shape of an output that TensorFlow loses in a graph, if Keras knows it.

    This happens in depthwise convolutions with strides and dilation.
    """
    if None not in output.shape[1:] or not hasattr(inputs, "shape"):
        return output
    with contextlib.suppress(NotImplementedError):
        shape = layer.compute_output_shape(inputs.shape)
        if None not in shape[1:]:
            return ops.reshape(output, (-1, *shape[1:]))
    return output
