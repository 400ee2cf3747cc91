"""The settings of sections 3 to 5 and appendix G of the paper, as plain data.

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
