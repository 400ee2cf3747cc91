"""Likelihoods compute the loss that Keras computes, or refuse the labels."""

import keras
import numpy as np
import pytest

import keras_fisher as kf
from keras_fisher import likelihoods
from keras_fisher.likelihoods import Bernoulli, Categorical, Gaussian

RANDOM = np.random.default_rng(0)
X, CLASSES = RANDOM.normal(size=(12, 4)).astype("float32"), RANDOM.integers(0, 3, 12)
ONE_HOT = np.eye(3, dtype="float32")[CLASSES]


def compile_with(activation, loss):
    keras.utils.set_random_seed(0)
    dense = keras.layers.Dense(3, kernel_initializer=keras.initializers.RandomNormal(stddev=4.0))
    model = keras.Sequential([keras.Input((4,)), dense, keras.layers.Activation(activation)])
    model.compile("sgd", loss)
    return model


@pytest.mark.filterwarnings("ignore:.*from_logits=True:UserWarning")
@pytest.mark.parametrize("from_logits", [False, True])
@pytest.mark.parametrize(
    ("activation", "loss", "y"),
    [
        ("softmax", keras.losses.SparseCategoricalCrossentropy, CLASSES),
        ("softmax", keras.losses.CategoricalCrossentropy, ONE_HOT),
        ("sigmoid", keras.losses.BinaryCrossentropy, ONE_HOT),
    ],
)
def test_the_likelihood_is_the_loss_behind_an_activation(activation, loss, y, from_logits):
    model = compile_with(activation, loss(from_logits=from_logits))
    outputs = model(X)
    found = likelihoods.from_loss(model.loss).mean_nll(y, outputs)
    loss_of_keras = model.compute_loss(X, y, outputs)
    convert = keras.ops.convert_to_numpy
    assert convert(found) == pytest.approx(convert(loss_of_keras), rel=1e-5)


@pytest.mark.parametrize("likelihood", [Gaussian(), Bernoulli()])
@pytest.mark.parametrize("shape", [(12,), (12, 2), (12, 1), (12, 3, 1, 1), (3,)])
def test_labels_are_not_broadcast_to_the_outputs(likelihood, shape):
    with pytest.raises(ValueError, match=r"`y` must hold a number for each output.*\(12, 3\)"):
        likelihood.nll(np.zeros(shape, "float32"), np.zeros((12, 3), "float32"))


def test_a_trailing_axis_of_length_1_may_be_missing_or_further():
    outputs = np.ones((12, 1), "float32")
    for shape in ((12,), (12, 1), (12, 1, 1)):
        np.testing.assert_allclose(Gaussian().nll(np.zeros(shape, "float32"), outputs), 1.0)


def test_one_hot_labels_have_no_class_to_ignore():
    with pytest.raises(ValueError, match=r"`y` must hold integer classes .* `ignore_class`"):
        Categorical(ignore_class=0).nll(ONE_HOT, ONE_HOT)


def test_a_measurement_refuses_labels_that_it_would_broadcast():
    model = compile_with("linear", "mse")
    with pytest.raises(ValueError, match="`y` must hold a number for each output"):
        kf.gradient_norm(model, (X, RANDOM.random(12)), batch_size=12)
