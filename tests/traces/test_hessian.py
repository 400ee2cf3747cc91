"""Tr(H) against closed forms and against the full Hessian by central differences."""

import functools
import logging
import re

import keras
import numpy as np
import pytest
from keras import layers

import keras_fisher as kf
from keras_fisher.traces import HessianTraceMeter
from tests import nets, reference
from tests.traces import oracles

tf = pytest.importorskip("tensorflow")

DISTRIBUTIONS = ("gaussian", "rademacher")


# The smallest nets with each kind of normalisation, for many probes: of one input, and so few
# weights that the diagonal of the Hessian, which makes the difference between probes, counts.
SMALL = {
    "small": (3, []),
    "small, batch_norm": (3, [layers.BatchNormalization]),
    "small, layer_norm": (3, [layers.LayerNormalization]),
    "small, group_norm": (6, [lambda: layers.GroupNormalization(2)]),
}


def small(units, normalisations):
    keras.utils.set_random_seed(0)
    hidden = layers.Dense(units, activation="tanh")
    norms = [make() for make in normalisations]
    net = keras.Sequential([keras.Input((1,)), hidden, *norms, layers.Dense(nets.CLASSES)])
    generator = np.random.default_rng(0)
    for weight in net.trainable_weights:
        weight.assign(weight + 0.3 * generator.normal(size=weight.shape))
    return net


def problem(name):
    """A small net with a likelihood, and data."""
    if name not in SMALL:
        return oracles.problem(name)
    net = small(*SMALL[name])
    net.compile("sgd", nets.loss())
    return net, nets.inputs("dense")[:, :1], nets.labels()


@functools.cache
def full_hessian(name):
    if name not in SMALL:
        return oracles.hessian_of(name)
    return oracles.full_hessian(*problem(name))


def rows_by_layer(net):
    """The rows of the Hessian that belong to each layer."""
    rows, start = {}, 0
    for weight in net.trainable_weights:
        end = start + int(np.prod(weight.shape))
        rows.setdefault(oracles.layer_of(weight), []).extend(range(start, end))
        start = end
    return rows


def std_of_one_probe(h, rows, distribution):
    """The standard deviation of sum_{i in rows} z_i (H z)_i, from its closed form.

    z^T S z with S symmetric has the variance 2 ||S||^2 for normal z, and for signs the same
    without the diagonal of S.
    """
    part = np.zeros_like(h)
    part[rows] = h[rows]
    symmetric = (part + part.T) / 2
    if distribution == "rademacher":
        symmetric -= np.diag(np.diag(symmetric))
    return (2 * np.sum(symmetric**2)) ** 0.5


@pytest.mark.matrix
@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize(
    "name",
    [
        "softmax, logits",
        "softmax, probabilities",
        "softmax, probabilities that lost their logits",
        "softmax over time",
        "bits, probabilities",
        "bits over time",
        "numbers of another variance",
    ],
)
def test_a_linear_model_has_the_closed_form(name):
    head = oracles.HEADS[name]
    model, x, y = head.model(), head.inputs(7), head.labels(7)
    trace = kf.hessian_trace(
        model,
        (x, y),
        num_probes=300,
        distribution="rademacher",
        likelihood=head.likelihood,
        seed=1,
    )
    assert abs(trace.value - np.mean(head.hessian(model, x))) <= 3 * trace.stderr
    assert trace.stderr < 0.1 * trace.value


@pytest.mark.matrix
@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("name", ["bits, logits", "numbers", "numbers of another variance"])
def test_signs_as_probes_are_exact_where_the_hessian_is_diagonal(name):
    head = oracles.HEADS[name]
    model = head.model()
    model.get_layer("linear").kernel.assign(np.zeros((4, 3)))  # p is the same for all examples
    x = np.concatenate([np.eye(4), -np.eye(4)])  # of mean 0, the entries uncorrelated
    trace = kf.hessian_trace(
        model,
        (x, head.labels(8)),
        num_probes=3,
        distribution="rademacher",
        likelihood=head.likelihood,
    )
    assert trace.value == pytest.approx(np.mean(head.hessian(model, x)), rel=1e-12)
    assert trace.stderr < 1e-12


