"""Gradient-norm penalties that keep a Keras model from memorising, and instruments to see why."""

from importlib.metadata import version as _version

from keras_fisher import callbacks, data, likelihoods, penalties, zoo
from keras_fisher.model import FisherPenaltyModel
from keras_fisher.traces import Estimate, gradient_norm

__version__ = _version("keras-fisher")

__all__ = [
    "Estimate",
    "FisherPenaltyModel",
    "callbacks",
    "data",
    "gradient_norm",
    "likelihoods",
    "penalties",
    "zoo",
]
