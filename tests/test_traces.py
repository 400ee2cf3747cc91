"""Measurements against plain loops."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

import keras_fisher as kf
from tests import nets


def norms(net, x, y, batch_size):
    """The norms of the gradients of consecutive mini-batches, in inference mode."""
    found = []
    for start in range(0, len(y) - batch_size + 1, batch_size):
        rows = slice(start, start + batch_size)
        with tf.GradientTape() as tape:
            loss = nets.loss()(y[rows], net(x[rows], training=False))
        gradient = nets.flat(tape.gradient(loss, [w.value for w in net.trainable_weights]))
        found.append(np.linalg.norm(gradient))
    return found


@pytest.fixture
def measured():
    net = nets.build("subclassed")  # it has batch normalisation
    net.compile("sgd", nets.loss())
    return net, nets.inputs("subclassed", batch=22), nets.labels(batch=22)


@pytest.mark.parametrize("as_dataset", [False, True])
def test_gradient_norm_is_the_mean_over_full_mini_batches(measured, as_dataset):
    net, x, y = measured
    data = tf.data.Dataset.from_tensor_slices((x, y)).batch(4) if as_dataset else (x, y)
    estimate = kf.gradient_norm(net, data, batch_size=4)
    expected = norms(net, x, y, 4)
    assert estimate.count == len(expected) == 5
    assert estimate.value == pytest.approx(np.mean(expected), rel=1e-5)
    assert estimate.stderr == pytest.approx(np.std(expected, ddof=1) / 5**0.5, rel=1e-4)


@pytest.mark.parametrize("as_dataset", [False, True])
@pytest.mark.parametrize(("num_examples", "batch_size"), [(2, 2), (9, 4)])
def test_num_examples_is_never_exceeded(measured, as_dataset, num_examples, batch_size):
    net, x, y = measured
    data = tf.data.Dataset.from_tensor_slices((x, y)).batch(4) if as_dataset else (x, y)
    estimate = kf.gradient_norm(net, data, batch_size=4, num_examples=num_examples)
    expected = norms(net, x[:num_examples], y[:num_examples], batch_size)
    assert estimate.count == len(expected)
    assert estimate.value == pytest.approx(np.mean(expected), rel=1e-5)


def test_measuring_leaves_the_model_as_it_was(measured):
    net, x, y = measured
    before = nets.flat(net.variables)
    kf.gradient_norm(net, (x, y))
    np.testing.assert_array_equal(nets.flat(net.variables), before)


def test_a_wrapped_model_measures_like_its_backbone(measured):
    net, x, y = measured
    wrapped = kf.FisherPenaltyModel(net)
    wrapped.compile("sgd", nets.loss())
    assert kf.gradient_norm(wrapped, (x, y)).value == kf.gradient_norm(net, (x, y)).value


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ((np.ones((0, 4)), np.ones(0, "int32")), "at least one example"),
        ([np.ones((2, 4))] * 3, "`data` must be"),
        (tf.data.Dataset.from_tensors(np.ones((2, 4))), "must hold labels"),
    ],
)
def test_bad_data_is_refused(measured, data, message):
    with pytest.raises(ValueError, match=message):
        kf.gradient_norm(measured[0], data)


def test_an_uncompiled_model_needs_a_likelihood():
    net = keras.Sequential([keras.Input((4,)), layers.Dense(3)])
    with pytest.raises(ValueError, match="`likelihood` must be given"):
        kf.gradient_norm(net, (np.ones((2, 4)), np.zeros(2, "int32")))
