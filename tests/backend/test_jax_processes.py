"""Several JAX processes train what one device trains, also after one of them was killed."""

import importlib.util
import json

import keras
import numpy as np
import pytest

from tests import nets, reference
from tests.processes import QUICKLY, jax_environments, printed, start

needs_jax = pytest.mark.skipif(importlib.util.find_spec("jax") is None, reason="needs JAX")
# As in tests/jax_workers.py, which only a program of its own may import.
CASES = (
    "fp, sampled labels",
    "fp, batch normalisation",
    "gp_x of the first",
    "gp_r of a share, in parts, by difference",
)
PROCESSES, DEVICES = 2, 2


def start_program(folder, devices, **environment):
    flags = f"{QUICKLY} --xla_force_host_platform_device_count={devices}"
    options = {"KERAS_BACKEND": "jax", "JAX_ENABLE_X64": "1", "XLA_FLAGS": flags}
    return start("-m", "tests.jax_workers", folder, *CASES, **(options | environment))


def start_together(folder):
    return [start_program(folder, DEVICES, **own) for own in jax_environments(PROCESSES)]


def read(process):
    """What it prints, after messages of the connection."""
    return json.loads(printed(process).splitlines()[-1])


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """What one device ends with."""
    return read(start_program(tmp_path_factory.mktemp("alone"), 1))


@pytest.fixture(scope="module")
def together(tmp_path_factory):
    """What processes end with of which one is killed, and all are started again; and where."""
    folder = tmp_path_factory.mktemp("together")
    (folder / "kill").touch()
    first = start_together(folder)
    errors = [process.communicate()[1] for process in first]
    assert all(process.returncode for process in first), errors
    assert not (folder / "kill").exists(), errors
    return folder, [read(process) for process in start_together(folder)]


@needs_jax
@pytest.mark.slow
@pytest.mark.parametrize("case", [*CASES, "resumed", "reloaded"])
def test_processes_train_what_one_device_does(case, alone, together):
    for found in together[1]:
        np.testing.assert_allclose(found[case], alone[case], rtol=0, atol=1e-6)


@needs_jax
@pytest.mark.slow
def test_the_chief_alone_writes(together):
    assert [path.name for path in together[0].iterdir()] == ["model.keras"]


@needs_jax
@pytest.mark.slow
def test_no_process_trains_by_itself(together):
    for found in together[1]:
        assert "a model spread over 2 processes, and no distribution" in found["refusal"]


@reference.jax_only
@pytest.mark.parametrize("act", ["save", "save_weights", "predict"])
def test_one_of_several_processes_acts_alone(act, tmp_path, monkeypatch):
    distribution = keras.distribution.DataParallel(devices=keras.distribution.list_devices()[:1])
    seen = []
    with distribution.scope():
        model = nets.compiled("dense")
        monkeypatch.setattr(
            keras.Model, act, lambda *_: seen.append(keras.distribution.distribution())
        )
        getattr(model, act)(tmp_path / "model.keras")
        assert seen == [None]
        assert keras.distribution.distribution() is distribution
