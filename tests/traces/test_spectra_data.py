"""What measurements by products with the Hessian read of their data."""

import functools

import numpy as np
import pytest

import keras_fisher as kf
from tests.traces import oracles

# Each measurement, and its numbers.
MEASUREMENTS = {
    "hessian_eigenvalues": (
        functools.partial(kf.hessian_eigenvalues, k=2, seed=0),
        lambda found: [found.num_examples, *found.values],
    ),
    "hessian_trace, xtrace": (
        functools.partial(
            kf.hessian_trace, num_probes=6, estimator="xtrace", by_layer=True, seed=0
        ),
        lambda found: [*found, *found.layers.values()],
    ),
    "spectral_density": (
        functools.partial(kf.spectral_density, num_probes=2, num_steps=3, seed=0),
        lambda found: [found.num_examples, *found.nodes.flat, *found.weights.flat],
    ),
}
pytestmark = [
    pytest.mark.usefixtures("float64"),
    pytest.mark.parametrize(("measure", "numbers"), MEASUREMENTS.values(), ids=MEASUREMENTS.keys()),
]


def test_data_is_read_once_in_batches_of_any_size(measure, numbers):
    net, x, y = oracles.problem("dense")
    whole = measure(net, (x, y))
    parts = measure(net, iter([(x[:1], y[:1]), (x[1:], y[1:])]))
    np.testing.assert_allclose(numbers(parts), numbers(whole), rtol=1e-9)


def test_padding_is_no_data(measure, numbers):
    net, x, y = oracles.problem("dense")
    weights = np.array([1.0, 1, 1, 0, 0, 0])
    few = measure(net, (x[:3], y[:3]))
    padded = measure(net, (x, y, weights), batch_size=2)
    batches = iter([(x[:2], y[:2], weights[:2]), (x[2:], y[2:], weights[2:])])
    for found in (padded, measure(net, batches)):
        np.testing.assert_allclose(numbers(found), numbers(few), rtol=1e-9)
    with pytest.raises(ValueError, match="only padding"):
        measure(net, (x, y, 0 * weights))
