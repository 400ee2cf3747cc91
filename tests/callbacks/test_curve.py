"""The callbacks that follow one measure: when they measure, what they keep and report."""

import copy
import dataclasses
import json
import math
import pickle
import warnings

import keras
import numpy as np
import pytest

import keras_fisher as kf
from tests import nets, reference
from tests.summaries import points

tf = pytest.importorskip("tensorflow")

N, BATCH = 24, 6  # 4 steps an epoch
X, Y = nets.inputs("dense", batch=N), nets.labels(batch=N)
CURVES = {
    kf.callbacks.FisherTrace: (kf.fisher_trace, {"seed": 3}),
    kf.callbacks.MinibatchFisherTrace: (kf.minibatch_fisher_trace, {"seed": 3, "batch_size": 6}),
    kf.callbacks.HessianTrace: (kf.hessian_trace, {"seed": 3, "num_probes": 2}),
    kf.callbacks.GradientNorm: (kf.gradient_norm, {"batch_size": 6}),
}


def compiled(name="dense", **compile_args):
    return nets.plain(name, keras.optimizers.SGD(0.05), **{"run_eagerly": True} | compile_args)


def fit(model, *callbacks, epochs=1, **arguments):
    return model.fit(
        X, Y, batch_size=BATCH, epochs=epochs, verbose=0, callbacks=list(callbacks), **arguments
    ).history


def gradient_norm(data=(X, Y), **options):
    """The cheapest of the curves, with a standard error."""
    return kf.callbacks.GradientNorm(data, **{"batch_size": 12} | options)


def steps(callback):
    return [step for step, _ in callback.history]


@pytest.mark.matrix
@pytest.mark.parametrize("curve", CURVES)
def test_the_log_at_the_end_of_an_epoch_is_the_function_of_the_same_name(curve):
    function, options = CURVES[curve]
    model, callback = compiled(), curve((X, Y), num_examples=18, **options)
    (logged,) = fit(model, callback)[callback.key]
    expected = function(model, (X, Y), num_examples=18, **options)
    assert type(logged) is float
    assert logged == pytest.approx(expected.value, rel=1e-6)
    assert callback.history == [(4, pytest.approx(expected, rel=1e-6, nan_ok=True))]
    assert callback.key == function.__name__


@pytest.mark.parametrize(
    "options", [{"num_probes": 90, "rtol": 0.2}, {"num_probes": 8, "estimator": "xtrace"}]
)
def test_the_hessian_is_measured_as_its_function_does(options):
    model, options = compiled(), {**options, "seed": 3}
    callback = kf.callbacks.HessianTrace((X, Y), **options)
    fit(model, callback)
    expected = kf.hessian_trace(model, (X, Y), **options)
    ((_, found),) = callback.history
    assert found.count == expected.count < options["num_probes"]
    assert found == pytest.approx(expected, rel=1e-5)


def test_the_logs_hold_the_latest_value_and_nan_before_there_is_one():
    norm = gradient_norm(freq=6)
    logged = fit(compiled(), norm, epochs=3)["gradient_norm"]
    values = [estimate.value for _, estimate in norm.history]
    assert steps(norm) == [6, 12]
    assert math.isnan(logged[0])
    assert logged[1:] == values


@reference.several_steps_only
def test_steps_run_at_a_time_are_measured_once_after_the_last_of_them():
    norm = gradient_norm(freq=1)
    fit(compiled(run_eagerly=False, steps_per_execution=3), norm, epochs=2)
    assert steps(norm) == [3, 4, 7, 8]


@pytest.mark.parametrize("wrap", [lambda inner: inner, keras.optimizers.LossScaleOptimizer])
def test_counts_on_from_the_optimizer_when_a_fit_goes_on(wrap):
    optimizer = wrap(keras.optimizers.SGD(0.05, gradient_accumulation_steps=2))
    model = nets.plain("dense", optimizer, run_eagerly=True)
    first, second = (gradient_norm(freq=3) for _ in range(2))
    second.key = "other"
    fit(model, first)
    fit(model, first, second)
    assert steps(first) == [3, 6]
    assert steps(second) == [6]


