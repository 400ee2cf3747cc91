"""Scores of labels from predictions during training."""

import copy
import json
import math

import keras
import numpy as np
import pytest

import keras_fisher as kf
from tests import nets, reference

N = 20


@pytest.fixture
def task():
    return nets.inputs("dense", batch=N), nets.labels(batch=N)


def compiled(*layers, loss=None):
    model = keras.Sequential([keras.Input((4,)), *(layers or [keras.layers.Dense(nets.CLASSES)])])
    model.compile(keras.optimizers.SGD(0.5), loss or nets.loss())
    return model


def fit(model, x, y, scores, epochs, *others, **arguments):
    return model.fit(
        x, y, epochs=epochs, shuffle=False, verbose=0, callbacks=[scores, *others], **arguments
    ).history


class Predictions(keras.callbacks.Callback):
    """Collects the probabilities after every epoch."""

    def __init__(self, x):
        super().__init__()
        self.x, self.found = x, []

    def on_epoch_end(self, epoch, logs=None):
        outputs = self.model.predict(self.x, verbose=0)
        self.found.append(keras.ops.convert_to_numpy(keras.ops.softmax(outputs)))


@pytest.mark.matrix
@pytest.mark.parametrize(
    ("number", "epochs", "measured"),
    [(2, 5, [2, 4]), (1, 3, [2]), (6, 3, [0, 1, 2])],  # epochs from 0
)
def test_probabilities_are_averaged_over_epochs_spread_over_the_training(
    task, number, epochs, measured
):
    x, y = task
    scores, seen = kf.callbacks.LabelScores(task, num_measurements=number), Predictions(x)
    fit(compiled(), x, y, scores, epochs, seen)
    expected = kf.data.find_wrong_labels(np.mean([seen.found[e] for e in measured], axis=0), y)
    found = scores.result()
    assert scores.measured_epochs == measured
    np.testing.assert_allclose(found.scores, expected.scores, atol=1e-6)
    np.testing.assert_array_equal(found.suggestions, expected.suggestions)


def test_the_fraction_of_suspects_is_logged_from_the_first_measurement_on(task):
    scores = kf.callbacks.LabelScores(task, num_measurements=1)
    logged = fit(compiled(), *task, scores, 2)["suspect_fraction"]
    assert math.isnan(logged[0])
    assert logged[1] == np.mean(scores.result().is_suspect) > 0


def measure(model, data, x, y):
    """Scores of labels under the weights that a model has."""
    model.optimizer.learning_rate = 0.0
    scores = kf.callbacks.LabelScores(data, batch_size=8)
    fit(model, x, y, scores, 1)
    return scores.result().scores


def expect(model, x, y):
    outputs = keras.ops.convert_to_numpy(model.predict(x, verbose=0))
    p = keras.ops.convert_to_numpy(keras.ops.softmax(outputs))
    return kf.data.find_wrong_labels(p, y).scores


def test_data_may_be_batches(task):
    model = compiled()
    found = measure(model, reference.batches(*task, 8), *task)
    np.testing.assert_allclose(found, expect(model, *task), atol=1e-6)


class Reversed(keras.utils.PyDataset):
    """Two batches, in the reverse order each time that they are read."""

    def __init__(self, x, y):
        super().__init__()
        self.parts = [(x[:8], y[:8]), (x[8:], y[8:])]

    def __len__(self):
        return 2

    def __getitem__(self, index):
        if index == 0:
            self.parts.reverse()
        return self.parts[index]


class Shuffled(keras.utils.PyDataset):
    """Another order in each epoch."""

    def __init__(self, x, y):
        super().__init__()
        self.x, self.y = x, y

    num_batches = 1

    def __getitem__(self, index):
        return self.x, self.y

    def on_epoch_end(self):
        self.x, self.y = self.x[::-1], self.y[::-1]


def test_another_order_in_each_epoch_is_refused_at_the_only_measurement(task):
    data = Shuffled(*task)
    scores, model = kf.callbacks.LabelScores(data, num_measurements=1), compiled()
    with pytest.raises(ValueError, match=r"`data` must give .* same order"):
        model.fit(data, epochs=2, callbacks=[scores], verbose=0)


@pytest.mark.parametrize("size", [16, N])
def test_batches_in_another_order_are_refused(task, size):
    x, y = (part[:size] for part in task)
    scores = kf.callbacks.LabelScores(Reversed(x, y), num_measurements=3)
    with pytest.raises(ValueError, match=r"`data` must give .* same order .*Remove `shuffle`"):
        fit(compiled(), x, y, scores, epochs=3)


def test_labels_outside_the_classes_are_refused_before_training(task):
    x, y = task
    scores, model = kf.callbacks.LabelScores((x, y + 1)), compiled()
    with pytest.raises(ValueError, match=r"`data` must hold labels from 0 to 2, whole numbers"):
        fit(model, x, y, scores, 1)
    assert model.optimizer.iterations == 0


