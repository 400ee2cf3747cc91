"""`Estimate`, and what all four measurements fill it with."""

import copy
import json
import pickle

import numpy as np
import pytest

import keras_fisher as kf
from keras_fisher.traces.estimate import estimate
from tests import nets
from tests.traces.measures import MEASURES


def test_it_names_value_standard_error_count_and_layers():
    made = kf.Estimate(1.5, 0.25, 30)
    assert isinstance(made, tuple)
    assert made._fields == ("value", "stderr", "count")
    assert (made.value, made.stderr, made.count, made.layers) == (1.5, 0.25, 30, None)


def test_its_float_is_the_value():
    assert float(kf.Estimate(1.5, 0.25, 30)) == 1.5


@pytest.mark.parametrize(
    ("numbers", "text"),
    [
        ((12.345678, 0.4123, 500), "12.35 ± 0.41 (count=500)"),
        ((-0.00123456, 0.000567, 30), "-0.00123 ± 0.00057 (count=30)"),
        ((4328.21, 123.4, 512), "4328 ± 123 (count=512)"),
        ((1.23456e-9, 3.21e-11, 8), "1.235e-09 ± 3.2e-11 (count=8)"),
        ((1.23456e9, 3.21e7, 8), "1.235e+09 ± 3.2e+07 (count=8)"),
        ((1.5, 0.0, 2), "1.5 ± 0 (count=2)"),
        ((12.345678, float("nan"), 1), "12.35 ± nan (count=1)"),
        ((float("inf"), float("nan"), 4), "inf ± nan (count=4)"),
    ],
)
def test_its_text_has_as_many_digits_as_the_standard_error_supports(numbers, text):
    assert str(kf.Estimate(*numbers)) == f"{kf.Estimate(*numbers)}" == text


def test_its_repr_dictionary_and_json_keep_all_digits():
    made = kf.Estimate(12.345678, 0.4123, 500)
    assert repr(made) == "Estimate(value=12.345678, stderr=0.4123, count=500)"
    assert made._asdict() == {"value": 12.345678, "stderr": 0.4123, "count": 500}
    assert json.dumps(made) == "[12.345678, 0.4123, 500]"


def test_variances_of_independent_estimates_add_up_in_their_difference():
    one, other = kf.Estimate(7.0, 0.3, 30), kf.Estimate(5.0, 0.4, 12)
    one.layers = other.layers = {"a": 1.0}
    made = one - other
    assert type(made) is kf.Estimate
    assert made == pytest.approx((2.0, 0.5, 42))
    assert made.layers is None
    assert np.isnan((one - kf.Estimate(1.0, float("nan"), 1)).stderr)


@pytest.mark.parametrize("other", [1.0, (1.0, 0.5, 3), None])
def test_only_estimates_can_be_subtracted(other):
    made = kf.Estimate(1.5, 0.25, 30)
    with pytest.raises(TypeError, match="unsupported operand"):
        made - other
    with pytest.raises(TypeError, match="unsupported operand"):
        other - made


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
    net, data = nets.plain("dense"), (nets.inputs("dense"), nets.labels())
    made = kf.gradient_norm(net, data, batch_size=2, by_layer=True)
    kinds = [type(number) for number in (*made, *made.layers.values())]
    assert kinds == [float, float, int, float, float]


@pytest.mark.matrix
@pytest.mark.parametrize("measure", MEASURES)
def test_layers_are_the_paths_of_trained_layers_and_sum_to_the_value(measure):
    net, data = nets.plain("subclassed"), (nets.inputs("subclassed"), nets.labels())
    net.norm.trainable = False
    made = measure(net, data, by_layer=True)
    assert list(made.layers) == [net.hidden.path, net.head.path]
    assert sum(made.layers.values()) == pytest.approx(made.value, rel=1e-9)
    assert all(np.isfinite(list(made.layers.values())))


def test_layers_are_none_unless_asked_for():
    net, data = nets.plain("dense"), (nets.inputs("dense"), nets.labels())
    assert kf.gradient_norm(net, data).layers is None
