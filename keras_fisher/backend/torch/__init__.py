"""Derivatives with PyTorch's autograd, and training one step after the other."""

# ruff: noqa: F401
from keras_fisher.backend.torch.autodiff import (
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
    get_replica_index,
    map_examples,
    map_probes,
    nan_unless_below,
    run_abstractly,
    synchronise,
)
from keras_fisher.backend.torch.gradients import squared_norm
from keras_fisher.backend.torch.modules import keep_modules
from keras_fisher.backend.torch.penalty import (
    differentiate_penalty,
    differentiate_penalty_by_difference,
)
from keras_fisher.backend.torch.trainer import Trainer
