"""The command line of the recipes."""

import contextlib
import gc
import importlib
import json
import os
import re
import shutil
import tempfile
import urllib.request
from pathlib import Path

import early_to_final_curvature
import keras
import noisy_cifar100
import pytest
import suboptimal_lr
from experiment import command, errors, files, queue
from experiment.results import finished_runs

from tests.data.fakes import unreachable
from tests.recipes.test_plans import NAMES
from tests.recipes.tiny import OPTIONS
from tools import report

BACKEND = keras.backend.backend()


def run(out, *arguments):
    command.main(noisy_cifar100.RECIPE, [*OPTIONS, "--seeds", "0", *arguments, "--out", str(out)])
    return finished_runs.read([out])


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    out = tmp_path_factory.mktemp("finished")
    return out, run(out, "--methods", "baseline", "fp")


def test_one_run_for_each_method_and_a_table_and_a_picture_of_all(finished):
    out, runs = finished
    assert [r["method"] for r in runs] == ["baseline", "fp"]
    written = json.loads((out / "results.json").read_text())["runs"]
    assert [r["best"] for r in written] == [r["best"] for r in runs]
    table = (out / "table.md").read_text()
    assert "| 50% | mlp_digits | test accuracy at the end |" in table
    assert "41.74 | 52.31 | 45.94 | 60.18 | 58.46" in table
    assert (out / "figure.png").read_bytes().startswith(b"\x89PNG")


def test_folder_of_a_run_holds_its_settings_and_versions(finished):
    out, runs = finished
    written = json.loads((out / runs[1]["name"] / "settings.json").read_text())
    assert (written["run"]["alpha"], written["run"]["noise"]) == (0.3, 0.5)
    assert {"keras", keras.backend.backend(), "keras-fisher"} <= set(written["versions"])


def test_finished_runs_are_not_run_again(finished, monkeypatch):
    out, runs = finished
    monkeypatch.setattr(queue, "train", None)
    assert run(out, "--methods", "baseline", "fp") == runs


@pytest.mark.slow
def test_a_run_leaves_no_graph_in_memory(tmp_path):
    FuncGraph = pytest.importorskip("tensorflow.python.framework.func_graph").FuncGraph

    def graphs():
        gc.collect()
        return sum(isinstance(found, FuncGraph) for found in gc.get_objects())

    before = graphs()
    run(tmp_path, "--methods", "baseline", "fp")
    assert graphs() <= before


@pytest.fixture
def read_only(finished):
    """A finished folder that cannot be written to, by whoever runs the tests."""
    with tempfile.TemporaryDirectory() as name:
        out = shutil.copytree(finished[0], Path(name) / "out")
        folders = [Path(name), out, *(path for path in out.rglob("*") if path.is_dir())]
        for folder in folders:
            folder.chmod(0o555)
        user = os.geteuid()
        if not user:
            os.seteuid(65534)  # the superuser writes everywhere
        yield out
        os.seteuid(user)
        for folder in folders:
            folder.chmod(0o755)


def test_a_finished_run_in_a_read_only_folder_shows_its_table(read_only, capsys):
    table = (read_only / "table.md").read_text()
    with pytest.raises(PermissionError):
        (read_only / "new").write_text("")
    run(read_only, "--methods", "baseline", "fp")
    shown = capsys.readouterr().out
    assert table in shown
    assert f"{read_only / 'figure.png'} could not be written: Permission denied" in shown
    report.main([str(read_only)])
    assert table in capsys.readouterr().out


def test_a_run_that_is_not_finished_needs_a_folder_that_can_be_written(read_only):
    with pytest.raises(SystemExit, match=r"error: .*Permission denied"):
        run(read_only, "--methods", "gp_r")


def test_parts_of_a_grid_are_put_together(finished, tmp_path, monkeypatch, capsys):
    out, runs = finished
    for method in ("baseline", "fp"):  # as if each had been run on a machine of its own
        run_folder = next(r["name"] for r in runs if r["method"] == method)
        shutil.copytree(out / run_folder, tmp_path / method / run_folder)
        shutil.copy(out / "recipe.json", tmp_path / method)
    folders = [str(tmp_path / method) for method in ("fp", "baseline")]
    report.main([*folders, "--out", str(tmp_path / "together")])
    assert (tmp_path / "together" / "table.md").read_text() == (out / "table.md").read_text()
    assert (tmp_path / "together" / "figure.png").exists()
    assert (out / "table.md").read_text() in capsys.readouterr().out


