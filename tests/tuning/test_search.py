"""The tuner of a grid, whose grid changes from one search to the next."""

import keras
import keras_tuner
import pytest

from keras_fisher.tuning import GridSearch


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


def test_a_grid_that_has_not_changed_trains_nothing(tmp_path):
    trained(tmp_path, 0.01)
    assert trained(tmp_path, 0.01) == []


def test_a_trial_that_was_killed_is_left_if_the_grid_no_longer_has_it(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        trained(tmp_path, 0.01, 0.1, killed_at=0.1)
    assert trained(tmp_path, 0.01, 1.0) == [(1.0, 0.0), (1.0, 0.9)]
    assert trained(tmp_path, 0.01, 0.1, 1.0) == [(0.1, 0.0), (0.1, 0.9)]
