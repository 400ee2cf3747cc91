"""What callbacks see of a model in the middle of an epoch."""

import keras
import numpy as np
import pytest

import keras_fisher as kf
from tests import nets

X, Y = nets.inputs("dense", 8), nets.labels(8)


def trained(steps, *callbacks):
    model = nets.compiled("dense", keras.optimizers.SGD(0.5), alpha=0.1, penalty="gp")
    rows = slice(2 * steps)
    model.fit(X[rows], Y[rows], batch_size=2, shuffle=False, verbose=0, callbacks=list(callbacks))
    return model


def test_a_trace_between_two_steps_is_that_of_the_weights_there():
    callback = kf.callbacks.FisherTrace((X, Y), labels="given", freq=2)
    trained(4, callback)
    expected = [kf.fisher_trace(trained(s), (X, Y), labels="given").value for s in (2, 4)]
    found = [estimate.value for _, estimate in callback.history]
    assert found == pytest.approx(expected, rel=1e-4)
    assert np.ptp(expected) > 0
