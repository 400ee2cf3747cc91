"""All measurements, for what holds of each."""

import functools

import keras_fisher as kf

# Those that return an `Estimate`.
MEASURES = [
    kf.fisher_trace,
    kf.minibatch_fisher_trace,
    kf.hessian_trace,
    kf.gradient_norm,
    kf.ggn_trace,
]
# Those of the spectrum of the Hessian.
SPECTRA = [kf.hessian_eigenvalues, kf.sharpness, kf.spectral_density]

# Those with the labels of the data.
LABELLED = [
    functools.partial(kf.fisher_trace, labels="given"),
    functools.partial(kf.minibatch_fisher_trace, labels="given"),
    kf.hessian_trace,
    kf.gradient_norm,
    *SPECTRA,
]
