"""Every layer and activation of Keras: the exact penalties and Tr(F), or an error with a name."""

import dataclasses
import pathlib

import keras
import numpy as np
import pytest

import keras_fisher as kf
from tests import nets, reference
from tests.every_layer import (
    ACTIVATIONS,
    BATCH,
    CASES,
    NOT_TRAINED,
    REFUSED,
    REFUSED_BY_TENSORFLOW,
    WITHOUT_A_CASE,
    classes_of_keras,
)
from tests.traces import oracles

ALL = CASES | ACTIVATIONS
LABELS = np.array([0, 2, 1])
DIRECTIONS = 2
PENALTIES = ("gp", "gp_x")
LOOPS = ("Bidirectional", "GRU", "LSTM", "RNN")

pytestmark = pytest.mark.filterwarnings("ignore:.*(Lambda|mask attached)")


def slow_unless_quick(name, penalty):
    """JAX compiles each case, for seconds; augmentation and loops over time take long anywhere."""
    case = ALL[name]
    is_long = case.before == "sigmoid" or any(part in name for part in LOOPS)
    is_quick = penalty == "gp" and not is_long and reference.IS_TENSORFLOW
    return () if is_quick else pytest.mark.slow


def compiled_loss():
    """The loss of logits, in float64 also where a layer makes Keras's default another."""
    return keras.losses.SparseCategoricalCrossentropy(from_logits=True, dtype="float64")


def differences(case, penalty):
    """Directions among the weights; ||g||^2, and its slopes along them."""
    model, x = case.model(), keras.ops.convert_to_tensor(case.inputs())
    wrt = "inputs" if penalty == "gp_x" else "weights"
    at = nets.squared_norm_of_gradient(model, x, LABELS, compiled_loss(), wrt)
    size = len(nets.flat(model.trainable_weights))
    directions = np.random.default_rng(0).normal(size=(DIRECTIONS, size))
    slopes = [slope(lambda t, d=d: at(t * d), case.step) for d in directions]
    return directions, at(np.zeros(size)), np.array(slopes)


def slope(function, step):
    """A central difference of the fourth order."""
    near, far = (function(t) - function(-t) for t in (step, 2 * step))
    return (8 * near - far) / (12 * step)


def penalty_and_gradient(case, penalty):
    """The penalty and its kept gradient, of a step that goes nowhere."""
    model = kf.FisherPenaltyModel(case.model(), 1.0, penalty=penalty)
    eager = reference.IS_TENSORFLOW and not case.in_graph
    return nets.first_penalty(model, compiled_loss(), case.inputs(), LABELS, run_eagerly=eager)


def check(case, penalty):
    """Compares the penalty and its gradient with those differences."""
    directions, value, slopes = differences(case, penalty)
    measured, gradient = penalty_and_gradient(case, penalty)
    assert measured == pytest.approx(value, rel=case.tolerance)
    error = np.linalg.norm(directions @ gradient - slopes)
    assert error <= case.tolerance * np.linalg.norm(slopes) + 1e-9


@pytest.mark.matrix
@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize(
    ("name", "penalty"),
    [pytest.param(n, p, marks=slow_unless_quick(n, p)) for n in ALL for p in PENALTIES],
)
def test_exact_gradient_agrees_with_central_differences(name, penalty):
    case = ALL[name]
    if case.tokens and penalty == "gp_x":
        pytest.skip("integers have no gradient")
    if name in NOT_TRAINED:
        pytest.skip(NOT_TRAINED[name])
    if name in REFUSED:
        with pytest.raises(NotImplementedError, match=REFUSED[name]):
            penalty_and_gradient(case, penalty)
        return
    if case.is_opaque and penalty == "gp_x" and not reference.IS_JAX:
        with pytest.raises(ValueError, match=r"outputs that depend on .* inputs for 'gp_x'"):
            penalty_and_gradient(case, penalty)
        return
    check(case, penalty)


@pytest.mark.slow
@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("name", [name for name in REFUSED if name.startswith("Rand")])
def test_augmentation_that_is_refused_behind_weights_is_exact_before_them(name):
    check(dataclasses.replace(ALL[name], is_opaque=True), "gp")


@pytest.mark.slow
@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("name", ALL)
def test_the_fisher_trace_of_given_labels_is_that_of_the_loop(name, request):
    case = ALL[name]
    if reference.IS_TENSORFLOW and not case.in_graph:
        request.getfixturevalue("eagerly")
    model, x = case.model(), case.inputs()
    model.compile("sgd", compiled_loss())
    trace = kf.fisher_trace(model, (x, LABELS), labels="given")
    exact = oracles.squares(model, x, LABELS, loss=compiled_loss()).sum(axis=1)
    assert trace.count == BATCH
    assert trace.value == pytest.approx(exact.mean(), rel=case.tolerance)


@pytest.mark.slow
@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("name", [n for n in CASES if n.startswith("Random")] + ["CutMix", "MixUp"])
def test_what_acts_at_random_does_so_here(name):
    model, x = CASES[name].model(), CASES[name].inputs()
    assert np.any(nets.array(model(x, training=True)) != nets.array(model(x, training=False)))


def test_every_layer_of_keras_has_a_case_or_a_reason_for_none():
    covered = {name.partition(",")[0] for name in CASES}
    assert covered | WITHOUT_A_CASE.keys() == classes_of_keras()
    assert not covered & WITHOUT_A_CASE.keys()


def test_the_documentation_names_what_is_refused_or_left_out():
    text = (pathlib.Path(__file__).parents[1] / "docs" / "layers.md").read_text()
    names = [name.removeprefix("activations.") for name in REFUSED_BY_TENSORFLOW]
    names += [*WITHOUT_A_CASE, *(name for name in CASES if CASES[name].is_opaque)]
    assert [name for name in names if f"`{name}`" not in text] == []
