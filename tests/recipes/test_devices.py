"""Recipes on several devices."""

import json

import alternatives
import keras
import noisy_cifar100
import numpy as np
import pytest
from experiment import command
from experiment.devices import JaxDevices, keep_compiled
from experiment.errors import SettingsError

from keras_fisher.data.containers import Batches
from tests import reference
from tests.processes import configurations, jax_environments, printed, start
from tests.recipes.tiny import OPTIONS

ARGUMENTS = ["--seeds", "0", "--methods", "gp_x", *OPTIONS, "--epochs", "2"]


def finished(out):
    (path,) = out.glob("*/results.json")
    return json.loads(path.read_text())


def environments():
    """The environment variables of two workers."""
    if reference.IS_JAX:
        return jax_environments(2)
    return [{"TF_CONFIG": config} for config in configurations(2)]


@pytest.mark.slow
@pytest.mark.skipif(reference.IS_TORCH, reason="Keras trains on one device on PyTorch")
def test_two_workers_write_once_what_one_device_would(tmp_path):
    command.main(noisy_cifar100.RECIPE, [*ARGUMENTS, "--out", str(tmp_path / "one")])
    options = [*ARGUMENTS, "--distribute", "multiworker", "--out", tmp_path / "two"]
    chief, worker = (start(noisy_cifar100.__file__, *options, **own) for own in environments())
    assert "GP_x" in printed(chief)
    assert [line for line in printed(worker).splitlines() if not line.startswith("[Gloo]")] == []
    found, expected = finished(tmp_path / "two"), finished(tmp_path / "one")
    assert found["history"].keys() == expected["history"].keys()
    for key, values in expected["history"].items():
        np.testing.assert_allclose(found["history"][key], values, rtol=1e-4, err_msg=key)
    assert found["final"]["test_accuracy"] == expected["final"]["test_accuracy"]


@reference.tensorflow_only
@pytest.mark.parametrize("config", [None, "{}", "host0:12345"])
def test_workers_need_to_know_each_other(config, tmp_path, monkeypatch):
    monkeypatch.delenv("TF_CONFIG", raising=False)
    if config is not None:
        monkeypatch.setenv("TF_CONFIG", config)
    arguments = [*ARGUMENTS, "--distribute", "multiworker", "--out", str(tmp_path)]
    with pytest.raises(SystemExit, match=r"`--distribute multiworker` needs .* TF_CONFIG"):
        command.main(noisy_cifar100.RECIPE, arguments)


@reference.jax_only
def test_jax_processes_need_to_know_each_other(tmp_path, monkeypatch):
    for name in ("JOB_ADDRESSES", "NUM_PROCESSES", "PROCESS_ID"):
        monkeypatch.delenv(f"KERAS_DISTRIBUTION_{name}", raising=False)
    arguments = [*ARGUMENTS, "--distribute", "multiworker", "--out", str(tmp_path)]
    with pytest.raises(
        SystemExit, match=r"`--distribute multiworker` needs .* KERAS_DISTRIBUTION_"
    ):
        command.main(noisy_cifar100.RECIPE, arguments)


@pytest.fixture
def jax_cache():
    """Yields JAX's settings, with no folder for compiled functions; restores them."""
    import jax
    from jax.experimental.compilation_cache import compilation_cache

    names = ("jax_compilation_cache_dir", "jax_persistent_cache_min_compile_time_secs")
    before = {name: getattr(jax.config, name) for name in names}
    jax.config.update(names[0], None)
    jax.config.update(names[1], 0.0)
    compilation_cache.reset_cache()
    yield jax
    for name, value in before.items():
        jax.config.update(name, value)
    compilation_cache.reset_cache()


@reference.jax_only
def test_jax_keeps_what_it_compiles_in_the_folder(jax_cache, tmp_path):
    keep_compiled(tmp_path)
    jax_cache.jit(lambda x: 3.0 * x + 1.0)(np.ones(7))
    assert list(tmp_path.glob("compiled-*/*"))


@reference.jax_only
def test_a_folder_of_the_user_for_compiled_functions_stays(jax_cache, tmp_path):
    jax_cache.config.update("jax_compilation_cache_dir", str(tmp_path / "mine"))
    keep_compiled(tmp_path)
    assert jax_cache.config.jax_compilation_cache_dir == str(tmp_path / "mine")


@reference.jax_only
def test_workers_take_parts_that_make_up_the_batch(monkeypatch):
    monkeypatch.setattr("jax.devices", lambda: [None] * 4)
    arrays, parts = (np.arange(16) * 10, np.arange(16)), []
    for worker in range(2):
        monkeypatch.setattr("jax.process_index", lambda worker=worker: worker)
        devices = JaxDevices(workers=2)
        (x, y), size = devices.take_part_of_arrays(arrays, 8)
        assert size == 4
        assert x.tolist() == (10 * y).tolist()
        parts.append(y)
        batches = Batches(lambda index: tuple(array[8 * index :][:8] for array in arrays), 2)
        assert [y.tolist() for _, y in devices.take_part(batches)] == y.reshape(2, 4).tolist()
    assert [part.tolist() for part in parts] == [
        [0, 1, 2, 3, 8, 9, 10, 11],
        [4, 5, 6, 7, 12, 13, 14, 15],
    ]
    with pytest.raises(SettingsError, match=r"devices divides, 4\. .* 10 examples"):
        devices.take_part_of_arrays(arrays, 10)


@pytest.mark.parametrize("method", ["elr", "sam"])
def test_replicas_of_tensorflow_take_no_step_of_their_own(method, monkeypatch, tmp_path):
    monkeypatch.setattr(keras.backend, "backend", lambda: "tensorflow")
    options = ["--distribute", "mirrored", "--methods", method, "--out", str(tmp_path)]
    with pytest.raises(SystemExit, match=f"`--distribute` must be one for ELR, SAM.*{method}"):
        command.main(alternatives.RECIPE, options)


def test_steps_of_replicas_are_taken_one_by_one(tmp_path):
    arguments = ["--distribute", "mirrored", "--steps-per-execution", "2", "--out", str(tmp_path)]
    with pytest.raises(SystemExit, match="`--steps-per-execution` must be 1 "):
        command.main(noisy_cifar100.RECIPE, arguments)
    settings, _ = command.parse(noisy_cifar100.RECIPE, ["--distribute", "mirrored"])
    assert {setting.steps_per_execution for setting in settings.values()} == {1}