def test_counts_the_steps_of_a_checkpoint_that_another_callback_restores(tmp_path):
    for epochs in (1, 2):  # the second training begins anew, and is set back to the first
        norm = gradient_norm()
        backup = keras.callbacks.BackupAndRestore(tmp_path, delete_checkpoint=False)
        fit(compiled(), norm, backup, epochs=epochs)
    assert steps(norm) == [8]


def test_an_epoch_of_unknown_length_is_counted_to_its_end():
    data = tf.data.Dataset.from_generator(
        lambda: ((X[i : i + 6], Y[i : i + 6]) for i in range(0, N, 6)),
        output_signature=(tf.TensorSpec((None, 4)), tf.TensorSpec((None,), tf.int32)),
    )
    norm = gradient_norm()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Keras: the input ran out of data
        compiled().fit(data, epochs=2, verbose=0, callbacks=[norm])
    assert steps(norm) == [4, 8]


def test_a_dataset_is_measured_from_its_beginning_each_time():
    data = tf.data.Dataset.from_tensor_slices((X, Y)).batch(8)
    model, norm = compiled(), gradient_norm(data, freq=2, num_examples=16)
    fit(model, norm)
    assert norm.history[-1][1] == pytest.approx(kf.gradient_norm(model, data, num_examples=16))


@pytest.mark.parametrize("update_freq", ["epoch", 3])
def test_writes_the_curve_over_steps_where_tensorboard_writes(tmp_path, update_freq):
    norm = gradient_norm(freq=2)
    board = keras.callbacks.TensorBoard(tmp_path, write_graph=False, update_freq=update_freq)
    fit(compiled(), board, norm, epochs=2)
    curve = points(tmp_path / "train", norm.key)
    assert curve == [(step, pytest.approx(estimate.value)) for step, estimate in norm.history]
    # TensorBoard follows one file of a folder at a time while a training runs.
    assert len(list((tmp_path / "train").iterdir())) == 1


def test_a_new_training_starts_with_an_empty_history():
    norm = gradient_norm()
    for epochs in (2, 1):
        fit(compiled(), norm, epochs=epochs)
    assert steps(norm) == [4]


RESUMED = {curve: options for curve, (_, options) in CURVES.items()}
RESUMED[kf.callbacks.HessianEigenvalues] = {"k": 2, "seed": 1}


def numbers(callback):
    """All numbers of all measurements, with their steps."""
    return [
        (step, *(dataclasses.astuple(found) if dataclasses.is_dataclass(found) else found))
        for step, found in callback.history
    ]


