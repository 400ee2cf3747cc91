"""The tuner of a grid, whose grid changes from one search to the next."""

import keras
import keras_tuner
import numpy as np
import pytest

from keras_fisher.tuning import FisherPenaltyHyperModel, GridSearch


class Scores(keras_tuner.HyperModel):
    """Its accuracy is its alpha; it remembers which alphas were trained."""

    def __init__(self, alphas, killed_at=None):
        super().__init__()
        self.alphas, self.killed_at, self.trained = alphas, killed_at, []

    def build(self, hp):
        hp.Choice("alpha", self.alphas)
        return keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])

    def fit(self, hp, model, **_):
        if hp.get("alpha") == self.killed_at:
            raise KeyboardInterrupt
        self.trained.append((hp.get("alpha"), hp.Choice("momentum", [0.0, 0.9])))
        return {"val_accuracy": hp.get("alpha")}


def search(folder, alphas, **arguments):
    """What is trained, and the tuner."""
    scores = Scores(alphas, **arguments)
    tuner = GridSearch(scores, directory=folder)
    tuner.search(verbose=0)
    return scores.trained, tuner


def trained(folder, *alphas, **arguments):
    return search(folder, list(alphas), **arguments)[0]


def test_a_grid_that_has_grown_trains_what_is_new(tmp_path):
    assert trained(tmp_path, 0.01) == [(0.01, 0.0), (0.01, 0.9)]
    found, tuner = search(tmp_path, [0.01, 0.1])
    assert found == [(0.1, 0.0), (0.1, 0.9)]
    assert tuner.get_best_hyperparameters()[0].get("alpha") == 0.1


def test_a_trial_that_was_killed_is_left_if_the_grid_no_longer_has_it(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        trained(tmp_path, 0.01, 0.1, killed_at=0.1)
    assert trained(tmp_path, 0.01, 1.0) == [(1.0, 0.0), (1.0, 0.9)]
    assert trained(tmp_path, 0.01, 0.1, 1.0) == [(0.1, 0.0), (0.1, 0.9)]


def test_a_value_that_the_grid_no_longer_has_is_not_the_best(tmp_path):
    trained(tmp_path, 0.01, 0.1)
    _, tuner = search(tmp_path, [0.001, 0.01])
    assert tuner.get_best_hyperparameters()[0].get("alpha") == 0.01


def test_a_search_begun_alone_continues_as_that_of_the_chief(tmp_path, monkeypatch):
    trained(tmp_path, 0.01)
    monkeypatch.setenv("KERASTUNER_TUNER_ID", "chief")
    assert trained(tmp_path, 0.01, 0.1) == [(0.1, 0.0), (0.1, 0.9)]
    monkeypatch.delenv("KERASTUNER_TUNER_ID")
    assert trained(tmp_path, 0.01, 0.1) == []


def test_a_callback_that_would_restore_one_trial_in_another_is_refused(tmp_path):
    backup = keras.callbacks.BackupAndRestore(tmp_path / "backup")
    with pytest.raises(ValueError, match="`callbacks` must not contain BackupAndRestore"):
        GridSearch(Scores([0.1]), directory=tmp_path).search(callbacks=[backup], verbose=0)


class Untrained(FisherPenaltyHyperModel):
    """A hypermodel whose accuracy is its learning rate."""

    def fit(self, hp, model, *_, **__):
        return {"val_accuracy": hp.get("learning_rate")}


@pytest.mark.matrix
@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"units": 4}, "model"),
        ({"y": 1}, "y"),
        ({"epochs": 2}, "epochs"),
    ],
)
def test_another_search_in_the_same_folder_is_refused(tmp_path, changed, named):
    def search(learning_rates, units=3, y=0, epochs=1):
        def build_backbone(hp):
            return keras.Sequential([keras.Input((2,)), keras.layers.Dense(units)])

        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        hypermodel = Untrained(build_backbone, loss=loss, learning_rates=learning_rates)
        tuner = GridSearch(hypermodel, directory=tmp_path)
        tuner.search(np.zeros((4, 2)), np.full(4, y), epochs=epochs, verbose=0)
        return len(tuner.oracle.trials)

    trained = search([0.1])
    assert search([0.01, 0.1]) == 2 * trained
    message = f"`directory` must be a new folder .* a search with another {named}. Choose"
    with pytest.raises(ValueError, match=message):
        search([0.01, 0.1], **changed)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"directory": np.zeros(3)}, TypeError, r"`directory` must be a path.*\(ndarray\)"),
        ({"directory": b"x"}, TypeError, r"`directory` must be a path.*\(bytes\)"),
        ({"directory": None}, TypeError, r"`directory` must be a path.*\(NoneType\)"),
        ({"directory": ""}, TypeError, r"`directory` must be a path.*\(str\)"),
        ({"project_name": np.zeros(3)}, TypeError, r"`project_name` must be a path.*\(ndarray\)"),
        ({"max_retries_per_trial": -1}, ValueError, "`max_retries_per_trial` must be .* >= 0"),
        ({"max_retries_per_trial": 0.5}, TypeError, "`max_retries_per_trial` must be an integer"),
        ({"max_consecutive_failed_trials": 0}, ValueError, "`max_consecutive_failed_trials` must"),
    ],
)
def test_what_a_search_does_not_take_is_named(tmp_path, arguments, error, message):
    with pytest.raises(error, match=message):
        GridSearch(Scores([0.1]), **{"directory": tmp_path} | arguments)
    assert not any(tmp_path.iterdir())


class Failing(Scores):
    """Its trials fail a number of times."""

    def __init__(self, alphas, failures):
        super().__init__(alphas)
        self.failures = failures

    def fit(self, hp, model, **_):
        if self.failures:
            self.failures -= 1
            raise OSError("for once")
        return super().fit(hp, model)


def test_trials_that_fail_are_run_again_as_often_as_asked(tmp_path):
    failing = Failing([0.1, 0.2], failures=2)
    tuner = GridSearch(failing, directory=tmp_path, max_retries_per_trial=2)
    tuner.search(verbose=0)
    assert failing.trained == [(0.1, 0.0), (0.1, 0.9), (0.2, 0.0), (0.2, 0.9)]
    assert all(trial.status == "COMPLETED" for trial in tuner.oracle.trials.values())


def test_a_search_stops_after_as_many_failures_in_a_row_as_asked(tmp_path):
    failing = Failing([0.1, 0.2, 0.3], failures=9)
    tuner = GridSearch(failing, directory=tmp_path, max_consecutive_failed_trials=2)
    with pytest.raises(RuntimeError, match="consecutive failures"):
        tuner.search(verbose=0)
    assert failing.failures == 7
