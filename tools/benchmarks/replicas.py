"""A step of 128 examples on several virtual devices of this machine against one device."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import keras
import numpy as np
import tensorflow as tf

import keras_fisher as kf
from benchmarks.rows import Row, ratio_row
from benchmarks.subjects import BATCH_SIZE, Subject, prepare
from benchmarks.timing import Measurement, in_fresh_process, take_turns, timed, use_cpu
from keras_fisher import zoo


def replicas(repeats: int, quick: bool) -> Iterator[Row]:
    """On two and, unless quick, on four."""
    for number in (2,) if quick else (2, 4):
        for what, (one, many) in in_fresh_process(time_replicas, number, repeats, quick).items():
            yield ratio_row(
                "replicas",
                "SimpleCNN",
                f"step of {what} on {number} devices / on one",
                many / one,
                seconds={"one": one, "many": many},
            )


def time_replicas(
    number: int, repeats: int, quick: bool
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """The seconds of training on one device and on several, each with the penalty and without."""
    use_cpu()
    device = tf.config.list_physical_devices("CPU")[0]
    parts = [tf.config.LogicalDeviceConfiguration()] * number
    tf.config.set_logical_device_configuration(device, parts)
    mirrored = tf.distribute.MirroredStrategy([f"CPU:{index}" for index in range(number)])
    subject, steps = prepare("SimpleCNN", BATCH_SIZE), 2 if quick else 5
    kinds = {"plain training": 0.0, "FP at every step": 0.01}
    measurements = [
        timed_penalty(subject, strategy, alpha, steps)
        for alpha in kinds.values()
        for strategy in (tf.distribute.get_strategy(), mirrored)
    ]
    seconds, _ = take_turns(measurements, repeats, f"replicas, {number}")
    return {what: (seconds[2 * i], seconds[2 * i + 1]) for i, what in enumerate(kinds)}


def timed_penalty(
    subject: Subject, strategy: tf.distribute.Strategy, alpha: float, steps: int
) -> Measurement:
    """Training under a strategy with the penalty recomputed at each step, or none of alpha 0."""
    with strategy.scope():
        model = kf.FisherPenaltyModel(zoo.simple_cnn(seed=0), alpha=alpha, update_freq=1)
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile(keras.optimizers.SGD(1e-3, momentum=0.9), loss)
    return timed(partial(model.fit, subject.batches(), steps_per_epoch=steps, verbose=0))
