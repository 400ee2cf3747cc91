"""The grid: each combination once, however often the search is interrupted."""

import itertools
import shutil

import keras_tuner
import pytest
from keras_tuner.engine.trial import Trial

from keras_fisher.tuning import GridOracle

SEEDS, ALPHAS = [0, 1], [0.001, 0.01, 0.1]
GRID = list(itertools.product(SEEDS, ALPHAS))


def space():
    hp = keras_tuner.HyperParameters()
    hp.Choice("seed", SEEDS)
    hp.Choice("alpha", ALPHAS)
    return hp


def oracle(folder, hyperparameters=None):
    made = GridOracle(
        objective=keras_tuner.Objective("val_accuracy", "max"),
        hyperparameters=hyperparameters or space(),
    )
    made._set_project_dir(str(folder), "grid")
    made.verbose = 0
    return made


def reloaded(folder):
    made = oracle(folder)
    made.reload()
    return made


def begin(oracle, worker="tuner0"):
    return oracle.create_trial(worker)


def finish(oracle, trial, score=0.5):
    oracle.update_trial(trial.trial_id, {"val_accuracy": score})
    trial.status = "COMPLETED"
    oracle.end_trial(trial)


def run_all(oracle):
    """The combinations that are run until the oracle stops."""
    found = []
    while (trial := begin(oracle)).status != "STOPPED":
        found.append(values(trial))
        finish(oracle, trial)
    return found


def values(trial):
    return tuple(trial.hyperparameters.values[name] for name in ("seed", "alpha"))


def test_each_combination_comes_once_the_last_hyperparameter_varying_fastest(tmp_path):
    assert run_all(oracle(tmp_path)) == GRID


def test_the_trial_that_was_running_is_run_again(tmp_path):
    first = oracle(tmp_path)
    finish(first, begin(first))
    begin(first)
    second = reloaded(tmp_path)
    assert run_all(second) == GRID[1:]
    assert len(second.trials) == len(GRID)


def killed_before_the_list_of_all_is_written(folder, step):
    """Takes a step, and puts back the list of all trials as it was before."""
    listed = folder / "grid" / "oracle.json"
    shutil.copy(listed, folder / "kept.json")
    step()
    shutil.copy(folder / "kept.json", listed)


def test_a_kill_while_a_trial_begins_loses_nothing(tmp_path):
    first = oracle(tmp_path)
    finish(first, begin(first))
    killed_before_the_list_of_all_is_written(tmp_path, lambda: begin(first))
    assert run_all(reloaded(tmp_path)) == GRID[1:]


def test_a_kill_while_a_trial_ends_does_not_run_it_again(tmp_path):
    first = oracle(tmp_path)
    trial = begin(first)
    killed_before_the_list_of_all_is_written(tmp_path, lambda: finish(first, trial))
    assert run_all(reloaded(tmp_path)) == GRID[1:]


def test_a_trial_that_a_worker_returns_counts_as_its_own(tmp_path):
    chief = oracle(tmp_path)
    finish(chief, Trial.from_proto(begin(chief).to_proto()))
    assert run_all(chief) == GRID[1:]


def test_a_worker_that_comes_back_is_given_its_trial_again(tmp_path):
    chief = oracle(tmp_path)
    of_one, of_two = begin(chief, "tuner1"), begin(chief, "tuner2")
    assert values(begin(chief, "tuner1")) == values(of_one) != values(of_two)


def test_only_active_values_make_a_combination(tmp_path):
    hp = keras_tuner.HyperParameters()
    hp.Choice("penalty", ["none", "fp"])
    with hp.conditional_scope("penalty", ["fp"]):
        hp.Choice("alpha", ALPHAS)
    found = oracle(tmp_path, hp)
    tried = []
    while (trial := begin(found)).status != "STOPPED":
        tried.append(trial.hyperparameters.values)
        finish(found, trial)
    assert tried == [{"penalty": "none"}, *({"penalty": "fp", "alpha": a} for a in ALPHAS)]


@pytest.mark.parametrize("scores", [[0.1, 0.9, 0.3, 0.2, 0.5, 0.4]])
def test_the_best_trial_is_that_of_the_best_score(tmp_path, scores):
    found = oracle(tmp_path)
    for score in scores:
        finish(found, begin(found), score)
    assert values(found.get_best_trials()[0]) == GRID[1]
