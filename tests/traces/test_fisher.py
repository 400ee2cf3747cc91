"""Tr(F) against closed forms, loops and its own definition."""

import keras
import numpy as np
import pytest
from keras import layers

import keras_fisher as kf
from keras_fisher.traces import FisherTraceMeter
from tests import nets
from tests.traces import oracles

HEADS = pytest.mark.parametrize("head", oracles.HEADS.values(), ids=oracles.HEADS.keys())


@pytest.mark.matrix
@HEADS
@pytest.mark.usefixtures("float64")
def test_expected_and_given_labels_give_the_closed_form_of_a_linear_model(head):
    model, x, y = head.model(), head.inputs(7), head.labels(7)
    for labels, exact in (
        ("expected", head.expected(model, x)),
        ("given", head.given(model, x, y)),
    ):
        trace = kf.fisher_trace(model, (x, y), labels=labels, likelihood=head.likelihood)
        assert trace.value == pytest.approx(np.mean(exact), rel=1e-9)
        assert trace.stderr == pytest.approx(np.std(exact, ddof=1) / 7**0.5, rel=1e-9)
        assert trace.count == 7


@pytest.mark.matrix
@pytest.mark.parametrize(
    "name",
    [
        "softmax, logits",
        "softmax, probabilities",
        "softmax over time",
        "bits, logits",
        "bits over time",
        "numbers over time",
    ],
)
def test_expected_labels_give_the_mean_over_many_sampled_ones(name):
    head = oracles.HEADS[name]
    model = head.model(hidden=[layers.Dense(4, "tanh")])
    x = head.inputs(1)
    many = np.repeat(x, 4000, axis=0)
    expected = kf.fisher_trace(model, (x, None), labels="expected", likelihood=head.likelihood)
    sampled = kf.fisher_trace(model, (many, None), likelihood=head.likelihood, seed=0)
    # One example, so that the standard error is that of the labels alone.
    assert abs(sampled.value - expected.value) <= 3 * sampled.stderr
    assert sampled.stderr < 0.05 * sampled.value


@pytest.mark.matrix
@pytest.mark.parametrize("activation", ["sigmoid", "softplus"])
@pytest.mark.parametrize("loss", ["sparse_categorical_crossentropy", "categorical_crossentropy"])
def test_expected_and_sampled_labels_agree_where_outputs_do_not_sum_to_one(activation, loss):
    net = keras.Sequential([keras.Input((3,)), layers.Dense(4, activation)])
    net.layers[0].kernel.assign(np.random.default_rng(0).normal(size=(3, 4)))
    net.compile("sgd", loss)
    x = np.random.default_rng(1).normal(size=(1, 3)).astype("float32")
    expected = kf.fisher_trace(net, (x, None), labels="expected")
    sampled = kf.fisher_trace(net, (np.repeat(x, 4000, axis=0), None), seed=0)
    assert abs(sampled.value - expected.value) <= 3 * sampled.stderr
    assert sampled.stderr < 0.05 * sampled.value


def test_the_stated_standard_error_covers_the_truth_at_the_stated_rate():
    head, repetitions, level = oracles.HEADS["softmax, logits"], 200, 0.95
    model, population = head.model(), head.inputs(5000)
    truth = np.mean(head.expected(model, population))
    meter = FisherTraceMeter(model, likelihood=head.likelihood, seed=0)
    generator = np.random.default_rng(0)
    covered = 0
    for _ in range(repetitions):
        trace = meter((population[generator.integers(0, 5000, 200)], None))
        covered += abs(trace.value - truth) <= 1.96 * trace.stderr
    spread = 3 * (repetitions * level * (1 - level)) ** 0.5  # of a binomial number: 9
    assert abs(covered - repetitions * level) <= spread


