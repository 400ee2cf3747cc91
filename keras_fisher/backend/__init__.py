"""All code that depends on the Keras backend: one folder per backend, with the same functions.

`tensorflow/` documents their arguments; `jax/` and `torch/` say what differs.

- `differentiate(objective, weights)`: a plain first-order gradient.
- `differentiate_penalty(objective, ...)`: the exact gradient of a squared gradient norm.
- `differentiate_penalty_by_difference(objective, ...)`: the same from two first-order gradients.
- `differentiate_penalty_in_parts(part, ...)`: either method, one part of the batch at a time.
- `differentiate_by_taps(objective)`: the gradient with respect to tensors inside the model.
- `map_examples(function, examples)`: applies a function to one example at a time.
- `compute_quadratic_forms(objective, weights, ...)`: z^T H z for random probes z.
- `compute_summed_forms(objective, weights, ...)`: the same, summed over weights, with fewer
  products; `None` if unsupported.
- `compute_hessian_products(objective, weights, vectors)`: H z for given vectors z.
- `map_probes(function, weights, ...)`: applies a function to one random probe at a time.
- `Line`: the first two derivatives along a line, in forward mode; `None` if unsupported.
- `run_abstractly(function, ...)`: runs a function that needs shapes, and no values.
- `compile_function(function)`: compiles a function for batches of any size.
- `squared_norm(tensors)`: the sum of squares, at least float32.
- `cond`: a branch inside a compiled step.
- `compile_per_example(function)`: compiles a function of one example, for each of a batch.
- `assert_below`, `nan_unless_below`: checks inside a compiled step; each backend has one of them.
- `get_replica_index()`: the index of the current replica.
- `keep_modules(model)`: a context in which modules of `torch.nn` keep buffers and inputs.
- `synchronise(model)`: writes the current training state into the model's variables.
- `Trainer`: the base class of models, with the steps that the backend's `fit` calls.
- `random`: random numbers for training data, which depend only on a seed.
- `COUNTER_DTYPE`: the dtype of counters.
- `count_probes_at_once()`: the maximum number of probes per call; `None` for no limit.
- `SPARSE_LOSS_CLIPS_FIRST`: the order of clipping and normalising in sparse cross-entropy.
- `LOSSES_READ_LOGITS`: whether losses use the logits stored by a softmax or sigmoid activation.
- `ADDS_UP_SEEDS`: whether Keras's draws depend only on the sum of a generator's seed and position.
- `TENSORS_CHANGE`: whether a tensor may be assigned in place.
"""

# ruff: noqa: F401, F403
import functools

import keras

from keras_fisher.backend import microbatches
from keras_fisher.backend.types import (
    InnerGraphError,
    MicroBatch,
    PenaltyGradients,
    Replica,
    StepKind,
    Tap,
    Tensor,
)

SUPPORTED = ("tensorflow", "jax", "torch")
NAME = keras.backend.backend()

if NAME == "tensorflow":
    from keras_fisher.backend.tensorflow import *
    from keras_fisher.backend.tensorflow import penalty as _penalty
    from keras_fisher.backend.tensorflow import random
elif NAME == "jax":
    from keras_fisher.backend.jax import *
    from keras_fisher.backend.jax import penalty as _penalty  # type: ignore[no-redef]
    from keras_fisher.backend.jax import random  # type: ignore[no-redef]
elif NAME == "torch":
    from keras_fisher.backend.torch import *
    from keras_fisher.backend.torch import penalty as _penalty  # type: ignore[no-redef]
    from keras_fisher.backend.torch import random  # type: ignore[no-redef]
else:
    raise ImportError(
        f"keras_fisher supports the Keras backends {', '.join(SUPPORTED[:-1])} and "
        f"{SUPPORTED[-1]}. "
        f"Received: KERAS_BACKEND={NAME!r}. "
        "Set the environment variable KERAS_BACKEND to one of them before importing keras."
    )

differentiate_penalty_in_parts = functools.partial(
    microbatches.differentiate_penalty_in_parts, _penalty
)
