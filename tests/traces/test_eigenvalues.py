"""Eigenvalues of the Hessian of networks against those of dense Hessians."""

import keras
import numpy as np
import pytest
from keras import layers

import keras_fisher as kf
from keras_fisher.traces import HessianEigenvaluesMeter
from tests import nets
from tests.traces import oracles

K = 3
# Their Hessians are of 20 to 80 weights, through every kind of normalisation.
NETS = ["dense", "batch_norm_cnn", "group_norm_cnn", "attention", "subclassed"]


def ends(values, which):
    ordered = np.sort(values)[::-1]
    chosen = {"largest": ordered[:K], "smallest": ordered[-K:]}
    return np.concatenate([*chosen.values()]) if which == "both" else chosen[which]


@pytest.mark.matrix
@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("which", ["both", "largest", "smallest"])
@pytest.mark.parametrize("name", NETS)
def test_eigenvalues_are_those_of_the_full_hessian(name, which):
    net, x, y = oracles.problem(name)
    found = kf.hessian_eigenvalues(net, (x, y), k=K, which=which, return_vectors=True, seed=0)
    exact, h = ends(np.linalg.eigvalsh(oracles.hessian_of(name)), which), oracles.hessian_of(name)
    np.testing.assert_allclose(found.values, exact, rtol=1e-4)
    assert found.vectors.shape == (len(exact), len(h))
    np.testing.assert_allclose(np.linalg.norm(found.vectors, axis=1), 1, rtol=1e-12)
    residuals = np.linalg.norm(found.vectors @ h - exact[:, np.newaxis] * found.vectors, axis=1)
    assert np.all(residuals <= 1e-4 * np.max(np.abs(exact)))
    assert np.all(found.residuals <= 1e-5 * np.max(np.abs(np.linalg.eigvalsh(h))))
    assert found.num_examples == len(y)


@pytest.mark.slow
@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("name", ["group_norm_cnn", "batch_norm_cnn", "attention"])
def test_single_precision_is_enough_for_1e_4(name):
    exact = ends(np.linalg.eigvalsh(oracles.hessian_of(name)), "both")
    net, x, y = oracles.problem(name)
    weights = net.get_weights()
    keras.config.set_floatx("float32")
    keras.config.set_dtype_policy("float32")
    net, x, y = oracles.problem(name)
    net.set_weights(weights)
    found = kf.hessian_eigenvalues(net, (x, y), k=K, which="both", seed=0)
    np.testing.assert_allclose(found.values, exact, rtol=1e-4)


@pytest.mark.usefixtures("float64")
def test_the_vectors_follow_the_order_of_the_weights():
    net, x, y = oracles.problem("dense")
    found = kf.hessian_eigenvalues(net, (x, y), k=1, return_vectors=True, seed=0)
    start, moved, step = nets.flat(net.trainable_weights), [], 1e-3
    for sign in (1, 0, -1):
        nets.assign_flat(net.trainable_weights, start + sign * step * found.vectors[0])
        moved.append(net.evaluate(x, y, verbose=0))
    curvature = (moved[0] - 2 * moved[1] + moved[2]) / step**2
    assert curvature == pytest.approx(found.values[0], rel=1e-4)


def test_the_sharpness_is_the_largest_eigenvalue():
    net, x, y = oracles.problem("dense")
    sharpness = kf.sharpness(net, (x, y), seed=0)
    found = kf.hessian_eigenvalues(net, (x, y), k=1, seed=0)
    assert type(sharpness) is float
    assert sharpness == found.values[0]
    assert found.vectors is None


@pytest.mark.usefixtures("float64")
def test_a_linear_gaussian_model_has_the_eigenvalues_of_its_inputs():
    x, y = np.random.default_rng(0).normal(size=(50, 30)), np.zeros((50, 1))
    net = keras.Sequential([keras.Input((30,)), layers.Dense(1, use_bias=False)])
    likelihood = kf.likelihoods.Gaussian(variance=0.25)
    found = kf.hessian_eigenvalues(
        net, (x, y), k=30, which="largest", likelihood=likelihood, batch_size=16
    )
    exact = np.linalg.eigvalsh(4 * x.T @ x / 50)[::-1]
    np.testing.assert_allclose(found.values, exact, rtol=1e-10)


def test_counts_every_product_of_the_measurement(monkeypatch):
    net, x, y = oracles.problem("dense")
    counts, multiply = [], kf.traces.hessian_meter.HessianProducts.__call__

    def counted(self, x, y, vectors):
        counts.append(len(vectors))
        return multiply(self, x, y, vectors)

    monkeypatch.setattr(kf.traces.hessian_meter.HessianProducts, "__call__", counted)
    found = kf.hessian_eigenvalues(net, (x, y), k=1)
    assert found.num_products == sum(counts) > 3


def test_a_meter_measures_the_weights_and_layers_of_the_moment():
    net, x, y = oracles.problem("dense")
    meter = HessianEigenvaluesMeter(net, k=2, seed=0)
    meter((x, y))
    net.set_weights([1.5 * weight for weight in net.get_weights()])
    net.layers[1].trainable = False
    found = meter((x, y), return_vectors=True)
    fresh = kf.hessian_eigenvalues(net, (x, y), k=2, seed=1)
    np.testing.assert_allclose(found.values, fresh.values, rtol=1e-5)
    assert found.vectors.shape == (2, net.layers[0].count_params())


def test_weights_that_are_not_finite_give_nan():
    net, x, y = oracles.problem("dense")
    net.set_weights([np.full_like(weight, np.nan) for weight in net.get_weights()])
    found = kf.hessian_eigenvalues(net, (x, y), k=2, which="both", return_vectors=True)
    assert found.values.shape == found.residuals.shape == (4,)
    assert np.isnan([*found.values, *found.residuals, *found.vectors.flat]).all()
    assert np.isnan(kf.sharpness(net, (x, y)))


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"k": 0}, ValueError, "`k` must be an integer >= 1. Received: k=0"),
        ({"k": 1.0}, TypeError, "`k` must be an integer >= 1. Received: k=1.0"),
        ({"k": 44}, ValueError, "`k` must be at most 43 with which='largest'.*Received: k=44"),
        (
            {"k": 22, "which": "both"},
            ValueError,
            "`k` must be at most 21 with which='both', for 43 trainable weights. Received: k=22",
        ),
        ({"which": "LM"}, ValueError, "`which` must be one of 'largest', 'smallest', 'both'"),
        ({"rtol": 0}, ValueError, "`rtol` must be positive"),
        ({"rtol": "1e-4"}, TypeError, "`rtol` must be a number"),
        ({"max_products": 0}, ValueError, "`max_products` must be an integer >= 1"),
        ({"max_products": 5}, np.linalg.LinAlgError, "`max_products` must be large enough"),
        ({"rtol": 1e-12}, np.linalg.LinAlgError, "`rtol` is too small for the rounding"),
        ({"return_vectors": 1}, TypeError, "`return_vectors` must be True or False"),
        ({"seed": -1}, ValueError, "`seed` must be an integer in"),
    ],
)
def test_bad_options_are_refused(options, error, message):
    net, x, y = oracles.problem("dense")
    with pytest.raises(error, match=message):
        kf.hessian_eigenvalues(net, (x, y), **options)
