"""Derivatives with JAX's transformations, and stateless training steps."""

# ruff: noqa: F401
from keras_fisher.backend.jax.autodiff import (
    ADDS_UP_SEEDS,
    COUNTER_DTYPE,
    LOSSES_READ_LOGITS,
    SPARSE_LOSS_CLIPS_FIRST,
    TENSORS_CHANGE,
    Line,
    assert_below,
    compile_function,
    compile_per_example,
    compute_hessian_products,
    compute_quadratic_forms,
    compute_summed_forms,
    count_probes_at_once,
    differentiate,
    differentiate_by_taps,
    get_replica_index,
    keep_modules,
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
from keras_fisher.backend.jax.stateless import cond, run_abstractly
from keras_fisher.backend.jax.trainer import Trainer
