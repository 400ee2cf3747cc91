"""The only room that differentiates: one module per Keras backend, with the same few functions.

- `gradients(objective, weights)`: a plain first-order gradient.
- `penalty_gradients(objective, ...)`: the gradient of a squared gradient norm, exactly.
- `penalty_gradients_by_difference(objective, ...)`: the same from two first-order gradients.
- `penalty_gradients_in_parts(part, ...)`: either, from one part of the batch after another.
- `tapped_gradients(objective)`: the gradient with respect to tensors inside the model.
- `map_examples(function, examples)`: a function of one example after another.
- `quadratic_forms(objective, weights, ...)`: z^T H z for random probes z.
- `map_probes(function, weights, ...)`: a function of one random probe after another.
- `Line`: what moves along a line, and its first two derivatives, forward.
- `compiled(function)`: the function as a graph, for batches of any size.
- `squared_norm(tensors)`: the sum of squares, at least float32.
- `cond` and `checked_below`: a branch and a check inside a compiled step.
- `on_replicas`, `Replica`, `replica_index`, `first_part`, `is_distributed`,
  `can_branch_around_updates`: steps on replicas.
"""

from __future__ import annotations

import keras

_SUPPORTED = ("tensorflow",)

if keras.backend.backend() not in _SUPPORTED:
    raise ImportError(
        f"keras_fisher supports the Keras backends {', '.join(_SUPPORTED)}. "
        f"Received: KERAS_BACKEND={keras.backend.backend()!r}. "
        "Set the environment variable KERAS_BACKEND=tensorflow before importing keras."
    )

from keras_fisher.autodiff.tensorflow import (  # noqa: E402
    InnerGraphError,
    Line,
    Tap,
    checked_below,
    compiled,
    cond,
    gradients,
    map_examples,
    map_probes,
    quadratic_forms,
    tapped_gradients,
)
from keras_fisher.autodiff.tensorflow_penalty import (  # noqa: E402
    Part,
    PenaltyGradients,
    penalty_gradients,
    penalty_gradients_by_difference,
    penalty_gradients_in_parts,
)
from keras_fisher.autodiff.tensorflow_replicas import (  # noqa: E402
    Replica,
    can_branch_around_updates,
    first_part,
    is_distributed,
    on_replicas,
    replica_index,
)
from keras_fisher.autodiff.tensorflow_tapes import squared_norm  # noqa: E402

__all__ = [
    "InnerGraphError",
    "Line",
    "Part",
    "PenaltyGradients",
    "Replica",
    "Tap",
    "can_branch_around_updates",
    "checked_below",
    "compiled",
    "cond",
    "first_part",
    "gradients",
    "is_distributed",
    "map_examples",
    "map_probes",
    "on_replicas",
    "penalty_gradients",
    "penalty_gradients_by_difference",
    "penalty_gradients_in_parts",
    "quadratic_forms",
    "replica_index",
    "squared_norm",
    "tapped_gradients",
]
