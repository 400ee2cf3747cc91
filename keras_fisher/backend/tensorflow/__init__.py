"""Derivatives with TensorFlow's tapes, and training on one device or on several replicas."""

# ruff: noqa: F401
from keras_fisher.backend.tensorflow.autodiff import (
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
    cond,
    count_probes_at_once,
    differentiate,
    differentiate_by_taps,
    keep_modules,
    map_examples,
    map_probes,
    nan_unless_below,
    run_abstractly,
    synchronise,
)
from keras_fisher.backend.tensorflow.penalty import (
    differentiate_penalty,
    differentiate_penalty_by_difference,
)
from keras_fisher.backend.tensorflow.replicas import get_replica_index
from keras_fisher.backend.tensorflow.tapes import squared_norm
from keras_fisher.backend.tensorflow.trainer import Trainer
