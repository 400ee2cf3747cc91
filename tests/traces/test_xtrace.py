"""XTrace against a slow program that leaves out one probe after another, and dense Hessians."""

import functools

import keras
import numpy as np
import pytest
from keras import layers, ops

import keras_fisher as kf
from keras_fisher.traces import HessianTraceMeter, xtrace
from keras_fisher.traces.hessian_products import HessianProducts
from tests import nets
from tests.traces import oracles

SIZES = [3, 1, 8]  # of the parts of a vector


def symmetric(rank=12):
    """A matrix with eigenvalues of both signs."""
    basis = np.linalg.qr(np.random.default_rng(0).normal(size=(12, 12)))[0][:, :rank]
    return basis * (-0.5) ** np.arange(rank) @ basis.T


def estimates(matrix, probes):
    return xtrace.compute_estimates(lambda vectors: vectors @ matrix, probes, SIZES)


def draw(probes, n=12):
    return np.random.default_rng(1).normal(size=(probes, n))


def diagonal_sums(matrix):
    return np.add.reduceat(np.diag(matrix), np.cumsum([0, *SIZES[:-1]]))


def leave_one_out(matrix, probes):
    """The formula of the paper, with a decomposition for each probe."""
    found = []
    for i, probe in enumerate(probes):
        basis = np.linalg.qr(matrix @ np.delete(probes, i, axis=0).T)[0]
        inside = basis @ basis.T
        rest = probe - inside @ probe
        terms = np.diag(matrix @ inside) + rest * (matrix @ rest)
        found.append(np.add.reduceat(terms, np.cumsum([0, *SIZES[:-1]])))
    return np.array(found)


@pytest.mark.parametrize("probes", [1, 2, 5, 12])
def test_all_estimates_come_from_one_decomposition(probes):
    matrix, w = symmetric(), draw(probes)
    np.testing.assert_allclose(estimates(matrix, w), leave_one_out(matrix, w), rtol=0, atol=1e-12)


def test_probes_of_dependent_products_leave_the_basis_alone():
    # The first three products have rank 2, the fourth is independent of them.
    matrix = np.diag([1.0, 2, 0, 0, 4, 5, 6, 7, 8, 9, 10, 11])
    w = np.zeros((4, 12))
    w[:3, :4], w[3] = draw(3, 4), draw(1)[0]
    found = estimates(matrix, w)
    np.testing.assert_allclose(found, leave_one_out(matrix, w), rtol=0, atol=1e-12)


@pytest.mark.parametrize(("rank", "probes"), [(3, 4), (3, 9), (12, 13), (12, 20)])
def test_is_exact_if_all_but_one_probe_span_the_range(rank, probes):
    matrix = symmetric(rank)
    found = estimates(matrix, draw(probes))
    expected = np.tile(diagonal_sums(matrix), (probes, 1))
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12)


def test_a_zero_matrix_has_the_trace_zero_and_nan_is_kept():
    assert not estimates(np.zeros((12, 12)), draw(3)).any()
    assert np.isnan(estimates(np.full((12, 12), np.nan), draw(3))).all()


def test_multiplies_at_most_twice_per_probe():
    counts = []

    def multiply(vectors):
        counts.append(len(vectors))
        return vectors @ symmetric(3)

    xtrace.compute_estimates(multiply, draw(5), SIZES)
    assert counts == [5, 3]  # the basis has as many vectors as the range


@pytest.mark.matrix
@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("name", ["dense", "group_norm_cnn", "attention", "batch_norm_cnn"])
def test_products_with_unit_vectors_are_the_full_hessian(name):
    net, x, y = oracles.problem(name)

    def loss(x, y, values):
        assert not values
        return ops.mean(nets.loss()(y, net(x, training=False)))

    products = HessianProducts(net, loss)
    expected = oracles.hessian_of(name)
    scale = np.abs(expected).max()
    found = products(ops.convert_to_tensor(x), ops.convert_to_tensor(y), np.eye(len(expected)))
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6 * scale)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("distribution", ["gaussian", "rademacher"])
def test_the_mean_over_many_measurements_is_the_trace_of_the_full_hessian(distribution):
    net, x, y = oracles.problem("dense")
    meter = HessianTraceMeter(
        net, num_probes=8, distribution=distribution, estimator="xtrace", seed=1
    )
    found = [meter((x, y), by_layer=True) for _ in range(300)]
    h, start = oracles.hessian_of("dense"), 0
    for layer in net.layers:
        end = start + layer.count_params()
        values = [trace.layers[layer.path] for trace in found]
        error = np.mean(values) - np.trace(h[start:end, start:end])
        assert abs(error) <= 3 * np.std(values) / 300**0.5
        start = end
    values, stderrs = [trace.value for trace in found], [trace.stderr for trace in found]
    assert abs(np.mean(values) - np.trace(h)) <= 3 * np.std(values) / 300**0.5
    assert np.mean(np.square(stderrs)) == pytest.approx(np.var(values), rel=0.5)
    assert {trace.count for trace in found} == {4}


@pytest.mark.usefixtures("float64")
def test_a_hessian_of_low_rank_is_measured_exactly():
    head = oracles.HEADS["numbers"]
    model, x, y = head.model(), head.inputs(2), head.labels(2)  # of rank 2 * 3 for 15 weights
    trace = functools.partial(
        kf.hessian_trace, model, (x, y), likelihood=head.likelihood, estimator="xtrace", seed=0
    )
    exact = trace(num_probes=14)
    assert exact.value == pytest.approx(np.mean(head.hessian(model, x)), rel=1e-12)
    assert exact.stderr < 1e-12 * exact.value
    assert trace(num_probes=12).stderr > 1e-3 * exact.value


@pytest.mark.slow
def test_is_more_precise_than_as_many_probes_where_few_eigenvalues_are_large():
    net = keras.Sequential(
        [keras.Input((8,)), layers.Dense(16, "tanh"), layers.Dense(nets.CLASSES)]
    )
    net.compile("sgd", nets.loss())
    generator = np.random.default_rng(0)
    for weight in net.trainable_weights:
        weight.assign(0.3 * generator.normal(size=weight.shape))
    x = generator.normal(size=(32, 8)) * 0.4 ** np.arange(8)
    data = x, generator.integers(0, nets.CLASSES, 32)
    every = 2 * net.count_params() + 2  # as many as are exact
    exact = kf.hessian_trace(net, data, num_probes=every, estimator="xtrace").value
    errors = {}
    for estimator in ("hutchinson", "xtrace"):
        meter = HessianTraceMeter(net, num_probes=60, estimator=estimator, seed=0)
        found = [meter(data).value for _ in range(20)]
        errors[estimator] = np.mean(np.square(np.subtract(found, exact))) ** 0.5
    assert errors["xtrace"] < 0.6 * errors["hutchinson"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_probes": 7}, "`num_probes` must be even with estimator='xtrace'.*num_probes=7"),
        ({"rtol": 0.1}, "`rtol` must be None with estimator='xtrace'.*rtol=0.1"),
        ({"estimator": "lanczos"}, "`estimator` must be one of 'hutchinson', 'xtrace'"),
    ],
)
def test_options_that_do_not_go_together_are_refused(options, message):
    data = nets.inputs("dense"), nets.labels()
    options = {"estimator": "xtrace"} | options
    with pytest.raises(ValueError, match=message):
        HessianTraceMeter(oracles.problem("dense")[0], **options)
    with pytest.raises(ValueError, match=message):
        kf.callbacks.HessianTrace(data, **options)
