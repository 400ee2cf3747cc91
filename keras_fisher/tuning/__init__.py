"""Searches over alpha and the learning rate with keras-tuner; needs the `tuning` extra."""

try:
    import keras_tuner as _keras_tuner  # noqa: F401
except ImportError as error:
    raise ImportError("keras_fisher.tuning needs keras-tuner: pip install keras-tuner") from error

from keras_fisher.tuning.alpha_search import AlphaTrial, FoundAlpha, find_alpha
from keras_fisher.tuning.grids import alphas, learning_rates, mixup_betas, noisy_label_alphas
from keras_fisher.tuning.hypermodel import FisherPenaltyHyperModel
from keras_fisher.tuning.oracle import GridOracle
from keras_fisher.tuning.search import GridSearch
from keras_fisher.tuning.start import AlphaRange, alpha_range

__all__ = [
    "AlphaRange",
    "AlphaTrial",
    "FisherPenaltyHyperModel",
    "FoundAlpha",
    "GridOracle",
    "GridSearch",
    "alpha_range",
    "alphas",
    "find_alpha",
    "learning_rates",
    "mixup_betas",
    "noisy_label_alphas",
]