def test_labels_may_be_one_hot(task):
    x, y = task
    one_hot = np.eye(nets.CLASSES)[y]
    model = compiled(loss=keras.losses.CategoricalCrossentropy(from_logits=True))
    np.testing.assert_allclose(
        measure(model, (x, one_hot), x, one_hot), expect(model, x, y), atol=1e-6
    )


def test_inputs_may_be_a_dictionary_and_the_model_wrapped():
    x, y = nets.inputs("two_inputs", batch=N), nets.labels(batch=N)
    model = nets.compiled("two_inputs", keras.optimizers.SGD(0.0))
    np.testing.assert_allclose(measure(model, (x, y), x, y), expect(model, x, y), atol=1e-6)


@pytest.mark.parametrize("shape", [(N,), (N, 1)])
def test_a_bit_is_one_of_two_classes(task, shape):
    x, y = task[0], np.arange(N) % 2
    model = compiled(keras.layers.Dense(1), loss=keras.losses.BinaryCrossentropy(from_logits=True))
    p = keras.ops.convert_to_numpy(keras.ops.sigmoid(model.predict(x, verbose=0)))[:, 0]
    expected = np.where(y == 1, p, 1 - p)
    labels = y.reshape(shape)
    np.testing.assert_allclose(measure(model, (x, labels), x, labels), expected, atol=1e-6)


def test_a_new_training_starts_anew_and_a_continued_one_does_not(task):
    scores, model = kf.callbacks.LabelScores(task), compiled()
    fit(model, *task, scores, 2)
    first = scores.result().scores
    fit(model, *task, scores, 4, initial_epoch=2)  # measures epochs 3 and 4
    seen = Predictions(task[0])
    again = kf.callbacks.LabelScores(task)
    model = compiled()
    fit(model, *task, again, 1, seen)
    assert not np.allclose(scores.result().scores, first)
    np.testing.assert_allclose(
        again.result().scores, kf.data.find_wrong_labels(seen.found[0], task[1]).scores, atol=1e-6
    )


def test_a_training_resumed_from_the_state_ends_with_the_same_scores(task):
    keras.utils.set_random_seed(0)
    whole, model = kf.callbacks.LabelScores(task), compiled()
    weights = model.get_weights()
    fit(model, *task, whole, 4)

    first, second = (kf.callbacks.LabelScores(task) for _ in range(2))
    model.set_weights(weights)
    model.optimizer.iterations.assign(0)
    stop = reference.call_at("epoch_end", 1, lambda model: setattr(model, "stop_training", True))
    fit(model, *task, first, 4, stop)
    second.set_state(json.loads(json.dumps(first.get_state())))
    fit(model, *task, second, 4, initial_epoch=2)
    np.testing.assert_array_equal(second.result().scores, whole.result().scores)


def test_predictions_that_are_nan_are_reported_and_skipped(task):
    model, scores = compiled(), kf.callbacks.LabelScores(task)
    model.trainable_weights[0].assign(np.full((4, nets.CLASSES), np.nan))
    with pytest.warns(UserWarning, match="LabelScores measured NaN after 1 epochs"):
        logged = fit(model, *task, scores, 1)["suspect_fraction"]
    assert math.isnan(logged[0])
    assert scores.measured_epochs == []


def test_a_result_needs_a_measurement(task):
    with pytest.raises(ValueError, match="`result` needs a measurement"):
        copy.deepcopy(kf.callbacks.LabelScores(task)).result()


@pytest.mark.parametrize(
    ("layers", "loss", "labels", "message"),
    [
        ([], keras.losses.MeanSquaredError(), "y", "`likelihood` must be Categorical or Bernoulli"),
        ([], keras.losses.BinaryCrossentropy(from_logits=True), "one_hot", "must have one output"),
        (
            [keras.layers.Dense(4), keras.layers.Reshape((2, 2))],
            None,
            "pairs",
            "must have one output per class",
        ),
        ([], keras.losses.CategoricalCrossentropy(from_logits=True), "soft", "soft labels"),
    ],
)
def test_labels_that_are_not_one_class_for_each_example_are_refused(
    task, layers, loss, labels, message
):
    x, y = task
    one_hot = np.eye(nets.CLASSES, dtype="float32")[y]
    labels = {
        "y": y[:, None].astype("float32"),
        "one_hot": one_hot,
        "pairs": np.stack([y, y], 1) % 2,
        "soft": 0.5 * one_hot + 0.5 / nets.CLASSES,
    }[labels]
    with pytest.raises(ValueError, match=message):
        fit(compiled(*layers, loss=loss), x, labels, kf.callbacks.LabelScores((x, labels)), 1)


def test_shuffled_data_is_refused_at_the_only_measurement(task):
    x, y = task
    scores = kf.callbacks.LabelScores(Reversed(x, y), num_measurements=1)
    with pytest.raises(ValueError, match=r"`data` must give .* same order .*Remove `shuffle`"):
        fit(compiled(), x, y, scores, epochs=3)
