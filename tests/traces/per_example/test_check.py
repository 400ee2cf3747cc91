"""The check on some examples notices what it is for, also where it is hard to see."""

import keras
import numpy as np
import pytest
from keras import layers, ops

from keras_fisher import rules
from keras_fisher.traces.per_example import SquaredGradientNorms
from tests.traces.per_example.loop import half_squares, logged, loop, measured, relative_error

X = np.random.default_rng(0).normal(size=(6, 4)).astype("float32")


class TiedAndSmall(keras.Model):
    """A weight that is used a second time outside of its layer, where it matters little."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.small, self.large = layers.Dense(4), layers.Dense(2)

    def call(self, inputs):
        x = self.small(inputs)
        tied = ops.matmul(x, ops.cast(ops.transpose(self.small.kernel), x.dtype))
        return self.large(inputs) + 0.7 * tied[:, :2]


def test_a_use_of_a_weight_that_is_not_recorded_is_noticed_in_half_precision_too():
    keras.config.set_dtype_policy("mixed_bfloat16")
    model = TiedAndSmall()
    model(X)
    found, messages = measured(model, X, np.zeros((6, 2), "float32"))
    assert any("does not come from recorded calls" in message for message in messages)
    expected = loop(model, X, np.zeros((6, 2), "float32"))
    np.testing.assert_allclose(found.sum(), expected.sum(), rtol=2e-2)


class Scaled(layers.Layer):
    """Scales by a weight; its rules below are wrong."""

    def build(self, input_shape):
        self.scale = self.add_weight(shape=(4,), initializer="ones")

    def call(self, inputs):
        return self.scale * inputs


class Gate(layers.Layer):
    """Multiplies by a number that is no weight, and starts at 0 as a residual branch may."""

    def build(self, input_shape):
        self.gate = self.add_weight(shape=(), initializer="zeros", trainable=False)

    def call(self, inputs):
        return self.gate * inputs


@pytest.mark.usefixtures("own_registry")
def test_a_wrong_rule_behind_a_branch_that_starts_at_zero_is_noticed_when_it_opens():
    @rules.register(Scaled)
    def wrong(layer, inputs, gradient):
        return [(layer.scale, 2 * rules.sum_to(gradient * inputs, (4,)))]

    inputs = keras.Input((4,))
    gate = Gate()
    outputs = layers.Add()([layers.Dense(4)(inputs), gate(Scaled()(inputs))])
    model = keras.Model(inputs, outputs)
    y = np.zeros((6, 4), "float32")
    measure = SquaredGradientNorms(model, lambda outputs, y: y, half_squares)
    with logged() as messages:
        measure(X, y)
        assert not messages
        gate.gate.assign(1.0)
        assert relative_error(measure(X, y), loop(model, X, y)) < 1e-5
    assert any("a rule is wrong" in message for message in messages)


class Masked(layers.Layer):
    """Has no `mask` argument: the layer inside reads the mask off its inputs."""

    def __init__(self):
        super().__init__()
        self.supports_masking = True
        self.lstm = layers.LSTM(2)

    def build(self, input_shape):
        self.scale = self.add_weight(shape=(2,), initializer="ones")
        self.lstm.build(input_shape)

    def call(self, inputs):
        return self.scale * self.lstm(inputs)


@pytest.mark.slow
def test_a_layer_without_a_rule_sees_the_mask_of_its_inputs():
    ids = np.array([[1, 2, 3], [3, 0, 0], [2, 1, 0], [2, 3, 1]])  # the first and last have no mask
    model = keras.Sequential([keras.Input((3,)), layers.Embedding(4, 3, mask_zero=True), Masked()])
    y = np.ones((4, 2), "float32")
    found, messages = measured(model, ids, y)
    assert any("Masked" in message for message in messages)
    np.testing.assert_allclose(found, loop(model, ids, y), rtol=1e-4)


class Standardised(layers.Conv1D):
    """Keras's way to change how a convolution uses its kernel."""

    def convolution_op(self, inputs, kernel):
        return super().convolution_op(inputs, kernel - ops.mean(kernel))


def test_a_convolution_of_another_kind_is_one_layer_without_a_rule():
    model = keras.Sequential(
        [keras.Input((4, 1)), Standardised(2, 2), layers.Flatten(), layers.Dense(2)]
    )
    x, y = X[..., None], np.ones((6, 2), "float32")
    found, messages = measured(model, x, y)
    assert len(messages) == 1
    assert "Standardised" in messages[0]
    assert relative_error(found, loop(model, x, y)) < 1e-4


def test_integers_that_go_into_a_normalisation_have_a_closed_form():
    inputs = keras.Input((4,), dtype="uint8")
    model = keras.Model(inputs, layers.Dense(2)(layers.BatchNormalization()(inputs)))
    x = np.arange(24, dtype="uint8").reshape(6, 4)
    y = np.ones((6, 2), "float32")
    found, messages = measured(model, x, y)
    assert not messages
    assert relative_error(found, loop(model, x, y)) < 1e-5


