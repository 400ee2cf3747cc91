"""The networks of the paper's table 5, random examples for them, and models that train them."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import keras
import numpy as np

import keras_fisher as kf
from benchmarks.backend import repeat
from keras_fisher import zoo

CATEGORICAL = kf.likelihoods.Categorical()


class Network(NamedTuple):
    """A network.

    Attributes:
        build: Makes it, for a number of classes and a seed.
        num_classes: The classes of its data set in the paper.
        batch: A mini-batch for training.
        few_examples: A mini-batch for what takes longer.
    """

    build: Callable[..., keras.Model]
    num_classes: int
    batch: int
    few_examples: int


NETWORKS = {
    "SimpleCNN": Network(zoo.simple_cnn, 10, batch=128, few_examples=128),
    "VGG-11": Network(zoo.vgg11, 100, batch=128, few_examples=32),
    "DenseNet 40-12": Network(zoo.densenet, 100, batch=64, few_examples=32),
    "Wide ResNet 44-3": Network(zoo.wide_resnet, 200, batch=32, few_examples=32),
    "Wide ResNet 44-3, SkipInit": Network(
        partial(zoo.wide_resnet, batch_norm=False), 100, batch=32, few_examples=32
    ),
}


class Subject(NamedTuple):
    """A network at its initial weights, and random examples to measure it on."""

    name: str
    model: keras.Model
    x: np.ndarray
    y: np.ndarray

    def batches(self) -> Any:
        """All examples as one mini-batch, over and over."""
        return repeat(self.x, self.y)

    def first(self, examples: int) -> Subject:
        """The same network with the first examples."""
        return self._replace(x=self.x[:examples], y=self.y[:examples])


def prepare(name: str, num_examples: int) -> Subject:
    """Builds a network and draws examples."""
    num_classes = NETWORKS[name].num_classes
    rng = np.random.default_rng(0)
    x = rng.normal(size=(num_examples, 32, 32, 3)).astype("float32")
    y = rng.integers(num_classes, size=num_examples).astype("int32")
    return Subject(name, NETWORKS[name].build(num_classes=num_classes, seed=0), x, y)


def cross_entropy() -> keras.losses.Loss:
    return keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def compile_plain(model: keras.Model, **options: Any) -> keras.Model:
    """Compiles a model that hardly moves, so that all steps meet the same numbers."""
    model.compile(keras.optimizers.SGD(1e-6, momentum=0.9), cross_entropy(), **options)
    return model


def compile_penalised(
    model: keras.Model, steps_per_execution: int = 1, **arguments: Any
) -> keras.Model:
    """The same under the penalty."""
    penalised = kf.FisherPenaltyModel(model, alpha=1e-4, **arguments)
    return compile_plain(penalised, steps_per_execution=steps_per_execution)
