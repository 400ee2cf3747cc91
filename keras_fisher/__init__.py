"""Gradient-norm penalties that reduce memorisation in Keras models, and tools to measure it."""

from importlib import import_module as _import_module
from importlib.metadata import version as _version
from typing import Any as _Any

from keras_fisher import callbacks, data, likelihoods, penalties, rules, traces, zoo
from keras_fisher.model import FisherPenaltyModel
from keras_fisher.traces import (
    Eigenvalues,
    Estimate,
    SpectralDensity,
    fisher_trace,
    ggn_trace,
    gradient_norm,
    hessian_eigenvalues,
    hessian_trace,
    minibatch_fisher_trace,
    per_example_gradient_norms,
    sharpness,
    spectral_density,
)

__version__ = _version("keras-fisher")


def __getattr__(name: str) -> _Any:
    """Imports `tuning`, which needs keras-tuner, on first use."""
    if name == "tuning":
        return _import_module("keras_fisher.tuning")
    raise AttributeError(f"module 'keras_fisher' has no attribute {name!r}")


__all__ = [
    "Eigenvalues",
    "Estimate",
    "FisherPenaltyModel",
    "SpectralDensity",
    "callbacks",
    "data",
    "fisher_trace",
    "ggn_trace",
    "gradient_norm",
    "hessian_eigenvalues",
    "hessian_trace",
    "likelihoods",
    "minibatch_fisher_trace",
    "penalties",
    "per_example_gradient_norms",
    "rules",
    "sharpness",
    "spectral_density",
    "traces",
    "zoo",
]
