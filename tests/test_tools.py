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


def test_folders_of_nothing_and_of_several_recipes_are_refused(refusal, tmp_path):
    nothing = tmp_path / "nothing"
    assert f"{nothing} holds no runs of a recipe" in refusal("report", nothing)
    folders = [finished(tmp_path / name, name) for name in ("noisy_cifar100", "search")]
    assert "Runs of one recipe alone go together" in refusal("report", *folders)


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


@pytest.mark.skipif(keras.backend.backend() == "jax", reason="is about the others")
def test_the_benchmark_of_jax_runs_on_jax(refusal, tmp_path):
    pytest.importorskip("jax")
    assert "KERAS_BACKEND must be jax" in refusal("jax_benchmark", "--output", tmp_path / "x.json")


@pytest.mark.parametrize("option", ["--dispatched", "--steps", "--repeats", "--examples"])
def test_the_benchmark_of_jax_refuses_nothing_to_measure(refusal, option):
    pytest.importorskip("jax")
    assert f"`{option}` must be at least 1. Received: 0" in refusal("jax_benchmark", option, 0)
