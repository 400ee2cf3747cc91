"""The JAX backend: beside TensorFlow on the same numbers, and on several devices."""

import functools
import importlib.util
import json
import os
import subprocess
import sys

import numpy as np
import pytest

from tests import jax_devices
from tests.backend import measurements

pytestmark = pytest.mark.skipif(
    not all(map(importlib.util.find_spec, ("jax", "tensorflow"))), reason="needs both backends"
)


# Tests compile much and compute little.
QUICKLY = "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"


def printed(module, **environment):
    """What a module prints as JSON when it is run."""
    command = [sys.executable, "-m", module]
    run = subprocess.run(
        command, env=os.environ | environment, capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr[-2000:]
    return json.loads(run.stdout)


@functools.cache
def results_of(backend):
    return printed("tests.backend.measurements", KERAS_BACKEND=backend, XLA_FLAGS=QUICKLY)


@pytest.mark.slow
@pytest.mark.parametrize("what", measurements.NAMES)
def test_both_backends_compute_the_same(what):
    ours, expected = (np.array(results_of(backend)[what]) for backend in ("jax", "tensorflow"))
    assert ours.shape == expected.shape
    assert np.linalg.norm(expected) > 1e-6
    assert np.linalg.norm(ours - expected) <= 1e-5 * np.linalg.norm(expected)


@functools.cache
def on_devices():
    return printed(
        "tests.jax_devices",
        KERAS_BACKEND="jax",
        JAX_ENABLE_X64="1",
        XLA_FLAGS=f"{QUICKLY} --xla_force_host_platform_device_count=4",
    )


@pytest.mark.slow
@pytest.mark.parametrize("case", jax_devices.CASES)
def test_devices_together_train_what_one_trains_on_the_whole_batch(case):
    found = on_devices()[case]
    assert found["devices"] == [1, 4]
    assert found["error"] < 1e-6  # of metrics in single precision


@pytest.mark.slow
def test_steps_in_one_dispatch_are_those_taken_one_by_one():
    one_by_one, *together = on_devices()["dispatches"]
    for weights in together:
        assert weights == one_by_one


ALONE = """
import sys
sys.modules["tensorflow"] = None  # as if it were not installed
import keras_fisher as kf, numpy as np, keras
data = kf.data.load("digits", batch_size=100, augment="flip")
layers = [keras.layers.Flatten(), keras.layers.BatchNormalization(), keras.layers.Dense(10)]
model = kf.FisherPenaltyModel(keras.Sequential([keras.Input((8, 8, 1)), *layers]))
model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
fit = model.fit(data.train, steps_per_epoch=2, verbose=0, validation_data=data.test)
print(np.isfinite(fit.history["penalty"][0]))
"""


@pytest.mark.slow
def test_tensorflow_is_not_imported():
    command = [sys.executable, "-c", ALONE]
    environment = os.environ | {"KERAS_BACKEND": "jax"}
    run = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert run.stdout.splitlines()[-1:] == ["True"], run.stderr[-2000:]
