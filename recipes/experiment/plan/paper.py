"""The settings of sections 3 to 5 and appendix G, as plain data.

ResNet-26 and ResNet-56 are the networks of He et al. for CIFAR, without batch normalisation and
initialised as in Arpit et al. (2019); ResNet-18 uses Fixup. If no examples are held out, the test
images are evaluated during training: figure 7 shows the best test accuracy.
"""

from __future__ import annotations

from typing import Any

from keras_fisher.tuning import alphas

# The grids of tables 1 and 2 on TinyImageNet: learning rates and alphas.
TINY_IMAGENET_GRID = alphas(num=5)

_SECTION_4: dict[str, Any] = {
    "batch_size": 128,
    "validation_size": 5000,
    "epochs": 300,
    "drops": (150, 225),
    "drop_factor": 0.1,
}
SECTION_4: dict[str, dict[str, Any]] = {
    "wide_resnet_tiny_imagenet": {
        **_SECTION_4,
        "network": "wide_resnet",
        "dataset": "tiny_imagenet32",
        "validation_size": 0,
        "weight_decay": 1e-4,
    },
    "densenet_c100": {
        **_SECTION_4,
        "network": "densenet",
        "dataset": "cifar100",
        "weight_decay": 1e-4,
    },
    "vgg11_c100": {
        **_SECTION_4,
        "network": "vgg11",
        "dataset": "cifar100",
        "weight_decay": 1e-4,
        "drops": (80, 120, 160, 200, 240, 280),
    },
    "wide_resnet_c100": {
        **_SECTION_4,
        "network": "wide_resnet_skipinit",
        "dataset": "cifar100",
        "weight_decay": 1e-3,
    },
    "simple_cnn_c10": {**_SECTION_4, "network": "simple_cnn", "dataset": "cifar10"},
}
# Section 4.1 uses no weight decay (appendix G.3).
SECTION_4_1 = {
    name: SECTION_4[name] | {"weight_decay": 0.0} for name in ("vgg11_c100", "wide_resnet_c100")
}
_SECTION_3: dict[str, Any] = {
    "network": "resnet26",
    "validation_size": 0,
    "weight_decay": 1e-5,
    "epochs": 200,
    "drops": (60, 120, 170),
    "drop_factor": 0.5,
    "fisher_examples": 5000,
}
SECTION_3: dict[str, dict[str, Any]] = {
    "imagenet": {
        "network": "resnet18",
        "dataset": "imagenet2012",
        "validation_size": 0,
        "batch_size": 256,
        "weight_decay": 1e-4,
        "epochs": 50,
        "drops": (29,),
        "drop_factor": 0.1,
        "fisher_examples": 2500,
    },
    "cifar10": {**_SECTION_3, "dataset": "cifar10", "augment": "flip", "batch_size": 256},
    "cifar100": {**_SECTION_3, "dataset": "cifar100", "batch_size": 100},
}
_SECTION_5 = {"epochs": 250, "drops": (80, 150, 200)}
SECTION_5 = {
    "cifar10": SECTION_3["cifar10"] | _SECTION_5,
    "cifar100": SECTION_3["cifar100"] | _SECTION_5,
}

# The basis of the smaller presets, for two cores: scikit-learn's digits, which need no download,
# and a part of CIFAR-10 or CIFAR-100 with a SimpleCNN of half the width.
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
EVERY_STEP: dict[str, Any] = {"update_freq": 1, "penalty_batch_size": 1 / 32}
# As in sections 3 and 5, no examples are held out: a part of the test images serves as validation.
SMALL_WATCHED = SMALL_C10 | {"validation_size": 0, "test_size": 2000}
