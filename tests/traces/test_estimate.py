"""`Estimate`, and what all four measurements fill it with."""

import copy
import pickle

import numpy as np
import pytest

import keras_fisher as kf
from keras_fisher.traces.estimate import estimate
from tests import nets
from tests.traces.measures import MEASURES


def test_it_unpacks_into_value_standard_error_and_count():
    value, stderr, count = kf.Estimate(1.5, 0.25, 30)
    assert (value, stderr, count) == (1.5, 0.25, 30)


def test_it_names_value_standard_error_count_and_layers():
    made = kf.Estimate(1.5, 0.25, 30)
    assert isinstance(made, tuple)
    assert made._fields == ("value", "stderr", "count")
    assert (made.value, made.stderr, made.count, made.layers) == (1.5, 0.25, 30, None)
    assert "value=1.5, stderr=0.25, count=30" in repr(made)


@pytest.mark.parametrize(
    "again", [copy.copy, copy.deepcopy, lambda made: pickle.loads(pickle.dumps(made))]
)
def test_copies_keep_the_layers(again):
    made = kf.Estimate(1.5, 0.25, 30)
    made.layers = {"a/b": 1.0, "c": 0.5}
    copied = again(made)
    assert type(copied) is kf.Estimate
    assert copied == made
    assert copied.layers == made.layers


def test_it_is_a_mean_with_the_standard_error_of_a_mean():
    made = estimate(np.array([[1.0, 2.0], [3.0, 2.0], [2.0, 5.0]]), ["a", "b"])
    # The wholes 3, 5 and 7 have the mean 5 and the sample variance (4 + 0 + 4) / 2 = 4.
    assert made == pytest.approx((5.0, (4 / 3) ** 0.5, 3))
    assert made.layers == pytest.approx({"a": 2.0, "b": 3.0})


def test_one_measurement_has_no_standard_error():
    assert np.isnan(estimate(np.array([[1.0]])).stderr)


def test_numbers_are_plain_python_ones():
    net, data = nets.build("dense"), (nets.inputs("dense"), nets.labels())
    net.compile("sgd", nets.loss())
    made = kf.gradient_norm(net, data, batch_size=2, by_layer=True)
    kinds = [type(number) for number in (*made, *made.layers.values())]
    assert kinds == [float, float, int, float, float]


@pytest.mark.parametrize("measure", MEASURES)
def test_layers_are_the_paths_of_trained_layers_and_sum_to_the_value(measure):
    net, data = nets.build("subclassed"), (nets.inputs("subclassed"), nets.labels())
    net.compile("sgd", nets.loss())
    net.norm.trainable = False
    made = measure(net, data, by_layer=True)
    assert list(made.layers) == [net.hidden.path, net.head.path]
    assert sum(made.layers.values()) == pytest.approx(made.value, rel=1e-9)
    assert all(np.isfinite(list(made.layers.values())))


def test_layers_are_none_unless_asked_for():
    net, data = nets.build("dense"), (nets.inputs("dense"), nets.labels())
    net.compile("sgd", nets.loss())
    assert kf.gradient_norm(net, data).layers is None
