"""What a process holds on to: after many models, and after many epochs of one."""

import gc
import pathlib
import statistics
import threading
import time

import keras
import numpy as np
import pytest

import keras_fisher as kf
from tests import reference

MODELS, SETTLED, ALLOWED = 100, 10, 50  # the last in MiB
EPOCHS, EVERY = 500, 10  # counting objects takes longer than an epoch
EARLY, WINDOW = 10, 5  # of these counts
# How far the last epochs may lie above early ones. Time depends on what else the machine does.
GROWTH = {"memory": 1.05, "objects": 1.05, "seconds": 1.5}
PROCESS = pathlib.Path("/proc/self")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not PROCESS.exists(), reason="a measurement of Linux"),
]


def resident():
    """The memory of this process, in MiB."""
    return int((PROCESS / "statm").read_text().split()[1]) * 4096 / 2**20


def compiled(net, alpha=0.1):
    model = kf.FisherPenaltyModel(net, alpha=alpha, seed=0)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(0.01, momentum=0.9), loss, metrics=["accuracy"])
    return model


# ---- Many models ---------------------------------------------------------------------------------


def train_one():
    net = keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            keras.layers.Conv2D(8, 3, activation="relu"),
            keras.layers.BatchNormalization(),
            keras.layers.Flatten(),
            keras.layers.Dense(10),
        ]
    )
    x, y = np.ones((64, 8, 8, 1), "float32"), np.zeros(64, "int64")
    compiled(net).fit(x, y, validation_data=(x, y), verbose=0)
    gc.collect()  # as keras-tuner does after each trial: garbage is no leak


@reference.tensorflow_only
def test_a_hundred_models_take_no_more_memory_than_ten():
    for _ in range(SETTLED):
        train_one()
    settled = resident()
    for _ in range(MODELS - SETTLED):
        train_one()
    assert resident() - settled < ALLOWED


# ---- Many epochs ---------------------------------------------------------------------------------


class Usage(keras.callbacks.Callback):
    """Notes after some epochs what must not grow."""

    def __init__(self, folder, traces, measuring):
        super().__init__()
        self.folder, self.traces, self.measuring, self.rows = folder, traces, measuring, []

    def on_epoch_begin(self, epoch, logs=None):
        self.began = time.perf_counter()

    def on_epoch_end(self, epoch, logs=None):
        seconds = time.perf_counter() - self.began
        forget_numbers()
        if (epoch + 1) % EVERY:
            return
        gc.collect()
        self.rows.append(
            {
                "seconds": seconds,
                "memory": resident(),
                "objects": len(gc.get_objects()) - self.count_measurements(),
                "threads": len([*(PROCESS / "task").iterdir()]),
                "Python's threads": threading.active_count(),
                "files": sum(path.is_file() for path in self.folder.rglob("*")),
                "open files": len([*(PROCESS / "fd").iterdir()]),
                "traces": len(self.traces),
            }
        )

    def count_measurements(self):
        """The objects in what callbacks are there to remember: a pair and an estimate in each."""
        return 2 * sum(len(callback.history) for callback in self.measuring)


def forget_numbers():
    """Empties TensorFlow's own cache of the numbers that it was given, which grows without end."""
    if reference.IS_TENSORFLOW:
        from tensorflow.python.eager import context

        context.context()._clear_caches()


def train_long(folder):
    """Trains with everything that a long training has, and returns what was noted."""
    images, validation, _, num_classes = kf.data.load_arrays(
        "digits", validation_size=180, num_train=512
    )
    x, (y, is_noisy) = images.x, kf.data.uniform_label_noise(images.y, 0.5, num_classes, seed=0)
    traces = []

    def relu(values):  # Python goes through it once in each trace
        traces.append(values.shape)
        return keras.ops.relu(values)

    hidden = keras.layers.Dense(64, activation=relu)
    layers = [keras.layers.Flatten(), hidden, keras.layers.Dense(num_classes)]
    net = keras.Sequential([keras.Input(x.shape[1:]), *layers])
    measured = {"num_examples": 128, "batch_size": 128}
    measuring = [
        kf.callbacks.FisherTrace((x, y), seed=0, explosion_factor=1e9, **measured),
        kf.callbacks.HessianTrace((x, y), seed=0, num_probes=2, **measured),
        kf.callbacks.MinibatchFisherTrace((x, y), seed=0, **measured),
        kf.callbacks.GradientNorm((x, y), **measured),
    ]
    usage = Usage(folder, traces, measuring)
    callbacks = [
        *measuring,
        kf.callbacks.LabelNoiseMonitor(x, y, is_noisy, gradient_batches=1),
        kf.callbacks.AlphaScheduler(lambda epoch: 0.1 if epoch % 2 else 0.2),
        kf.callbacks.NonFiniteGuard(),
        usage,
    ]
    if reference.IS_TENSORFLOW:  # it needs TensorFlow
        callbacks.insert(-1, keras.callbacks.TensorBoard(folder, write_graph=False))
    compiled(net).fit(
        kf.data.training_batches(x, y, batch_size=64, seed=0),
        steps_per_epoch=8,
        epochs=EPOCHS,
        validation_data=validation,
        verbose=0,
        callbacks=callbacks,
    )
    return usage.rows


def test_five_hundred_epochs_take_no_more_than_the_first_hundred(tmp_path):
    rows = train_long(tmp_path)
    assert len(rows) == EPOCHS // EVERY

    def before(count, what):
        return statistics.median(row[what] for row in rows[count - WINDOW : count])

    # TensorFlow starts a thread when it first needs one more, which may be late.
    half = len(rows) // 2
    early = {what: before(half if what == "threads" else EARLY, what) for what in rows[0]}
    late = {what: before(len(rows), what) for what in rows[0]}
    assert {
        what: (early[what], late[what])
        for what in early
        if late[what] > early[what] * GROWTH.get(what, 1)
    } == {}
