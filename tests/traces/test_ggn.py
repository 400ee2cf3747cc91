"""Tr(G) against closed forms and the dense matrix J^T A J."""

import numpy as np
import pytest
from keras import ops

import keras_fisher as kf
from keras_fisher.likelihoods import Bernoulli, Categorical, Gaussian
from tests import nets, reference
from tests.traces import oracles

LABELS = ["expected", "sampled"]


@pytest.mark.matrix
@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("name", oracles.HEADS)
def test_a_linear_models_matrix_is_its_hessian(name):
    head = oracles.HEADS[name]
    model, x = head.model(), head.inputs(7)
    found = kf.ggn_trace(model, (x, None), likelihood=head.likelihood)
    assert found.value == pytest.approx(np.mean(head.hessian(model, x)), rel=1e-6)
    assert found.stderr == pytest.approx(np.std(head.hessian(model, x), ddof=1) / 7**0.5, rel=1e-6)
    assert found.count == 7


@pytest.mark.matrix
@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("name", ["softmax over time", "bits, logits", "numbers over time"])
def test_drawn_labels_give_the_same_within_the_stated_error(name):
    head = oracles.HEADS[name]
    model, x = head.model(), np.tile(head.inputs(1), (2000, *[1] * (head.inputs(1).ndim - 1)))
    found = kf.ggn_trace(model, (x, None), labels="sampled", likelihood=head.likelihood, seed=0)
    assert abs(found.value - head.hessian(model, x[:1])[0]) < 3 * found.stderr
    assert found.stderr < 0.05 * found.value


def jacobian(net, x):
    """d outputs / d weights in inference mode, shape (outputs, weights)."""
    count = int(np.prod(nets.array(net(x, training=False)).shape))
    rows = [
        reference.gradients(
            lambda i=i: ops.reshape(net(x, training=False), (-1,))[i], net.trainable_weights
        )
        for i in range(count)
    ]
    return [np.array([np.ravel(row[w]) for row in rows]) for w in range(len(rows[0]))]


CURVATURES = {
    "categorical": (
        Categorical(),
        lambda f: np.diag(softmax(f)) - np.outer(softmax(f), softmax(f)),
    ),
    "bernoulli": (Bernoulli(), lambda f: np.diag(sigmoid(f) * (1 - sigmoid(f))) / len(f)),
    "gaussian": (Gaussian(2.0), lambda f: np.eye(len(f)) / 2.0 / len(f)),
}


def softmax(f):
    return np.exp(f - np.max(f)) / np.sum(np.exp(f - np.max(f)))


def sigmoid(f):
    return 1 / (1 + np.exp(-f))


@pytest.mark.matrix
@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("kind", CURVATURES)
@pytest.mark.parametrize("name", ["dense", "batch_norm_cnn", "group_norm_cnn", "attention"])
def test_equals_the_trace_of_the_dense_matrix_of_a_network(name, kind):
    net, x = nets.build(name), nets.inputs(name, batch=3)
    likelihood, curvature = CURVATURES[kind]
    found = kf.ggn_trace(net, (x, None), likelihood=likelihood, by_layer=True)
    exact = np.zeros(len(net.trainable_weights))
    for n in range(3):
        example = x[n : n + 1]
        a = curvature(nets.array(net(example, training=False))[0])
        exact += [np.trace(j.T @ a @ j) / 3 for j in jacobian(net, example)]
    assert found.value == pytest.approx(exact.sum(), rel=1e-8)
    assert found.layers == pytest.approx(oracles.by_layer(net, exact), rel=1e-7, abs=1e-10)


@pytest.mark.parametrize("labels", LABELS)
def test_is_the_fisher_trace_where_an_example_has_one_label(labels):
    net, x = nets.build("dense"), nets.inputs("dense")
    options = {"labels": labels, "likelihood": Categorical(), "seed": 0}
    found, fisher = (
        measure(net, (x, None), **options) for measure in (kf.ggn_trace, kf.fisher_trace)
    )
    assert found == pytest.approx(fisher, rel=1e-6)


# Of each example, so many of the first positions are data.
LENGTHS = [3, 1, 2, 0]


def padded(copies=1):
    """A linear model over time, and data with padded positions and a padded example."""
    head = oracles.HEADS["softmax over time"]
    present = np.arange(3) < np.array(LENGTHS)[:, np.newaxis]
    arrays = head.inputs(4), np.zeros((4, 3), "int32"), present.astype("float64")
    return head, head.model(), [np.repeat(array, copies, axis=0) for array in arrays]


@pytest.mark.usefixtures("float64")
def test_padded_positions_and_examples_are_no_data():
    head, model, (x, y, present) = padded()
    exact = [  # the closed form has a mean over 3 positions
        np.mean(head.hessian(model, example[np.newaxis, :length])) * 3 / length
        for example, length in zip(x, LENGTHS, strict=True)
        if length
    ]
    found = kf.ggn_trace(model, (x, y, present), likelihood=head.likelihood)
    assert found.value == pytest.approx(np.mean(exact), rel=1e-6)
    assert found.count == 3


@pytest.mark.usefixtures("float64")
def test_drawn_labels_of_padded_positions_do_not_count():
    head, model, data = padded(copies=1000)
    expected = kf.ggn_trace(model, padded()[2], likelihood=head.likelihood)
    found = kf.ggn_trace(model, data, labels="sampled", likelihood=head.likelihood, seed=0)
    assert abs(found.value - expected.value) < 3 * found.stderr
    assert found.stderr < 0.05 * found.value


class Scaled(Categorical):
    def observation_nll(self, labels, outputs):
        return super().observation_nll(labels, outputs**3)


class Drawing(Categorical):
    """Draws labels in its own way; p(y) is as it was."""

    def sample(self, outputs, seed):
        return ops.argmax(outputs, axis=-1)


def test_a_likelihood_of_other_parameters_is_refused_by_its_name():
    net, x = nets.build("dense"), nets.inputs("dense")
    with pytest.raises(ValueError, match=r"`likelihood` must be Categorical.*Received: Scaled"):
        kf.ggn_trace(net, (x, None), likelihood=Scaled())
    kf.ggn_trace(net, (x, None), likelihood=Drawing())


@pytest.mark.parametrize("labels", ["given", "uniform", None])
def test_other_labels_are_refused(labels):
    net, x = nets.build("dense"), nets.inputs("dense")
    with pytest.raises(ValueError, match="`labels` must be one of 'expected', 'sampled'"):
        kf.ggn_trace(net, (x, None), likelihood=Categorical(), labels=labels)
