"""The basis of the smaller presets, for two cores.

They train on scikit-learn's digits, which need no download, or on a part of CIFAR-10 or CIFAR-100
with a SimpleCNN of half the width.
"""

from __future__ import annotations

from typing import Any

DIGITS: dict[str, Any] = {
    "network": "mlp",
    "dataset": "digits",
    "num_train": 400,
    "validation_size": 180,
    "batch_size": 32,
    "drops": (),
}
WIDE_DIGITS = DIGITS | {"width": 128, "epochs": 40, "steps_per_execution": 13}
# More of the digits, in 29 full mini-batches, and all that are not held out, in 34.
SPLIT_DIGITS = DIGITS | {
    "num_train": 928,
    "validation_size": 330,
    "learning_rate": 0.015,
    "epochs": 50,
    "steps_per_execution": 29,
}
WHOLE_DIGITS = DIGITS | {"num_train": 0, "drops": (36,), "learning_rate": 0.015, "epochs": 45}
# A penalty on 8 of 32 examples at every step costs about as much as half a training.
QUARTER: dict[str, Any] = {"update_freq": 1, "penalty_batch_size": 0.25}
# 4,992 images are 39 full mini-batches.
SMALL_C10: dict[str, Any] = {
    "network": "simple_cnn",
    "width": 16,
    "dataset": "cifar10",
    "num_train": 4992,
    "validation_size": 5000,
    "batch_size": 128,
    "drops": (),
}
# An epoch of 39 steps leaves few mini-batches for the penalty. Here it is computed on 4 examples at
# every step, which costs about as much as on all 128 at every tenth step.
THIRTY_SECOND: dict[str, Any] = {"update_freq": 1, "penalty_batch_size": 1 / 32}
# As in sections 3 and 5, no examples are held out: a part of the test images serves as validation.
SMALL_WATCHED = SMALL_C10 | {"validation_size": 0, "test_size": 2000}
