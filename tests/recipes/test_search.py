"""The search over alpha and the learning rate, and the recipes that take what it found."""

import dataclasses
import json
import re
import shutil
from pathlib import Path

import approximations
import early_phase
import noisy_cifar100
import pandas as pd
import pytest
import search
import suboptimal_lr
from experiment import command, queue
from experiment import search as with_tuner
from experiment.devices import Devices
from experiment.errors import SettingsError
from experiment.plan.setting import write_flag
from experiment.results import findings, finished_runs

import keras_fisher as kf
from tests.recipes.tiny import OPTIONS

PART = "mlp_digits"


def run(out, *arguments):
    grid = ["--over", "lr", "alpha", "--learning-rates", "0.03", "--alphas", "0", "0.01", "10"]
    command.main(
        search.RECIPE,
        [*OPTIONS, *grid, *arguments, "--out", str(out)],
        train=with_tuner.search,
    )
    return finished_runs.read([out])


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    out = tmp_path_factory.mktemp("search")
    return out, run(out)


def test_machines_share_the_runs_of_a_search_and_not_one_run(tmp_path):
    with pytest.raises(SettingsError, match="`--distribute` must be one or mirrored in a search"):
        with_tuner.search(search.RECIPE, {}, tmp_path, Devices(workers=2))


@pytest.mark.slow
def test_a_run_and_a_trial_for_each_combination(finished):
    out, runs = finished
    assert sorted(run["alpha"] for run in runs) == [0.0, 0.01, 10.0]
    trials = sorted((out / f"search_{PART}").glob("trial_*/trial.json"))
    scores = {}
    for path in trials:
        trial = json.loads(path.read_text())
        scores[trial["hyperparameters"]["values"]["alpha"]] = trial["score"]
    assert scores == {run["alpha"]: run["best"]["validation_accuracy"] for run in runs}


@pytest.mark.slow
def test_the_best_combination_is_marked(finished):
    out, runs = finished
    best = max(runs, key=lambda run: run["best"]["validation_accuracy"])
    marked = [line for line in (out / "table.md").read_text().splitlines() if "(best)" in line]
    assert len(marked) == 1
    assert f"| {best['alpha']:.4g} |" in marked[0]


@pytest.mark.slow
def test_the_folder_of_a_search_is_no_entry_of_tensorboards_list(finished):
    out, runs = finished
    assert not list(out.glob("events.*"))
    assert all(list((out / run["name"] / "tensorboard").glob("events.*")) for run in runs)


@pytest.mark.slow
def test_what_is_finished_is_not_trained_again(finished, monkeypatch):
    out, runs = finished
    monkeypatch.setattr(queue, "train", None)
    assert run(out) == runs


def copied(finished, tmp_path):
    """The folder of a finished search, to go on in."""
    return shutil.copytree(finished[0], tmp_path / "out")


def counted(monkeypatch):
    """The names of the runs that are trained from here on."""
    names, train = [], queue.train

    def counting(run, *arguments):
        names.append(run.name)
        return train(run, *arguments)

    monkeypatch.setattr(queue, "train", counting)
    return names


@pytest.mark.slow
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


@pytest.mark.slow
def test_other_settings_than_those_of_the_folder_are_refused_before_any_training(
    finished, tmp_path, monkeypatch
):
    names = counted(monkeypatch)
    out = copied(finished, tmp_path)
    with pytest.raises(SystemExit, match=r"error: `--out`: .* of other settings \(epochs is 4 th"):
        run(out, "--alphas", "0.02", "0.01", "--epochs", "3")
    assert names == []


@pytest.mark.slow
def test_findings_of_an_earlier_version_are_refused_before_any_training(finished, tmp_path):
    out = copied(finished, tmp_path)
    (out / "chosen.json").write_text(json.dumps({PART: {"penalty": "fp", "alpha": 0.1}}))
    with pytest.raises(
        SystemExit, match=r"error: .*chosen\.json is damaged, or was not written by this ver"
    ):
        run(out, "--alphas", "0.02")
    assert not list(out.glob("*-0.02-seed0"))
    (out / "chosen.json").unlink()
    run(out, "--alphas", "0.02")