def test_runs_of_other_settings_are_not_averaged(finished, tmp_path):
    out, runs = finished
    settings = json.loads((out / runs[1]["name"] / "settings.json").read_text())
    for seed, rate in ((0, 0.1), (1, 0.2)):
        shutil.copytree(out / runs[1]["name"], tmp_path / f"fp-seed{seed}")
        settings["run"] |= {"seed": seed, "learning_rate": rate}
        (tmp_path / f"fp-seed{seed}" / "settings.json").write_text(json.dumps(settings))
    shutil.copy(out / "recipe.json", tmp_path)
    with pytest.raises(SystemExit, match=r"only in their seeds.*learning_rate is 0\.1 and 0\.2"):
        report.main([str(tmp_path)])


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["--epochs", "5"], r"baseline.* and .*fp-1-.* the same task.*epochs is 4 and 5"),
        (["--width", "9"], r"baseline.* and .*fp-1-.* the same task.*width is 8 and 9"),
        (["--learning-rate", "0.2"], r"fp-0\.3-.* and .*fp-1-.* only in alpha.*learning_rate"),
    ],
)
def test_runs_that_no_table_may_compare_are_refused_before_any_is_trained(
    finished, monkeypatch, given, said
):
    monkeypatch.setattr(queue, "train", None)
    with pytest.raises(SystemExit, match=f"error: .*{said}"):
        run(finished[0], "--methods", "fp", "--fp", "1", *given)


def test_folder_of_other_settings_is_refused_and_left_alone(finished):
    out, _ = finished
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*.json")}
    with pytest.raises(SystemExit, match=r"--out.*epochs is 4 there"):
        run(out, "--epochs", "5")
    with pytest.raises(SystemExit, match=r"--out.*suboptimal_lr.*holds noisy_cifar100"):
        command.main(suboptimal_lr.RECIPE, ["--out", str(out)])
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*.json")} == before


def test_a_folder_of_the_other_backend_is_refused_and_left_alone(finished, tmp_path):
    shutil.copytree(finished[0], tmp_path, dirs_exist_ok=True)
    trained_by(tmp_path, **{other_backend(): "1.2"})
    for path in tmp_path.glob("*/results.json"):
        path.unlink()  # as if they had been killed
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.json")}
    with pytest.raises(SystemExit, match=f"error: `--out`.* runs of .*backend {other_backend()}"):
        run(tmp_path, "--methods", "mixup")
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.json")} == before


def test_the_report_names_the_versions_that_a_run_was_trained_with(finished, tmp_path):
    shutil.copytree(finished[0], tmp_path, dirs_exist_ok=True)
    trained_by(tmp_path, **{other_backend(): "1.2"})
    report.main([str(tmp_path)])
    written = json.loads((tmp_path / "results.json").read_text())
    assert [run["versions"] for run in written["runs"]] == [{other_backend(): "1.2"}] * 2


def other_backend():
    return "tensorflow" if keras.backend.backend() == "jax" else "jax"


def trained_by(out, **versions):
    """Has finished runs say that they were trained with these versions."""
    for path in out.glob("*/settings.json"):
        path.write_text(json.dumps(json.loads(path.read_text()) | {"versions": versions}))


@pytest.mark.slow
def test_a_run_that_another_process_trains_is_waited_for(finished, tmp_path, monkeypatch):
    folder = tmp_path / finished[1][0]["name"]
    folder.mkdir()
    waits = []
    with contextlib.ExitStack() as stack:
        stack.enter_context(files.lock_folder(folder))

        def end_the_other(seconds):
            assert {path.name for path in folder.iterdir()} == {".lock", "settings.json"}
            waits.append(seconds)
            stack.close()

        monkeypatch.setattr(queue.time, "sleep", end_the_other)
        (trained,) = run(tmp_path, "--methods", "baseline")
    assert waits == [queue.SECONDS_BETWEEN_LOOKS]
    assert trained["best"] == finished[1][0]["best"]


def test_a_process_takes_the_runs_that_no_other_trains(finished, tmp_path, monkeypatch):
    trained = []

    def train(run, *_):
        if run.method == "baseline":
            raise errors.LockedError
        trained.append(run.method)
        return {"best": {"validation_accuracy": 0.5}}

    def stop(_):
        raise KeyboardInterrupt

    monkeypatch.setattr(queue, "train_one", train)
    monkeypatch.setattr(queue.time, "sleep", stop)
    with pytest.raises(SystemExit, match="Interrupted"):
        run(tmp_path, "--methods", "baseline", "fp", "gp_r")
    assert trained == ["fp", "gp_r"]


