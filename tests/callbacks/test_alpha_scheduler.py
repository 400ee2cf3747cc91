"""Alpha by epochs."""

import math

import keras
import numpy as np
import pytest

import keras_fisher as kf
from tests import nets

X, Y = nets.inputs("dense", batch=12), nets.labels(batch=12)
EAGER = {"run_eagerly": True}


def fit(schedule, model=None, **arguments):
    model = model or nets.compiled("dense", alpha=0.5, compile_args=EAGER, seed=0)
    scheduler = kf.callbacks.AlphaScheduler(schedule)
    arguments = {"epochs": 3, "verbose": 0} | arguments
    return model.fit(X, Y, callbacks=[scheduler], **arguments).history["alpha"]


def halved(epoch, alpha):
    return alpha / 2


@pytest.mark.matrix
@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        (lambda epoch: 0.1 * epoch, [0.0, 0.1, 0.2]),
        (halved, [0.25, 0.125, 0.0625]),
        (lambda epoch, base=0.3: base, [0.3, 0.3, 0.3]),  # what has a default is not alpha
        (lambda *arguments: len(arguments), [1, 1, 1]),
        ([0.5, 0.25, 0.0].__getitem__, [0.5, 0.25, 0.0]),
        (lambda epoch: np.float32(0.5), [0.5, 0.5, 0.5]),
    ],
)
def test_sets_alpha_to_the_schedule_of_the_epoch(schedule, expected):
    assert fit(schedule) == pytest.approx(expected)


def test_goes_by_the_number_of_the_epoch_where_a_fit_goes_on():
    assert fit(float, initial_epoch=2, epochs=4) == [2.0, 3.0]


def test_takes_the_place_of_a_schedule_of_the_model():
    steps = keras.optimizers.schedules.ExponentialDecay(0.5, 1, 0.5)
    model = nets.compiled("dense", alpha=steps, compile_args=EAGER)
    assert fit(lambda epoch, alpha: alpha, model) == [0.5, 0.5, 0.5]


@pytest.mark.usefixtures("eagerly")
def test_acts_on_the_steps_of_the_epoch():
    weights = []
    for alpha, schedule in ((0.2, None), (0.0, lambda epoch: 0.2)):
        model = nets.compiled("dense", alpha=alpha, seed=0)
        callbacks = [kf.callbacks.AlphaScheduler(schedule)] if schedule else []
        model.fit(X, Y, verbose=0, shuffle=False, callbacks=callbacks)
        weights.append(nets.flat(model.get_weights()))
    np.testing.assert_array_equal(*weights)


@pytest.mark.parametrize(
    ("value", "error"),
    [(-0.1, ValueError), (math.nan, ValueError), (math.inf, ValueError), (None, TypeError)],
)
def test_a_value_that_is_no_alpha_is_refused_with_its_epoch(value, error):
    with pytest.raises(error, match=r"`schedule\(1\)` must be .*at least 0 and finite"):
        fit(lambda epoch: value if epoch else 0.1)


@pytest.mark.parametrize(
    ("schedule", "message"),
    [
        (0.1, "must be a function of the epoch"),
        (keras.optimizers.schedules.ExponentialDecay(0.1, 10, 0.5), r"FisherPenaltyModel\(alpha="),
        (lambda: 0.1, "must take the epoch, or the epoch and alpha"),
        (lambda epoch, alpha, step: 0.1, "must take the epoch, or the epoch and alpha"),
    ],
)
def test_refuses_what_is_no_schedule(schedule, message):
    with pytest.raises(TypeError, match=message):
        kf.callbacks.AlphaScheduler(schedule)


def test_refuses_a_model_without_alpha():
    model = nets.plain("dense", run_eagerly=True)
    with pytest.raises(TypeError, match="needs a model that has `alpha`"):
        fit(lambda epoch: 0.1, model)
