"""The traces beside those of BackPACK, torch.func, PyHessian and curvlinops."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator, Mapping, Sequence
from functools import partial

import keras
import numpy as np

from benchmarks.rows import Row, SectionSkipped, ratio_row
from benchmarks.subjects import NETWORKS, Subject, prepare
from benchmarks.timing import take_turns, timed
from benchmarks.torch_process import PACKAGES, TorchServer, torch_server
from benchmarks.traces import PROBES, timed_fisher, timed_hessian
from benchmarks.training import compiled, penalised

# The fastest number of examples to give torch.func at a time.
TORCH_FUNC_CHUNKS = {"SimpleCNN": 128, "VGG-11": 16}


def torch(repeats: int, quick: bool) -> Iterator[Row]:
    """Both traces and the penalised step, on the networks that are plain chains of layers."""
    if not all(map(importlib.util.find_spec, PACKAGES.values())):
        raise SectionSkipped("PyTorch is missing: pip install -e '.[benchmark]'")
    for name, chunk_size in TORCH_FUNC_CHUNKS.items():
        if name not in NETWORKS:
            continue
        subject = prepare(name, 16 if quick else 128)
        with torch_server(subject) as server:
            yield from torch_fisher(repeats, subject, server, chunk_size)
            few = subject.first(NETWORKS[name].few_examples)
            yield from torch_hessian(repeats, few, server)
            yield from torch_steps(repeats, subject, server)  # last: they move the weights


def torch_fisher(
    repeats: int, subject: Subject, server: TorchServer, chunk_size: int
) -> Iterator[Row]:
    """Tr(F) beside BackPACK and torch.func."""
    examples = len(subject.y)
    rivals = {
        "BackPACK": server.timed("backpack", examples=examples),
        "torch.func": server.timed("torch_func", examples=examples, chunk_size=chunk_size),
    }
    measurements = [timed_fisher(subject, "given"), *rivals.values()]
    title = f"torch, Tr(F), {subject.name}"
    (our_times, *times), (our_values, *values) = take_turns(measurements, repeats, title)
    for rival, their_times, their_values in zip(rivals, times, values, strict=True):
        yield ratio_row(
            "torch",
            subject.name,
            f"Tr(F), given labels / that of {rival}, {examples} examples",
            our_times / their_times,
            target=0.5,
            seconds={"ours": our_times, "theirs": their_times},
        )
        ours, theirs = our_values[-1].value, their_values[-1]["value"]
        difference = abs(ours - theirs) / theirs
        yield Row(
            "torch",
            subject.name,
            f"Tr(F): relative difference from {rival}",
            f"{difference:.1e}",
            "at most 1e-4",
            {"relative_difference": difference, "ours": ours, "theirs": theirs},
        )


def torch_hessian(repeats: int, subject: Subject, server: TorchServer) -> Iterator[Row]:
    """Tr(H) beside PyHessian and curvlinops."""
    examples = len(subject.y)
    rivals = {"PyHessian": "pyhessian", "curvlinops": "curvlinops"}
    measurements = [
        timed_hessian(subject, PROBES),
        *(server.timed(name, examples=examples, probes=PROBES) for name in rivals.values()),
    ]
    (ours, *times), values = take_turns(measurements, repeats, f"torch, Tr(H), {subject.name}")
    for rival, theirs in zip(rivals, times, strict=True):
        yield ratio_row(
            "torch",
            subject.name,
            f"Tr(H) / that of {rival}, {PROBES} probes, {examples} examples",
            ours / theirs,
            target=0.5,
            seconds={"ours": ours, "theirs": theirs},
        )
    estimates = {
        "ours": pooled([estimate._asdict() for estimate in values[0]]),
        "theirs": pooled(values[1]),
    }
    difference = in_standard_errors(**estimates)
    yield Row(
        "torch",
        subject.name,
        "Tr(H): difference from PyHessian, in standard errors",
        f"{difference:.1f}",
        "at most 4",
        {"difference": difference, **estimates},
    )


def torch_steps(repeats: int, subject: Subject, server: TorchServer) -> Iterator[Row]:
    """Training steps beside the same in PyTorch."""
    examples = len(subject.y)
    data = subject.batches()
    models = {
        "plain step": (compiled(keras.models.clone_model(subject.model)), "plain_step"),
        "step with FP, exact": (penalised(subject, update_freq=1), "penalised_step"),
    }
    steps = 4
    measurements = []
    for model, method in models.values():
        measurements.append(timed(partial(model.fit, data, steps_per_epoch=steps, verbose=0)))
        measurements.append(server.timed(method, examples=examples, repeats=steps))
    seconds, _ = take_turns(measurements, repeats, f"torch, steps, {subject.name}")
    for index, what in enumerate(models):
        ours, theirs = seconds[2 * index : 2 * index + 2]
        yield ratio_row(
            "torch",
            subject.name,
            f"{what} / that in PyTorch, {examples} examples",
            ours / theirs,
            seconds={"ours": ours, "theirs": theirs},
        )


def pooled(estimates: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Returns the mean of independent estimates of one thing, each with as many probes."""
    values, stderrs = zip(*((one["value"], one["stderr"]) for one in estimates), strict=True)
    return {
        "value": float(np.mean(values)),
        "stderr": float(np.linalg.norm(stderrs)) / len(estimates),
    }


def in_standard_errors(ours: Mapping[str, float], theirs: Mapping[str, float]) -> float:
    """How far two independent estimates are apart."""
    difference = abs(ours["value"] - theirs["value"])
    return difference / float(np.hypot(ours["stderr"], theirs["stderr"]))