def same_probe(monkeypatch, net):
    """Makes all probes the same known one; returns it, a vector for each weight."""
    generator = np.random.default_rng(3)
    z = [generator.normal(size=weight.shape) for weight in net.trainable_weights]
    draws = iter(z * 2)
    monkeypatch.setattr(tf.random, "stateless_normal", lambda *_, **__: tf.constant(next(draws)))
    return [np.ravel(part) for part in z]


@pytest.mark.matrix
@reference.tensorflow_only  # whose draws the test takes the place of
@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize(
    "name", ["dense", "subclassed", "group_norm_cnn", "attention", "small, layer_norm"]
)
def test_a_probe_gives_its_quadratic_form_with_the_full_hessian(name, monkeypatch):
    net, x, y = problem(name)
    z = same_probe(monkeypatch, net)
    trace = kf.hessian_trace(net, (x, y), num_probes=1, by_layer=True)
    products = np.split(
        np.concatenate(z) * (full_hessian(name) @ np.concatenate(z)),
        np.cumsum([len(part) for part in z])[:-1],
    )
    parts = [np.sum(product) for product in products]
    assert trace.value == pytest.approx(sum(parts), rel=1e-6)
    assert trace.layers == pytest.approx(oracles.by_layer(net, parts), rel=1e-6, abs=1e-8)


@pytest.mark.matrix
@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("name", SMALL)
def test_many_probes_give_the_trace_of_the_full_hessian_with_the_stated_error(name):
    net, x, y = problem(name)
    h, probes, stderrs = full_hessian(name), 1000, {}
    for distribution in DISTRIBUTIONS:
        trace = kf.hessian_trace(
            net, (x, y), num_probes=probes, distribution=distribution, by_layer=True, seed=1
        )
        assert trace.count == probes
        assert abs(trace.value - np.trace(h)) <= 3 * trace.stderr
        std = std_of_one_probe(h, range(len(h)), distribution)
        assert trace.stderr == pytest.approx(std / probes**0.5, rel=0.15)
        for layer, rows in rows_by_layer(net).items():
            error = trace.layers[layer] - np.trace(h[np.ix_(rows, rows)])
            std = std_of_one_probe(h, rows, distribution)
            assert abs(error) <= 3 * std / probes**0.5 + 1e-9
        stderrs[distribution] = trace.stderr
    assert stderrs["rademacher"] < stderrs["gaussian"]


@pytest.fixture
def warnings(caplog):
    with caplog.at_level(logging.WARNING, "keras_fisher"):
        yield caplog


@pytest.mark.matrix
@pytest.mark.parametrize("by_layer", [False, True])
def test_rtol_stops_at_the_first_check_that_is_precise_enough(by_layer, warnings):
    net, x, y = problem("dense")
    trace = functools.partial(kf.hessian_trace, net, (x, y), by_layer=by_layer, seed=5)
    stopped = trace(num_probes=400, rtol=0.2)
    assert 10 < stopped.count < 400
    assert stopped.stderr <= 0.2 * stopped.value
    for count in range(10, stopped.count, 5):  # where it went on
        fewer = trace(num_probes=count)
        assert fewer.stderr > 0.2 * fewer.value
    same = trace(num_probes=stopped.count)  # its probes are the first ones
    assert (stopped, stopped.layers) == (same, same.layers)
    assert not warnings.messages


def test_rtol_that_is_not_reached_uses_all_probes_and_warns_once(warnings):
    net, x, y = problem("dense")
    meters = [HessianTraceMeter(net, num_probes=23, rtol=r, seed=1) for r in (None, 1e-3)]
    for _ in range(2):
        plain, limited = (meter((x, y), batch_size=4) for meter in meters)
        assert limited == plain  # to the last bit
        assert limited.count == 23
    assert len(warnings.messages) == 1
    for part in ("num_probes=23", "rtol=0.001", "Increase `num_probes` or `rtol`"):
        assert part in warnings.messages[0]


def test_rtol_reads_data_once():
    net, x, y = problem("dense")
    arguments = {"num_probes": 12, "rtol": 1e-3, "seed": 0}
    once = kf.hessian_trace(net, iter([(x[:4], y[:4]), (x[4:], y[4:])]), **arguments)
    assert once == kf.hessian_trace(net, (x, y), batch_size=4, **arguments)
    assert once.count == 12


