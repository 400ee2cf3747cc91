"""What the callbacks put into the logs is seen by every other, and training does not notice."""

import csv
import random

import keras
import numpy as np
import pytest
from keras import layers

import keras_fisher as kf
from tests import nets
from tests.summaries import points

tf = pytest.importorskip("tensorflow")

N = 24
KEYS = ("alpha", "early_fisher_trace", "fisher_trace", "gradient_norm_ratio")


def writers(x, y):
    return [
        kf.callbacks.AlphaScheduler(lambda epoch: 0.1 * epoch),
        kf.callbacks.EarlyPhase((x, y), 100.0, labels="given", num_examples=4),
        kf.callbacks.FisherTrace((x, y), labels="given", num_examples=8),
        kf.callbacks.LabelNoiseMonitor(x, y, np.arange(len(y)) % 2, batch_size=8),
    ]


def test_a_first_value_of_nan_is_not_the_best_of_all(tmp_path):
    x, y = nets.inputs("dense", batch=N), nets.labels(batch=N)
    model = nets.compiled("dense", keras.optimizers.SGD(0.1), compile_args={"run_eagerly": True})
    trace = kf.callbacks.FisherTrace((x, y), freq=3, labels="given")  # epochs of two steps
    readers = [
        keras.callbacks.EarlyStopping("fisher_trace", mode="min", patience=1),
        keras.callbacks.ModelCheckpoint(tmp_path / "best.keras", "fisher_trace", mode="min"),
    ]
    log = model.fit(x, y, batch_size=12, epochs=2, verbose=0, callbacks=[*readers, trace]).history
    assert np.isnan(log["fisher_trace"]).tolist() == [True, False]
    assert readers[0].best == log["fisher_trace"][1]


class ReaderOfAKind(keras.callbacks.Callback):
    """Notes which keys it finds, as a callback of the user's may."""

    def on_epoch_end(self, epoch, logs=None):
        self.found = dict(logs)


@pytest.mark.matrix
@pytest.mark.parametrize("listed", ["before", "after"])
def test_every_callback_finds_what_is_measured_wherever_it_is_listed(tmp_path, listed):
    x, y = nets.inputs("dense", batch=N), nets.labels(batch=N)
    model = nets.compiled("dense", keras.optimizers.SGD(0.5), compile_args={"run_eagerly": True})
    log, table = keras.callbacks.History(), tmp_path / "log.csv"
    # More is better, though Tr(F) falls in this run: the second epoch is the last.
    stop = keras.callbacks.EarlyStopping("fisher_trace", mode="max", patience=1)
    board = keras.callbacks.TensorBoard(tmp_path, write_graph=False)
    readers = [
        log,
        ReaderOfAKind(),
        keras.callbacks.CSVLogger(table),
        stop,
        keras.callbacks.ModelCheckpoint(
            tmp_path / "{fisher_trace:.5f}.keras", "fisher_trace", mode="max"
        ),
        board,
    ]
    first, last = (readers, writers(x, y)) if listed == "after" else (writers(x, y), readers)
    given = [*first, *last]
    model.fit(x, y, batch_size=12, epochs=4, verbose=0, callbacks=given)

    measured = log.history
    assert all(type(value) is float for key in KEYS for value in measured[key])
    assert measured["alpha"] == [0.0, 0.1]
    assert len(measured["fisher_trace"]) == stop.stopped_epoch + 1 == 2
    assert readers[1].found == {key: values[-1] for key, values in measured.items()}
    with table.open() as lines:
        rows = list(csv.DictReader(lines))
    for key in KEYS:
        assert [float(row[key]) for row in rows] == measured[key]
        curve = points(tmp_path / "train", f"epoch_{key}")
        assert [value for _, value in curve] == pytest.approx(measured[key])
    for value in measured["fisher_trace"]:
        saved = keras.models.load_model(tmp_path / f"{value:.5f}.keras")
        again = kf.fisher_trace(saved, (x, y), labels="given", num_examples=8).value
        assert again == pytest.approx(value, rel=1e-5)
    assert given == [*first, *last]  # the list that the user holds


