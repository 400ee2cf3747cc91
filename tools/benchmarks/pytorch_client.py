"""A process of PyTorch, which measures networks of plain layers at a client's request."""

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
from benchmarks.measurement import Measurement, SectionSkipped
from benchmarks.networks import Subject

# From the name of a method and its settings, what measures it in the process of PyTorch.
Peer = Callable[..., Measurement]


def check_pytorch(*modules: str) -> None:
    """Raises unless PyTorch and these modules are installed, and there is no GPU."""
    if not all(map(importlib.util.find_spec, ("torch", *modules))):
        raise SectionSkipped("PyTorch is missing: pip install -e '.[benchmark]'")
    if has_gpu():
        raise SectionSkipped("it compares CPUs: set CUDA_VISIBLE_DEVICES to nothing")


@contextlib.contextmanager
def start_pytorch(subject: Subject) -> Iterator[Peer]:
    """Starts PyTorch in a process of its own, so that the two thread pools do not mix."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "network.npz"
        names, parameters = convert(subject.model)
        arrays: dict[str, Any] = {f"parameter{i}": array for i, array in enumerate(parameters)}
        x, y = subject.x.transpose(0, 3, 1, 2), subject.y.astype("int64")
        np.savez(path, x=x, y=y, layers=names, **arrays)
        module = [sys.executable, "-m", "benchmarks.pytorch_process", str(path), str(THREADS)]
        pipe, tools = subprocess.PIPE, Path(__file__).parents[1]
        with subprocess.Popen(module, stdin=pipe, stdout=pipe, text=True, cwd=tools) as process:
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
