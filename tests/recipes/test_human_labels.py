"""Runs that are trained on the labels that people gave."""

import dataclasses
import json

import noisy_cifar100
import numpy as np
import pytest
from experiment import command, folders
from experiment.devices import Devices
from experiment.errors import SettingsError
from experiment.results import comparison, finished_runs
from experiment.results.findings import take_values
from experiment.run.data import load_data

from tests.data.human import write_data
from tests.recipes.test_plans import found_of, table_of
from tests.recipes.tiny import tiny

RECIPE = noisy_cifar100.RECIPE
PART = "simple_cnn_c10"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    write_data(tmp_path, "cifar10")
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    monkeypatch.setenv("CIFAR_N_DIR", str(tmp_path))
    return tmp_path


def plan(*options):
    given = ["--preset", "small", "--only", PART, "--methods", "baseline", "fp", "--fp", "0.1"]
    settings, _ = command.parse(RECIPE, [*given, *options])
    return RECIPE.plan_all_runs(settings)


def test_a_source_takes_the_place_of_all_fractions():
    runs = plan("--noise-source", "worse", "--seeds", "0")
    assert [run.name for run in runs] == [
        f"{PART}-worse-baseline-seed0",
        f"{PART}-worse-fp-0.1-seed0",
    ]
    assert {(run.noise, run.noise_source) for run in runs} == {(0.0, "worse")}


def test_training_labels_are_those_that_people_gave(folder):
    task = {"dataset": "cifar10", "num_train": 500, "validation_size": 100}
    clean, human = load_data(tiny(**task)), load_data(tiny(**task, noise_source="worse"))
    x, y = human.training
    np.testing.assert_array_equal(x, clean.training[0])
    # The shade of an image is the label that was given to it.
    shades = np.unique(x)
    np.testing.assert_array_equal(y, np.searchsorted(shades, x.ravel()))
    np.testing.assert_array_equal(human.is_wrong, y != clean.training[1])
    assert human.is_wrong.any()
    np.testing.assert_array_equal(human.validation[1], clean.validation[1])
    x, y = human.noisy_validation
    np.testing.assert_array_equal(x, human.validation[0])
    np.testing.assert_array_equal(y, np.searchsorted(shades, x.ravel()))


def test_without_a_folder_of_files_the_error_says_how_to_name_it(monkeypatch, folder):
    monkeypatch.delenv("CIFAR_N_DIR")
    with pytest.raises(SettingsError, match=r"`--noise-source` random1 .*CIFAR_N_DIR to the fold"):
        load_data(tiny(dataset="cifar10", noise_source="random1"))


@pytest.mark.parametrize(
    ("part", "source", "message"),
    [
        (PART, "fine", "must be one of uniform, aggregate, random1, random2, random3, worse in"),
        ("simple_cnn_c100", "worse", "must be one of uniform, fine in simple_cnn_c100"),
    ],
)
def test_a_source_of_another_data_set_is_refused_before_anything_is_trained(
    tmp_path, part, source, message
):
    given = ["--preset", "small", "--only", part, "--noise-source", source, "--out", str(tmp_path)]
    with pytest.raises(SystemExit, match=rf"error: `--noise-source` {message}.*Received: {source}"):
        command.main(RECIPE, given, train=None)


def test_each_source_has_rows_of_its_own(tmp_path):
    runs = [
        *plan("--noise", "0.5"),
        *plan("--noise-source", "worse"),
        *plan("--noise-source", "aggregate"),
    ]
    found = found_of(runs)
    comparison.check_comparable(found)
    table = table_of("noisy_cifar100", found)
    for noise in ("50%", "worse", "aggregate"):
        assert table.count(f"| {noise} | {PART} | test accuracy at the end |") == 1
        assert table.count(f"| {noise} | {PART} | FP | 0.1 |") == 1
    RECIPE.figure(finished_runs.make_frame(found), tmp_path / "figure.png")


def test_a_folder_from_before_there_were_sources_is_of_uniform_noise(tmp_path):
    run = tiny(noise=0.5)
    folders.claim_run(tmp_path, run, Devices())
    path = tmp_path / "settings.json"
    settings = json.loads(path.read_text())
    del settings["run"]["noise_source"]
    path.write_text(json.dumps(settings))
    folders.check_settings(tmp_path, run)
    with pytest.raises(SettingsError, match=r"other settings \(noise_source is uniform there\)"):
        folders.check_settings(tmp_path, dataclasses.replace(run, noise_source="worse"))
    with pytest.raises(SettingsError, match=r"other settings \(epochs is 4 there\)"):
        folders.check_settings(tmp_path, dataclasses.replace(run, epochs=5))


def test_nothing_that_was_searched_with_drawn_labels_is_taken():
    class Anything:
        noise = 0.5

    setting = dataclasses.replace(RECIPE.presets["small"][PART], noise_source="worse")
    assert take_values(PART, setting, [{PART: [Anything()]}]) == {}
