"""A process that measures in PyTorch what each line of its input names.

    python tools/benchmarks/pytorch_process.py NETWORK.npz THREADS

The file holds a chain of layers, its parameters, and examples, all in PyTorch's layout. A line such
as {"method": "backpack", "examples": 128} is answered by {"seconds": 0.1, "value": 2.3}.
"""

from __future__ import annotations

import copy
import json
import sys
import time
import warnings
from typing import Any

import backpack
import numpy as np
import torch
from backpack.extensions import BatchL2Grad
from curvlinops import HessianLinearOperator, hutchinson_trace
from hessian_eigenthings import HessianOperator, hutchinson, lanczos, supervised_loss
from scipy.sparse.linalg import eigsh
from torch import nn
from torch.func import functional_call, grad, vmap
from torch.nn.functional import cross_entropy

PLAIN_LAYERS = {"relu": nn.ReLU, "pool": lambda: nn.MaxPool2d(2), "flatten": nn.Flatten}
Figures = dict[str, Any]

# About how BackPACK itself calls PyTorch.
warnings.filterwarnings("ignore", "Full backward hook is firing")
TOLERANCE = 1e-5  # of eigenvalues, the default of keras_fisher
MAX_STEPS = 100  # of Lanczos; hessian-eigenthings takes all of them


def main(path: str, threads: str) -> None:
    torch.set_num_threads(int(threads))
    with np.load(path) as data:
        model = build(data)
        x, y = torch.from_numpy(data["x"]), torch.from_numpy(data["y"])
    methods: dict[str, Any] = {
        "backpack": BackpackFisher(model),
        "torch_func": TorchFuncFisher(model),
        "eigenthings_trace": EigenthingsTrace(model),
        "eigenthings_eigenvalues": EigenthingsEigenvalues(model),
        "curvlinops_trace": CurvlinopsTrace(model),
        "curvlinops_eigenvalues": CurvlinopsEigenvalues(model),
        "plain_step": Step(model, alpha=0.0),
        "penalised_step": Step(model, alpha=1e-4),
    }
    for line in sys.stdin:
        settings = json.loads(line)
        measure, examples = methods[settings.pop("method")], settings.pop("examples")
        repeats = settings.pop("repeats", 1)
        start = time.perf_counter()
        for _ in range(repeats):
            result = measure(x[:examples], y[:examples], **settings)
        print(json.dumps({"seconds": time.perf_counter() - start, **result}), flush=True)


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


class BackpackFisher:
    """Tr(F) by BackPACK."""

    def __init__(self, model: nn.Sequential) -> None:
        self.model = backpack.extend(copy.deepcopy(model))
        # The sum, because the norms are those of an example's part of the loss.
        self.loss = backpack.extend(nn.CrossEntropyLoss(reduction="sum"))

    def __call__(self, x: torch.Tensor, y: torch.Tensor) -> Figures:
        self.model.zero_grad()
        with backpack.backpack(BatchL2Grad()):
            self.loss(self.model(x), y).backward()
        norms = sum(parameter.batch_l2 for parameter in self.model.parameters())
        return {"value": norms.mean().item()}


class TorchFuncFisher:
    """Tr(F) by torch.func."""

    def __init__(self, model: nn.Sequential) -> None:
        self.model = model
        self.parameters = {name: value.detach() for name, value in model.named_parameters()}

    def __call__(self, x: torch.Tensor, y: torch.Tensor, chunk_size: int) -> Figures:
        norms = vmap(self._squared_norm, chunk_size=chunk_size)(x, y)
        return {"value": norms.mean().item()}

    def _squared_norm(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        gradients = grad(self._loss)(self.parameters, x, y)
        return sum(gradient.square().sum() for gradient in gradients.values())

    def _loss(self, parameters: Any, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return cross_entropy(functional_call(self.model, parameters, (x[None],)), y[None])


class Eigenthings:
    """The Hessian of hessian-eigenthings."""

    def __init__(self, model: nn.Sequential) -> None:
        self.model = model

    def operator(self, x: torch.Tensor, y: torch.Tensor) -> HessianOperator:
        return HessianOperator(self.model, [(x, y)], supervised_loss(cross_entropy))


class EigenthingsTrace(Eigenthings):
    """Tr(H) by hessian-eigenthings."""

    def __call__(self, x: torch.Tensor, y: torch.Tensor, probes: int) -> Figures:
        seed = int(torch.randint(2**31, ()))  # by itself it draws the same probes each time
        found = hutchinson(self.operator(x, y), num_samples=probes, seed=seed)
        return {"value": found.estimate, "stderr": found.stderr}


class EigenthingsEigenvalues(Eigenthings):
    """The largest eigenvalues by hessian-eigenthings."""

    def __call__(self, x: torch.Tensor, y: torch.Tensor, k: int) -> Figures:
        options = {"k": k, "which": "LA", "max_iter": MAX_STEPS, "tol": TOLERANCE}
        found = lanczos(self.operator(x, y), reorthogonalize=True, seed=0, **options)
        if not found.converged.all():
            raise RuntimeError(f"hessian-eigenthings: no convergence in {MAX_STEPS} steps")
        return {"value": sorted(found.eigenvalues.tolist(), reverse=True)}


class Curvlinops:
    """The Hessian of curvlinops."""

    def __init__(self, model: nn.Sequential) -> None:
        self.model = model

    def operator(self, x: torch.Tensor, y: torch.Tensor) -> HessianLinearOperator:
        return HessianLinearOperator(
            self.model,
            nn.CrossEntropyLoss(),
            list(self.model.parameters()),
            [(x, y)],
            check_deterministic=False,
        )


class CurvlinopsTrace(Curvlinops):
    """Tr(H) by curvlinops."""

    def __call__(self, x: torch.Tensor, y: torch.Tensor, probes: int) -> Figures:
        trace = hutchinson_trace(self.operator(x, y), num_matvecs=probes, distribution="rademacher")
        return {"value": float(trace)}


class CurvlinopsEigenvalues(Curvlinops):
    """The largest eigenvalues by curvlinops, with SciPy's solver."""

    def __call__(self, x: torch.Tensor, y: torch.Tensor, k: int) -> Figures:
        operator = self.operator(x, y).to_scipy()
        found = eigsh(operator, k=k, which="LA", tol=TOLERANCE, return_eigenvectors=False)
        return {"value": sorted(found.tolist(), reverse=True)}


class Step:
    """A step as one would write it: double backpropagation, labels drawn from the prediction."""

    def __init__(self, model: nn.Sequential, alpha: float) -> None:
        self.model, self.alpha = copy.deepcopy(model), alpha
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=1e-6, momentum=0.9)

    def __call__(self, x: torch.Tensor, y: torch.Tensor) -> Figures:
        self.optimizer.zero_grad()
        logits = self.model(x)
        loss = total = cross_entropy(logits, y)
        if self.alpha:
            labels = torch.distributions.Categorical(logits=logits.detach()).sample()
            nll, parameters = cross_entropy(logits, labels), list(self.model.parameters())
            gradient = torch.autograd.grad(nll, parameters, create_graph=True)
            total = loss + self.alpha * sum(part.square().sum() for part in gradient)
        total.backward()
        self.optimizer.step()
        return {"value": loss.item()}


if __name__ == "__main__":
    main(*sys.argv[1:])
