"""Tools end in a sentence where they are given what they cannot use."""

import importlib.util
import json
from pathlib import Path

import keras
import pytest

TOOLS = Path(__file__).parents[1] / "tools"


@pytest.fixture
def tool(monkeypatch):
    """Imports a tool as it is when it is run."""
    monkeypatch.syspath_prepend(str(TOOLS))
    return importlib.import_module


@pytest.fixture
def refusal(tool, capsys):
    """Runs a tool that ends in an error, and returns what it says."""

    def run(name, *arguments):
        with pytest.raises(SystemExit) as caught:
            tool(name).main([*map(str, arguments)])
        said = f"{capsys.readouterr().err}{caught.value.code}"
        assert "error: " in said
        return said

    return run


def folder_of(recipe, path):
    """A folder that a recipe wrote to."""
    path.mkdir()
    (path / "recipe.json").write_text(json.dumps({"recipe": recipe}))
    return path


def test_folders_of_nothing_and_of_several_recipes_are_refused(refusal, tmp_path):
    nothing = tmp_path / "nothing"
    assert f"{nothing} holds no runs of a recipe" in refusal("report", nothing)
    folders = [folder_of(name, tmp_path / name) for name in ("noisy_cifar100", "search")]
    assert "must hold runs of one recipe" in refusal("report", *folders)


@pytest.mark.parametrize("name", ["planted", "os", "experiment", "tools.report", "../planted", ""])
def test_a_folder_names_no_module_to_import(refusal, tmp_path, monkeypatch, name):
    (tmp_path / "planted.py").write_text(f"open({str(tmp_path / 'imported')!r}, 'w')")
    monkeypatch.syspath_prepend(str(tmp_path))
    folder = folder_of(name, tmp_path / "runs")
    said = refusal("report", folder)
    assert f"{folder / 'recipe.json'} must name one of alternatives, approximations, " in said
    assert f"Received: {name!r}" in said
    assert not (tmp_path / "imported").exists()
    assert not (folder / "table.md").exists()


@pytest.mark.parametrize("option", ["--repeats", "--examples", "--steps-per-execution"])
def test_the_benchmark_refuses_nothing_to_measure(refusal, option):
    assert f"`{option}` must be at least 1. Received: 0" in refusal("benchmark", option, 0)


def test_the_benchmark_names_its_sections(refusal):
    said = refusal("benchmark", "fisher", "speed")
    assert "`SECTION` must be one of training, fisher, " in said
    assert "Received: ['speed']" in said


def test_a_section_that_cannot_run_says_why(tool, monkeypatch, capsys, tmp_path):
    benchmark, output = tool("benchmark"), tmp_path / "folder" / "benchmark.json"
    monkeypatch.setattr(benchmark, "limit_threads", lambda: None)  # TensorFlow has started
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    benchmark.main(["pytorch", "--output", str(output)])
    assert "| pytorch |  | skipped | PyTorch is missing: pip install" in capsys.readouterr().out
    report = json.loads(output.read_text())
    assert report["environment"]["backend"] == keras.backend.backend()
    assert report["rows"][0]["quantity"] == "skipped"


@pytest.mark.slow
def test_methods_for_wrong_labels_are_timed_as_ratios_to_cross_entropy(tool, monkeypatch, tmp_path):
    benchmark, output = tool("benchmark"), tmp_path / "benchmark.json"
    monkeypatch.setattr(benchmark, "limit_threads", lambda: None)  # TensorFlow has started
    benchmark.main(["alternatives", "--quick", "--output", str(output)])
    rows = {row["quantity"]: row["numbers"] for row in json.loads(output.read_text())["rows"]}
    assert rows["cross-entropy: step / cross-entropy"]["median"] == 1.0
    passes = {quantity.partition(":")[0]: numbers["passes"] for quantity, numbers in rows.items()}
    assert (passes["SAM"], passes["ELR"]) == (2.0, 1.0)
    assert len(passes) == 14


def test_estimators_of_the_trace_are_compared_at_equal_products(tool, monkeypatch, capsys):
    estimators, layers = tool("trace_estimators"), keras.layers
    pooled = [keras.Input((12, 12, 1)), layers.AveragePooling2D(6), layers.Flatten()]
    network = {"tiny": lambda: keras.Sequential([*pooled, layers.Dense(10)])}
    monkeypatch.setattr(estimators, "NETWORKS", network)
    estimators.main(["--epochs", "0", "--examples", "8", "--repetitions", "3"])
    rows = [line.split(" | ") for line in capsys.readouterr().out.splitlines() if "tiny" in line]
    assert {row[0] for row in rows} == {"| tiny, 50 weights"}
    assert [row[1] for row in rows] == ["20", "20", "60", "60", "200", "200"]
    for row in rows[-2:]:  # XTrace is exact with more than twice as many products as weights
        assert row[4] == "0.00%" != row[3]


def test_the_lowest_versions_are_those_of_pyproject(tool):
    lowest_versions = tool("lowest_versions")
    bounds = lowest_versions.list_lowest(lowest_versions.PYPROJECT.read_text())
    assert {"keras==3.15", "keras-tuner==1.4.8", "jax==0.10.2"} <= {*bounds}