@pytest.mark.matrix
@pytest.mark.parametrize("name", ["subclassed", "attention"])
def test_given_labels_give_the_mean_of_a_loop_over_single_examples(name):
    net, x, y = nets.plain(name), nets.inputs(name), nets.labels()
    trace = kf.fisher_trace(net, (x, y), labels="given", by_layer=True)
    exact = oracles.squares(net, x, y)
    assert trace.value == pytest.approx(exact.sum(1).mean(), rel=1e-5)
    assert trace.stderr == pytest.approx(exact.sum(1).std(ddof=1) / len(y) ** 0.5, rel=1e-4)
    assert trace.layers == pytest.approx(oracles.by_layer(net, exact.mean(0)), rel=1e-4, abs=1e-9)


def test_gradients_are_squared_before_they_are_averaged():
    # Two examples that pull in opposite directions: their mean gradient is 0, Tr(F) is not.
    net = keras.Sequential([keras.Input((1,)), layers.Dense(1, use_bias=False)])
    net.layers[0].kernel.assign([[0.0]])
    data = np.ones((2, 1)), np.array([[1.0], [-1.0]])
    trace = kf.fisher_trace(net, data, labels="given", likelihood=kf.likelihoods.Gaussian())
    assert trace.value == pytest.approx(4.0)  # (2 (0 - 1))^2 and (2 (0 + 1))^2
    mean = kf.minibatch_fisher_trace(
        net, data, labels="given", likelihood=kf.likelihoods.Gaussian()
    )
    assert mean.value == pytest.approx(0.0)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("labels", ["given", "expected"])
def test_batch_size_changes_nothing(labels):
    net, data = nets.plain("dense"), (nets.inputs("dense"), nets.labels())
    meter = FisherTraceMeter(net, labels=labels)
    whole = meter(data, by_layer=True)
    for batch_size in (1, 4):
        parts = meter(data, batch_size=batch_size, by_layer=True)
        assert parts == pytest.approx(whole, rel=1e-12)
        assert parts.layers == pytest.approx(whole.layers, rel=1e-12)


def test_batches_may_differ_in_their_number_of_positions():
    net = nets.masked()
    batches = [(np.full((2, 3), 1), None), (np.full((2, 5), 2), None)]
    meter = FisherTraceMeter(net, labels="expected")
    alone = [meter(batch).value for batch in batches]
    together = kf.fisher_trace(net, iter(batches), labels="expected")
    assert together.value == pytest.approx(np.mean(alone), rel=1e-5)


def test_expected_labels_need_a_likelihood_that_lists_its_outcomes():
    class Laplace(kf.likelihoods.Likelihood):
        def observation_nll(self, labels, outputs):
            return keras.ops.abs(labels - outputs)

        def sample(self, outputs, seed):
            return outputs

    net, x = nets.build("dense"), nets.inputs("dense")
    with pytest.raises(
        ValueError, match=r"labels='expected'.*`num_outcomes`.*Laplace.*labels='sampled' or 'given'"
    ):
        kf.fisher_trace(net, (x, None), labels="expected", likelihood=Laplace())
    y = np.zeros((len(x), nets.CLASSES))
    assert kf.fisher_trace(net, (x, y), labels="given", likelihood=Laplace()).value > 0


class InPositions(keras.Model):
    """A network whose outputs have a number of positions that Keras does not know."""

    def __init__(self):
        super().__init__()
        self.dense = layers.Dense(3)

    def call(self, x):
        return self.dense(keras.ops.reshape(x, (keras.ops.shape(x)[0], -1, 2)))


def test_expected_labels_of_an_unknown_number_of_positions():
    keras.utils.set_random_seed(0)
    model, x = InPositions(), np.random.default_rng(0).normal(size=(6, 4)).astype("float32")
    model(x)
    known = keras.Sequential([keras.Input((4,)), layers.Reshape((2, 2)), layers.Dense(3)])
    known.set_weights(model.get_weights())
    found, expected = (
        kf.fisher_trace(net, (x, None), labels="expected", likelihood=kf.likelihoods.Categorical())
        for net in (model, known)
    )
    assert found.value == pytest.approx(expected.value, rel=1e-5)
