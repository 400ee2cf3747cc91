"""The model that keras-tuner builds, and searches of keras-tuner's own kinds with it."""

import keras
import keras_tuner
import numpy as np
import pytest

from keras_fisher import tuning

LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def build_backbone(hp):
    units = hp.Int("units", 2, 8, default=4)
    return keras.Sequential(
        [keras.Input((3,)), keras.layers.Dense(units, "relu"), keras.layers.Dense(2)]
    )


def hypermodel(**changes):
    arguments = {"loss": LOSS, "learning_rates": [0.1, 0.3], "alphas": [0.0, 0.1]}
    return tuning.FisherPenaltyHyperModel(build_backbone, **(arguments | changes))


def chosen(**values):
    hp = keras_tuner.HyperParameters()
    hp.values = values
    return hp


def test_seed_rate_alpha_and_the_backbone_s_own_hyperparameters_reach_the_model():
    hp = chosen(seed=3, learning_rate=0.3, alpha=0.1, units=7)
    model = hypermodel(seeds=[2, 3], penalty="gp", update_freq=2).build(hp)
    assert float(model.optimizer.learning_rate) == pytest.approx(0.3)
    assert model.alpha == pytest.approx(0.1)
    assert (model.penalty.labels, model.update_freq) == ("given", 2)
    assert model.backbone.layers[0].units == 7


def test_the_seed_sets_the_weights():
    def weights(seed):
        model = hypermodel(seeds=[0, 1]).build(chosen(seed=seed, learning_rate=0.1, alpha=0.0))
        return np.concatenate([w.ravel() for w in model.get_weights()[:4]])

    np.testing.assert_array_equal(weights(0), weights(0))
    assert np.abs(weights(0) - weights(1)).max() > 0


def test_loaded_weights_include_those_of_the_optimizer(tmp_path):
    first, second = (
        hypermodel().build(chosen(seed=0, learning_rate=0.1, alpha=0.1)) for _ in range(2)
    )
    first.fit(*DATA, batch_size=2, epochs=2, verbose=0)
    first.save_weights(tmp_path / "model.weights.h5")
    second.load_weights(tmp_path / "model.weights.h5")
    assert int(second.optimizer.iterations) == 6


def test_an_optimizer_of_one_s_own():
    made = hypermodel(optimizer=keras.optimizers.Adam)
    model = made.build(chosen(seed=0, learning_rate=0.1, alpha=0.0))
    assert isinstance(model.optimizer, keras.optimizers.Adam)


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"alphas": []}, ValueError, "`alphas` must list at least one value"),
        ({"alphas": [-1.0]}, ValueError, "`alphas` must be at least 0"),
        ({"learning_rates": [0.0]}, ValueError, "`learning_rates` must be positive"),
        ({"seeds": [0.5]}, TypeError, "`seeds` must be an integer"),
        ({"seeds": [0, 2**33]}, ValueError, r"`seeds` must be .* \[0, 4294967295\].*8589934592"),
    ],
)
def test_what_cannot_be_searched_is_refused(changes, error, message):
    with pytest.raises(error, match=message):
        hypermodel(**changes)


DATA = (np.eye(6, 3, dtype="float32"), np.array([0, 1, 0, 1, 0, 1]))
TUNERS = {
    "random": lambda model, **place: keras_tuner.RandomSearch(
        model, "val_accuracy", max_trials=2, seed=0, **place
    ),
    "bayesian": lambda model, **place: keras_tuner.BayesianOptimization(
        model, "val_accuracy", max_trials=2, num_initial_points=1, seed=0, **place
    ),
    "hyperband": lambda model, **place: keras_tuner.Hyperband(
        model, "val_accuracy", max_epochs=2, factor=2, seed=0, **place
    ),
}


@pytest.mark.slow
@pytest.mark.usefixtures("eagerly")
@pytest.mark.parametrize(
    ("kind", "inputs"),
    [*((kind, [keras.Input((3,))]) for kind in TUNERS), ("random", []), ("hyperband", [])],
)
def test_searches_of_keras_tuner_finish(tmp_path, kind, inputs):
    fixed = tuning.FisherPenaltyHyperModel(
        lambda hp: keras.Sequential([*inputs, keras.layers.Dense(2)]),
        loss=LOSS,
        learning_rates=[0.1],
        alphas=[0.0, 0.1, 1.0],
    )
    tuner = TUNERS[kind](fixed, directory=str(tmp_path), project_name=kind)
    tuner.search(*DATA, validation_data=DATA, epochs=1, verbose=0)
    trials = tuner.oracle.trials.values()
    assert all(trial.status == "COMPLETED" for trial in trials)
    assert tuner.get_best_hyperparameters()[0].get("alpha") in (0.0, 0.1, 1.0)
    assert tuner.get_best_models()[0].backbone.count_params() == 8


def test_a_worker_may_not_overwrite_what_others_found(tmp_path, monkeypatch):
    monkeypatch.setenv("KERASTUNER_TUNER_ID", "tuner1")
    monkeypatch.setenv("KERASTUNER_ORACLE_IP", "127.0.0.1")
    monkeypatch.setenv("KERASTUNER_ORACLE_PORT", "9999")
    with pytest.raises(ValueError, match="`overwrite` must be False for a worker"):
        tuning.GridSearch(hypermodel(), directory=tmp_path, overwrite=True)


def test_repetitions_with_the_same_seed_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"`executions_per_trial` must be 1.*several `seeds`"):
        tuning.GridSearch(hypermodel(), directory=tmp_path, executions_per_trial=2)
