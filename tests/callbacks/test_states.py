"""Measurements belong to one training of one model, and to one kind of callback."""

import json

import keras
import numpy as np
import pytest

from keras_fisher import callbacks
from tests import nets

DATA = nets.inputs("dense"), nets.labels()


def fit(model, *used, epochs=1, **arguments):
    model.fit(*DATA, batch_size=2, epochs=epochs, callbacks=[*used], verbose=0, **arguments)
    return used[0]


@pytest.mark.matrix
@pytest.mark.parametrize(
    ("make", "changed"),
    [
        (callbacks.HessianEigenvalues, {"which": "smallest"}),
        (callbacks.HessianEigenvalues, {"k": 2}),
        (callbacks.FisherTrace, {"labels": "given"}),
        (callbacks.FisherTrace, {"num_examples": 3}),
        (callbacks.GradientNorm, {"batch_size": 3}),
    ],
)
def test_the_state_of_other_measurements_is_refused(make, changed):
    given = {"batch_size": 2}
    state = json.loads(json.dumps(fit(nets.plain("dense"), make(DATA, **given)).get_state()))
    make(DATA, **given).set_state(state)
    [(name, value)] = changed.items()
    message = f"`state` must be that of a callback .*'{name}': {value!r}.* Received: .*'{name}'"
    with pytest.raises(ValueError, match=message):
        make(DATA, **given | changed).set_state(state)


def test_the_state_of_another_callback_is_refused():
    state = fit(nets.plain("dense"), callbacks.HessianTrace(DATA, num_probes=1)).get_state()
    with pytest.raises(ValueError, match=r"Received: a state with .*'HessianTrace'"):
        callbacks.GradientNorm(DATA, batch_size=2).set_state(state)


@pytest.mark.parametrize("resumes", [False, True])
def test_skipped_steps_count_after_resuming(tmp_path, resumes):
    """A skipped step is one of training, but the optimizer does not count it."""
    x = np.array(DATA[0])
    x[:2] = np.nan  # the first batch of three

    def train(model, trace, **epochs):
        guard = callbacks.NonFiniteGuard("skip")
        model.fit(
            *(x, DATA[1]),
            **{"batch_size": 2, "shuffle": False, "verbose": 0, "callbacks": [trace, guard]},
            **epochs,
        )

    model, trace = nets.compiled("dense"), callbacks.FisherTrace(DATA, freq=2)
    train(model, trace, epochs=2 if resumes else 4)
    if resumes:
        model.save_weights(tmp_path / "model.weights.h5")
        state = json.loads(json.dumps(trace.get_state()))
        model, trace = nets.compiled("dense"), callbacks.FisherTrace(DATA, freq=2)
        model.build(x.shape)
        model.optimizer.build(model.trainable_variables)
        model.load_weights(tmp_path / "model.weights.h5")
        trace.set_state(state)
        train(model, trace, initial_epoch=2, epochs=4)
    assert [step for step, _ in trace.history] == [2, 4, 6, 8, 10, 12]


class Interrupt(keras.callbacks.Callback):
    """Ends a fit in the middle of its second epoch."""

    def on_train_batch_end(self, batch, logs=None):
        self.seen = getattr(self, "seen", 0) + 1
        if self.seen == 5:
            raise KeyboardInterrupt


def test_a_training_that_is_set_back_forgets_what_came_later(tmp_path):
    backup = keras.callbacks.BackupAndRestore(tmp_path)
    model, trace = nets.plain("dense"), callbacks.FisherTrace(DATA, freq=1)
    with pytest.raises(KeyboardInterrupt):
        fit(model, trace, backup, Interrupt(), epochs=3)
    fit(model, trace, backup, epochs=3)
    assert [step for step, _ in trace.history] == [*range(1, 10)]


def test_another_model_starts_a_new_training():
    first, second = nets.plain("dense"), nets.plain("dense")
    second.fit(*DATA, batch_size=2, verbose=0)
    trace = fit(first, callbacks.FisherTrace(DATA, seed=0), epochs=2)
    assert [step for step, _ in trace.history] == [3, 6]
    fit(second, trace)
    assert [step for step, _ in trace.history] == [6]
    fit(second, trace)
    assert [step for step, _ in trace.history] == [6, 9]


def test_the_peak_includes_the_first_epoch_of_a_later_fit():
    model = nets.plain("dense", keras.optimizers.SGD(0.0))
    trace = fit(model, callbacks.FisherTrace(DATA, freq=1, labels="given"))
    weights = [
        weight.numpy() if hasattr(weight, "numpy") else np.asarray(weight)
        for weight in model.weights
    ]
    model.set_weights([30 * weight for weight in weights])
    trace.explosion_factor = None
    fit(model, trace)
    values = [estimate.value for _, estimate in trace.history]
    assert trace.peak == max(values[2:]) > 2 * values[0]
