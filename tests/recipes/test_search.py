"""The search over alpha and the learning rate, and the recipes that take what it found."""

import json
import shutil

import large_batch
import pytest
import search
import suboptimal_lr
import tensorflow as tf
from experiment import command, results, running
from experiment import search as with_tuner
from experiment.devices import Devices
from experiment.errors import SettingsError
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams import plugin_data_pb2

import keras_fisher as kf
from tests.recipes.tiny import OPTIONS

PART = "mlp_digits"


def run(out, *arguments):
    grid = ["--over", "lr", "alpha", "--learning-rates", "0.03", "--alphas", "0", "0.01", "10"]
    command.main(
        search.RECIPE,
        [*OPTIONS, *grid, *arguments, "--out", str(out)],
        run_all=with_tuner.search,
    )
    return results.read([out])


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    out = tmp_path_factory.mktemp("search")
    return out, run(out)


def test_machines_share_the_runs_of_a_search_and_not_one_run(tmp_path):
    with pytest.raises(SettingsError, match="`--distribute` must be one or mirrored in a search"):
        with_tuner.search(search.RECIPE, {}, tmp_path, Devices(workers=2))


def test_a_run_and_a_trial_for_each_combination(finished):
    out, runs = finished
    assert sorted(run["alpha"] for run in runs) == [0.0, 0.01, 10.0]
    trials = sorted((out / f"search_{PART}").glob("trial_*/trial.json"))
    scores = {}
    for path in trials:
        trial = json.loads(path.read_text())
        scores[trial["hyperparameters"]["values"]["alpha"]] = trial["score"]
    assert scores == {run["alpha"]: run["best"]["validation_accuracy"] for run in runs}


def test_the_best_combination_is_kept_and_marked(finished):
    out, runs = finished
    best = max(runs, key=lambda run: run["best"]["validation_accuracy"])
    chosen = json.loads((out / "chosen.json").read_text())[PART]
    assert chosen == {"penalty": "fp", "learning_rate": 0.03, "alpha": best["alpha"]}
    marked = [line for line in (out / "table.md").read_text().splitlines() if "chosen" in line]
    assert len(marked) == 1
    assert f"| {best['alpha']:.4g} |" in marked[0]


def test_tensorboard_shows_what_is_searched_and_what_was_found(finished):
    out, runs = finished
    events = EventAccumulator(str(out)).Reload()
    data = events.SummaryMetadata("_hparams_/experiment").plugin_data.content
    experiment = plugin_data_pb2.HParamsPluginData.FromString(data).experiment
    assert [info.name for info in experiment.hparam_infos][:3] == ["seed", "learning_rate", "alpha"]
    assert "best/validation_accuracy" in [info.name.tag for info in experiment.metric_infos]
    for run in runs:
        scalars = EventAccumulator(str(out / run["name"] / "tensorboard")).Reload()
        logged = scalars.Tensors("best/validation_accuracy")[0].tensor_proto
        assert tf.make_ndarray(logged) == pytest.approx(run["best"]["validation_accuracy"])


def test_what_is_finished_is_not_trained_again(finished, monkeypatch):
    out, runs = finished
    monkeypatch.setattr(running, "train", None)
    assert run(out) == runs


def copied(finished, tmp_path):
    """The folder of a finished search, to go on in."""
    return shutil.copytree(finished[0], tmp_path / "out")


def counted(monkeypatch):
    """The names of the runs that are trained from here on."""
    names, train = [], running.train

    def counting(run, *arguments):
        names.append(run.name)
        return train(run, *arguments)

    monkeypatch.setattr(running, "train", counting)
    return names


