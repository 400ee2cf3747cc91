"""The plain way to squared gradient norms, which everything is compared with: a loop over examples.

Inference mode, batches of one, one gradient tape each.
"""

import contextlib
import logging

import keras
import numpy as np

from keras_fisher.traces.per_example import SquaredGradientNorms
from keras_fisher.utils.messages import warn_once
from tests import reference


def half_squares(y, outputs):
    """The loss of each example: half the squared distance of its outputs from y."""
    dtype = keras.backend.result_type(outputs.dtype, "float32")
    squares = keras.ops.square(keras.ops.cast(outputs, dtype) - keras.ops.cast(y, dtype)) / 2
    return keras.ops.sum(squares, axis=tuple(range(1, len(squares.shape))))


def loop(model, x, y, values=half_squares):
    """Returns the squared norm of each example's gradient by each weight, (batch, weights)."""
    rows = []
    for i in range(len(y)):
        one_x, one_y = keras.tree.map_structure(
            lambda a, i=i: keras.ops.convert_to_tensor(a[i : i + 1]), (x, y)
        )

        def value(one_x=one_x, one_y=one_y):
            return keras.ops.sum(values(one_y, model(one_x, training=False)))

        found = reference.gradients(value, model.trainable_weights)
        rows.append([np.sum(np.square(g.astype("float64"))) for g in found])
    return np.array(rows)


def measured(model, x, y, values=half_squares):
    """Returns what `loop` returns, as the package finds it, and the fallbacks that it logged."""
    with logged() as messages:
        found = SquaredGradientNorms(model, lambda outputs, y: y, values)(x, y)
    return found, messages


def relative_error(found, expected):
    """Returns the largest relative error over all examples and weights, none of which is zero."""
    assert found.shape == expected.shape
    assert expected.size
    assert (expected > 0).all()
    return np.max(np.abs(found - expected) / expected)


@contextlib.contextmanager
def logged():
    """Collects what the package logs, also what it logged before and would not repeat."""
    warn_once.cache_clear()
    messages = []
    handler = logging.Handler()
    handler.emit = lambda record: messages.append(record.getMessage())
    logger = logging.getLogger("keras_fisher")
    logger.addHandler(handler)
    try:
        yield messages
    finally:
        logger.removeHandler(handler)


def randomise(model, seed=0):
    """Moves all variables off their special values, to numbers that float32 holds exactly."""
    generator = np.random.default_rng(seed)
    for variable in model.variables:
        if keras.backend.is_float_dtype(variable.dtype):
            value = generator.normal(scale=0.5, size=variable.shape).astype("float32")
            positive = variable.path.endswith("variance")
            variable.assign(0.5 + np.abs(value) if positive else value)
    return model


def normal(*shape, seed=1):
    """Standard normal numbers that float32 holds exactly, in the default precision."""
    numbers = np.random.default_rng(seed).normal(size=shape).astype("float32")
    return numbers.astype(keras.config.floatx())
