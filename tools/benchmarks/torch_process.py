"""PyTorch, in a process of its own."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras import layers

from benchmarks.subjects import Subject
from benchmarks.timing import THREADS, Measurement

PACKAGES = {
    "torch": "torch",
    "backpack-for-pytorch": "backpack",
    "curvlinops-for-pytorch": "curvlinops",
    "pyhessian": "pyhessian",
}


class TorchServer:
    """`pytorch_side.py` in a process of its own, so that the two thread pools do not mix."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def timed(self, method: str, **settings: int) -> Measurement:
        """What PyTorch takes for a method, by its own clock."""
        request = json.dumps({"method": method, **settings})

        def measurement() -> tuple[float, Any]:
            assert self._process.stdin is not None
            assert self._process.stdout is not None
            print(request, file=self._process.stdin, flush=True)
            answer = self._process.stdout.readline()
            if not answer:
                raise RuntimeError("The PyTorch process has died; what it said is above.")
            result = json.loads(answer)
            return result.pop("seconds"), result

        return measurement


@contextlib.contextmanager
def torch_server(subject: Subject) -> Iterator[TorchServer]:
    """Starts PyTorch with the subject's network and examples."""
    script = Path(__file__).with_name("pytorch_side.py")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "network.npz"
        names, parameters = for_torch(subject.model)
        arrays: dict[str, Any] = {f"parameter{i}": array for i, array in enumerate(parameters)}
        x, y = subject.x.transpose(0, 3, 1, 2), subject.y.astype("int64")
        np.savez(path, x=x, y=y, layers=names, **arrays)
        with subprocess.Popen(
            [sys.executable, script, path, str(THREADS)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        ) as process:
            yield TorchServer(process)


def for_torch(model: keras.Model) -> tuple[list[str], list[np.ndarray]]:
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
                if names[-1] == "flatten":
                    kernel = channels_first(kernel, model.get_layer("flatten").input.shape[1:])
                names.append("dense")
                parameters += [kernel.T, bias]
            case layers.MaxPooling2D():
                names.append("pool")
            case layers.Flatten():
                names.append("flatten")
        if getattr(layer, "activation", None) is keras.activations.relu:
            names.append("relu")
    return names, parameters


def channels_first(kernel: np.ndarray, image_shape: Sequence[int]) -> np.ndarray:
    """Reorders the rows of a dense kernel, from (height, width, channel) to channel first."""
    rows = np.arange(len(kernel)).reshape(image_shape).transpose(2, 0, 1).ravel()
    return kernel[rows]
