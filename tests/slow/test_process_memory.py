"""The memory of a process that trains one model after another."""

import pathlib

import keras
import numpy as np
import pytest

import keras_fisher as kf
from tests import reference

MODELS, SETTLED, ALLOWED = 100, 10, 50  # the last in MiB
STATM = pathlib.Path("/proc/self/statm")  # Linux alone has it


def resident():
    """The memory of this process, in MiB."""
    return int(STATM.read_text().split()[1]) * 4096 / 2**20


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
    model = kf.FisherPenaltyModel(net, alpha=0.1)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("sgd", loss, metrics=["accuracy"])
    x, y = np.ones((64, 8, 8, 1), "float32"), np.zeros(64, "int64")
    model.fit(x, y, validation_data=(x, y), verbose=0)


@reference.tensorflow_only
@pytest.mark.slow
@pytest.mark.skipif(not STATM.exists(), reason="a measurement of Linux")
def test_a_hundred_models_take_no_more_memory_than_ten():
    for _ in range(SETTLED):
        train_one()
    settled = resident()
    for _ in range(MODELS - SETTLED):
        train_one()
    assert resident() - settled < ALLOWED