@pytest.mark.slow
def test_a_run_that_is_gone_though_its_trial_is_finished_is_an_error(finished, tmp_path):
    out = copied(finished, tmp_path)
    gone = next(out.glob("*-0.01-seed0"))
    shutil.rmtree(gone)
    with pytest.raises(SystemExit, match=f"error: .*without results of {gone.name}.*search_"):
        run(out)
    shutil.rmtree(out / f"search_{PART}")
    assert gone.name in [result["name"] for result in run(out)]


@pytest.mark.slow
@pytest.mark.parametrize("error", [SettingsError("it cannot be"), OSError("no space left")])
def test_what_stops_a_run_of_a_search_is_told_in_a_sentence(tmp_path, monkeypatch, error):
    def stopped(*_):
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(queue, "train", stopped)
        with pytest.raises(SystemExit, match=f"error: {error}"):
            run(tmp_path, "--alphas", "0.01")
    assert len(run(tmp_path, "--alphas", "0.02")) == 1


def test_what_is_not_searched_keeps_its_one_value():
    def searched(*arguments):
        settings = command.parse(search.RECIPE, ["--preset", "paper", *arguments])[0]
        setting = settings["simple_cnn_c10"]
        runs = search.plan("simple_cnn_c10", setting, {})
        return {run.learning_rate for run in runs}, {run.alpha for run in runs}

    chosen = ["--only", "simple_cnn_c10"]
    rates, alphas = {0.01, 0.0316, 0.1, 0.316, 1.0}, {*kf.tuning.alphas()}
    assert searched(*chosen, "--over", "lr", "alpha") == (rates, alphas)
    assert searched(*chosen, "--over", "lr") == (rates, {0.0})
    assert searched(*chosen, "--over", "alpha", "--learning-rate", "0.002") == ({0.002}, alphas)


# ---- What a search has found, in other recipes ---------------------------------------------------

# Accuracies of a grid: the best rate is 0.2 without a penalty, 0.3 under one.
ACCURACIES = {
    (0.2, 0.0): 0.8,
    (0.3, 0.0): 0.7,
    (0.2, 0.01): 0.5,
    (0.2, 0.1): 0.6,
    (0.3, 0.01): 0.9,
    (0.3, 0.1): 0.4,
}


def accuracy_of(run):
    return ACCURACIES[run.learning_rate, run.alpha]


def frame(runs, accuracy):
    """Finished runs of these accuracies."""
    rows = [dataclasses.asdict(run) | {"validation_accuracy": accuracy(run)} for run in runs]
    return pd.DataFrame(rows)


def searched(out, recipe_part=PART, preset="demo", **changes):
    """The folder of a search, as if it had been run."""
    task = CLEAN_TASK if preset == "demo" and not changes.get("noise") else {}
    setting = dataclasses.replace(
        search.PRESETS[preset][recipe_part], **{"seeds": (0,), **task, **changes}
    )
    runs = search.plan(recipe_part, setting, {})
    out.mkdir(exist_ok=True)
    findings.write_findings({recipe_part: setting}, frame(runs, accuracy_of), out)
    return str(out)


# Of the part without noise of suboptimal_lr.py, and not of the one with noise.
CLEAN_TASK = {"width": 128, "num_train": 400, "epochs": 40, "drops": ()}
RATES = {"over": ("lr",), "learning_rates": (0.2, 0.3), "noise": 0.0}
ALPHAS = {"over": ("alpha",), "learning_rate": 0.2, "alphas": (0.0, 0.01, 0.1), "noise": 0.0}
NOISY = {"noise": 0.5}
BOTH = RATES | {"over": ("lr", "alpha"), "alphas": (0.0, 0.01, 0.1)}


