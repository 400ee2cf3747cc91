"""Derivatives with JAX's transformations, and training by functions of all variables."""

from keras_fisher.backend.jax.autodiff import (
    COUNTER_DTYPE,
    PROBES_AT_ONCE,
    SPARSE_LOSS_CLIPS_FIRST,
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
from keras_fisher.backend.jax.penalty import (
    penalty_gradients,
    penalty_gradients_by_difference,
)
from keras_fisher.backend.jax.stateless import cond
from keras_fisher.backend.jax.trainer import Trainer

__all__ = [
    "COUNTER_DTYPE",
    "PROBES_AT_ONCE",
    "SPARSE_LOSS_CLIPS_FIRST",
    "Line",
    "Tap",
    "Trainer",
    "checked_below",
    "compiled",
    "cond",
    "gradients",
    "map_examples",
    "map_probes",
    "nan_unless_below",
    "penalty_gradients",
    "penalty_gradients_by_difference",
    "quadratic_forms",
    "replica_index",
    "squared_norm",
    "synchronise",
    "tapped_gradients",
]
