"""The norm of each example's gradient against plain loops and `fisher_trace`."""

import keras
import numpy as np
import pytest
from keras import layers

import keras_fisher as kf
from keras_fisher.traces import PerExampleGradientNormsMeter
from tests import nets, reference
from tests.traces import oracles

KINDS = ("given", "sampled", "expected")
NAMES = ("batch_norm_cnn", "attention", "recurrent", "two_inputs", "group_norm_cnn")


@pytest.mark.matrix
@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("name", NAMES)
def test_norms_are_those_of_a_loop_over_single_examples(name):
    net, x, y = nets.plain(name), nets.inputs(name), nets.labels()
    meter = PerExampleGradientNormsMeter(net)
    squares = oracles.squares(net, x, y)
    norms = meter((x, y))
    assert norms.shape == (len(y),)
    assert norms.dtype == np.float64
    np.testing.assert_allclose(norms, squares.sum(axis=1) ** 0.5, rtol=1e-9)
    exact = oracles.by_layer(net, squares.T)
    by_layer = meter((x, y), by_layer=True)
    assert list(by_layer) == list(exact)
    for layer, found in by_layer.items():
        np.testing.assert_allclose(found, exact[layer] ** 0.5, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(sum(found**2 for found in by_layer.values()), norms**2, rtol=1e-12)


@pytest.mark.matrix
@pytest.mark.parametrize("labels", KINDS)
def test_the_mean_of_the_squares_is_what_fisher_trace_measures(labels):
    net, data = nets.plain("dense"), (nets.inputs("dense", batch=20), nets.labels(batch=20))
    norms = kf.per_example_gradient_norms(net, data, labels=labels, batch_size=8, seed=3)
    trace = kf.fisher_trace(net, data, labels=labels, batch_size=8, seed=3)
    assert len(norms) == trace.count == 20
    assert np.mean(norms**2) == pytest.approx(trace.value, rel=1e-12)
    assert np.std(norms**2, ddof=1) / 20**0.5 == pytest.approx(trace.stderr, rel=1e-12)


def test_uniform_labels_are_equally_likely_whatever_the_model_predicts():
    net = keras.Sequential([keras.Input((4,)), layers.Dense(3, bias_initializer="normal")])
    net.layers[0].bias.assign([4.0, 0.0, -1.0])
    x, categorical = nets.inputs("dense", batch=1), kf.likelihoods.Categorical()
    meter = PerExampleGradientNormsMeter(net, labels="uniform", likelihood=categorical, seed=0)
    found = meter((np.repeat(x, 3000, axis=0), None))
    of_each = kf.per_example_gradient_norms(
        net, (np.repeat(x, 3, axis=0), np.arange(3)), likelihood=categorical
    )
    counts = [np.isclose(found, norm, rtol=1e-4).sum() for norm in of_each]
    assert sum(counts) == 3000
    # Each count is binomial with a standard deviation of (3000 * 1/3 * 2/3)^0.5 = 26.
    assert max(abs(np.subtract(counts, 1000))) < 4 * 26


def test_the_labels_of_the_data_are_taken_unless_others_are_asked_for():
    net, data = nets.plain("dense"), (nets.inputs("dense"), nets.labels())
    given = kf.per_example_gradient_norms(net, data, labels="given")
    np.testing.assert_array_equal(kf.per_example_gradient_norms(net, data), given)
    with pytest.raises(ValueError, match="`data` must hold labels"):
        kf.per_example_gradient_norms(net, (data[0], None))


@pytest.mark.parametrize("num_examples", [None, 9])
def test_datasets_and_arrays_of_any_batch_size_give_the_examples_in_their_order(num_examples):
    net, x, y = nets.plain("dense"), nets.inputs("dense", batch=11), nets.labels(batch=11)
    meter = PerExampleGradientNormsMeter(net)
    one_by_one = [meter((x[i : i + 1], y[i : i + 1]))[0] for i in range(num_examples or 11)]
    for data in ((x, y), reference.batches(x, y, 4)):
        found = meter(data, num_examples=num_examples, batch_size=5)
        np.testing.assert_allclose(found, one_by_one, rtol=1e-5)


def test_padding_is_excluded_and_an_example_of_padding_alone_has_no_norm():
    net, generator = nets.masked(), np.random.default_rng(0)
    x, y = generator.integers(1, 7, (3, 5)), generator.integers(0, nets.CLASSES, (3, 5))
    meter = PerExampleGradientNormsMeter(net)
    short, whole = meter((x[:1, :2], y[:1, :2])), meter((x[2:], y[2:]))
    x[0, 2:], x[1] = 0, 0
    for batch_size in (1, 3):
        found = meter((x, y), batch_size=batch_size)
        assert np.isnan(found).tolist() == [False, True, False]
        np.testing.assert_allclose(found[[0, 2]], [*short, *whole], rtol=1e-5)
    trace = kf.fisher_trace(net, (x, y), labels="given")
    assert trace.count == 2
    assert np.nanmean(found**2) == pytest.approx(trace.value, rel=1e-12)
    by_layer = meter((x, y), by_layer=True)
    assert [np.isnan(norms).tolist() for norms in by_layer.values()] == [[False, True, False]] * 3


def test_an_example_of_weight_zero_has_no_norm():
    net, x, y = nets.plain("dense"), nets.inputs("dense"), nets.labels()
    meter = PerExampleGradientNormsMeter(net)
    weights = np.array([1.0, 0.0, 2.0, 1.0, 1.0, 0.0])
    expected = np.where(weights, meter((x, y)), np.nan)
    np.testing.assert_allclose(meter((x, y, weights)), expected, rtol=1e-5)
    with pytest.raises(ValueError, match=r"`data` must hold examples other than padding"):
        meter((x, y, 0 * weights))


def test_gradients_of_positions_that_cancel_give_no_nan():
    # Equal inputs and opposite residuals at two positions: rounding decides the closed form's sign.
    # The other half of the examples has equal residuals.
    net = keras.Sequential([keras.Input((2, 16)), layers.Dense(16, use_bias=False)])
    generator = np.random.default_rng(0)
    x = np.repeat(generator.normal(size=(100, 1, 16)), 2, axis=1).astype("float32")
    residuals = np.repeat(generator.normal(size=(100, 1, 16)), 2, axis=1)
    residuals[:50, 1] *= -1
    data = x, nets.array(net(x)) + residuals
    gaussian = kf.likelihoods.Gaussian()
    norms = kf.per_example_gradient_norms(net, data, likelihood=gaussian)
    assert norms[50:].min() > 0.1
    assert norms[:50].max() < 1e-3
    assert norms[:50].min() == 0.0


def test_uniform_labels_need_a_finite_label_set():
    net, x = nets.build("dense"), nets.inputs("dense")
    gaussian = kf.likelihoods.Gaussian()
    with pytest.raises(ValueError, match=r"labels='uniform'.*Gaussian.*labels='given'"):
        kf.per_example_gradient_norms(net, (x, None), labels="uniform", likelihood=gaussian)


def test_unknown_labels_are_refused():
    net, x = nets.plain("dense"), nets.inputs("dense")
    accepted = "'sampled', 'expected', 'given', 'uniform'"
    with pytest.raises(ValueError, match=rf"`labels` must be one of {accepted}.*labels='true'"):
        kf.per_example_gradient_norms(net, (x, None), labels="true")
    with pytest.raises(ValueError, match=r"`labels` must be one of.*labels='uniform'"):
        kf.fisher_trace(net, (x, None), labels="uniform")