def taken(recipe, *arguments, part=PART):
    return command.parse(recipe, ["--only", part, *arguments])[0][part]


def test_eta_star_is_the_best_rate_without_a_penalty(tmp_path):
    untouched = taken(suboptimal_lr.RECIPE)
    setting = taken(suboptimal_lr.RECIPE, "--tuned", searched(tmp_path, **RATES))
    assert setting == dataclasses.replace(untouched, learning_rates=(0.2,))


def test_a_recipe_with_one_learning_rate_takes_the_best_one(tmp_path):
    untouched = taken(noisy_cifar100.RECIPE)
    setting = taken(noisy_cifar100.RECIPE, "--tuned", searched(tmp_path, **RATES | NOISY))
    assert setting == dataclasses.replace(untouched, learning_rate=0.2)


def test_a_recipe_with_one_learning_rate_takes_an_alpha_with_the_rate_it_was_found_at(tmp_path):
    folder = searched(tmp_path, **ALPHAS | NOISY)
    searched(tmp_path, **RATES | NOISY | {"learning_rates": (0.3,)})  # whose eta* is another one
    setting = taken(noisy_cifar100.RECIPE, "--tuned", folder)
    assert (setting.learning_rate, setting.fp) == (0.2, (0.1,))


def test_a_search_over_alpha_leaves_eta_star_alone_though_alpha_0_is_best(tmp_path):
    untouched = taken(suboptimal_lr.RECIPE)
    setting = taken(suboptimal_lr.RECIPE, "--tuned", searched(tmp_path, **ALPHAS))
    assert setting == dataclasses.replace(untouched, fp=(0.1,))


def test_the_alpha_of_a_search_over_both_is_taken_with_its_learning_rate(tmp_path):
    noisy = searched(tmp_path / "noisy", **BOTH | NOISY)
    setting = taken(noisy_cifar100.RECIPE, "--tuned", noisy)
    assert (setting.learning_rate, setting.fp) == (0.3, (0.01,))
    folder = searched(tmp_path / "clean", **BOTH)
    untouched = taken(suboptimal_lr.RECIPE)  # whose small learning rate is another
    setting = taken(suboptimal_lr.RECIPE, "--tuned", folder)
    assert setting == dataclasses.replace(untouched, learning_rates=(0.2,))


def test_without_alpha_0_a_search_over_both_has_no_eta_star(tmp_path):
    folder = searched(tmp_path, **BOTH | {"alphas": (0.01, 0.1)})
    with pytest.raises(SettingsError, match="learning rate and alpha of fp with 0% noise"):
        taken(suboptimal_lr.RECIPE, "--tuned", folder)


def test_searches_add_up_in_one_folder_or_in_several(tmp_path):
    searched(tmp_path / "one", **RATES)
    one = searched(tmp_path / "one", **ALPHAS)
    other = searched(tmp_path / "other", **ALPHAS | {"penalty": "gp_x"})
    setting = taken(suboptimal_lr.RECIPE, "--tuned", one, other)
    assert (setting.learning_rates, setting.fp, setting.gp_x) == ((0.2,), (0.1,), (0.1,))
    assert taken(suboptimal_lr.RECIPE, "--tuned", one, "--fp", "1").fp == (1.0,)


def test_each_penalty_has_the_best_of_its_own_alphas(tmp_path):
    settings = [dataclasses.replace(search.PRESETS["demo"][PART], penalty=p) for p in ("fp", "gp")]
    runs = [run for setting in settings for run in search.plan(PART, setting, {}) if run.alpha]
    found = frame(runs, lambda run: run.alpha if run.penalty == "fp" else 1 - run.alpha)
    for setting in settings:
        findings.write_findings({PART: setting}, found, tmp_path)
    alphas = settings[0].alphas[1:]
    assert {f.penalty: f.alpha for f in findings.read_findings(tmp_path)[PART]} == {
        "fp": max(alphas),
        "gp": min(alphas),
    }


