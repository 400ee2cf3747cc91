"""The norm of the mini-batch gradient against plain loops."""

import keras
import numpy as np
import pytest

import keras_fisher as kf
from tests import nets, reference
from tests.traces import oracles


@pytest.fixture
def measured():
    net = nets.plain("subclassed")  # it has batch normalisation
    return net, nets.inputs("subclassed", batch=22), nets.labels(batch=22)


@pytest.mark.matrix
@pytest.mark.parametrize(
    ("as_dataset", "num_examples", "batch_size", "count"),
    [(False, None, 4, 5), (True, None, 4, 5), (False, 2, 2, 1), (True, 9, 4, 2)],
)
def test_it_is_the_mean_over_full_mini_batches_of_the_first_examples(
    measured, as_dataset, num_examples, batch_size, count
):
    net, x, y = measured
    data = reference.batches(x, y, 4) if as_dataset else (x, y)
    norm = kf.gradient_norm(net, data, batch_size=4, num_examples=num_examples)
    first = slice(0, num_examples)
    exact = oracles.squares(net, x[first], y[first], batch_size).sum(1) ** 0.5
    assert norm.count == len(exact) == count
    assert norm.value == pytest.approx(np.mean(exact), rel=1e-5)
    if count > 1:
        stderr = np.std(exact, ddof=1) / count**0.5
        assert norm.stderr == pytest.approx(stderr, rel=1e-4)
    else:
        assert np.isnan(norm.stderr)


def test_a_layer_has_the_share_of_the_norm_that_it_has_of_the_squared_norm(measured):
    net, x, y = measured
    norm = kf.gradient_norm(net, (x, y), batch_size=22, by_layer=True)
    squares = oracles.squares(net, x, y, 22)[0]
    shares = squares / squares.sum() ** 0.5
    assert norm.layers == pytest.approx(oracles.by_layer(net, shares), rel=1e-4)


def test_it_is_zero_where_there_is_no_gradient():
    net = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1, activation="relu")])
    net.layers[0].bias.assign([-1e3])
    data, gaussian = (np.ones((2, 4)), np.ones((2, 1))), kf.likelihoods.Gaussian()
    norm = kf.gradient_norm(net, data, by_layer=True, likelihood=gaussian)
    assert norm.value == 0.0
    assert norm.layers == {"sequential/dense": 0.0}
