"""All four measurements, for what holds of each."""

import functools

import keras_fisher as kf

MEASURES = [kf.fisher_trace, kf.minibatch_fisher_trace, kf.hessian_trace, kf.gradient_norm]

# The same, all with the labels of the data.
LABELLED = [
    functools.partial(kf.fisher_trace, labels="given"),
    functools.partial(kf.minibatch_fisher_trace, labels="given"),
    kf.hessian_trace,
    kf.gradient_norm,
]