def test_a_search_over_alpha_counts_runs_at_its_own_learning_rate(tmp_path):
    setting = dataclasses.replace(search.PRESETS["demo"][PART], **ALPHAS)
    runs = [
        dataclasses.replace(run, learning_rate=rate, method=f"fp-rate{rate}")
        for rate in (0.2, 0.3)
        for run in search.plan(PART, setting, {})
    ]
    findings.write_findings({PART: setting}, frame(runs, accuracy_of), tmp_path)
    task = findings.get_task(setting)
    expected = findings.Finding(task, 0.0, findings.ALPHA, "fp", 0.2, 0.1)
    assert findings.read_findings(tmp_path)[PART] == [expected]


def test_noisy_labels_take_a_search_on_such_labels_and_clean_ones_another(tmp_path):
    part = "vgg11_c100"
    noisy = searched(tmp_path / "noisy", f"{part}_noise", "paper", **ALPHAS | {"noise": 0.25})
    clean = searched(tmp_path / "clean", part, "paper", **ALPHAS)

    def fp(recipe, folder, *arguments):
        return taken(recipe, "--preset", "paper", "--tuned", folder, *arguments, part=part).fp

    assert fp(noisy_cifar100.RECIPE, noisy) == (0.1,)
    assert fp(suboptimal_lr.RECIPE, clean) == (0.1,)
    for recipe, folder in ((noisy_cifar100.RECIPE, clean), (suboptimal_lr.RECIPE, noisy)):
        with pytest.raises(SettingsError, match=f"`--tuned` must be .*{part}.* Received: {folder}"):
            fp(recipe, folder)
    with pytest.raises(SettingsError, match="alpha of fp with 25% noise for vgg11_c100"):
        fp(noisy_cifar100.RECIPE, noisy, "--noise", "0.5")


@pytest.mark.parametrize(
    ("recipe", "part"),
    [(approximations.RECIPE, "figure13"), (early_phase.RECIPE, PART)],
)
def test_a_search_of_which_a_recipe_can_take_nothing_is_refused(tmp_path, recipe, part):
    for changes in (RATES, ALPHAS, BOTH):
        with pytest.raises(SettingsError, match=f"`--tuned` must be searches that {part} can take"):
            taken(recipe, "--tuned", searched(tmp_path, **changes), part=part)


def test_what_was_searched_with_another_augmentation_or_length_is_refused(tmp_path):
    other = searched(tmp_path, **RATES | {"augment": "flip", "epochs": 41, "drops": (9, 20)})
    message = (
        "searched with --augment flip (this part has none), --epochs 41 (this part has 40), "
        "--drops 9 20 (this part has none)"
    )
    with pytest.raises(SettingsError, match=re.escape(message)):
        taken(suboptimal_lr.RECIPE, "--tuned", other)
    both = searched(tmp_path, **RATES | {"learning_rates": (0.2,)})  # in the same folder
    assert taken(suboptimal_lr.RECIPE, "--tuned", both).learning_rates == (0.2,)
    task = ("--augment", "flip", "--epochs", "41", "--drops", "9", "20")
    assert taken(suboptimal_lr.RECIPE, "--tuned", both, *task).learning_rates == (0.2,)


@pytest.mark.parametrize(("field", "value"), [("optimizer", "adam"), ("drop_factor", 0.5)])
def test_what_was_searched_with_another_optimisation_is_refused(tmp_path, field, value):
    other = searched(tmp_path, **RATES | {field: value})
    with pytest.raises(SettingsError, match=rf"searched with {write_flag(field)} {value} "):
        taken(suboptimal_lr.RECIPE, "--tuned", other)


