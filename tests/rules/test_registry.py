"""Rules that users write."""

import re

import keras
import numpy as np
import pytest
from keras import layers, ops

from keras_fisher import rules
from tests.traces.per_example import loop

pytestmark = pytest.mark.usefixtures("float64", "own_registry")


class Affine(layers.Layer):
    """scale * inputs + shift, both of one number for each feature."""

    def build(self, input_shape):
        self.scale = self.add_weight(shape=input_shape[-1:], name="scale")
        self.shift = self.add_weight(shape=input_shape[-1:], name="shift")

    def call(self, inputs):
        return self.scale * inputs + self.shift


class Doubled(Affine):
    """The same layer under another name."""


class Overridden(Affine):
    def call(self, inputs):
        return 2 * super().call(inputs)


def right(layer, inputs, gradient):
    return [
        (layer.scale, rules.sum_to(gradient * inputs, layer.scale.shape)),
        (layer.shift, rules.sum_to(gradient, layer.shift.shape)),
    ]


def without_a_weight(layer, inputs, gradient):
    return right(layer, inputs, gradient)[:1]


def not_covered(layer, inputs, gradient):
    raise NotImplementedError


def without_the_sum(layer, inputs, gradient):
    return [(layer.scale, gradient * inputs), (layer.shift, gradient)]


def without_the_batch(layer, inputs, gradient):
    return [
        (weight, ops.sum(gradient, axis=0)) for weight, gradient in right(layer, inputs, gradient)
    ]


def of_half_the_size(layer, inputs, gradient):
    return [(weight, gradient / 2) for weight, gradient in right(layer, inputs, gradient)]


def not_a_number(layer, inputs, gradient):
    return [(weight, gradient * np.nan) for weight, gradient in right(layer, inputs, gradient)]


def around(layer_class):
    """A model with a layer of the class between two dense ones, inputs and targets."""
    model = keras.Sequential(
        [keras.Input((4, 3)), layers.Dense(5, activation="tanh"), layer_class(), layers.Dense(2)]
    )
    return loop.randomise(model), loop.normal(3, 4, 3), loop.normal(3, 4, 2, seed=2)


def check(model, x, y):
    """The package agrees with the loop; returns what it logged."""
    found, messages = loop.measured(model, x, y)
    assert loop.relative_error(found, loop.loop(model, x, y)) < 1e-10
    return messages


@pytest.mark.parametrize("layer_class", [Affine, Doubled])
def test_a_registered_rule_is_used_for_the_class_and_its_subclasses(layer_class):
    rules.register(Affine)(right)
    assert not check(*around(layer_class))


def test_without_a_rule_the_layer_is_differentiated_one_example_after_another():
    [message] = check(*around(Affine))
    assert "class Affine" in message
    assert "keras_fisher.rules.register" in message


def test_a_subclass_with_a_call_of_its_own_needs_a_rule_of_its_own():
    rules.register(Affine)(right)
    [message] = check(*around(Overridden))
    assert "class Overridden" in message


@pytest.mark.parametrize("rule", [not_covered, without_a_weight])
def test_what_a_rule_does_not_cover_is_slow_for_that_layer_alone(rule):
    rules.register(Affine)(rule)
    [message] = check(*around(Affine))
    assert message.startswith("Layers of class Affine are differentiated")


@pytest.mark.parametrize(
    ("rule", "reason"),
    [
        (of_half_the_size, r"respect to sequential/affine/scale, sequential/affine/shift"),
        (not_a_number, r"respect to sequential/affine/scale, sequential/affine/shift"),
        (without_the_sum, r"class Affine gives a gradient of shape \(2, 4, 5\).*shape \(5,\)"),
        (without_the_batch, r"class Affine gives a gradient of shape \(5,\).*shape \(5,\)"),
    ],
)
def test_a_wrong_rule_is_found_out_and_not_used(rule, reason):
    rules.register(Affine)(rule)
    [message] = check(*around(Affine))
    assert message.startswith("Model 'sequential' is differentiated one example at a time")
    assert re.search(reason, message)