@pytest.mark.matrix
@pytest.mark.parametrize("writer", range(len(KEYS)))
def test_tensorboard_has_every_epoch_whichever_step_it_ends_with(tmp_path, writer):
    x, y = nets.inputs("dense", batch=N), nets.labels(batch=N)
    model = nets.compiled("dense", compile_args={"run_eagerly": True})
    board = keras.callbacks.TensorBoard(tmp_path, write_graph=False, update_freq=10)
    written = writers(x, y)[writer]
    history = model.fit(  # 3 steps an epoch: Keras alone writes of steps 3, 6, 9 and 12 none
        *(x, y),
        batch_size=8,
        epochs=4,
        verbose=0,
        validation_data=(x, y),
        callbacks=[board, written],
    ).history
    for folder, logged in (
        ("train", {KEYS[writer]: KEYS[writer], "loss": "loss"}),
        ("validation", {"loss": "val_loss"}),
    ):
        for tag, key in logged.items():
            curve = points(tmp_path / folder, f"epoch_{tag}")
            assert [step for step, _ in curve] == [0, 1, 2, 3]
            assert [value for _, value in curve] == pytest.approx(history[key])
    assert [step for step, _ in points(tmp_path / "train", "batch_loss")] == [10]
    assert not tf.summary.should_record_summaries()


def test_the_order_among_the_others_is_kept():
    called = []

    def note(name):
        return keras.callbacks.LambdaCallback(
            on_train_begin=lambda logs: called.append(name),
            on_epoch_end=lambda epoch, logs: called.append(name),
        )

    x, y = nets.inputs("dense", batch=N), nets.labels(batch=N)
    model = nets.compiled("dense", compile_args={"run_eagerly": True})
    alpha, norm = kf.callbacks.AlphaScheduler(lambda epoch: 0.0), kf.callbacks.GradientNorm((x, y))
    everyone = keras.callbacks.CallbackList([note("a"), alpha, note("b"), norm], True, model=model)
    model.fit(x, y, verbose=0, callbacks=everyone)
    assert called == ["a", "b", "a", "b"]  # each of them once at the beginning and the end
    assert everyone.callbacks[:2] == [alpha, norm]


def all_measures(x, y):
    options = {"num_examples": 6, "freq": 2}
    return [
        kf.callbacks.FisherTrace((x, y), **options),
        kf.callbacks.MinibatchFisherTrace((x, y), **options),
        kf.callbacks.HessianTrace((x, y), num_probes=1, **options),
        kf.callbacks.GradientNorm((x, y), **options),
        kf.callbacks.EarlyPhase((x, y), 100.0, **options),
        kf.callbacks.LabelNoiseMonitor(x, y, np.arange(len(y)) % 2, batch_size=8),
    ]


@pytest.mark.slow
def test_training_with_all_measures_is_bit_for_bit_that_without():
    x, y = nets.inputs("dropout", batch=N), nets.labels(batch=N)
    results = []
    for measures in ([], all_measures(x, y)):
        body = [keras.Input((4,)), *nets.build("dropout").layers, layers.BatchNormalization()]
        model = kf.FisherPenaltyModel(keras.Sequential(body), seed=1)
        model.compile(keras.optimizers.Adam(0.01), nets.loss(), run_eagerly=True)
        drawn = []  # by a user's own augmentation, say
        draw = keras.callbacks.LambdaCallback(
            on_train_batch_begin=lambda batch, logs, drawn=drawn: drawn.append(random.random())
        )
        model.fit(x, y, batch_size=5, epochs=2, verbose=0, callbacks=[*measures, draw])
        results.append([*nets.flat([*model.variables, *model.optimizer.variables]), *drawn])
    np.testing.assert_array_equal(*results)
