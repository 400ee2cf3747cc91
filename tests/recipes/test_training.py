"""What a run trains, records and takes up again."""

import dataclasses
import json

import keras
import numpy as np
import pytest
from experiment.run import record
from experiment.run.data import load_data
from experiment.run.measures import BatchAccuracy
from experiment.run.model import build_model

import keras_fisher as kf
from tests.recipes.tiny import Killed, Killing, tiny, trained

ALL_MEASURES = {
    "fisher_trace": {"freq": 2, "num_examples": 20},
    "minibatch_fisher_trace": {"every_epochs": 2, "num_examples": 20},
    "gradient_norm": {},
    "early_fisher_trace": {"loss_threshold": 2.0, "num_examples": 20},
    "batch_accuracy": {},
}
RUNS = {
    "fp": tiny(
        alpha=0.1,
        penalty_from=2,
        penalty_batch_size=16,
        weight_decay=1e-2,
        measures=ALL_MEASURES,
        at_start={"fisher_trace": {}},
    ),
    "mixup": tiny(
        "mixup",
        mixup_beta=1.6,
        noise=0.5,
        monitored=100,
        gradient_batches=1,
        steps_per_epoch=3,
        measures={"label_scores": {}},
    ),
    "elr": tiny("fp_elr", alpha=0.1, elr=3.0, noise=0.5, measures={"label_accuracies": {}}),
    "sam": tiny("sam", radius=0.5),
    "gce": tiny("fp_gce", alpha=0.1, gce_q=0.7),
    "smoothing": tiny("smoothing", label_smoothing=0.4),
}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The figures of each run, trained when they are first asked for."""
    out, figures = tmp_path_factory.mktemp("finished"), {}

    def get(name):
        if name not in figures:
            keras.utils.set_random_seed(0)
            figures[name] = trained(RUNS[name], out)
        return figures[name], out / RUNS[name].name

    return get


@pytest.mark.slow
@pytest.mark.parametrize("name", RUNS)
def test_killed_run_ends_like_one_that_was_not(finished, tmp_path, monkeypatch, name):
    # A checkpoint after each epoch but the one that it is killed in: that one is done twice.
    monkeypatch.setattr(record, "SECONDS_BETWEEN_CHECKPOINTS", 0.0)
    save = record.Record._save
    monkeypatch.setattr(
        record.Record, "_save", lambda self, epoch: save(self, epoch) if epoch < 2 else None
    )
    with pytest.raises(Killed):
        trained(RUNS[name], tmp_path, Killing(2))
    folder = tmp_path / RUNS[name].name
    kept = json.loads((folder / "progress.json").read_text())
    assert kept["checkpoint"] == "epoch-1.weights.h5"
    assert (folder / f"best-{kept['state']['best']['epoch']}.weights.h5").exists()
    monkeypatch.undo()
    keras.utils.set_random_seed(7)
    assert trained(RUNS[name], tmp_path) == finished(name)[0]


@pytest.mark.slow
def test_the_seed_decides_the_figures_and_nothing_else_does(finished, tmp_path):
    keras.utils.set_random_seed(7)
    figures, _ = finished("mixup")
    assert trained(RUNS["mixup"], tmp_path / "again") == figures
    other = dataclasses.replace(RUNS["mixup"], seed=1)
    assert trained(other, tmp_path / "other")["history"]["loss"] != figures["history"]["loss"]


@pytest.mark.slow
def test_clean_and_wrong_labels_are_followed(finished):
    history = finished("mixup")[0]["history"]
    ratio = np.divide(history["clean_gradient_norm"], history["noisy_gradient_norm"])
    np.testing.assert_allclose(history["gradient_norm_ratio"], ratio, rtol=1e-5)
    assert len(history["clean_accuracy"]) == len(history["noisy_accuracy"]) == 4


@pytest.mark.slow
def test_accuracies_of_one_prediction_are_those_of_each_kind_of_labels(finished):
    figures, folder = finished("elr")
    run, history = RUNS["elr"], figures["history"]
    data = load_data(run)
    model = build_model(run, data)
    model.backbone.load_weights(folder / "last.weights.h5")
    wrong = data.is_wrong
    assert 0 < wrong.sum() < 150
    expected = {
        "test_accuracy": data.test,
        "noisy_val_accuracy": data.noisy_validation,
        "memorised_accuracy": [array[wrong] for array in data.training],
        "val_accuracy": data.validation,
    }
    for key, (x, y) in expected.items():
        predicted = np.argmax(model.predict(x, verbose=0), axis=1)
        np.testing.assert_allclose(history[key][-1], np.mean(predicted == y), rtol=1e-6)


@pytest.mark.slow
def test_a_run_without_alpha_has_no_penalty(finished):
    assert finished("fp")[0]["final"]["penalty"] > 0
    assert finished("mixup")[0]["history"]["penalty"] == [0, 0, 0, 0]


def test_folder_holds_the_record(finished):
    _, folder = finished("fp")
    assert {path.name for path in folder.iterdir()} == {
        "results.json",
        "time.json",
        "tensorboard",
        "best.weights.h5",
        "last.weights.h5",
    }
    written = json.loads((folder / "results.json").read_text())
    assert all(len(values) == 4 for values in written["history"].values())
    assert written["history"]["early_fisher_trace"][0] is None  # JSON has no NaN


def test_measures_are_taken_as_often_as_asked(finished):
    figures, _ = finished("fp")
    steps = 5 * 4  # ceil(150 / 32) steps in each of four epochs
    curves = {key: [m[0] for m in c.get("history", [])] for key, c in figures["curves"].items()}
    assert curves["fisher_trace"] == [*range(2, steps + 1, 2)]
    assert curves["minibatch_fisher_trace"] == [10, 20]
    assert curves["gradient_norm"] == [5, 10, 15, 20]
    assert curves["batch_accuracy"] == [*range(1, steps + 1)]


def test_batch_accuracies_average_to_that_of_the_epoch(finished):
    figures, _ = finished("fp")
    sizes = np.array([32, 32, 32, 32, 22])
    accuracies = np.array([a for _, a in figures["curves"]["batch_accuracy"]["history"]])
    right = accuracies.reshape(4, 5) * sizes
    np.testing.assert_allclose(right, right.round(), atol=1e-4)
    np.testing.assert_allclose(right.sum(1) / 150, figures["history"]["accuracy"], atol=1e-6)


def test_batch_accuracies_know_the_small_batch_wherever_it_comes():
    callback = BatchAccuracy(num_train=5, batch_size=2)  # 2, 2 and 1
    for epoch in ((1, 0.5), (1, 1 / 3)):  # of the means so far; two steps in an epoch
        callback.on_epoch_begin(0)
        for batch, accuracy in enumerate(epoch):
            callback.on_train_batch_end(batch, {"accuracy": accuracy})
    # 2 of 2, 0 of 2; 1 of 1, 0 of 2.
    np.testing.assert_allclose([a for _, a in callback.history], [1, 0, 1, 0], atol=1e-12)


def test_penalty_starts_when_it_is_told(finished):
    figures, _ = finished("fp")
    np.testing.assert_allclose(figures["history"]["alpha"], [0, 0, 0.1, 0.1])


def test_learning_rate_drops(finished):
    figures, _ = finished("fp")
    np.testing.assert_allclose(figures["history"]["learning_rate"], [0.03] * 3 + [0.003])


def test_test_accuracy_is_that_at_the_best_validation_point(finished):
    figures, folder = finished("fp")
    history = figures["history"]["val_accuracy"]
    best = figures["best"]
    assert best["validation_accuracy"] == max(history)
    assert best["epoch"] == history.index(max(history))
    source = load_data(RUNS["fp"])
    model = build_model(RUNS["fp"], source)
    model.backbone.load_weights(folder / "best.weights.h5")
    assert source.test_accuracy(model) == best["test_accuracy"]
    model.backbone.load_weights(folder / "last.weights.h5")
    assert source.test_accuracy(model) == figures["final"]["test_accuracy"]


def test_weight_decay_is_half_its_factor_times_the_squared_weights():
    run = tiny(weight_decay=0.1)
    model = build_model(run, load_data(run))
    squared = sum(float((w.numpy() ** 2).sum()) for w in model.backbone.trainable_variables)
    np.testing.assert_allclose(float(sum(model.losses)), 0.05 * squared, rtol=1e-5)


@pytest.mark.slow
def test_a_run_begins_with_the_last_weights_of_another_and_measures_its_best_ones(tmp_path):
    first = tiny("first", epochs=1, validation_size=0, test_size=100)
    trained(first, tmp_path)
    arguments = {"num_examples": 30, "seed": 3}
    second = tiny(
        "second",
        seed=5,
        data_seed=0,
        epochs=2,
        drops=(1,),
        drop_factor=1000.0,  # spoils the weights, so that the best are not the last
        validation_size=0,
        test_size=100,
        initial=first.name,
        at_start={"fisher_trace": arguments},
        at_best={"fisher_trace": arguments},
    )
    figures = trained(second, tmp_path)
    source = load_data(second)
    assert len(source.validation[1]) == 100  # The test examples take the place of validation.
    assert figures["best"]["test_accuracy"] == max(figures["history"]["val_accuracy"])
    assert figures["best"]["epoch"] == 0
    model = build_model(first, source)
    for moment, path in (("start", first.name), ("best", second.name)):
        file = "last.weights.h5" if moment == "start" else "best.weights.h5"
        model.backbone.load_weights(tmp_path / path / file)
        expected = kf.fisher_trace(model, source.training, **arguments)
        np.testing.assert_allclose(
            figures[moment]["fisher_trace"]["value"], expected.value, rtol=1e-5
        )


def test_which_examples_are_kept_depends_on_the_seed_of_the_data_alone():
    def images(**seeds):
        return load_data(tiny(**seeds)).training[0]

    np.testing.assert_array_equal(images(seed=0, data_seed=4), images(seed=1, data_seed=4))
    assert not np.array_equal(images(seed=0, data_seed=4), images(seed=0, data_seed=5))


def test_wrong_labels_are_those_that_the_noise_changed():
    noisy, clean = load_data(tiny(noise=0.5)), load_data(tiny())
    changed = noisy.training[1] != clean.training[1]
    np.testing.assert_array_equal(noisy.is_wrong, changed)
    assert 0.3 < changed.mean() < 0.6


def test_a_network_that_went_to_nan_has_no_accuracy(tmp_path):
    figures = trained(tiny(learning_rate=1e30), tmp_path)
    assert figures["best"]["validation_accuracy"] == 0.0
    assert set(figures["history"]["val_accuracy"]) == {0.0}
