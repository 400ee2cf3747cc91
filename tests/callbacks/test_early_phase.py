"""Tr(F_i): where it is measured, and what a restart knows of it."""

import json
import math
import warnings

import keras
import numpy as np
import pytest

import keras_fisher as kf
from tests import nets, reference

X, Y = nets.inputs("dense", batch=24), nets.labels(batch=24)


def compiled():
    return nets.plain("dense", keras.optimizers.SGD(1.0), run_eagerly=True)


def early(loss_threshold, **options):
    return kf.callbacks.EarlyPhase((X, Y), loss_threshold, labels="given", **options)


def fit(model, *callbacks, epochs=1, **arguments):
    arguments = {"batch_size": 6, "shuffle": False} | arguments  # 4 steps an epoch
    return model.fit(X, Y, epochs=epochs, verbose=0, callbacks=list(callbacks), **arguments).history


@pytest.fixture(scope="module")
def watched():
    """The losses of a training, and Tr(F) after each of its steps and epochs."""
    seen = {"loss": [], "trace": []}

    def watch(batch, logs):
        seen["loss"].append(logs["loss"])
        seen["trace"].append(meter((X, Y)).value)

    keras.utils.set_random_seed(0)
    model = compiled()
    meter = kf.traces.FisherTraceMeter(model, labels="given")
    watching = keras.callbacks.LambdaCallback(on_train_batch_end=watch)
    seen["epoch_loss"] = fit(model, watching, epochs=4)["loss"]
    return seen


def test_measures_at_the_end_of_the_first_epoch_whose_loss_is_not_above_the_threshold(watched):
    losses = watched["epoch_loss"]
    assert losses[0] > losses[1] > losses[2]
    phase = early(losses[1])  # at the threshold, not below it
    logged = fit(compiled(), phase, epochs=4)[phase.key]
    expected = watched["trace"][7]
    assert math.isnan(logged[0])
    assert logged[1:] == [pytest.approx(expected, rel=1e-5)] * 3
    assert phase.crossing == (8, pytest.approx(logged[1:2] + list(phase.crossing[1][1:])))


def test_looks_at_the_running_loss_every_so_many_steps(watched):
    # Looks after steps 3, 6, 9, ...; between them a loss is not seen.
    looks = range(3, 16, 3)
    threshold = sorted(watched["loss"][step - 1] for step in looks)[2]
    step = next(step for step in looks if watched["loss"][step - 1] <= threshold)
    phase = early(threshold, freq=3)
    logged = fit(compiled(), phase, epochs=4)[phase.key]
    assert step > 3
    assert phase.crossing[0] == step
    assert logged[-1] == pytest.approx(watched["trace"][step - 1], rel=1e-5)


def test_stays_nan_where_the_threshold_is_not_reached():
    phase = early(0.0)
    assert np.isnan(fit(compiled(), phase, epochs=2)[phase.key]).all()
    assert phase.crossing is None


def test_a_start_below_the_threshold_is_said_and_not_measured(watched):
    model = compiled()
    fit(model, epochs=2)
    phase = early(watched["epoch_loss"][0])
    with pytest.warns(UserWarning, match="`early_fisher_trace` stays NaN") as caught:
        logged = fit(model, phase, epochs=2)[phase.key]
    assert np.isnan(logged).all()
    assert sum("EarlyPhase" in str(warning.message) for warning in caught) == 1


def test_a_start_above_the_threshold_sees_the_crossing(watched):
    model, phase = compiled(), early(watched["epoch_loss"][2])
    fit(model)
    fit(model, phase, epochs=2)
    assert phase.crossing[0] == 12


@pytest.mark.matrix
@pytest.mark.parametrize("epochs", [1, 2])
def test_goes_on_from_its_state(watched, epochs):
    """Before the crossing, and after it."""
    threshold = watched["epoch_loss"][1]
    model, first, resumed = compiled(), early(threshold), early(threshold)
    fit(model, first, epochs=epochs)
    resumed.set_state(json.loads(json.dumps(first.get_state(), allow_nan=False)))
    resumed.key = "resumed"
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        logged = fit(model, first, resumed, initial_epoch=epochs, epochs=3)[resumed.key]
    assert resumed.crossing[0] == first.crossing[0] == 8
    assert logged[-1] == pytest.approx(watched["trace"][7], rel=1e-5)


def test_another_model_that_is_below_the_threshold_has_no_crossing(watched):
    phase, trained = early(watched["epoch_loss"][0]), compiled()
    fit(compiled(), phase)
    assert phase.crossing is not None
    fit(trained, epochs=2)
    with pytest.warns(UserWarning, match="was already below"):
        fit(trained, phase, epochs=1)
    assert phase.crossing is None


def test_a_crossing_after_the_restored_step_is_forgotten(watched):
    model, first, resumed = compiled(), early(watched["epoch_loss"][0]), None
    fit(model, first, epochs=1)
    resumed = early(watched["epoch_loss"][1])
    state = first.get_state() | {"settings": resumed.get_state()["settings"]}
    state["crossing"] = [8, *state["crossing"][1:]]
    resumed.set_state(state)
    fit(model, resumed, initial_epoch=1, epochs=2)
    assert resumed.crossing[0] == 8
    assert resumed.crossing[1] != first.crossing[1]


@pytest.mark.slow
def test_a_new_training_has_a_crossing_of_its_own(watched):
    phase = early(watched["epoch_loss"][0])
    for epochs in (2, 1):
        fit(compiled(), phase, epochs=epochs, batch_size=6 * epochs)
    assert phase.crossing[0] == 4


def test_refuses_a_training_that_reports_no_loss():
    class Silent(keras.Sequential):
        def train_step(self, *given):
            logs = {"score": 0.0}
            return (logs, given[0]) if reference.IS_JAX else logs

    model = Silent(nets.build("dense").layers)
    model.compile("sgd", nets.loss(), run_eagerly=True)
    with pytest.raises(ValueError, match=r"reports its `loss`.*score"):
        fit(model, early(1.0))


@pytest.mark.parametrize(
    ("threshold", "error"), [(math.nan, ValueError), (math.inf, ValueError), ("1", TypeError)]
)
def test_refuses_a_threshold_that_is_no_finite_number(threshold, error):
    with pytest.raises(error, match="`loss_threshold` must be"):
        early(threshold)
