"""The batches of each data set against plain training of SimpleCNN, which consumes them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import keras
import numpy as np
import tensorflow as tf

import keras_fisher as kf
from benchmarks.rows import Row, ratio_row
from benchmarks.subjects import BATCH_SIZE, Subject, prepare
from benchmarks.timing import Measurement, take_turns, timed

PIPELINES: Sequence[tuple[str, Mapping[str, Any]]] = (
    ("digits", {}),
    ("digits", {"augment": "flip_and_crop"}),
    ("cifar10", {}),
    ("cifar10", {"augment": "flip"}),
    ("cifar10", {"augment": "flip_and_crop"}),
    ("cifar10", {"mixup_beta": 1.0}),
    ("cifar10", {"augment": "flip_and_crop", "mixup_beta": 1.0}),
    ("tiny_imagenet32", {}),
    ("tiny_imagenet32", {"augment": "flip_and_crop"}),
)


def input_pipelines(repeats: int, quick: bool) -> Iterator[Row]:
    """Each data set, plain and augmented."""
    steps, count = (1, 20) if quick else (4, 100)
    subject = prepare("SimpleCNN", BATCH_SIZE)
    for name, options in PIPELINES:
        try:
            data = kf.data.load(name, batch_size=BATCH_SIZE, **options)
        except (ImportError, kf.data.DatasetNotFoundError) as error:
            yield Row("input", name, "skipped", str(error))
            continue
        what = ", ".join(f"{key}={value}" for key, value in options.items()) or "plain"
        measurements = [timed_batches(data.train, count), timed_fit(subject, steps)]
        (batches, fit), _ = take_turns(measurements, repeats, f"input, {name}, {what}")
        yielded, taken = count * BATCH_SIZE / batches, steps * BATCH_SIZE / fit
        yield ratio_row(
            "input",
            name,
            f"{what}: {np.median(yielded):,.0f} examples/s / {np.median(taken):,.0f} that "
            "SimpleCNN's `fit` takes",
            yielded / taken,
            target=5.0,
            at_least=True,
            seconds={"batches": batches, "fit": fit},
        )


def timed_batches(train: tf.data.Dataset, count: int) -> Measurement:
    """The time of batches."""
    batches = iter(train)

    def measurement() -> tuple[float, Any]:
        for _ in range(count // 4):  # those fetched ahead, while others had their turn
            next(batches)
        return timed(lambda: [next(batches)[1] for _ in range(count)])()

    return measurement


def timed_fit(subject: Subject, steps: int) -> Measurement:
    """Plain training on one batch over and over, so that nothing waits for data."""
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    subject.model.compile(keras.optimizers.SGD(1e-3, momentum=0.9), loss)
    return timed(partial(subject.model.fit, subject.batches(), steps_per_epoch=steps, verbose=0))
