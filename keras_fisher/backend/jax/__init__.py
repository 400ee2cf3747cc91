"""Derivatives with JAX's transformations, and stateless training steps."""

from keras_fisher.backend.jax.autodiff import (
    COUNTER_DTYPE,
    LOSSES_READ_LOGITS,
    SPARSE_LOSS_CLIPS_FIRST,
    Line,
    Tap,
    assert_below,
    compile_function,
    compute_hessian_products,
    compute_quadratic_forms,
    count_probes_at_once,
    differentiate,
    differentiate_by_taps,
    get_replica_index,
    map_examples,
    map_probes,
    nan_unless_below,
    squared_norm,
    synchronise,
)
from keras_fisher.backend.jax.penalty import (
    differentiate_penalty,
    differentiate_penalty_by_difference,
)
from keras_fisher.backend.jax.stateless import cond
from keras_fisher.backend.jax.trainer import Trainer

__all__ = [
    "COUNTER_DTYPE",
    "LOSSES_READ_LOGITS",
    "SPARSE_LOSS_CLIPS_FIRST",
    "Line",
    "Tap",
    "Trainer",
    "assert_below",
    "compile_function",
    "compute_hessian_products",
    "compute_quadratic_forms",
    "cond",
    "count_probes_at_once",
    "differentiate",
    "differentiate_by_taps",
    "differentiate_penalty",
    "differentiate_penalty_by_difference",
    "get_replica_index",
    "map_examples",
    "map_probes",
    "nan_unless_below",
    "squared_norm",
    "synchronise",
]