def test_an_alpha_of_another_schedule_is_refused_and_a_rate_is_taken(tmp_path):
    schedule = {"update_freq": 1, "penalty_batch_size": 0.25}
    rate = searched(tmp_path / "rate", **RATES | schedule | {"learning_rates": (0.2,)})
    assert taken(suboptimal_lr.RECIPE, "--tuned", rate).learning_rates == (0.2,)
    alpha = searched(tmp_path / "alpha", **ALPHAS | schedule)
    message = "--update-freq 1 (this part has 10), --penalty-batch-size 0.25 (this part has 0)"
    with pytest.raises(SettingsError, match=re.escape(message)):
        taken(suboptimal_lr.RECIPE, "--tuned", alpha)
    options = ("--update-freq", "1", "--penalty-batch-size", "0.25")
    assert taken(suboptimal_lr.RECIPE, "--tuned", alpha, *options).fp


def test_a_search_of_an_earlier_version_is_taken(tmp_path):
    folder = Path(searched(tmp_path, **RATES | {"learning_rates": (0.2,)}))
    content = json.loads((folder / findings.FINDINGS).read_text())
    for name in findings.UNWRITTEN:
        del content[PART][0]["task"][name]
    (folder / findings.FINDINGS).write_text(json.dumps(content))
    assert taken(suboptimal_lr.RECIPE, "--tuned", str(folder)).learning_rates == (0.2,)


def test_another_task_of_one_part_is_refused_beside_the_own_one_of_another(tmp_path):
    searched(tmp_path, "vgg11_c100", "paper", **RATES)
    folder = searched(tmp_path, "simple_cnn_c10", "paper", **RATES | {"epochs": 10})
    arguments = ["--preset", "paper", "--only", "vgg11_c100", "simple_cnn_c10", "--tuned", folder]
    with pytest.raises(SettingsError, match=r"task of simple_cnn_c10\..*--epochs 10"):
        command.parse(suboptimal_lr.RECIPE, arguments)


def test_two_learning_rates_for_one_are_refused(tmp_path):
    folders = [searched(tmp_path / "fp", **BOTH | NOISY)]
    folders.append(searched(tmp_path / "other", **BOTH | NOISY | {"learning_rates": (0.2,)}))
    with pytest.raises(SettingsError, match=r"`--tuned` must have one .*Received: 0\.2, 0\.3"):
        taken(noisy_cifar100.RECIPE, "--tuned", *folders)


@pytest.mark.slow
def test_a_search_keeps_what_it_has_found(finished):
    out, runs = finished
    best = max((r for r in runs if r["alpha"]), key=lambda run: run["best"]["validation_accuracy"])
    task = {name: runs[0][name] for name in findings.TASK}
    assert json.loads((out / "chosen.json").read_text()) == {
        PART: [
            {
                "task": task,
                "noise": 0.5,
                "over": ["lr"],
                "penalty": "",
                "learning_rate": 0.03,
                "alpha": 0.0,
            },
            {
                "task": task,
                "noise": 0.5,
                "over": ["lr", "alpha"],
                "penalty": "fp",
                "learning_rate": 0.03,
                "alpha": best["alpha"],
            },
        ]
    }


@pytest.mark.slow
def test_several_penalties_and_noises_in_a_folder_are_told_apart(finished, tmp_path):
    out = copied(finished, tmp_path)
    run(out, "--alphas", "0.01", "--penalty", "gp")
    run(out, "--alphas", "0.01", "--noise", "0.25")
    lines = (out / "table.md").read_text().splitlines()
    marked = [line.split(" |")[:2] for line in lines if "(best)" in line]
    assert marked == [
        [f"| {PART}, 25% noise", " fp"],
        [f"| {PART}, 50% noise", " fp"],
        [f"| {PART}, 50% noise", " gp"],
    ]
    found = json.loads((out / "chosen.json").read_text())[PART]
    assert [(one["noise"], one["penalty"]) for one in found] == [
        (0.5, ""),
        (0.5, "fp"),
        (0.5, "gp"),
        (0.25, "fp"),
    ]


def test_a_search_that_is_not_finished_is_refused(tmp_path):
    with pytest.raises(SystemExit, match=r"error: `--tuned` must be folders of finished searches"):
        command.main(suboptimal_lr.RECIPE, ["--tuned", str(tmp_path)])
