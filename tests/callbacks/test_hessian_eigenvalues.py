"""The callback that follows eigenvalues: what it logs, keeps and reports."""

import json
import logging

import keras
import numpy as np
import pytest

import keras_fisher as kf
from keras_fisher.callbacks import HessianEigenvalues
from tests import nets, reference

N, BATCH = 24, 6  # 4 steps an epoch
X, Y = nets.inputs("dense", batch=N), nets.labels(batch=N)


def compiled():
    return nets.plain("dense", keras.optimizers.SGD(0.05), run_eagerly=not reference.IS_JAX)


def fit(model, *callbacks, **arguments):
    options = {"batch_size": BATCH, "verbose": 0, "callbacks": list(callbacks)} | arguments
    return model.fit(X, Y, **options).history


@pytest.mark.matrix
@pytest.mark.parametrize(
    ("options", "keys"),
    [
        ({}, ["sharpness"]),
        ({"k": 2}, ["sharpness", "hessian_eigenvalue_2"]),
        ({"k": 2, "which": "smallest"}, ["hessian_eigenvalue_-2", "hessian_eigenvalue_-1"]),
        ({"k": 1, "which": "both"}, ["sharpness", "hessian_eigenvalue_-1"]),
    ],
)
def test_the_logs_at_the_end_of_an_epoch_are_the_eigenvalues(options, keys):
    model, callback = compiled(), HessianEigenvalues((X, Y), num_examples=18, seed=3, **options)
    logged = fit(model, callback)
    expected = kf.hessian_eigenvalues(
        model, (X, Y), num_examples=18, seed=3, **({"k": 1} | options)
    )
    assert [key for key in logged if key != "loss"] == keys
    assert [type(logged[key][0]) for key in keys] == [float] * len(keys)
    assert [logged[key][0] for key in keys] == pytest.approx(expected.values.tolist(), rel=1e-5)
    ((step, measured),) = callback.history
    assert (step, measured.num_examples) == (4, 18)
    np.testing.assert_array_equal(measured.values, [logged[key][0] for key in keys])


@reference.tensorflow_only
def test_writes_every_eigenvalue_over_steps_where_tensorboard_writes(tmp_path):
    from tests.summaries import points

    callback = HessianEigenvalues((X, Y), freq=2, k=2, seed=0)
    board = keras.callbacks.TensorBoard(tmp_path, write_graph=False)
    fit(compiled(), board, callback)
    for index, key in enumerate(["sharpness", "hessian_eigenvalue_2"]):
        assert points(tmp_path / "train", key) == [
            (step, pytest.approx(measured.values[index])) for step, measured in callback.history
        ]


def test_nan_weights_are_measured_as_nan_with_one_warning():
    model = compiled()
    model.trainable_weights[0].assign(np.full((4, 5), np.nan))
    callback = HessianEigenvalues((X, Y), freq=2)
    with pytest.warns(UserWarning, match="HessianEigenvalues measured NaN at step 2") as caught:
        logged = fit(model, callback, epochs=2)
    assert sum("measured NaN" in str(w.message) for w in caught) == 1
    assert np.isnan(logged["sharpness"]).all()
    state = json.loads(json.dumps(callback.get_state(), allow_nan=False))
    callback.set_state(state)
    assert np.isnan(callback.history[0][1].values).all()


def test_training_goes_on_with_nan_and_one_warning_where_the_solver_does_not_converge(caplog):
    callback = HessianEigenvalues((X, Y), freq=2, k=2, max_products=15)
    with caplog.at_level(logging.WARNING, "keras_fisher"):
        logged = fit(compiled(), callback, epochs=2)
    (message,) = caplog.messages
    assert message.startswith(
        "HessianEigenvalues has no eigenvalues at step 2: `max_products` must be large enough"
    )
    assert np.isnan([logged["sharpness"], logged["hessian_eigenvalue_2"]]).all()
    assert [measured.num_products for _, measured in callback.history] == [0] * 4