def test_rtol_warns_of_the_number_of_probes_that_is_enough(warnings):
    net, x, y = problem("dense")
    kf.hessian_trace(net, (x, y), num_probes=30, rtol=0.05, seed=2)
    (needed,) = re.findall(r"About ([0-9,]+) probes", warnings.messages[0])
    trace = kf.hessian_trace(net, (x, y), num_probes=int(needed.replace(",", "")), seed=3)
    assert trace.stderr == pytest.approx(0.05 * trace.value, rel=0.4)


def test_rtol_stops_where_all_probes_agree(warnings):
    head = oracles.HEADS["softmax, logits"]
    model, y = head.model(), np.zeros(4, "int32")
    model.get_layer("linear").kernel.assign(np.full((4, 3), np.nan))
    nan = kf.hessian_trace(model, (np.ones((4, 4)), y), likelihood=head.likelihood, rtol=0.1)
    assert np.isnan(nan.value)
    model.get_layer("linear").kernel.assign(np.zeros((4, 3)))
    model.get_layer("linear").bias.assign([1e3, 0, 0])  # of no curvature
    zero = kf.hessian_trace(model, (np.ones((4, 4)), y), likelihood=head.likelihood, rtol=0.1)
    assert zero.value == 0
    assert (nan.count, zero.count) == (10, 10)
    assert not warnings.messages


def test_rtol_needs_two_probes():
    net, x, y = problem("dense")
    with pytest.raises(ValueError, match="`num_probes` must be at least 2 with `rtol`"):
        kf.hessian_trace(net, (x, y), num_probes=1, rtol=0.1)


@pytest.mark.usefixtures("float64")
def test_several_batches_of_any_size_give_what_one_batch_gives():
    net, x, y = problem("dense")
    whole = kf.hessian_trace(net, (x, y), num_probes=4, by_layer=True, seed=0)
    for data, arguments in (
        ((x, y), {"batch_size": 4}),
        (iter([(x[:1], y[:1]), (x[1:3], y[1:3]), (x[3:], y[3:])]), {}),
    ):
        parts = kf.hessian_trace(net, data, num_probes=4, by_layer=True, seed=0, **arguments)
        assert parts == pytest.approx(whole, rel=1e-10)
        assert parts.layers == pytest.approx(whole.layers, rel=1e-10)


@pytest.mark.slow
@pytest.mark.usefixtures("float64")
def test_padding_of_other_examples_changes_nothing():
    net = nets.masked()
    x, y = np.array([[1, 2, 0, 0], [3, 4, 1, 2]]), np.zeros((2, 4), "int32")
    alone = [
        kf.hessian_trace(net, (x[i : i + 1, :n], y[i : i + 1, :n]), num_probes=2, seed=0).value
        for i, n in enumerate((2, 4))
    ]
    together = kf.hessian_trace(net, (x, y), num_probes=2, seed=0).value
    assert together == pytest.approx(np.mean(alone), rel=1e-10)


def test_regularisers_are_no_part_of_the_hessian():
    keras.utils.set_random_seed(0)
    plain = keras.Sequential([keras.Input((4,)), layers.Dense(nets.CLASSES)])
    regularised = keras.Sequential(
        [keras.Input((4,)), layers.Dense(nets.CLASSES, kernel_regularizer="l2")]
    )
    regularised.set_weights(plain.get_weights())
    values = []
    for net in (plain, regularised):
        net.compile("sgd", nets.loss())
        data = nets.inputs("dense"), nets.labels()
        values.append(kf.hessian_trace(net, data, num_probes=2, seed=0).value)
    assert values[0] == values[1]


@reference.tensorflow_only
@pytest.mark.parametrize("measure", [kf.hessian_trace, kf.sharpness, kf.spectral_density])
def test_an_operation_without_a_second_derivative_is_named(measure):
    net = keras.Sequential([keras.Input((4,)), layers.Dense(3, activation="softsign")])
    net.compile("sgd", nets.loss())
    with pytest.raises(NotImplementedError, match=r"no second derivative[\s\S]*SoftsignGrad"):
        measure(net, (nets.inputs("dense"), nets.labels()))
