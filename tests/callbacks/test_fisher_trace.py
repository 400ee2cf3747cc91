"""The peak of Tr(F)."""

import json
import math

import keras
import numpy as np
import pytest

import keras_fisher as kf
from tests import nets

X, Y = nets.inputs("dense", batch=12), nets.labels(batch=12)


class Rising(keras.callbacks.Callback):
    """Multiplies the last kernel, so that Tr(F) differs clearly from step to step."""

    def __init__(self, factors):
        super().__init__()
        self.factors = iter(factors)

    def on_train_batch_end(self, batch, logs=None):
        kernel = self.model.trainable_weights[2]
        kernel.assign(kernel * next(self.factors))


def fit(trace, factors, model=None, **arguments):
    """Trains at learning rate 0, two steps an epoch."""
    if model is None:
        model = nets.plain("dense", keras.optimizers.SGD(0.0), run_eagerly=True)
    callbacks = [trace, Rising(factors)]
    return model.fit(X, Y, batch_size=6, verbose=0, callbacks=callbacks, **arguments).history


def trace(**options):
    return kf.callbacks.FisherTrace((X, Y), labels="given", **options)


def test_the_peak_is_the_largest_value_from_the_end_of_the_first_epoch_on():
    steps, factors = trace(freq=1), (8, 1 / 4, 2, 1, 1 / 8, 1)
    logged = fit(steps, factors, epochs=3)
    values = [estimate.value for _, estimate in steps.history]
    assert values[0] == max(values)  # within the first epoch, which does not count
    assert logged["fisher_trace_peak"] == [values[1], values[2], values[2]]
    assert steps.peak == values[2] > values[1]


def test_there_is_no_peak_before_the_first_epoch_has_ended():
    steps = trace(freq=3)
    logged = fit(steps, (1, 1, 1, 1), epochs=2)
    assert math.isnan(logged["fisher_trace_peak"][0])
    assert logged["fisher_trace_peak"][1] == steps.history[0][1].value


def test_a_fit_that_begins_at_a_later_epoch_is_past_the_first():
    steps = trace(freq=1)
    fit(steps, (1, 1 / 8), initial_epoch=1, epochs=2)
    assert steps.peak == steps.history[0][1].value > steps.history[1][1].value


def test_the_peak_survives_a_restart():
    first, resumed = trace(), trace()
    model = nets.plain("dense", keras.optimizers.SGD(0.0), run_eagerly=True)
    fit(first, (1, 1), model)
    resumed.set_state(json.loads(json.dumps(first.get_state(), allow_nan=False)))
    logged = fit(resumed, (1, 1 / 8), model, initial_epoch=1, epochs=2)
    assert logged["fisher_trace_peak"] == [first.peak]
    assert first.peak > logged["fisher_trace"][0]


def test_measurements_after_the_restored_step_are_forgotten():
    first, resumed = trace(freq=1), trace(freq=1)
    model = nets.plain("dense", keras.optimizers.SGD(0.0), run_eagerly=True)
    fit(first, (1, 1), model)
    state = first.get_state()
    state["history"].append([4, 1e6, 0.0, 6])  # of a training that was abandoned
    resumed.set_state(state)
    fit(resumed, (1, 1), model, initial_epoch=1, epochs=2)
    assert [step for step, _ in resumed.history] == [1, 2, 3, 4]
    assert resumed.peak < 1e6


def test_fits_of_one_epoch_have_a_peak_too():
    once, apart = trace(freq=3), trace(freq=3)
    fit(once, (1,) * 8, epochs=4)
    model = nets.plain("dense", keras.optimizers.SGD(0.0), run_eagerly=True)
    for _ in range(4):
        fit(apart, (1, 1), model)
    assert apart.early == once.early
    assert apart.peak == once.peak > 0


def test_two_callbacks_do_not_write_the_same_names():
    first, second = trace(), trace()
    model = nets.plain("dense", run_eagerly=True)
    for pair in ((first, second), (first, first)):
        with pytest.raises(ValueError, match=r"two callbacks that write fisher_trace, fisher_t"):
            model.fit(X, Y, callbacks=[*pair], verbose=0)
    second.key = "test_trace"
    logged = model.fit(X, Y, callbacks=[first, second], verbose=0).history
    assert logged["test_trace"] == logged["fisher_trace"]


def test_a_new_training_has_a_peak_of_its_own():
    again = trace()
    fit(again, (8, 1))
    logged = fit(again, (1, 1))
    assert logged["fisher_trace_peak"] == logged["fisher_trace"]


def test_an_explosion_is_told_once_with_where_it_was(caplog):
    steps = trace(freq=1, explosion_factor=100)
    fit(steps, (8, 1, 1, 8, 8, 1), epochs=3)
    (message,) = [record.message for record in caplog.records]
    early, peak = (steps.history[index][1].value for index in (1, 4))
    assert steps.early == early
    assert steps.history[3][1].value < 100 * early < peak
    assert (
        f"{peak:.3g} at step 5, {peak / early:.3g} times its early value of {early:.3g}" in message
    )


def test_a_rise_below_the_factor_is_not_told(caplog):
    fit(trace(freq=1, explosion_factor=1e6), (1, 1, 8, 8), epochs=2)
    assert not caplog.records
    with pytest.raises(ValueError, match=r"`explosion_factor` must be positive.*Received.*-1"):
        trace(explosion_factor=-1)


def test_nan_is_no_peak():
    steps = trace(freq=1)
    with pytest.warns(UserWarning, match="measured NaN"):
        fit(steps, (1, 1, math.nan, 1), epochs=2)
    assert steps.peak == steps.history[1][1].value


def test_data_that_can_be_read_only_once_is_refused():
    with pytest.raises(TypeError, match=r"`data` must be .* that can be read again"):
        kf.callbacks.FisherTrace(iter([(np.ones((2, 4)), np.zeros(2))]))


def test_infinity_and_nan_survive_json():
    callback = kf.callbacks.FisherTrace((np.ones((2, 4)), None))
    state = {
        "history": [[3, "inf", "nan", 2]],
        "random_state": [3, 1],
        "first_epoch_end": 2,
        "excess": 1,
    }
    callback.set_state(json.loads(json.dumps(state, allow_nan=False)))
    assert callback.peak == float("inf")
    assert callback.get_state() == state | {"settings": callback.get_state()["settings"]}