@pytest.mark.parametrize(
    ("changed", "new"),
    [
        (["--alphas", "0.01", "0.02"], ["noise50-fp-rate0.03-0.02-seed0"]),
        (["--alphas", "0.01", "--learning-rates", "0.05"], ["noise50-fp-rate0.05-0.01-seed0"]),
        (["--alphas", "0.01", "--seeds", "0", "1"], ["noise50-fp-rate0.03-0.01-seed1"]),
        (["--alphas", "0.01", "--penalty", "gp"], ["noise50-gp-rate0.03-0.01-seed0"]),
        (["--alphas", "0.01", "--noise", "0.25"], ["noise25-fp-rate0.03-0.01-seed0"]),
    ],
)
def test_another_search_in_the_folder_trains_what_is_new(
    finished, tmp_path, monkeypatch, changed, new
):
    names = counted(monkeypatch)
    out = copied(finished, tmp_path)
    found = {result["name"] for result in run(out, *changed)}
    assert names == [f"{PART}-{name}" for name in new]
    assert found == {*names, *(result["name"] for result in finished[1])}


def test_other_settings_than_those_of_the_folder_are_refused_before_any_training(
    finished, tmp_path, monkeypatch
):
    names = counted(monkeypatch)
    out = copied(finished, tmp_path)
    with pytest.raises(SystemExit, match=r"error: `--out`: .* of other settings \(epochs is 4 th"):
        run(out, "--alphas", "0.02", "0.01", "--epochs", "3")
    assert names == []


def test_a_run_that_is_gone_though_its_trial_is_finished_is_an_error(finished, tmp_path):
    out = copied(finished, tmp_path)
    gone = next(out.glob("*-0.01-seed0"))
    shutil.rmtree(gone)
    with pytest.raises(SystemExit, match=f"error: .*without results of {gone.name}.*search_"):
        run(out)
    shutil.rmtree(out / f"search_{PART}")
    assert gone.name in [result["name"] for result in run(out)]


@pytest.mark.parametrize("error", [SettingsError("it cannot be"), OSError("no space left")])
def test_what_stops_a_run_of_a_search_is_told_in_a_sentence(tmp_path, monkeypatch, error):
    def stopped(*_):
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(running, "train", stopped)
        with pytest.raises(SystemExit, match=f"error: {error}"):
            run(tmp_path, "--alphas", "0.01")
    assert len(run(tmp_path, "--alphas", "0.02")) == 1


def test_what_is_not_searched_keeps_its_one_value():
    def searched(*arguments):
        settings = command.parse(search.RECIPE, ["--preset", "paper", *arguments])[0]
        setting = settings["simple_cnn_c10"]
        runs = search.plan("simple_cnn_c10", setting, {})
        return {run.learning_rate for run in runs}, {run.alpha for run in runs}

    chosen = ["--setting", "simple_cnn_c10"]
    rates, alphas = {0.01, 0.0316, 0.1, 0.316, 1.0}, {*kf.tuning.alphas()}
    assert searched(*chosen, "--over", "lr", "alpha") == (rates, alphas)
    assert searched(*chosen, "--over", "lr") == (rates, {0.0})
    assert searched(*chosen, "--over", "alpha", "--learning-rate", "0.002") == ({0.002}, alphas)


def test_other_recipes_take_what_was_found(tmp_path):
    for name, values in {
        "rates": {"penalty": "fp", "learning_rate": 0.3, "alpha": 0.0},
        "alphas": {"penalty": "fp", "learning_rate": 0.03, "alpha": 0.07},
        "inputs": {"penalty": "gp_x", "learning_rate": 0.03, "alpha": 7.0},
    }.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "chosen.json").write_text(json.dumps({PART: values}))
    tuned = ["--tuned", *(str(tmp_path / name) for name in ("rates", "alphas", "inputs"))]
    setting = command.parse(suboptimal_lr.RECIPE, tuned)[0][PART]
    assert (setting.learning_rates, setting.fp, setting.gp_x) == ((0.3,), (0.07,), (7.0,))
    assert command.parse(suboptimal_lr.RECIPE, [*tuned, "--fp", "1"])[0][PART].fp == (1.0,)
    assert command.parse(large_batch.RECIPE, tuned)[0][PART].alphas == (0.07,)


def test_a_search_that_is_not_finished_is_refused(tmp_path):
    with pytest.raises(SystemExit, match=r"error: `--tuned` must be folders of finished searches"):
        command.main(suboptimal_lr.RECIPE, ["--tuned", str(tmp_path)])
