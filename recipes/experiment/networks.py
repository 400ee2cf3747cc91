"""The networks that a setting can name."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import keras
from keras import layers

from keras_fisher import zoo

Shape = tuple[int, int, int]


def build(name: str, shape: Shape, num_classes: int, width: int, seed: int) -> keras.Model:
    """A backbone that returns logits; `width` 0 is the network's own."""
    return NETWORKS[name](shape, num_classes, **{"width": width} if width else {}, seed=seed)


def _mlp(shape: Shape, num_classes: int, *, width: int = 256, seed: int) -> keras.Model:
    del seed  # Its kernels are drawn from the global generator.
    hidden = [layers.Dense(width, activation="relu") for _ in range(2)]
    return keras.Sequential(
        [keras.Input(shape), layers.Flatten(), *hidden, layers.Dense(num_classes)]
    )


def _densenet(shape: Shape, num_classes: int, *, width: int = 12, **options: Any) -> keras.Model:
    return zoo.densenet(shape, num_classes, growth=width, **options)


NETWORKS: dict[str, Callable[..., keras.Model]] = {
    "mlp": _mlp,
    "simple_cnn": zoo.simple_cnn,
    "vgg11": zoo.vgg11,
    "densenet": _densenet,
    "wide_resnet": zoo.wide_resnet,
    "wide_resnet_skipinit": partial(zoo.wide_resnet, batch_norm=False),
    "resnet50_skipinit": partial(zoo.wide_resnet, depth=50, width=1, batch_norm=False),
    "resnet8": partial(zoo.resnet, depth=8, batch_norm=False),
    "resnet26": partial(zoo.resnet, depth=26, batch_norm=False),
    "resnet56": partial(zoo.resnet, depth=56, batch_norm=False),
    "resnet18": zoo.resnet18,
}
