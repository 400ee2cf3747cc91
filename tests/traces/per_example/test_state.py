"""Measuring leaves a model as it was: every variable, loss, metric, random state and method."""

import keras
import numpy as np
import pytest
from keras import layers

import keras_fisher as kf
from tests.traces.per_example import loop


class Restless(layers.Layer):
    """Counts its calls, draws random numbers, adds losses and updates metrics in inference."""

    def __init__(self):
        super().__init__()
        self.seeds = keras.random.SeedGenerator(3)
        self.mean = keras.metrics.Mean()

    def build(self, input_shape):
        self.weight = self.add_weight(shape=(), name="weight")
        self.calls = self.add_weight(shape=(), trainable=False, name="calls")

    def call(self, inputs):
        self.calls.assign_add(1.0)
        self.mean.update_state(inputs)
        self.add_loss(keras.ops.mean(inputs))
        noise = keras.random.normal((), seed=self.seeds)
        return self.weight * inputs + 0.0 * noise


class Outside(keras.Model):
    """Uses a weight outside of its layer's call, so that the whole is taken one by one."""

    def __init__(self):
        super().__init__()
        self.dense, self.restless = layers.Dense(3, "tanh", activity_regularizer="l2"), Restless()

    def call(self, inputs):
        return self.restless(self.dense(inputs)) @ keras.ops.transpose(self.dense.kernel)


def in_parts():
    return keras.Sequential(
        [
            keras.Input((4, 3)),
            layers.Dense(3, activation="tanh", activity_regularizer="l2"),
            layers.Dropout(0.5, seed=1),
            layers.BatchNormalization(),
            layers.SpectralNormalization(layers.Dense(2)),
            Restless(),
            layers.GaussianNoise(0.1, seed=2),
            layers.PReLU(),
        ]
    )


def state(model):
    """All that could move, as it is now."""
    variables = [*model.variables, *model.metrics_variables, *model.optimizer.variables]
    layer_attributes = [
        {name: id(vars(layer).get(name)) for name in ("call", "activation", "_remat_mode")}
        for layer in model._flatten_layers()
    ]
    return (
        [np.asarray(variable).tobytes() for variable in variables],
        [float(loss) for loss in model.losses],
        [set(vars(layer)) for layer in model._flatten_layers()],
        layer_attributes,
    )


@pytest.mark.matrix
@pytest.mark.parametrize(("make", "labels"), [(in_parts, "sampled"), (Outside, "given")])
def test_measuring_moves_nothing_of_the_model(make, labels):
    model = make()
    x, y = loop.normal(5, 4, 3), loop.normal(5, 4, 3, seed=2)
    y = y[:, :, : model(x).shape[-1]]
    model.compile("adam", "mse", metrics=["mae"], run_eagerly=True)
    model.train_on_batch(x, y)
    before, drawn = state(model), keras.random.normal((), seed=keras.random.SeedGenerator(0))
    with loop.logged() as messages:
        assert kf.fisher_trace(model, (x, y), labels=labels, batch_size=2).count == 5
    assert any(message.startswith("Model") for message in messages) == (make is Outside)
    assert state(model) == before
    assert keras.random.normal((), seed=keras.random.SeedGenerator(0)) == drawn


def test_a_stateful_layer_is_refused_by_keras_and_keeps_its_state():
    model = keras.Sequential([keras.Input(batch_shape=(4, 2, 3)), layers.LSTM(2, stateful=True)])
    x = loop.normal(4, 2, 3)
    model(x)
    before = [np.asarray(variable).tobytes() for variable in model.variables]
    with pytest.raises(ValueError, match="If an RNN is stateful, the batch size"):
        loop.measured(model, x, loop.normal(4, 2))
    assert [np.asarray(variable).tobytes() for variable in model.variables] == before


class Failing(keras.Model):
    """Fails in its layers' last call."""

    def __init__(self):
        super().__init__()
        self.dense = layers.Dense(3, activation="elu")
        self.last = layers.Dense(2, activation=self.activate)
        self.fails_after = None

    def activate(self, x):
        if self.fails_after is not None:
            self.fails_after -= 1
            if self.fails_after < 0:
                raise RuntimeError("out of order")
        return x

    def call(self, inputs):
        return self.last(self.dense(inputs))


@pytest.mark.parametrize("calls_before", [0, 1, 2, 3])  # two in the survey, then in the graph, ...
def test_an_error_in_the_model_leaves_its_layers_as_they_were(calls_before):
    model, x, y = Failing(), loop.normal(3, 4), loop.normal(3, 2)
    model(x)
    before = [dict(vars(layer)) for layer in (model.dense, model.last)]
    model.fails_after = calls_before
    with pytest.raises(RuntimeError, match="out of order"):
        loop.measured(model, x, y)
    after = [dict(vars(layer)) for layer in (model.dense, model.last)]
    assert [set(attributes) for attributes in after] == [set(attributes) for attributes in before]
    for old, new in zip(before, after, strict=True):
        assert "call" not in new
        assert new["activation"] is old["activation"]
    model.fails_after = None
    found, messages = loop.measured(model, x, y)
    assert not messages
    assert loop.relative_error(found, loop.loop(model, x, y)) < 1e-5
