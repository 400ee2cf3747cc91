"""Callbacks that measure during `fit`, and three that affect it.

Every other callback finds the measurements in `logs`, in whatever order the callbacks are listed.
"""

from keras_fisher.callbacks.alpha_scheduler import AlphaScheduler
from keras_fisher.callbacks.batch_norm_recalibration import BatchNormRecalibration
from keras_fisher.callbacks.early_phase import EarlyPhase
from keras_fisher.callbacks.fisher_trace import FisherTrace
from keras_fisher.callbacks.gradient_norm import GradientNorm
from keras_fisher.callbacks.hessian_eigenvalues import HessianEigenvalues
from keras_fisher.callbacks.hessian_trace import HessianTrace
from keras_fisher.callbacks.label_noise_monitor import LabelNoiseMonitor
from keras_fisher.callbacks.label_scores import LabelScores
from keras_fisher.callbacks.minibatch_fisher_trace import MinibatchFisherTrace
from keras_fisher.callbacks.non_finite_guard import NonFiniteGuard
from keras_fisher.callbacks.penalty_ratio import PenaltyRatio

__all__ = [
    "AlphaScheduler",
    "BatchNormRecalibration",
    "EarlyPhase",
    "FisherTrace",
    "GradientNorm",
    "HessianEigenvalues",
    "HessianTrace",
    "LabelNoiseMonitor",
    "LabelScores",
    "MinibatchFisherTrace",
    "NonFiniteGuard",
    "PenaltyRatio",
]
