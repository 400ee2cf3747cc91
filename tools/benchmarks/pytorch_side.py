"""The PyTorch side of the benchmark: a process that measures what each line of its input names.

    python tools/benchmarks/pytorch_side.py NETWORK.npz THREADS

The file holds a chain of layers, its parameters, and examples, all in PyTorch's layout. A line such
as {"method": "backpack", "examples": 128} is answered by {"seconds": 0.1, "value": 2.3}.
"""

from __future__ import annotations

import copy
import json
import math
import sys
import time
import warnings
from collections.abc import Callable

import backpack
import numpy as np
import torch
from backpack.extensions import BatchL2Grad
from curvlinops import HessianLinearOperator, hutchinson_trace
from pyhessian import hessian
from torch import nn
from torch.func import functional_call, grad, vmap
from torch.nn.functional import cross_entropy

PLAIN_LAYERS = {"relu": nn.ReLU, "pool": lambda: nn.MaxPool2d(2), "flatten": nn.Flatten}
Measurement = Callable[..., dict[str, float]]

# Both are about how BackPACK and PyHessian themselves call PyTorch.
warnings.filterwarnings("ignore", "Full backward hook is firing")
warnings.filterwarnings("ignore", r"Using backward\(\) with create_graph=True")


def main(path: str, threads: str) -> None:
    torch.set_num_threads(int(threads))
    with np.load(path) as data:
        model = network(data)
        x, y = torch.from_numpy(data["x"]), torch.from_numpy(data["y"])
    methods: dict[str, Measurement] = {
        "backpack": backpack_fisher(model),
        "torch_func": func_fisher(model),
        "pyhessian": hutchinson(model),
        "curvlinops": curvlinops_hutchinson(model),
        "plain_step": training_step(model, alpha=0.0),
        "penalised_step": training_step(model, alpha=1e-4),
    }
    for line in sys.stdin:
        settings = json.loads(line)
        measure, examples = methods[settings.pop("method")], settings.pop("examples")
        repeats = settings.pop("repeats", 1)
        start = time.perf_counter()
        for _ in range(repeats):
            result = measure(x[:examples], y[:examples], **settings)
        print(json.dumps({"seconds": time.perf_counter() - start, **result}), flush=True)


def network(data: np.lib.npyio.NpzFile) -> nn.Sequential:
    parameters = iter(
        torch.from_numpy(data[name]) for name in data.files if name.startswith("parameter")
    )
    modules = []
    for name in data["layers"].tolist():
        if name in PLAIN_LAYERS:
            modules.append(PLAIN_LAYERS[name]())
        else:
            modules.append(with_parameters(name, next(parameters), next(parameters)))
    return nn.Sequential(*modules)


def with_parameters(name: str, weight: torch.Tensor, bias: torch.Tensor) -> nn.Module:
    outputs, inputs, *size = weight.shape
    module: nn.Module
    if name == "dense":
        module = nn.Linear(inputs, outputs)
    else:
        padding = size[0] // 2 if name == "conv_same" else 0
        module = nn.Conv2d(inputs, outputs, tuple(size), padding=padding)
    module.load_state_dict({"weight": weight, "bias": bias})
    return module


def backpack_fisher(model: nn.Sequential) -> Measurement:
    model = backpack.extend(copy.deepcopy(model))
    # The sum, because the norms are those of an example's part of the loss.
    loss = backpack.extend(nn.CrossEntropyLoss(reduction="sum"))

    def measure(x: torch.Tensor, y: torch.Tensor) -> dict[str, float]:
        model.zero_grad()
        with backpack.backpack(BatchL2Grad()):
            loss(model(x), y).backward()
        norms = sum(parameter.batch_l2 for parameter in model.parameters())
        return {"value": norms.mean().item()}

    return measure


def func_fisher(model: nn.Sequential) -> Measurement:
    parameters = {name: value.detach() for name, value in model.named_parameters()}

    def loss(parameters: dict[str, torch.Tensor], x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return cross_entropy(functional_call(model, parameters, (x[None],)), y[None])

    def squared_norm(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        gradients = grad(loss)(parameters, x, y)
        return sum(gradient.square().sum() for gradient in gradients.values())

    def measure(x: torch.Tensor, y: torch.Tensor, chunk_size: int) -> dict[str, float]:
        return {"value": vmap(squared_norm, chunk_size=chunk_size)(x, y).mean().item()}

    return measure


def hutchinson(model: nn.Sequential) -> Measurement:
    def measure(x: torch.Tensor, y: torch.Tensor, probes: int) -> dict[str, float]:
        estimator = hessian(model, cross_entropy, data=(x, y), cuda=False)
        # Its own tolerance would stop it after few probes.
        forms = estimator.trace(maxIter=probes, tol=-math.inf)
        return {
            "value": float(np.mean(forms)),
            "stderr": float(np.std(forms, ddof=1) / len(forms) ** 0.5),
        }

    return measure


def curvlinops_hutchinson(model: nn.Sequential) -> Measurement:
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]

    def measure(x: torch.Tensor, y: torch.Tensor, probes: int) -> dict[str, float]:
        operator = HessianLinearOperator(
            model, nn.CrossEntropyLoss(), parameters, [(x, y)], check_deterministic=False
        )
        trace = hutchinson_trace(operator, num_matvecs=probes, distribution="rademacher")
        return {"value": float(trace)}

    return measure


def training_step(model: nn.Sequential, alpha: float) -> Measurement:
    """As one would write it: double backpropagation, with labels drawn from the prediction."""
    model = copy.deepcopy(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-6, momentum=0.9)

    def measure(x: torch.Tensor, y: torch.Tensor) -> dict[str, float]:
        optimizer.zero_grad()
        logits = model(x)
        loss = cross_entropy(logits, y)
        penalty = torch.zeros(())
        if alpha:
            labels = torch.distributions.Categorical(logits=logits.detach()).sample()
            nll = cross_entropy(logits, labels)
            gradient = torch.autograd.grad(nll, list(model.parameters()), create_graph=True)
            penalty = sum(part.square().sum() for part in gradient)
        (loss + alpha * penalty).backward()
        optimizer.step()
        return {"value": loss.item()}

    return measure


if __name__ == "__main__":
    main(*sys.argv[1:])
