"""Searches that fail, or find nothing, say so, and repeat what failed."""

import keras
import keras_tuner
import numpy as np
import pytest

import keras_fisher as kf
from keras_fisher.tuning import GridSearch
from tests import nets
from tests.tuning.test_find_alpha import DATA, build_model, find

SHORT = {"epochs": 4, "alphas": (0.1, 0.2)}


class Stop(keras.callbacks.Callback):
    def on_epoch_end(self, epoch, logs=None):
        self.model.stop_training = True


def test_a_callback_must_not_stop_a_candidate_early(tmp_path):
    message = "`callbacks` must not stop training early.* after 1 of 2 epochs, at alpha 0.1"
    with pytest.raises(ValueError, match=message):
        find(tmp_path, callbacks=[Stop()], **SHORT)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*NaN")
def test_candidates_that_are_all_nan_have_no_best(tmp_path):
    def diverge(alpha):
        model = build_model(alpha)
        model.build((None, 5))
        model.set_weights([np.full_like(weight, np.nan) for weight in model.get_weights()])
        return model

    message = r"`objective` must be a number .* val_loss, which is NaN for all of \[0.1, 0.2\]"
    with pytest.raises(ValueError, match=message):
        find(tmp_path, build=diverge, **SHORT)


@pytest.mark.slow
def test_sample_weights_are_passed_as_such(tmp_path):
    weights = np.linspace(0, 2, 64, dtype="float32")
    found = find(tmp_path, data=(*DATA, weights), **SHORT)
    other = find(tmp_path / "other", **SHORT)
    assert not np.allclose(found.model.get_weights()[0], other.model.get_weights()[0])
    with pytest.raises(ValueError, match="another sample_weight"):
        find(tmp_path, data=(*DATA, 2 * weights), **SHORT)


def test_the_range_is_that_of_the_penalty_of_the_model():
    model = nets.compiled("dense", alpha=0.1, penalty="gp_x")
    data = nets.inputs("dense", batch=16), nets.labels(batch=16)
    found, of_inputs, of_weights = (
        kf.tuning.alpha_range(model, data, num_batches=2, batch_size=8, seed=0, **given).value
        for given in ({}, {"penalty": "gp_x"}, {"penalty": "fp"})
    )
    assert found == of_inputs != of_weights


class Broken(keras_tuner.HyperModel):
    """Its trials fail for some alphas."""

    def __init__(self, failing):
        super().__init__()
        self.failing, self.trained = failing, []

    def build(self, hp):
        hp.Choice("alpha", [0.1, 0.2, 0.3, 0.4])
        return keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])

    def fit(self, hp, model, **_):
        if hp.get("alpha") in self.failing:
            raise OSError("broken")
        self.trained.append(hp.get("alpha"))
        return {"val_accuracy": hp.get("alpha")}


class Undefined(Broken):
    """Its accuracy is NaN for some alphas."""

    def fit(self, hp, model, **_):
        self.trained.append(hp.get("alpha"))
        return {"val_accuracy": float("nan") if hp.get("alpha") in self.failing else 0.5}


def test_a_repeated_trial_has_its_new_score(tmp_path):
    for failing, trained in (((0.2,), [0.1, 0.2, 0.3, 0.4]), ((), [0.2])):
        hypermodel = Undefined(failing)
        tuner = GridSearch(hypermodel, directory=tmp_path)
        tuner.search(verbose=0)
        assert hypermodel.trained == trained
    assert [t.score for t in tuner.oracle.get_best_trials(9)] == [0.5] * 4


def test_a_retry_has_its_new_score(tmp_path):
    class OnlyOnce(Undefined):
        def fit(self, hp, model, **_):
            result = super().fit(hp, model)
            self.failing = ()
            return result

    tuner = GridSearch(OnlyOnce((0.1,)), directory=tmp_path, max_retries_per_trial=1)
    tuner.search(verbose=0)
    assert [t.score for t in tuner.oracle.get_best_trials(9)] == [0.5] * 4


def test_failures_of_an_earlier_search_do_not_count(tmp_path):
    for failing in ((0.1, 0.2), (0.1, 0.2), ()):
        hypermodel = Broken(failing)
        GridSearch(hypermodel, directory=tmp_path).search(verbose=0)
    assert hypermodel.trained == [0.1, 0.2]


def test_failed_combinations_are_named_and_repeated(tmp_path, caplog):
    def search(*failing):
        caplog.clear()
        hypermodel = Broken(failing)
        GridSearch(hypermodel, directory=tmp_path).search(verbose=0)
        return hypermodel.trained

    assert search(0.2, 0.3) == [0.1, 0.4]
    assert "2 of 4 combinations failed, and are not compared" in caplog.text
    assert "{'alpha': 0.2}" in caplog.text
    assert search(0.3) == [0.2]
    assert "1 of 4 combinations failed" in caplog.text
    assert search() == [0.3]
    assert "failed" not in caplog.text
    assert search() == []