def test_a_wrong_rule_for_a_small_gradient_is_found_out():
    rules.register(Affine)(of_half_the_size)
    model, x, y = around(Affine)
    model.layers[-1].kernel.assign(model.layers[-1].kernel / 10)
    share = loop.loop(model, x, y)
    assert np.max(share[:, 2:4] / share.sum(axis=1, keepdims=True)) < 0.01
    [message] = check(model, x, y)
    assert message.startswith("Model")


def test_a_rule_of_a_users_own_takes_the_place_of_the_packages():
    seen = []

    @rules.register(layers.Dense)
    def dense(layer, inputs, gradient):
        seen.append(layer.name)
        return rules.dense.dense(layer, inputs, gradient)

    rules.register(Affine)(right)
    assert not check(*around(Affine))
    assert set(seen) == {"dense", "dense_1"}


class Gate(layers.Layer):
    """activation(weight * first + second), of two inputs."""

    def __init__(self, activation):
        super().__init__()
        self.activation = activation

    def build(self, input_shapes):
        self.weight = self.add_weight(shape=(), name="weight")

    def call(self, inputs):
        first, second = inputs
        return keras.activations.get(self.activation)(self.weight * first + second)


@pytest.mark.parametrize("activation", [ops.tanh, None])
def test_a_rule_gets_all_inputs_and_the_gradient_before_the_activation(activation):
    @rules.register(Gate)
    def gate(layer, inputs, gradient):
        return [(layer.weight, rules.sum_to(gradient * inputs[0], ()))]

    start = keras.Input((3,))
    model = keras.Model(start, Gate(activation)([layers.Dense(4)(start), layers.Dense(4)(start)]))
    assert not check(loop.randomise(model), loop.normal(3, 3), loop.normal(3, 4, seed=2))


def test_an_activation_that_is_a_name_is_left_to_the_layer():
    @rules.register(Gate)
    def gate(layer, inputs, gradient):
        outputs = layer.weight * inputs[0] + inputs[1]
        return [(layer.weight, rules.sum_to(gradient * inputs[0] / ops.cosh(outputs) ** 2, ()))]

    start = keras.Input((3,))
    model = keras.Model(start, Gate("tanh")([layers.Dense(4)(start), layers.Dense(4)(start)]))
    assert not check(loop.randomise(model), loop.normal(3, 3), loop.normal(3, 4, seed=2))


class Switched(layers.Layer):
    """Uses one of two weights, as its call says."""

    def build(self, input_shape):
        self.scale = self.add_weight(shape=(), name="scale")
        self.shift = self.add_weight(shape=(), name="shift")

    def call(self, inputs, power=1, *, shifts=False):
        return inputs + self.shift if shifts else self.scale * inputs**power


def test_a_rule_gets_the_arguments_of_the_call_that_it_names():
    @rules.register(Switched)
    def switched(layer, inputs, gradient, power=1, shifts=False):
        if shifts:
            return [(layer.scale, None), (layer.shift, rules.sum_to(gradient, ()))]
        return [(layer.shift, None), (layer.scale, rules.sum_to(gradient * inputs**power, ()))]

    start, layer = keras.Input((3,)), Switched()
    model = keras.Model(start, layer(layer(layer(start, power=3)), shifts=True))
    assert not check(loop.randomise(model), loop.normal(3, 3), loop.normal(3, 3, seed=2))


def test_a_rule_that_takes_anything_else_gets_nothing_else():
    seen = []

    @rules.register(Affine)
    def takes_all(layer, inputs, gradient, *args, **kwargs):
        seen.append((args, kwargs))
        return right(layer, inputs, gradient)

    assert not check(*around(Affine))
    assert set(map(str, seen)) == {"((), {})"}


@pytest.mark.parametrize("wrong", [3, "Dense", int, None, [layers.Dense]])
def test_only_classes_of_layers_have_rules(wrong):
    with pytest.raises(TypeError, match=r"subclasses of keras.layers.Layer. Received: "):
        rules.register(layers.Dense, wrong)
    with pytest.raises(TypeError, match=r"subclasses of keras.layers.Layer. Received: <Dense"):
        rules.register(layers.Dense(2))
