"""A process that measures in PyTorch what each line of its input names.

    python -m benchmarks.pytorch_process NETWORK.npz THREADS

The file holds a chain of layers, its parameters, and examples, all in PyTorch's layout. A line such
as {"method": "backpack", "examples": 128} is answered by {"seconds": 0.1, "value": 2.3}.
"""

from __future__ import annotations

import importlib
import json
import sys
import time
from typing import Any

import numpy as np
import torch
from torch import nn

PLAIN_LAYERS = {"relu": nn.ReLU, "pool": lambda: nn.MaxPool2d(2), "flatten": nn.Flatten}
MODULES = ("pytorch_steps", "pytorch_peers")  # the second needs further packages


def main(path: str, threads: str) -> None:
    torch.set_num_threads(int(threads))
    with np.load(path) as data:
        model = build(data)
        x, y = torch.from_numpy(data["x"]), torch.from_numpy(data["y"])
    methods: dict[str, Any] = {}
    for line in sys.stdin:
        settings = json.loads(line)
        name, examples = settings.pop("method"), settings.pop("examples")
        if name not in methods:
            methods[name] = find_method(name)(model)
        repeats = settings.pop("repeats", 1)
        start = time.perf_counter()
        for _ in range(repeats):
            result = methods[name](x[:examples], y[:examples], **settings)
        print(json.dumps({"seconds": time.perf_counter() - start, **result}), flush=True)


def find_method(name: str) -> Any:
    """Returns what makes a method from a network."""
    for module in MODULES:
        methods = importlib.import_module(f"benchmarks.{module}").METHODS
        if name in methods:
            return methods[name]
    raise KeyError(name)


def build(data: Any) -> nn.Sequential:
    """The network of a file."""
    parameters = iter(torch.from_numpy(data[f]) for f in data.files if f.startswith("parameter"))
    modules: list[nn.Module] = []
    for name in data["layers"].tolist():
        if name in PLAIN_LAYERS:
            modules.append(PLAIN_LAYERS[name]())
            continue
        weight, bias = next(parameters), next(parameters)
        outputs, inputs, *size = weight.shape
        if name == "dense":
            modules.append(nn.Linear(inputs, outputs))
        else:
            padding = size[0] // 2 if name == "conv_same" else 0
            modules.append(nn.Conv2d(inputs, outputs, tuple(size), padding=padding))
        modules[-1].load_state_dict({"weight": weight, "bias": bias})
    return nn.Sequential(*modules)


if __name__ == "__main__":
    main(*sys.argv[1:])
