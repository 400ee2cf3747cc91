"""All backends beside each other on the same numbers; the JAX backend on several devices."""

import functools
import importlib.util
import json

import numpy as np
import pytest

from tests.backend import measurements, moves
from tests.processes import QUICKLY, printed, start

INSTALLED = [name for name in ("tensorflow", "jax", "torch") if importlib.util.find_spec(name)]
if "jax" in INSTALLED:
    from tests import jax_devices

DEVICE_CASES = list(jax_devices.CASES) if "jax" in INSTALLED else []
SHARDED_CASES = list(jax_devices.SHARDED) if "jax" in INSTALLED else []
needs_jax = pytest.mark.skipif("jax" not in INSTALLED, reason="needs JAX")
needs_another = pytest.mark.skipif(len(INSTALLED) < 2, reason="needs another backend")


def result(module, *arguments, **environment):
    """What a module prints as JSON when it is run."""
    return json.loads(printed(start("-m", module, *arguments, **environment)))


@functools.cache
def results_of(backend):
    environment = {"KERAS_BACKEND": backend, "JAX_ENABLE_X64": "1", "XLA_FLAGS": QUICKLY}
    return result(measurements.__name__, **environment)


@needs_another
@pytest.mark.slow
@pytest.mark.parametrize("what", measurements.NAMES)
@pytest.mark.parametrize("backend", INSTALLED[1:])
def test_all_backends_compute_the_same(backend, what):
    ours, expected = (np.array(results_of(name)[what]) for name in (backend, INSTALLED[0]))
    assert ours.shape == expected.shape
    assert np.linalg.norm(expected) > 1e-6
    assert np.linalg.norm(ours - expected) <= 1e-7 * np.linalg.norm(expected)


@needs_another
@pytest.mark.slow
@pytest.mark.parametrize("goal", INSTALLED)
@pytest.mark.parametrize("start", INSTALLED)
def test_saved_weights_resume_on_another_backend(start, goal, tmp_path):
    if start == goal:
        pytest.skip("tests of saving have this")
    path = tmp_path / "model.weights.h5"
    expected = result(moves.__name__, "save", path, KERAS_BACKEND=start, XLA_FLAGS=QUICKLY)
    found = result(moves.__name__, "resume", path, KERAS_BACKEND=goal, XLA_FLAGS=QUICKLY)
    assert found["alpha"] == expected["alpha"]
    assert found["penalty"] == pytest.approx(expected["penalty"], rel=1e-5)
    np.testing.assert_allclose(found["weights"], expected["weights"], rtol=1e-5, atol=1e-6)


@functools.cache
def on_devices():
    return result(
        "tests.jax_devices",
        KERAS_BACKEND="jax",
        JAX_ENABLE_X64="1",
        XLA_FLAGS=f"{QUICKLY} --xla_force_host_platform_device_count=4",
    )


@needs_jax
@pytest.mark.slow
@pytest.mark.parametrize("case", DEVICE_CASES)
def test_devices_together_train_what_one_trains_on_the_whole_batch(case):
    found = on_devices()[case]
    assert found["devices"] == [[1, 1], [4, 1]]
    assert found["error"] < 1e-6  # of metrics in single precision


@needs_jax
@pytest.mark.slow
@pytest.mark.parametrize("case", SHARDED_CASES)
def test_devices_with_parts_of_the_weights_train_what_one_trains(case):
    found = on_devices()[case]
    assert found["devices"] == [[1, 1], [4, 2]]
    assert found["error"] < 1e-6


@needs_jax
@pytest.mark.slow
def test_steps_in_one_dispatch_are_those_taken_one_by_one():
    one_by_one, *together = on_devices()["dispatches"]
    for weights in together:
        assert weights == one_by_one


ALONE = """
import sys
class Finder:  # as if the other backends were not installed
    def __init__(self, finder):
        self.finder = finder
    def __getattr__(self, name):
        return getattr(self.finder, name)
    def find_spec(self, name, path=None, target=None):
        is_other = name.partition(".")[0] in {others}
        return None if is_other else self.finder.find_spec(name, path, target)
sys.meta_path[:] = map(Finder, sys.meta_path)
import keras_fisher as kf, numpy as np, keras
data = kf.data.load("digits", batch_size=100, augment="flip")
layers = [keras.layers.Flatten(), keras.layers.BatchNormalization(), keras.layers.Dense(10)]
model = kf.FisherPenaltyModel(keras.Sequential([keras.Input((8, 8, 1)), *layers]))
model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
fit = model.fit(data.train, steps_per_epoch=2, verbose=0, validation_data=data.test)
print(np.isfinite(fit.history["penalty"][0]))
"""


@pytest.mark.slow
@pytest.mark.parametrize("backend", INSTALLED)
def test_no_other_backend_is_imported(backend):
    others = [name for name in INSTALLED if name != backend]
    output = printed(start("-c", ALONE.format(others=others), KERAS_BACKEND=backend))
    assert output.splitlines()[-1:] == ["True"]
