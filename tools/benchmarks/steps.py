"""Training steps beside the same steps written by hand in PyTorch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

import keras

from benchmarks.measurement import Row, Settings, ratio_row, take_turns, time_call
from benchmarks.networks import Subject, compile_penalised, compile_plain, prepare
from benchmarks.pytorch_client import check_pytorch, start_pytorch

NETWORKS = ("SimpleCNN", "VGG-11")  # plain chains of layers
STEPS = 4  # of a measurement
# By the method of PyTorch.
NAMES = {
    "exact_step": "step with FP, exact",
    "difference_step": "step with FP, by finite difference",
    "share_step": "step with FP on one in 32",
}
ARGUMENTS: Mapping[str, dict[str, Any]] = {
    "exact_step": {},
    "difference_step": {"gradient": "finite_difference"},
    "share_step": {"penalty_batch_size": 1 / 32},
}


def steps(settings: Settings) -> Iterator[Row]:
    """Plain and penalised steps of `fit`, on the same network, weights and examples."""
    check_pytorch()
    for name in settings.networks:
        if name in NETWORKS:
            yield from step_rows(prepare(name, 32 if settings.is_quick else 128), settings.repeats)


def step_rows(subject: Subject, repeats: int) -> Iterator[Row]:
    """Each kind of step over that in PyTorch, and over a plain step."""
    models = {"plain_step": compile_plain(copy(subject.model))}
    for method, arguments in ARGUMENTS.items():
        models[method] = compile_penalised(copy(subject.model), update_freq=1, **arguments)
    with start_pytorch(subject) as peer:
        measurements = []
        for method, model in models.items():
            fit = partial(model.fit, subject.batches(), steps_per_epoch=STEPS, verbose=0)
            measurements += [time_call(fit), peer(method, examples=len(subject.y), repeats=STEPS)]
        seconds, _ = take_turns(measurements, repeats, f"steps, {subject.name}")
    ours = dict(zip(models, seconds[::2], strict=True))
    theirs = dict(zip(models, seconds[1::2], strict=True))
    row, of = partial(ratio_row, subject.name), f"{len(subject.y)} examples"
    for method, what in {"plain_step": "plain step", **NAMES}.items():
        yield row(f"{what}, {of} / that in PyTorch", ours[method], theirs[method])
    for method, what in NAMES.items():
        yield row(f"{what}, {of} / plain step", ours[method], ours["plain_step"])
        yield row(f"PyTorch: {what}, {of} / plain step", theirs[method], theirs["plain_step"])


def copy(model: keras.Model) -> keras.Model:
    """Returns a model of the same weights."""
    clone = keras.models.clone_model(model)
    clone.set_weights(model.get_weights())
    return clone
