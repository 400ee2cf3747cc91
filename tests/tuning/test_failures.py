"""Searches that fail, or find nothing, say so, and repeat what failed."""

import keras
import keras_tuner
import numpy as np
import pytest

import keras_fisher as kf
from keras_fisher.tuning import GridSearch

X = np.random.default_rng(0).normal(size=(24, 4)).astype("float32")
Y = np.argmax(X[:, :3], axis=1)
EAGERLY = keras.backend.backend() == "tensorflow"  # few steps take less time than to compile one


def build_model(alpha):
    keras.utils.set_random_seed(0)
    backbone = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
    model = kf.FisherPenaltyModel(backbone, alpha, update_freq=1, seed=0)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    optimizer = keras.optimizers.SGD(0.1)
    model.compile(optimizer, loss, metrics=["accuracy"], run_eagerly=EAGERLY)
    return model


def find(folder, data=(X, Y), build=build_model, **arguments):
    given = {"validation_data": (X, Y), "epochs": 4, "alphas": (0.1, 0.2), "verbose": 0}
    return kf.tuning.find_alpha(build, data, directory=folder, **given | arguments)


class Stop(keras.callbacks.Callback):
    def on_epoch_end(self, epoch, logs=None):
        self.model.stop_training = True


def test_a_callback_must_not_stop_a_candidate_early(tmp_path):
    message = "`callbacks` must not stop training early.* after 1 of 2 epochs, at alpha 0.1"
    with pytest.raises(ValueError, match=message):
        find(tmp_path, callbacks=[Stop()])


@pytest.mark.filterwarnings("ignore:.*NaN")
def test_candidates_that_are_all_nan_have_no_best(tmp_path):
    def diverge(alpha):
        model = build_model(alpha)
        model.backbone.set_weights([np.full_like(w, np.nan) for w in model.get_weights()[:2]])
        return model

    message = r"`objective` must be a number .* val_loss, which is NaN for all of \[0.1, 0.2\]"
    with pytest.raises(ValueError, match=message):
        find(tmp_path, build=diverge, objective="val_loss")


def test_sample_weights_are_passed_as_such(tmp_path):
    weights = np.linspace(0, 2, 24, dtype="float32")
    found = find(tmp_path, data=(X, Y, weights))
    other = find(tmp_path / "other", data=(X, Y))
    assert not np.allclose(found.model.get_weights()[0], other.model.get_weights()[0])
    with pytest.raises(ValueError, match="another sample_weight"):
        find(tmp_path, data=(X, Y, 2 * weights))


def test_the_range_is_that_of_the_penalty_of_the_model():
    model = kf.FisherPenaltyModel(build_model(0.1).backbone, 0.1, penalty="gp_x")
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("sgd", loss)
    found, of_inputs, of_weights = (
        kf.tuning.alpha_range(model, (X, Y), num_batches=2, batch_size=8, seed=0, **given).value
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
