"""Traces and eigenvalues beside those of packages for PyTorch."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from benchmarks.measurement import Row, Settings, ratio_row, take_turns, time_call
from benchmarks.networks import CATEGORICAL, NETWORKS, Subject, prepare
from benchmarks.pytorch_client import Peer, check_pytorch, start_pytorch
from benchmarks.traces import PROBES, fisher_measurement, hessian_measurement
from keras_fisher.traces import HessianEigenvaluesMeter

# Distributions, by the modules that they install.
PACKAGES = {
    "torch": "torch",
    "backpack": "backpack-for-pytorch",
    "curvlinops": "curvlinops-for-pytorch",
    "hessian_eigenthings": "hessian-eigenthings",
}
# The fastest number of examples for torch.func.
CHUNKS = {"SimpleCNN": 128, "VGG-11": 16}
EIGENVALUES = 5


def pytorch(settings: Settings) -> Iterator[Row]:
    """Traces and eigenvalues, on the same network, weights and examples."""
    check_pytorch(*PACKAGES)
    for name in settings.networks:
        if name not in CHUNKS:
            continue
        subject = prepare(name, 16 if settings.is_quick else 128)
        few = subject.take_first(NETWORKS[name].few_examples)
        with start_pytorch(subject) as peer:
            yield from fisher_rows(subject, peer, settings.repeats)
            yield from hessian_rows(few, peer, settings.repeats)
            yield from eigenvalue_rows(few, peer, settings.repeats)


def fisher_rows(subject: Subject, peer: Peer, repeats: int) -> Iterator[Row]:
    """Tr(F) beside BackPACK and torch.func."""
    examples = len(subject.y)
    peers = {
        "BackPACK": peer("backpack", examples=examples),
        "torch.func": peer("torch_func", examples=examples, chunk_size=CHUNKS[subject.name]),
    }
    measurements = [fisher_measurement(subject, "given"), *peers.values()]
    title = f"pytorch, Tr(F), {subject.name}"
    (ours, *times), (estimates, *values) = take_turns(measurements, repeats, title)
    for package, theirs, found in zip(peers, times, values, strict=True):
        quantity = f"Tr(F), given labels, {examples} examples / that of {package}"
        yield ratio_row(subject.name, quantity, ours, theirs)
        error = abs(estimates[-1].value / found[-1]["value"] - 1)
        numbers = {"relative_difference": error}
        yield Row(subject.name, f"Tr(F): difference from {package}", f"{error:.1e}", numbers)


def hessian_rows(subject: Subject, peer: Peer, repeats: int) -> Iterator[Row]:
    """Tr(H) beside hessian-eigenthings and curvlinops."""
    examples = len(subject.y)
    peers = {"hessian-eigenthings": "eigenthings_trace", "curvlinops": "curvlinops_trace"}
    measurements = [
        hessian_measurement(subject, PROBES),
        *(peer(method, examples=examples, probes=PROBES) for method in peers.values()),
    ]
    title = f"pytorch, Tr(H), {subject.name}"
    (ours, *times), (estimates, theirs, _) = take_turns(measurements, repeats, title)
    for package, seconds in zip(peers, times, strict=True):
        quantity = f"Tr(H), {PROBES} probes, {examples} examples / that of {package}"
        yield ratio_row(subject.name, quantity, ours, seconds)
    differences = [e.value - t["value"] for e, t in zip(estimates, theirs, strict=True)]
    stderrs = [s for e, t in zip(estimates, theirs, strict=True) for s in (e.stderr, t["stderr"])]
    distance = float(abs(np.sum(differences)) / np.linalg.norm(stderrs))
    quantity = "Tr(H): difference from hessian-eigenthings in standard errors"
    yield Row(subject.name, quantity, f"{distance:.1f}", {"difference": distance})


def eigenvalue_rows(subject: Subject, peer: Peer, repeats: int) -> Iterator[Row]:
    """The largest eigenvalues beside hessian-eigenthings, and curvlinops with SciPy's solver."""
    examples = len(subject.y)
    peers = {
        "hessian-eigenthings": "eigenthings_eigenvalues",
        "curvlinops": "curvlinops_eigenvalues",
    }
    meter = HessianEigenvaluesMeter(subject.model, k=EIGENVALUES, likelihood=CATEGORICAL, seed=0)
    measurements = [
        time_call(lambda: meter((subject.x, subject.y), batch_size=examples)),
        *(peer(method, examples=examples, k=EIGENVALUES) for method in peers.values()),
    ]
    title = f"pytorch, eigenvalues, {subject.name}"
    (ours, *times), (found, *values) = take_turns(measurements, repeats, title)
    for package, seconds, theirs in zip(peers, times, values, strict=True):
        quantity = f"{EIGENVALUES} largest eigenvalues, {examples} examples / that of {package}"
        yield ratio_row(subject.name, quantity, ours, seconds)
        largest = found[-1].values
        error = float(np.abs(largest - theirs[-1]["value"]).max() / largest[0])
        what = f"{EIGENVALUES} largest eigenvalues: difference from {package}"
        yield Row(subject.name, what, f"{error:.1e}", {"relative_difference": error})
