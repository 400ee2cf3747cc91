"""The batches of each data set against plain training of SimpleCNN, which consumes them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

import keras_fisher as kf
from benchmarks.measurement import Measurement, Row, Settings, take_turns, time_call
from benchmarks.networks import compile_plain, prepare

BATCH = 128
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


def pipelines(settings: Settings) -> Iterator[Row]:
    """Each data set, plain and augmented."""
    steps, count = (1, 20) if settings.is_quick else (4, 100)
    subject = prepare("SimpleCNN", BATCH)
    plain = compile_plain(subject.model)
    fit = time_call(partial(plain.fit, subject.batches(), steps_per_epoch=steps, verbose=0))
    for name, options in PIPELINES:
        try:
            data = kf.data.load(name, batch_size=BATCH, **options)
        except (ImportError, kf.data.DatasetNotFoundError) as error:
            yield Row(name, "skipped", str(error))
            continue
        what = ", ".join(f"{key}={value}" for key, value in options.items()) or "plain"
        measurements = [batches_measurement(data.train, count), fit]
        seconds, _ = take_turns(measurements, settings.repeats, f"input, {name}, {what}")
        yielded, taken = count * BATCH / seconds[0], steps * BATCH / seconds[1]
        median, low, high = (part(yielded / taken) for part in (np.median, np.min, np.max))
        yield Row(
            name,
            f"{what}: examples/s / those that SimpleCNN's `fit` takes",
            f"{median:.0f} ({low:.0f} to {high:.0f}): {np.median(yielded):,.0f} / "
            f"{np.median(taken):,.0f}",
            {"yielded": yielded.tolist(), "taken": taken.tolist()},
        )


def batches_measurement(data: Any, count: int) -> Measurement:
    """The time of batches, after those fetched ahead while others had their turn."""
    batches = iter(data)
    take = time_call(lambda: [next(batches)[1] for _ in range(count)])

    def measurement() -> tuple[float, Any]:
        for _ in range(count // 4):
            next(batches)
        return take()

    return measurement