@pytest.mark.matrix
@pytest.mark.parametrize("curve", RESUMED)
def test_goes_on_from_its_state_in_another_process(curve):
    class Interrupted(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            if epoch == 0:
                self.state = json.loads(json.dumps(whole.get_state(), allow_nan=False))
                self.weights = self.model.get_weights()

    whole, resumed = (curve((X, Y), freq=3, **RESUMED[curve]) for _ in range(2))
    model, interrupted = compiled(), Interrupted()
    fit(model, whole, interrupted, epochs=2, shuffle=False)
    model.set_weights(interrupted.weights)
    model.optimizer.iterations.assign(4)
    resumed.set_state(interrupted.state)
    fit(model, resumed, initial_epoch=1, epochs=2, shuffle=False)
    np.testing.assert_equal(numbers(resumed), numbers(whole))
    assert steps(whole) == [3, 6]


def test_a_state_that_was_given_survives_an_optimizer_that_starts_again():
    first, resumed = (gradient_norm() for _ in range(2))
    fit(compiled(), first)
    resumed.set_state(first.get_state())
    fit(compiled(), resumed, initial_epoch=1, epochs=2)
    assert len(resumed.history) == 2


def test_copies_share_the_data_and_nothing_else():
    data = tf.data.Dataset.from_tensor_slices((X, Y)).batch(8)  # has no deep copy
    model, original = compiled(), gradient_norm(data)
    fit(model, original)
    copied = copy.deepcopy([original])[0]
    fit(model, copied)
    assert (len(original.history), len(copied.history)) == (1, 2)
    assert pickle.loads(pickle.dumps(gradient_norm())).batch_size == 12


def test_nan_weights_are_measured_as_nan_with_one_warning_and_training_goes_on():
    model = compiled()
    model.trainable_weights[0].assign(np.full((4, 5), np.nan))
    callbacks = [curve((X, Y), freq=2, **CURVES[curve][1]) for curve in CURVES]
    with pytest.warns(UserWarning, match="measured NaN at step 2 ") as caught:
        logged = fit(model, *callbacks, epochs=2)
    messages = [str(w.message) for w in caught if "measured NaN" in str(w.message)]
    assert [message.split()[0] for message in messages] == [curve.__name__ for curve in CURVES]
    assert all(np.isnan(logged[callback.key]).all() for callback in callbacks)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"freq": 0}, ValueError, "`freq` must be 'epoch' or an integer >= 1"),
        ({"freq": "batch"}, ValueError, "Received: freq='batch'"),
        ({"freq": True}, TypeError, "Received: freq=True"),
        ({"freq": 1.5}, TypeError, "Received: freq=1.5"),
        ({"num_examples": N + 1}, ValueError, f"num_examples={N + 1} and {N} examples"),
        ({"batch_size": 0}, ValueError, "`batch_size` must be"),
        ({"likelihood": "categorical"}, TypeError, "`likelihood` must be"),
    ],
)
def test_refuses_bad_arguments_when_it_is_made(options, error, message):
    with pytest.raises(error, match=message):
        gradient_norm(**options)


@pytest.mark.parametrize(
    ("curve", "options"),
    [
        (kf.callbacks.FisherTrace, {"labels": "random"}),
        (kf.callbacks.MinibatchFisherTrace, {"labels": "expected"}),
        (kf.callbacks.HessianTrace, {"distribution": "uniform"}),
        (kf.callbacks.HessianTrace, {"num_probes": 0}),
        (kf.callbacks.HessianTrace, {"rtol": 0.0}),
        (kf.callbacks.FisherTrace, {"seed": -1}),
        (kf.callbacks.HessianEigenvalues, {"k": 0}),
    ],
)
def test_refuses_bad_options_of_a_measure_when_it_is_made(curve, options):
    (name,) = options
    with pytest.raises(ValueError, match=f"`{name}` must be"):
        curve((X, Y), **options)


def test_labels_are_asked_for_where_they_are_needed():
    with pytest.raises(ValueError, match="labels"):
        kf.callbacks.FisherTrace((X, None), labels="given")
    kf.callbacks.FisherTrace((X, None), labels="expected")


def test_refuses_a_model_of_unknown_likelihood_before_the_first_step():
    model = nets.build("dense")
    model.compile("sgd", lambda y, outputs: keras.ops.mean(outputs), run_eagerly=True)
    before = nets.flat(model.get_weights())
    with pytest.raises(ValueError, match="likelihood"):
        fit(model, gradient_norm())
    np.testing.assert_array_equal(nets.flat(model.get_weights()), before)
    fit(model, gradient_norm(likelihood=kf.likelihoods.Categorical()))


def test_steps_of_data_of_unknown_length_are_counted_over_several_fits():
    data = tf.data.Dataset.from_tensor_slices((X, Y)).filter(lambda x, y: True).batch(BATCH)
    model, callback = compiled(run_eagerly=False), gradient_norm()
    for epochs in (2, 1, 2):
        model.fit(data, epochs=epochs, verbose=0, callbacks=[callback])
    assert steps(callback) == [4, 8, 12, 16, 20]


def test_a_new_optimizer_begins_a_new_count():
    data = tf.data.Dataset.from_tensor_slices((X, Y)).filter(lambda x, y: True).batch(BATCH)
    model, callback = compiled(run_eagerly=False), gradient_norm()
    for _ in range(2):
        model.fit(data, epochs=2, verbose=0, callbacks=[callback])
        assert steps(callback)[:2] == [4, 8]
        model.compile("sgd", model.loss)
