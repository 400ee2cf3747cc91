"""The time until the first steps and measurements end, most of which traces and compiles."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

import keras
import numpy as np
from tqdm import tqdm

import keras_fisher as kf
from benchmarks.measurement import Row, Settings, call_in_process, ratio_row, time_call
from benchmarks.networks import compile_penalised, compile_plain, transformer
from keras_fisher import zoo

BATCH, STEPS, CLASSES = 8, 4, 10
WORDS, LENGTH = 2000, 32  # of texts
ROUNDS = 3


class Subject(NamedTuple):
    """A network to build anew for each measurement, and the shape of an example."""

    build: Callable[[], keras.Model]
    shape: tuple[int, ...]


def make_application(name: str) -> keras.Model:
    build = getattr(keras.applications, name)
    return build(weights=None, input_shape=(64, 64, 3), classes=CLASSES, classifier_activation=None)


IMAGE, LARGE = (32, 32, 3), (64, 64, 3)
SUBJECTS = {
    "ResNet-26": Subject(zoo.resnet, IMAGE),
    "Wide ResNet 44-3": Subject(partial(zoo.wide_resnet, num_classes=CLASSES), IMAGE),
    "DenseNet 40-12": Subject(zoo.densenet, IMAGE),
    "MobileNetV3Small": Subject(partial(make_application, "MobileNetV3Small"), LARGE),
    "EfficientNetV2B0": Subject(partial(make_application, "EfficientNetV2B0"), LARGE),
    "transformer": Subject(
        partial(
            transformer,
            num_classes=CLASSES,
            seed=0,
            words=WORDS,
            length=LENGTH,
            units=64,
            blocks=2,
        ),
        (LENGTH,),
    ),
}
QUICK = ("transformer",)


def first_steps(settings: Settings) -> Iterator[Row]:
    """First steps and measurements over the first steps of the plain model."""
    for name in QUICK if settings.is_quick else SUBJECTS:
        rounds = 1 if settings.is_quick else min(settings.repeats, ROUNDS)
        plain, *others = call_in_process(time_first_steps, name, rounds)
        for title, seconds in zip(MEASURES, others, strict=True):
            yield ratio_row(name, f"first {title} / first {STEPS} plain steps", seconds, plain)


def time_first_steps(name: str, rounds: int) -> np.ndarray:
    """Times each measurement on new models; returns an array of shape (measurements, rounds)."""
    subject, rng = SUBJECTS[name], np.random.default_rng(0)
    shape = (BATCH * STEPS, *subject.shape)
    is_text = len(subject.shape) == 1
    x = rng.integers(1, WORDS, shape) if is_text else rng.normal(size=shape).astype("float32")
    data = x, rng.integers(CLASSES, size=len(x))

    def measure(run: Callable[..., Any]) -> float:
        return time_call(partial(run, subject.build(), data))()[0]

    runs: list[Callable[..., Any]] = [partial(fit, compile_plain), *MEASURES.values()]
    measure(runs[0])  # warms the process up
    repeated = tqdm(range(rounds), desc=f"first steps, {name}")
    return np.array([[measure(run) for run in runs] for _ in repeated]).T


def fit(prepare: Callable[[keras.Model], keras.Model], model: keras.Model, data: Any) -> None:
    prepare(model).fit(*data, batch_size=BATCH, verbose=0)


def trace_fisher(model: keras.Model, data: Any) -> None:
    kf.fisher_trace(compile_plain(model), data, batch_size=BATCH)


def trace_hessian(model: keras.Model, data: Any) -> None:
    kf.hessian_trace(compile_plain(model), data, batch_size=BATCH, num_probes=2)


MEASURES: dict[str, Callable[..., Any]] = {
    f"{STEPS} steps, alpha 0": partial(
        fit, lambda model: compile_plain(kf.FisherPenaltyModel(model, alpha=0.0))
    ),
    f"{STEPS} steps, every 10 steps": partial(fit, partial(compile_penalised, update_freq=10)),
    f"{STEPS} steps, every step": partial(fit, partial(compile_penalised, update_freq=1)),
    f"{STEPS} steps, a quarter at every step": partial(
        fit, partial(compile_penalised, update_freq=1, penalty_batch_size=0.25)
    ),
    "Fisher trace": trace_fisher,
    "Hessian trace of 2 probes": trace_hessian,
}
