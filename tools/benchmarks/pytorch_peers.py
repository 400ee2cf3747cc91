"""Traces and eigenvalues by packages for PyTorch."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Mapping
from typing import Any

import backpack
import torch
from backpack.extensions import BatchL2Grad
from curvlinops import HessianLinearOperator, hutchinson_trace
from hessian_eigenthings import HessianOperator, hutchinson, lanczos, supervised_loss
from scipy.sparse.linalg import eigsh
from torch import nn
from torch.func import functional_call, grad, vmap
from torch.nn.functional import cross_entropy

# About how BackPACK itself calls PyTorch.
warnings.filterwarnings("ignore", "Full backward hook is firing")
TOLERANCE = 1e-5  # of eigenvalues, the default of keras_fisher
MAX_STEPS = 100  # of Lanczos; hessian-eigenthings takes all of them

Figures = dict[str, Any]


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


METHODS: Mapping[str, Any] = {
    "backpack": BackpackFisher,
    "torch_func": TorchFuncFisher,
    "eigenthings_trace": EigenthingsTrace,
    "eigenthings_eigenvalues": EigenthingsEigenvalues,
    "curvlinops_trace": CurvlinopsTrace,
    "curvlinops_eigenvalues": CurvlinopsEigenvalues,
}
