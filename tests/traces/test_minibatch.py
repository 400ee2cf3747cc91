"""Tr(F^B), the squared norm of the mini-batch gradient."""

import keras
import numpy as np
import pytest
from keras import layers

import keras_fisher as kf
from tests import nets, reference
from tests.traces import oracles


def problem(batch):
    net = nets.plain("subclassed")  # it has batch normalisation
    return net, nets.inputs("subclassed", batch=batch), nets.labels(batch=batch)


@pytest.mark.parametrize("as_dataset", [False, True])
def test_given_labels_give_the_mean_over_full_mini_batches(as_dataset):
    net, x, y = problem(batch=22)
    data = reference.batches(x, y, 4) if as_dataset else (x, y)
    trace = kf.minibatch_fisher_trace(net, data, labels="given", batch_size=4, by_layer=True)
    exact = oracles.squares(net, x, y, batch_size=4)
    assert trace.count == len(exact) == 5
    assert trace.value == pytest.approx(exact.sum(1).mean(), rel=1e-5)
    assert trace.stderr == pytest.approx(exact.sum(1).std(ddof=1) / 5**0.5, rel=1e-4)
    assert trace.layers == pytest.approx(oracles.by_layer(net, exact.mean(0)), rel=1e-4)


@pytest.mark.matrix
@pytest.mark.parametrize("name", ["softmax, logits", "softmax over time", "bits, logits"])
def test_sampled_labels_give_the_fisher_trace_over_the_batch_size_on_average(name):
    head, batch = oracles.HEADS[name], 8
    model, x = head.model(hidden=[layers.Dense(4, "tanh")]), head.inputs(batch)
    exact = kf.fisher_trace(model, (x, None), labels="expected", likelihood=head.likelihood).value
    # The same mini-batch many times: only the labels differ.
    many = np.tile(x, (400,) + (1,) * (x.ndim - 1))
    trace = kf.minibatch_fisher_trace(
        model, (many, None), batch_size=batch, likelihood=head.likelihood, seed=0
    )
    assert trace.count == 400
    assert abs(trace.value - exact / batch) <= 3 * trace.stderr
    assert trace.stderr < 0.1 * trace.value


def test_a_mini_batch_of_one_example_gives_the_fisher_trace():
    net, x, y = problem(batch=6)
    ones = kf.minibatch_fisher_trace(net, (x, y), labels="given", batch_size=1)
    assert ones == pytest.approx(kf.fisher_trace(net, (x, y), labels="given"), rel=1e-5)


@pytest.mark.usefixtures("float64")
def test_masked_positions_are_left_out_as_in_kerass_loss():
    keras.utils.set_random_seed(0)
    net = keras.Sequential(
        [keras.Input((4, 3)), layers.Masking(), layers.Dense(nets.CLASSES, activation="tanh")]
    )
    net.compile("sgd", nets.loss())
    generator = np.random.default_rng(0)
    x, y = generator.normal(size=(5, 4, 3)), generator.integers(0, nets.CLASSES, (5, 4))
    x[0, 2:] = x[3] = 0.0
    trace = kf.minibatch_fisher_trace(net, (x, y), labels="given")
    assert trace.value == pytest.approx(oracles.squares(net, x, y, 5).sum(), rel=1e-10)
