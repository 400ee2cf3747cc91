"""Derivatives with TensorFlow's tapes, and training on one device and on replicas."""

from keras_fisher.backend.tensorflow.autodiff import (
    COUNTER_DTYPE,
    PROBES_AT_ONCE,
    SPARSE_LOSS_CLIPS_FIRST,
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
from keras_fisher.backend.tensorflow.penalty import (
    penalty_gradients,
    penalty_gradients_by_difference,
)
from keras_fisher.backend.tensorflow.replicas import replica_index
from keras_fisher.backend.tensorflow.tapes import squared_norm
from keras_fisher.backend.tensorflow.trainer import Trainer

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
