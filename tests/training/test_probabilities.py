"""Warnings of outputs that a loss takes for probabilities, and that are none."""

import keras
import numpy as np
import pytest
from keras import layers

import keras_fisher as kf
from keras_fisher.utils.messages import warn_once
from tests import nets

SPARSE = "sparse_categorical_crossentropy"


@pytest.fixture(autouse=True)
def warned(caplog):
    """Returns what gives the warnings of this test."""
    warn_once.cache_clear()
    return lambda: [r.message for r in caplog.records if r.name == "keras_fisher"]


class Subclassed(keras.Model):
    def __init__(self, activation=None):
        super().__init__()
        self.dense = layers.Dense(3, activation=activation)

    def call(self, x):
        return self.dense(x)


def functional(*head):
    inputs = outputs = keras.Input((4,))
    for layer in head:
        outputs = layer(outputs)
    return keras.Model(inputs, outputs)


LINEAR = {
    "functional": lambda: functional(layers.Dense(3)),
    "sequential": lambda: keras.Sequential([keras.Input((4,)), layers.Dense(3)]),
    "not built": lambda: keras.Sequential([layers.Dense(5), layers.Dense(3)]),
    "nested": lambda: functional(layers.Dense(4), functional(layers.Dense(3))),
    "wrapped": lambda: functional(layers.SpectralNormalization(layers.Dense(3))),
}
UNSEEN = {
    "subclassed": Subclassed,
    "relu": lambda: functional(layers.Dense(3, activation="relu")),
    "operation": lambda: functional(layers.Dense(3), keras.ops.negative),
    "cast": lambda: functional(layers.Dense(3), layers.Activation("linear", dtype="float32")),
}
FINE = {
    "softmax": lambda: functional(layers.Dense(3, activation="softmax")),
    "sigmoid": lambda: functional(layers.Dense(3, activation="sigmoid")),
    "operation": lambda: functional(layers.Dense(3), keras.ops.softmax),
    "layer": lambda: functional(layers.Dense(3), layers.Softmax()),
    "cast": lambda: functional(
        layers.Dense(3, activation="softmax"), layers.Activation("linear", dtype="float32")
    ),
    "subclassed": lambda: Subclassed("softmax"),
}


def parametrize(cases):
    return pytest.mark.parametrize("build", cases.values(), ids=cases.keys())


def fit(backbone, loss=SPARSE, **arguments):
    model = kf.FisherPenaltyModel(backbone, **arguments)
    model.compile("sgd", loss)
    model.fit(10.0 * nets.inputs("dense"), nets.labels(), epochs=2, verbose=0)


def trace(model):
    kf.fisher_trace(model, (10.0 * nets.inputs("dense"), nets.labels()), labels="given")


@parametrize(LINEAR)
def test_a_linear_last_layer_is_warned_of_at_compilation(build, warned):
    model = kf.FisherPenaltyModel(build())
    model.compile("sgd", SPARSE)
    (message,) = warned()
    assert "takes outputs for probabilities, and its last layer, 'dense" in message
    assert "is linear. Compile with from_logits=True" in message
    model.compile("sgd", SPARSE)
    assert len(warned()) == 1


@pytest.mark.matrix
@parametrize(UNSEEN)
def test_outputs_outside_0_and_1_are_warned_of_by_the_end_of_the_first_epoch(build, warned):
    fit(build())
    (message,) = warned()
    assert "they are not all from 0 to 1. Compile with from_logits=True" in message


@pytest.mark.matrix
@parametrize(FINE)
def test_probabilities_are_not_warned_of(build, warned):
    backbone = build()
    fit(backbone)
    trace(kf.FisherPenaltyModel(backbone, likelihood=kf.likelihoods.Categorical(False)))
    assert warned() == []


@pytest.mark.parametrize("loss", [nets.loss(), "mse"])
def test_other_losses_take_any_outputs(loss, warned):
    model = kf.FisherPenaltyModel(functional(layers.Dense(3)))
    model.compile("sgd", loss)
    assert model.health.unverified is None
    assert warned() == []


def test_bits_and_a_given_likelihood_are_warned_of_too(warned):
    model = kf.FisherPenaltyModel(functional(layers.Dense(1, name="bits")))
    model.compile("sgd", "binary_crossentropy")
    backbone, likelihood = functional(layers.Dense(3, name="given")), kf.likelihoods.Categorical
    model = kf.FisherPenaltyModel(backbone, likelihood=likelihood(from_logits=False))
    model.compile("sgd", nets.loss())
    bits, given = warned()
    assert "its last layer, 'bits'" in bits
    assert "its last layer, 'given'" in given


@pytest.mark.matrix
@pytest.mark.parametrize("build", [LINEAR["functional"], *UNSEEN.values()])
def test_a_trace_warns_once(build, warned):
    model = build()
    model.compile("sgd", SPARSE)
    trace(model)
    trace(model)
    (message,) = warned()
    assert "Compile with from_logits=True" in message


def test_a_trace_of_a_model_in_training_repeats_no_warning(warned):
    backbone = functional(layers.Dense(3))
    model = kf.FisherPenaltyModel(backbone)
    model.compile("sgd", SPARSE)
    trace(model)
    assert len(warned()) == 1


@pytest.mark.slow
def test_nan_is_not_taken_for_a_number_outside(warned):
    model = kf.FisherPenaltyModel(Subclassed("softmax"), 0.0)
    model.compile("sgd", SPARSE)
    model.fit(np.full((6, 4), np.nan, "float32"), nets.labels(), verbose=0)
    (message,) = warned()
    assert "the loss became NaN" in message
