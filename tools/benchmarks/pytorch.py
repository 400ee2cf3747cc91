"""Steps, traces and eigenvalues beside those of PyTorch and packages for it."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras import layers

from benchmarks.backend import THREADS, has_gpu
from benchmarks.measurement import (
    Measurement,
    Row,
    SectionSkipped,
    Settings,
    ratio_row,
    take_turns,
    timed,
)
from benchmarks.networks import (
    CATEGORICAL,
    NETWORKS,
    Subject,
    compile_penalised,
    compile_plain,
    prepare,
)
from benchmarks.traces import PROBES, fisher_measurement, hessian_measurement
from keras_fisher.traces import HessianEigenvaluesMeter

# Distributions, by the modules that they install.
PACKAGES = {
    "torch": "torch",
    "backpack": "backpack-for-pytorch",
    "curvlinops": "curvlinops-for-pytorch",
    "hessian_eigenthings": "hessian-eigenthings",
}
# Networks that are plain chains of layers, with the fastest number of examples for torch.func.
CHUNKS = {"SimpleCNN": 128, "VGG-11": 16}
STEPS = 4
EIGENVALUES = 5

# From the name of a method and its settings, what measures it in the process of PyTorch.
Peer = Callable[..., Measurement]


def pytorch(settings: Settings) -> Iterator[Row]:
    """Traces, eigenvalues and the penalised step, on the same network, weights and examples."""
    if not all(map(importlib.util.find_spec, PACKAGES)):
        raise SectionSkipped("PyTorch is missing: pip install -e '.[benchmark]'")
    if has_gpu():
        raise SectionSkipped("it compares CPUs: set CUDA_VISIBLE_DEVICES to nothing")
    for name in settings.networks:
        if name not in CHUNKS:
            continue
        subject = prepare(name, 16 if settings.is_quick else 128)
        few = subject.first(NETWORKS[name].few_examples)
        with start_pytorch(subject) as peer:
            yield from fisher_rows(subject, peer, settings.repeats)
            yield from hessian_rows(few, peer, settings.repeats)
            yield from eigenvalue_rows(few, peer, settings.repeats)
            yield from step_rows(subject, peer, settings.repeats)  # last: they move the weights


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
        timed(lambda: meter((subject.x, subject.y), batch_size=examples)),
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


def step_rows(subject: Subject, peer: Peer, repeats: int) -> Iterator[Row]:
    """Steps beside the same in PyTorch."""
    examples = len(subject.y)
    plain = compile_plain(keras.models.clone_model(subject.model))
    penalised = compile_penalised(subject.model, update_freq=1)
    measurements = []
    for model, method in ((plain, "plain_step"), (penalised, "penalised_step")):
        fit = partial(model.fit, subject.batches(), steps_per_epoch=STEPS, verbose=0)
        measurements += [timed(fit), peer(method, examples=examples, repeats=STEPS)]
    seconds, _ = take_turns(measurements, repeats, f"pytorch, steps, {subject.name}")
    for index, what in enumerate(("plain step", "step with FP, exact")):
        quantity = f"{what}, {examples} examples / that in PyTorch"
        yield ratio_row(subject.name, quantity, *seconds[2 * index : 2 * index + 2])


# ---- The process of PyTorch ----------------------------------------------------------------------


@contextlib.contextmanager
def start_pytorch(subject: Subject) -> Iterator[Peer]:
    """Starts PyTorch in a process of its own, so that the two thread pools do not mix."""
    script = Path(__file__).with_name("pytorch_process.py")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "network.npz"
        names, parameters = convert(subject.model)
        arrays: dict[str, Any] = {f"parameter{i}": array for i, array in enumerate(parameters)}
        x, y = subject.x.transpose(0, 3, 1, 2), subject.y.astype("int64")
        np.savez(path, x=x, y=y, layers=names, **arrays)
        command = [sys.executable, str(script), str(path), str(THREADS)]
        pipe = subprocess.PIPE
        with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) as process:
            yield partial(request, process)


def request(process: subprocess.Popen[str], method: str, **settings: int) -> Measurement:
    """Measures a method of PyTorch by its own clock."""

    def measurement() -> tuple[float, Any]:
        assert process.stdin is not None
        assert process.stdout is not None
        print(json.dumps({"method": method, **settings}), file=process.stdin, flush=True)
        answer = process.stdout.readline()
        if not answer:
            raise RuntimeError("The PyTorch process has died; what it said is above.")
        result = json.loads(answer)
        return result.pop("seconds"), result

    return measurement


def convert(model: keras.Model) -> tuple[list[str], list[np.ndarray]]:
    """Returns the layers of a plain chain by name, and its parameters, in PyTorch's layout."""
    names: list[str] = []
    parameters: list[np.ndarray] = []
    for layer in model.layers[1:]:
        match layer:
            case layers.Conv2D():
                kernel, bias = layer.get_weights()
                names.append(f"conv_{layer.padding}")
                parameters += [kernel.transpose(3, 2, 0, 1), bias]
            case layers.Dense():
                kernel, bias = layer.get_weights()
                if names[-1] == "flatten":  # rows from (height, width, channel) to channel first
                    shape = model.get_layer("flatten").input.shape[1:]
                    rows = np.arange(len(kernel)).reshape(shape).transpose(2, 0, 1)
                    kernel = kernel[rows.ravel()]
                names.append("dense")
                parameters += [kernel.T, bias]
            case layers.MaxPooling2D():
                names.append("pool")
            case layers.Flatten():
                names.append("flatten")
        if getattr(layer, "activation", None) is keras.activations.relu:
            names.append("relu")
    return names, parameters
