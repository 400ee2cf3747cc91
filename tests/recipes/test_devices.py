"""Recipes on several devices."""

import json

import noisy_cifar100
import numpy as np
import pytest
from experiment import command

from tests import reference
from tests.processes import configurations, printed, start
from tests.recipes.tiny import OPTIONS

ARGUMENTS = ["--seeds", "0", "--methods", "gp_x", *OPTIONS, "--epochs", "2"]


def finished(out):
    (path,) = out.glob("*/results.json")
    return json.loads(path.read_text())


@reference.tensorflow_only
@pytest.mark.slow
def test_two_workers_write_once_what_one_device_would(tmp_path):
    command.main(noisy_cifar100.RECIPE, [*ARGUMENTS, "--out", str(tmp_path / "one")])
    options = [*ARGUMENTS, "--distribute", "multiworker", "--out", tmp_path / "two"]
    chief, worker = (
        start(noisy_cifar100.__file__, *options, TF_CONFIG=config) for config in configurations(2)
    )
    assert "GP_x" in printed(chief)
    assert printed(worker) == ""
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


def test_steps_of_replicas_are_taken_one_by_one(tmp_path):
    arguments = ["--distribute", "mirrored", "--steps-per-execution", "2", "--out", str(tmp_path)]
    with pytest.raises(SystemExit, match="`--steps-per-execution` must be 1 "):
        command.main(noisy_cifar100.RECIPE, arguments)
    settings, _ = command.parse(noisy_cifar100.RECIPE, ["--distribute", "mirrored"])
    assert {setting.steps_per_execution for setting in settings.values()} == {1}
