"""The spectral density: its moments, its stated errors and its smoothed form."""

import keras
import numpy as np
import pytest
from scipy import stats

import keras_fisher as kf
from keras_fisher.traces import SpectralDensity, SpectralDensityMeter
from tests.traces import oracles

NETS = ["dense", "batch_norm_cnn", "group_norm_cnn", "attention"]


def moment(h, order):
    return np.trace(np.linalg.matrix_power(h, order)) / len(h)


def std_of_moment(h, order):
    """The standard deviation of v^T H^order v for v uniform on the unit sphere.

    With A = H^order, Var = 2 (tr(A^2) - tr(A)^2 / n) / (n (n + 2)).
    """
    values, n = np.linalg.eigvalsh(h) ** order, len(h)
    return (2 * (np.sum(values**2) - np.sum(values) ** 2 / n) / (n * (n + 2))) ** 0.5


@pytest.mark.matrix
@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("name", NETS)
def test_moments_are_traces_of_powers_of_the_full_hessian_with_the_stated_errors(name):
    net, x, y = oracles.problem(name)
    h, probes = oracles.hessian_of(name), 100
    density = kf.spectral_density(net, (x, y), num_probes=probes, num_steps=5, seed=0)
    assert density.nodes.shape == density.weights.shape == (probes, 5)
    assert (density.dimension, density.num_examples) == (len(h), len(y))
    assert density.num_products == 5 * probes
    np.testing.assert_allclose(density.weights.sum(axis=1), 1, rtol=1e-12)
    for order in (1, 2, 3, 4):
        found = density.moment(order)
        assert found.count == probes
        assert abs(found.value - moment(h, order)) <= 3.5 * found.stderr
        expected = std_of_moment(h, order) / probes**0.5
        assert found.stderr == pytest.approx(expected, rel=0.35)


@pytest.mark.usefixtures("float64")
def test_as_many_steps_as_weights_give_every_eigenvalue_and_each_probes_exact_moments():
    net, x, y = oracles.problem("dense")
    exact = np.linalg.eigvalsh(oracles.hessian_of("dense"))
    density = kf.spectral_density(net, (x, y), num_probes=2, num_steps=len(exact), seed=0)
    for nodes in density.nodes:
        np.testing.assert_allclose([nodes[0], nodes[-1]], [exact[0], exact[-1]], rtol=1e-6)
        distances = np.min(np.abs(nodes[:, np.newaxis] - exact), axis=1)
        assert np.max(distances) < 1e-6 * exact[-1]


@pytest.mark.slow
@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("order", [1, 2])
def test_stated_errors_cover_at_the_stated_rate(order):
    net, x, y = oracles.problem("dense")
    h, probes, times = oracles.hessian_of("dense"), 10, 400
    meter = SpectralDensityMeter(net, num_probes=probes, num_steps=2, seed=0)
    found = [meter((x, y)).moment(order) for _ in range(times)]
    errors = np.array([(f.value - moment(h, order)) / f.stderr for f in found])
    for sigmas in (1, 2):
        expected = 1 - 2 * stats.t.sf(sigmas, probes - 1)
        covered = np.mean(np.abs(errors) <= sigmas)
        # The values of single probes are skewed, so that a few more miss than of a normal mean.
        assert abs(covered - expected) < 0.06


def test_a_moment_of_too_high_an_order_is_refused():
    net, x, y = oracles.problem("dense")
    density = kf.spectral_density(net, (x, y), num_steps=3, num_probes=2, seed=0)
    assert np.isfinite(density.moment(5).value)
    with pytest.raises(ValueError, match=r"`order` must be below 2 num_steps = 6.* order=6"):
        density.moment(6)


def test_the_moments_of_a_whole_spectrum_are_exact_at_every_order():
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    x = np.random.default_rng(0).normal(size=(9, 2)).astype("float32")
    density = kf.spectral_density(model, (x, x[:, :1]), num_steps=3, num_probes=2, seed=0)
    matrix = np.c_[x, np.ones(9)].T @ np.c_[x, np.ones(9)] * 2 / 9
    exact = np.trace(np.linalg.matrix_power(matrix, 9)) / 3
    several = [
        kf.spectral_density(model, (x, x[:, :1]), num_steps=3, num_probes=200, seed=seed)
        for seed in range(2)
    ]
    assert density.moment(9).value > 0
    for found in several:
        moment = found.moment(9)
        assert abs(moment.value - exact) < 4 * moment.stderr


MADE = SpectralDensity(
    np.array([[-1.0, 2.0], [0.0, 3.0]]), np.array([[0.75, 0.25], [0.5, 0.5]]), 7, 20, 4
)


def test_the_smoothed_density_is_a_sum_of_normal_densities_and_integrates_to_1():
    points = np.linspace(-6, 8, 5000).reshape(2, -1)
    density = MADE.evaluate(points, width=0.5)
    expected = sum(
        weight * stats.norm.pdf(points, node, 0.5) / 2
        for node, weight in zip(MADE.nodes.flat, MADE.weights.flat, strict=True)
    )
    np.testing.assert_allclose(density, expected, rtol=1e-12)
    assert np.trapezoid(density.ravel(), points.ravel()) == pytest.approx(1, rel=1e-6)
    np.testing.assert_array_equal(MADE.evaluate(points), MADE.evaluate(points, width=0.04))


def test_moments_are_means_over_probes():
    assert MADE.moment(1) == pytest.approx(((-0.25 + 1.5) / 2, 0.875, 2))
    assert MADE.moment(2) == pytest.approx(((1.75 + 4.5) / 2, 1.375, 2))
    assert repr(MADE) == "SpectralDensity(dimension=7, num_examples=20, num_products=4)"


def test_weights_that_are_not_finite_give_nan():
    net, x, y = oracles.problem("dense")
    net.set_weights([np.full_like(weight, np.nan) for weight in net.get_weights()])
    density = kf.spectral_density(net, (x, y), num_probes=2, num_steps=3)
    assert density.nodes.shape == (2, 3)
    assert np.isnan([density.nodes, density.weights]).all()
    assert np.isnan(density.moment(1).value)


def test_bad_arguments_of_the_smoothed_density_and_of_moments_are_refused():
    with pytest.raises(ValueError, match=r"`order` must be an integer >= 1. Received: order=0"):
        MADE.moment(0)
    with pytest.raises(TypeError, match=r"`order` must be an integer >= 1. Received: order=1.5"):
        MADE.moment(1.5)
    with pytest.raises(ValueError, match=r"`width` must be positive and finite. Received: width=0"):
        MADE.evaluate([0.0], width=0)
    flat = SpectralDensity(np.ones((2, 1)), np.ones((2, 1)), 7, 20, 4)
    with pytest.raises(ValueError, match=r"`width` must be given where all nodes are equal"):
        flat.evaluate([0.0])
