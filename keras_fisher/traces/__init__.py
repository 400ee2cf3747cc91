"""Traces and eigenvalues of the Fisher and the Hessian matrix, and norms of gradients, over data.

All are measured in inference mode (dropout off, batch normalisation with its moving statistics) and
leave all variables, losses and random states of the model unchanged. Each is available as a
function, and as a meter that compiles once for many measurements of one model.
"""

from keras_fisher.traces.accuracy import accuracy
from keras_fisher.traces.data import check_data
from keras_fisher.traces.density import (
    SpectralDensity,
    SpectralDensityMeter,
    spectral_density,
)
from keras_fisher.traces.eigenvalues import (
    Eigenvalues,
    HessianEigenvaluesMeter,
    hessian_eigenvalues,
    sharpness,
)
from keras_fisher.traces.estimate import Estimate
from keras_fisher.traces.fisher import FisherTraceMeter, fisher_trace
from keras_fisher.traces.ggn import GGNTraceMeter, ggn_trace
from keras_fisher.traces.gradient_norm import GradientNormMeter, gradient_norm
from keras_fisher.traces.hessian import HessianTraceMeter, hessian_trace
from keras_fisher.traces.minibatch import MinibatchFisherTraceMeter, minibatch_fisher_trace
from keras_fisher.traces.per_example_norms import (
    PerExampleGradientNormsMeter,
    per_example_gradient_norms,
)

__all__ = [
    "Eigenvalues",
    "Estimate",
    "FisherTraceMeter",
    "GGNTraceMeter",
    "GradientNormMeter",
    "HessianEigenvaluesMeter",
    "HessianTraceMeter",
    "MinibatchFisherTraceMeter",
    "PerExampleGradientNormsMeter",
    "SpectralDensity",
    "SpectralDensityMeter",
    "accuracy",
    "check_data",
    "fisher_trace",
    "ggn_trace",
    "gradient_norm",
    "hessian_eigenvalues",
    "hessian_trace",
    "minibatch_fisher_trace",
    "per_example_gradient_norms",
    "sharpness",
    "spectral_density",
]
