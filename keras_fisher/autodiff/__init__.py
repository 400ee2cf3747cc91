"""The only room that differentiates: one module per Keras backend, with the same few functions.

- `gradients(objective, weights)`: a plain first-order gradient.
- `penalty_gradients(objective, ...)`: the gradient of a squared gradient norm, exactly.
- `penalty_gradients_by_difference(objective, ...)`: the same from two first-order gradients.
- `penalty_gradients_in_parts(part, ...)`: either, from one part of the batch after another.
- `tapped_gradients(objective)`: the gradient with respect to tensors inside the model.
- `map_examples(function, examples)`: a function of one example after another.
- `quadratic_forms(objective, weights, ...)`: z^T H z for random probes z.
- `map_probes(function, weights, ...)`: a function of one random probe after another.
- `Line`: what moves along a line, and its first two derivatives, forward; `None` without them.
- `compiled(function)`: the function, compiled for batches of any size.
- `squared_norm(tensors)`: the sum of squares, at least float32.
- `cond`: a branch inside a compiled step.
- `checked_below`, `nan_unless_below`: checks inside a compiled step, of which each backend has one.
- `replica_index()`: which of several replicas a step is of.
- `synchronise(model)`: brings a model that is training up to date.
- `COUNTER_DTYPE`: that of variables which count.
- `PROBES_AT_ONCE`: how many probes one call may follow.
"""

from __future__ import annotations

import functools

import keras

from keras_fisher.autodiff import in_parts
from keras_fisher.autodiff.results import InnerGraphError, Part, PenaltyGradients

SUPPORTED = ("tensorflow", "jax")
_penalty: in_parts.Backend

if keras.backend.backend() == "tensorflow":
    from keras_fisher.autodiff import tensorflow_penalty
    from keras_fisher.autodiff.tensorflow import (
        COUNTER_DTYPE,
        PROBES_AT_ONCE,
        Line,
        Tap,
        checked_below,
        compiled,
        cond,
        gradients,
        map_examples,
        map_probes,
        nan_unless_below,
        quadratic_forms,
        synchronise,
        tapped_gradients,
    )
    from keras_fisher.autodiff.tensorflow_replicas import replica_index
    from keras_fisher.autodiff.tensorflow_tapes import squared_norm

    _penalty = tensorflow_penalty
elif keras.backend.backend() == "jax":
    from keras_fisher.autodiff import jax_penalty
    from keras_fisher.autodiff.jax import (
        COUNTER_DTYPE,
        PROBES_AT_ONCE,
        Line,
        Tap,
        checked_below,
        compiled,
        gradients,
        map_examples,
        map_probes,
        nan_unless_below,
        quadratic_forms,
        replica_index,
        squared_norm,
        synchronise,
        tapped_gradients,
    )
    from keras_fisher.autodiff.jax_pure import cond

    _penalty = jax_penalty
else:
    raise ImportError(
        f"keras_fisher supports the Keras backends {' and '.join(SUPPORTED)}. "
        f"Received: KERAS_BACKEND={keras.backend.backend()!r}. "
        "Set the environment variable KERAS_BACKEND to one of them before importing keras."
    )

penalty_gradients = _penalty.penalty_gradients
penalty_gradients_by_difference = _penalty.penalty_gradients_by_difference
penalty_gradients_in_parts = functools.partial(in_parts.penalty_gradients_in_parts, _penalty)

__all__ = [
    "COUNTER_DTYPE",
    "PROBES_AT_ONCE",
    "InnerGraphError",
    "Line",
    "Part",
    "PenaltyGradients",
    "Tap",
    "checked_below",
    "compiled",
    "cond",
    "gradients",
    "map_examples",
    "map_probes",
    "nan_unless_below",
    "penalty_gradients",
    "penalty_gradients_by_difference",
    "penalty_gradients_in_parts",
    "quadratic_forms",
    "replica_index",
    "squared_norm",
    "synchronise",
    "tapped_gradients",
]
