import keras
import numpy as np
import pytest

from keras_fisher import penalties
from keras_fisher.likelihoods import Bernoulli, Categorical, Gaussian
from keras_fisher.penalties import Penalty
from tests import reference


@pytest.mark.parametrize(
    ("name", "labels", "wrt"),
    [
        ("fp", "sampled", "weights"),
        ("gp", "given", "weights"),
        ("gp_x", "given", "inputs"),
        ("gp_r", "uniform", "weights"),
    ],
)
def test_names_stand_for_labels_and_variable(name, labels, wrt):
    assert penalties.get(name) == Penalty(labels, wrt)


def test_a_penalty_is_taken_as_it_is():
    penalty = Penalty("sampled", "inputs")
    assert penalties.get(penalty) is penalty


@pytest.mark.parametrize("penalty", ["FP", "fisher", None, 3])
def test_unknown_penalties_are_refused(penalty):
    with pytest.raises(ValueError, match=r"`penalty` must be one of 'fp', .*Received: "):
        penalties.get(penalty)


@pytest.mark.parametrize("argument", ["labels", "wrt"])
def test_unknown_parts_are_refused(argument):
    with pytest.raises(ValueError, match=rf"`{argument}` must be one of .*Received: .*'all'"):
        Penalty(**{argument: "all"})


def test_given_labels_are_those_of_the_batch():
    y, outputs = np.array([2, 0]), np.zeros((2, 3), "float32")
    seed = keras.random.SeedGenerator(0)
    assert Penalty("given").draw_labels(Categorical(), y, outputs, seed) is y


@pytest.mark.parametrize(("labels", "expected"), [("sampled", 1.0), ("uniform", 1 / 3)])
def test_labels_come_from_the_prediction_or_the_label_set(labels, expected):
    outputs = np.array([[-50.0, 50.0, -50.0]] * 9000, "float32")
    seed = keras.random.SeedGenerator(0)
    drawn = Penalty(labels).draw_labels(Categorical(), np.zeros(9000), outputs, seed)
    assert np.mean(np.asarray(drawn) == 1) == pytest.approx(expected, abs=0.02)


@pytest.mark.parametrize("likelihood", [Categorical(), Bernoulli(), Gaussian()])
def test_drawn_labels_carry_no_gradient(likelihood):
    def total(outputs):
        seed = keras.random.SeedGenerator(0)
        labels = Penalty("sampled").draw_labels(likelihood, None, outputs, seed)
        return keras.ops.sum(keras.ops.cast(labels, "float32"))

    outputs = np.random.default_rng(0).normal(size=(4, 3)).astype("float32")
    [found] = reference.gradients_at(total, [outputs])
    assert not found.any()


def test_penalty_survives_serialisation():
    penalty = Penalty("sampled", "inputs")
    serialised = keras.saving.serialize_keras_object(penalty)
    assert keras.saving.deserialize_keras_object(serialised) == penalty
