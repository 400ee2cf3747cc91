"""Penalties, their gradients and traces of the same weights, batch and labels, as JSON.

Run with each backend by test_agreement.py, in double precision: in single precision, backends round
the variance of batch normalisation in their own ways.
"""

import json
import sys

import keras
import numpy as np

import keras_fisher as kf
from tests import nets, reference
from tests.double_precision import use_double_precision

CASES = {
    "fp, batch_norm_cnn": ("batch_norm_cnn", {"penalty": "fp"}),
    "fp, batch_norm_cnn, first examples": ("batch_norm_cnn", {"penalty_batch_size": 3}),
    "fp, batch_norm_cnn, share": ("batch_norm_cnn", {"penalty_batch_size": 0.5}),
    "fp, batch_norm_cnn, micro-batches": ("batch_norm_cnn", {"micro_batch_size": 2}),
    "gp_x, batch_norm_cnn": ("batch_norm_cnn", {"penalty": "gp_x"}),
    "gp, group_norm_cnn": ("group_norm_cnn", {"penalty": "gp"}),
    "gp_r, dense": ("dense", {"penalty": "gp_r"}),
    "fp, attention": ("attention", {"penalty": "fp"}),
    "fp, recurrent": ("recurrent", {"penalty": "fp"}),
}
TRACES = {
    "fisher_trace, given": lambda model, data: kf.fisher_trace(model, data, labels="given"),
    "fisher_trace, expected": lambda model, data: kf.fisher_trace(model, data, labels="expected"),
    "gradient_norm": lambda model, data: kf.gradient_norm(model, data, batch_size=3),
    "minibatch_fisher_trace": lambda model, data: kf.minibatch_fisher_trace(
        model, data, labels="given", batch_size=3
    ),
}
NAMES = [*CASES, *TRACES, "hessian_trace"]


def with_same_weights(net):
    generator = np.random.default_rng(0)
    for weight in net.trainable_weights:
        weight.assign(generator.normal(scale=0.5, size=weight.shape))
    return net


def step(name, arguments):
    """The penalty of a batch, and where a step along its gradient leads."""
    net = with_same_weights(nets.build(name))
    model = kf.FisherPenaltyModel(net, 1.0, likelihood=nets.HeldLabels(), **arguments)
    # A single step: TensorFlow takes it quicker than it traces it.
    model.compile(keras.optimizers.SGD(1.0), nets.loss(), run_eagerly=not reference.IS_JAX)
    logs = model.train_on_batch(nets.inputs(name), nets.labels(), return_dict=True)
    return [*nets.flat(net.weights).tolist(), float(logs["penalty"])]


def one_weight():
    """A net of one weight, whose every probe of 1 or -1 gives its Hessian exactly."""
    dense = keras.layers.Dense(1, use_bias=False)
    return with_same_weights(keras.Sequential([keras.Input((1,)), dense]))


def hessian():
    x, y = np.random.default_rng(0).normal(size=(8, 1)), np.arange(8) % 2
    bits = kf.likelihoods.Bernoulli()
    return kf.hessian_trace(one_weight(), (x, y), distribution="rademacher", likelihood=bits).value


if __name__ == "__main__":
    use_double_precision()
    found = {case: step(*CASES[case]) for case in CASES}
    net = with_same_weights(nets.plain("batch_norm_cnn"))
    data = nets.inputs("batch_norm_cnn"), nets.labels()
    found |= {name: [TRACES[name](net, data).value] for name in TRACES}
    found["hessian_trace"] = [hessian()]
    json.dump(found, sys.stdout)