@pytest.mark.parametrize("calls", [1, 2])
def test_memory_counts_the_gradients_of_weights_that_are_used_twice(calls):
    table = layers.Embedding(1000, 8)
    inputs = keras.Input((2,), dtype="int32")
    x = layers.Concatenate()([layers.Flatten()(table(inputs + i)) for i in range(calls)])
    model = keras.Model(inputs, layers.Dense(2)(x))
    measure = SquaredGradientNorms(model, lambda outputs, y: y, half_squares)
    measure(np.ones((3, 2), "int32"), np.ones((3, 2), "float32"))
    assert (measure._batch_limit <= 2**23 // 8000) == (calls == 2)


class Table(layers.Embedding):
    """An embedding whose rule below is wrong for ids that count from the end."""


@pytest.fixture
def table(own_registry):
    @rules.register(Table)
    def wrong(layer, inputs, gradient):
        rows = ops.one_hot(inputs, layer.input_dim, dtype=gradient.dtype)  # zeros for id -1
        return [(layer.embeddings, rules.Outer(rows, gradient))]

    model = keras.Sequential([keras.Input((3,), dtype="int32"), Table(5, 2), layers.Flatten()])
    x = np.random.default_rng(0).integers(0, 5, (40, 3)).astype("int32")
    return model, x, np.ones((40, 6), "float32")


def test_an_input_of_a_rare_kind_is_looked_at_wherever_it_is_in_the_batch(table):
    model, x, y = table
    x[17, 1] = -1
    found, messages = measured(model, x, y)
    assert any("a rule is wrong" in message for message in messages)
    assert relative_error(found, loop(model, x, y)) < 1e-5


def test_an_input_of_a_kind_that_comes_later_is_looked_at_and_what_came_before_is_doubted(table):
    model, x, y = table
    measure = SquaredGradientNorms(model, lambda outputs, y: y, half_squares)
    with logged() as messages:
        measure(x, y)
        assert not messages
        x[17, 1] = -1
        assert relative_error(measure(x, y), loop(model, x, y)) < 1e-5
    assert "Earlier measurements of it may be wrong" in messages[0]


def test_labels_that_are_drawn_stay_the_same_where_the_check_fails(table):
    model, x, _ = table
    x[17, 1] = -1
    generator = keras.random.SeedGenerator(0)
    drawn = []

    def draw(outputs, y):
        return keras.random.normal(ops.shape(outputs), seed=generator)

    for build in (True, False):  # with the wrong rule, and as one from the start
        generator.state.assign([0, 0])
        measure = SquaredGradientNorms(model, draw, half_squares, generator)
        if not build:
            measure._take_as_one("for a test")
        drawn.append([measure(x, x), measure(x, x)])
    np.testing.assert_allclose(*drawn, rtol=1e-6)


@pytest.mark.usefixtures("own_registry")
@pytest.mark.parametrize("extreme", [-30.0, 30.0])
def test_extreme_inputs_are_looked_at(extreme):
    @rules.register(Scaled)
    def wrong(layer, inputs, gradient):
        return [(layer.scale, rules.sum_to(gradient * ops.clip(inputs, -5, 5), (4,)))]

    model = keras.Sequential([keras.Input((4,)), Scaled(), layers.Activation(ops.sin)])
    x, y = np.random.default_rng(0).normal(size=(40, 4)).astype("float32"), np.zeros((40, 4))
    assert not measured(model, x, y)[1]
    x[23, 2] = extreme
    found, messages = measured(model, x, y)
    assert any("a rule is wrong" in message for message in messages)
    assert relative_error(found, loop(model, x, y)) < 1e-4


class Rounded(layers.Layer):
    """Rounds otherwise where examples are many, as convolutions and GPUs do."""

    def call(self, inputs):
        return ops.where(ops.shape(inputs)[0] > 1, inputs * (1 + 3e-7), inputs)


@pytest.mark.slow
def test_predictions_that_are_all_but_certain_raise_no_alarm():
    model = keras.Sequential([keras.Input((4,)), layers.Dense(3), Rounded()])
    model.layers[0].bias.assign([18.0, 0.0, 0.0])
    x, y = np.tile(X, (20, 1)), np.zeros(120, "int32")
    y[5] = 1

    def nll(labels, outputs):
        chosen = ops.take_along_axis(outputs, labels[:, None], axis=-1)[:, 0]
        return ops.log(ops.sum(ops.exp(outputs), axis=-1)) - chosen

    found, messages = measured(model, x, y, nll)
    assert not messages
    expected = loop(model, x, y, nll)
    assert np.max(np.abs(found - expected)[expected < 1e-6] / expected[expected < 1e-6]) > 0.01
    assert found.mean() == pytest.approx(expected.mean(), rel=1e-5)
