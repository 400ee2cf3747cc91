"""Tools end in a sentence where they are given what they cannot use, before they do anything."""

import dataclasses
import importlib
import json
from pathlib import Path

import keras
import pytest
from experiment.setting import Run

from tests.recipes.tiny import tiny

TOOLS = Path(__file__).parents[1] / "tools"


@pytest.fixture
def refusal(monkeypatch, capsys):
    """Runs a tool that ends in an error, and returns what it says."""
    monkeypatch.syspath_prepend(str(TOOLS))

    def run(name, *arguments):
        with pytest.raises(SystemExit) as caught:
            importlib.import_module(name).main([*map(str, arguments)])
        said = f"{capsys.readouterr().err}{caught.value.code}"
        assert "error: " in said
        return said

    return run


def finished(out: Path, recipe: str, *runs: Run):
    """A folder of a recipe with finished runs."""
    out.mkdir()
    (out / "recipe.json").write_text(json.dumps({"recipe": recipe}))
    figures = {"validation_accuracy": 0.5, "test_accuracy": 0.5}
    for run in runs:
        (out / run.name).mkdir()
        for name, content in {
            "settings": {"run": dataclasses.asdict(run), "versions": {}},
            "results": {"history": {}, "best": figures, "final": figures},
            "time": {"seconds": 1.0},
        }.items():
            (out / run.name / f"{name}.json").write_text(json.dumps(content))
    return out


def test_accuracies_stand_beside_those_of_the_papers_way(refusal, tmp_path):
    benchmark = tmp_path / "benchmark.json"
    options = ("--benchmark", benchmark, "--out", tmp_path / "figure.png")
    folder = finished(tmp_path / "runs", "penalty_cost", tiny("baseline"), tiny("32nd_1"))
    said = refusal("accuracy_against_cost", folder, *options)
    assert "must have runs of the paper's way, whole_10, in every setting" in said
    assert "Received: none of tiny" in said


@pytest.mark.parametrize("name", ["accuracy_against_cost", "check_alpha_range"])
def test_folders_of_other_recipes_and_of_nothing_are_refused(refusal, tmp_path, name):
    options = ("--benchmark", tmp_path, "--out", tmp_path) if name.startswith("acc") else ()
    other = finished(tmp_path / "other", "noisy_cifar100", tiny("fp"))
    assert f"{other} must hold runs of" in refusal(name, other, *options)
    nothing = tmp_path / "nothing"
    assert f"{nothing} holds no runs of a recipe" in refusal(name, nothing, *options)
    recipe = {"accuracy_against_cost": "penalty_cost", "check_alpha_range": "search"}[name]
    empty = finished(tmp_path / "empty", recipe)
    assert f"No run is finished in {empty}" in refusal(name, empty, *options)


@pytest.mark.parametrize("name", ["planted", "os", "experiment", "tools.report", "../planted", ""])
def test_a_folder_names_no_module_to_import(refusal, tmp_path, monkeypatch, name):
    (tmp_path / "planted.py").write_text(f"open({str(tmp_path / 'imported')!r}, 'w')")
    monkeypatch.syspath_prepend(str(tmp_path))
    folder = finished(tmp_path / "runs", name, tiny("fp"))
    said = refusal("report", folder)
    assert f"{folder / 'recipe.json'} must name one of approximations, curvature_" in said
    assert f"Received: {name!r}" in said
    assert not (tmp_path / "imported").exists()
    assert not (folder / "table.md").exists()


def test_a_range_of_alpha_is_checked_against_searches_over_alpha(refusal, tmp_path):
    rates = [tiny("fp-rate0.1"), tiny("fp-rate0.2", learning_rate=0.2)]
    folder = finished(tmp_path / "runs", "search", *rates)
    said = refusal("check_alpha_range", folder)
    assert f"must be of searches over alpha. Received: {folder}" in said


@pytest.mark.skipif(keras.backend.backend() == "jax", reason="is about the others")
def test_the_benchmark_of_jax_runs_on_jax(refusal, tmp_path):
    pytest.importorskip("jax")
    assert "KERAS_BACKEND must be jax" in refusal("jax_benchmark", "--output", tmp_path / "x.json")


@pytest.mark.parametrize("option", ["--dispatched", "--steps", "--repeats", "--examples"])
def test_the_benchmark_of_jax_refuses_nothing_to_measure(refusal, option):
    pytest.importorskip("jax")
    assert f"`{option}` must be at least 1. Received: 0" in refusal("jax_benchmark", option, 0)


def test_a_soak_needs_a_new_folder(refusal, tmp_path):
    assert f"`--out` must be a new folder. Received: {tmp_path}" in refusal(
        "soak", "--out", tmp_path
    )


def test_what_follows_two_dashes_goes_to_the_recipe_that_is_killed(tmp_path, monkeypatch):
    def torture(command, out, kills, moments):
        started.extend([command[2:], kills])
        (out / "torture.json").write_text("{}")
        return []

    started = []
    tool = importlib.import_module("tools.torture")
    monkeypatch.setattr(tool, "torture", torture)
    own = ["noisy_cifar100", "--kills", "3", "--out", str(tmp_path)]
    tool.main([*own, "--", "--epochs", "8", "--seeds", "0"])
    assert started == [["--epochs", "8", "--seeds", "0"], 3]
