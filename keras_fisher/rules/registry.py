"""The registry of rules by layer class."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import TypeVar

import keras

from keras_fisher.rules.gradients import WeightGradients

Rule = Callable[..., WeightGradients]
R = TypeVar("R", bound=Rule)

_RULES: dict[type, Rule] = {}
_RULES_BY_NAME: dict[tuple[str, str], Rule] = {}


def register(*layer_classes: type) -> Callable[[R], R]:
    """Registers a rule: the closed form of the per-example gradients of a layer class.

    Examples:
        >>> import keras
        >>> from keras_fisher import rules
        >>> class Shift(keras.layers.Layer):
        ...     def build(self, input_shape):
        ...         self.shift = self.add_weight(shape=(input_shape[-1],))
        ...
        ...     def call(self, inputs):
        ...         return inputs + self.shift
        >>> @rules.register(Shift)
        ... def shift(layer, inputs, gradient):
        ...     return [(layer.shift, rules.sum_to(gradient, layer.shift.shape))]

    Args:
        *layer_classes: Subclasses of `keras.layers.Layer`. The rule also covers their subclasses
            that override neither `call` nor `convolution_op`.

    Returns:
        A decorator for a function `rule(layer, inputs, gradient)`. `inputs` is the first argument
        of the layer's call, shape `(batch, ...)`. `gradient` is, for every example, the gradient of
        its loss with respect to the layer's output, shape `(batch, ...)`, at least float32; for a
        layer with an `activation`, it is taken with respect to the value before the activation. A
        rule with further parameters, such as `reverse=False`, gets the call's arguments of these
        names; give them the defaults of the call. The rule returns a pair `(weight, per-example
        gradient)` for each trainable weight of the layer (and of the layers inside it). The
        gradient is a tensor of shape `(batch, *weight.shape)`, an `Outer`, or `None` if this call
        does not use the weight. A rule may use only `keras.ops`, and raises `NotImplementedError`
        for configurations that it does not cover. Rules are checked against plain gradients, on
        some examples of the first batch and, increasingly rarely, of later ones.

    Raises:
        TypeError: if an argument is not a layer class.
    """
    for layer_class in layer_classes:
        if not (inspect.isclass(layer_class) and issubclass(layer_class, keras.layers.Layer)):
            raise TypeError(
                "`layer_classes` must be subclasses of keras.layers.Layer. "
                f"Received: {layer_class!r}"
            )

    def decorator(rule: R) -> R:
        _RULES.update(dict.fromkeys(layer_classes, rule))
        return rule

    return decorator


def register_by_name(package: str, name: str) -> Callable[[R], R]:
    """Registers a rule for a layer class by name, without importing its package."""

    def decorator(rule: R) -> R:
        _RULES_BY_NAME[package, name] = rule
        return rule

    return decorator


def find(layer: keras.layers.Layer) -> Rule | None:
    """Returns the rule for a layer, or `None` if there is none."""
    for parent in type(layer).__mro__:
        by_name = _RULES_BY_NAME.get((parent.__module__.partition(".")[0], parent.__name__))
        rule = _RULES.get(parent, by_name)
        if rule is not None:
            return rule if _has_same_call(type(layer), parent) else None
    return None


def _has_same_call(kind: type, parent: type) -> bool:
    names = ("call", "convolution_op")
    return all(getattr(kind, name, None) is getattr(parent, name, None) for name in names)