def test_missing_data_without_network_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setattr(urllib.request, "urlopen", unreachable)
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "nothing"))
    with pytest.raises(SystemExit, match=r"TFDS_DATA_DIR[\s\S]*--preset demo"):
        run(tmp_path / "out", "--dataset", "cifar100")


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("--noise", "1.5"),
        ("--fp", "-1"),
        ("--epochs", "0"),
        ("--learning-rate", "nan"),
        ("--num-train", "100000"),
        ("--batch-size", "151"),
        ("--seeds", ""),
        ("--seeds", "0 -1"),
        ("--drops", "-3"),
        ("--steps-per-execution", "2"),
    ],
)
def test_impossible_setting_is_refused_by_name(tmp_path, option, value):
    name = option.strip("-").replace("-", "[-_]")
    with pytest.raises(SystemExit, match=f"error: `.*{name}` must"):
        run(tmp_path, *f"{option} {value}".split())
    assert not list(tmp_path.glob("*/results.json"))


def test_seeds_that_others_are_derived_from_are_refused_by_name(tmp_path, monkeypatch):
    monkeypatch.setattr(queue, "train", None)
    arguments = ["--seeds", "42949672", "--out", str(tmp_path / "out")]
    with pytest.raises(SystemExit, match=r"error: `--seeds` must be .* Received: 42949672"):
        command.main(early_to_final_curvature.RECIPE, arguments)


@pytest.mark.parametrize(
    ("option", "choice"), [(["--methods", "dropout"], "mixup"), (["--dataset", "mnist"], "cifar10")]
)
def test_unknown_choice_is_refused_with_the_choices(tmp_path, capsys, option, choice):
    with pytest.raises(SystemExit):
        run(tmp_path, *option)
    said = capsys.readouterr().err
    assert all(word in said for word in ("invalid choice", *option, choice))


def test_unknown_part_is_refused_with_the_parts(tmp_path):
    with pytest.raises(SystemExit, match=r"`--only` must list parts .*: mlp_digits. Received: vgg"):
        run(tmp_path, "--only", "vgg")


def help_of(recipe, capsys, *arguments):
    with pytest.raises(SystemExit):
        command.main(recipe, [*arguments, "--help"])
    return " ".join(capsys.readouterr().out.replace("│", "").split())


def test_help_shows_the_defaults_of_a_part_of_the_preset(capsys):
    shown = help_of(noisy_cifar100.RECIPE, capsys, "--preset", "paper")
    assert "Defaults below are those of vgg11_c100" in shown
    assert "(default: 10.0 30.0 100.0 300.0 1000.0)" in shown
    assert "(default: 80 120 160 200 240 280)" in shown
    arguments = ["--preset", "paper", "--only", "wide_resnet_c100"]
    assert "(default: 150 225)" in help_of(noisy_cifar100.RECIPE, capsys, *arguments)
    shown = help_of(noisy_cifar100.RECIPE, capsys, "--preset", "demo")
    assert "passes over the training examples (default: 45)" in shown


@pytest.mark.parametrize("name", NAMES)
def test_every_option_has_a_help(name, capsys):
    shown = help_of(importlib.import_module(name).RECIPE, capsys)
    assert re.findall(r"--\S+ (?:INT|FLOAT|\[\S+ \[\S+ \.\.\.\]\]) \(default", shown) == []


def test_a_value_that_is_given_holds_for_the_parts_that_only_leaves():
    arguments = ["--preset", "paper", "--only", "vgg11_c100", "simple_cnn_c10", "--epochs", "7"]
    settings, _ = command.parse(suboptimal_lr.RECIPE, arguments)
    assert {part: setting.epochs for part, setting in settings.items()} == {
        "vgg11_c100": 7,
        "simple_cnn_c10": 7,
    }
    assert settings["vgg11_c100"].weight_decay == 1e-4  # the rest is the part's own


def test_dry_run_says_what_it_would_cost_and_runs_nothing(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(queue, "train", None)
    arguments = ["--preset", "paper", "--dry-run", "--out", str(tmp_path / "out")]
    command.main(noisy_cifar100.RECIPE, arguments)
    shown = capsys.readouterr().out
    # Two noises times a baseline, 5 betas and 5, 4 and 4 alphas; 45,000 images in batches of 128.
    steps = f"{38 * 300 * 352:,}"
    assert f"| vgg11 | cifar100 | 38 | 11,400 | {steps} |" in shown
    assert not (tmp_path / "out").exists()
