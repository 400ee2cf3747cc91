"""Gradient-norm penalties that keep a Keras model from memorising, and instruments to see why."""

from importlib.metadata import version as _version

from keras_fisher import callbacks, data, likelihoods, penalties, rules, traces, zoo
from keras_fisher.model import FisherPenaltyModel
from keras_fisher.traces import (
    Estimate,
    fisher_trace,
    gradient_norm,
    hessian_trace,
    minibatch_fisher_trace,
)

__version__ = _version("keras-fisher")

__all__ = [
    "Estimate",
    "FisherPenaltyModel",
    "callbacks",
    "data",
    "fisher_trace",
    "gradient_norm",
    "hessian_trace",
    "likelihoods",
    "minibatch_fisher_trace",
    "penalties",
    "rules",
    "traces",
    "zoo",
]
