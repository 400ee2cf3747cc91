"""The networks that are timed, and random examples for them."""

from __future__ import annotations

from collections.abc import Callable, Collection
from functools import partial
from typing import Any, NamedTuple

import keras
import numpy as np

import keras_fisher as kf
from keras_fisher import zoo

BATCH_SIZE = 128
CATEGORICAL = kf.likelihoods.Categorical()


class Network(NamedTuple):
    """A network, and how much of it is measured.

    Attributes:
        build: Makes it, for a number of classes and a seed.
        num_classes: The classes of its data set in the paper.
        batch: A mini-batch for training.
        few_examples: A mini-batch for what takes longer.
        fisher_target: The largest wanted cost of its Fisher trace, in plain steps.
    """

    build: Callable[..., keras.Model]
    num_classes: int
    batch: int
    few_examples: int
    fisher_target: float


# Those of table 5, as in `recipes/experiment/paper.py`.
NETWORKS = {
    "SimpleCNN": Network(zoo.simple_cnn, 10, batch=128, few_examples=128, fisher_target=1.3),
    "VGG-11": Network(zoo.vgg11, 100, batch=128, few_examples=32, fisher_target=1.5),
    "DenseNet 40-12": Network(zoo.densenet, 100, batch=64, few_examples=32, fisher_target=1.5),
    "Wide ResNet 44-3": Network(zoo.wide_resnet, 200, batch=32, few_examples=32, fisher_target=1.5),
    "Wide ResNet 44-3, SkipInit": Network(
        partial(zoo.wide_resnet, batch_norm=False),
        100,
        batch=32,
        few_examples=32,
        fisher_target=1.5,
    ),
}


def only(names: Collection[str]) -> None:
    """Leaves out all other networks."""
    for name in NETWORKS.keys() - names:
        del NETWORKS[name]


class Subject(NamedTuple):
    """A network and random examples to measure it on."""

    name: str
    model: keras.Model
    x: np.ndarray
    y: np.ndarray

    def batches(self, size: int | None = None) -> Any:
        """The examples over and over, all of them or so many at a time.

        Without autotuning: with it, the end of an iterator may wait as long again as it lived (its
        thread sleeps for 10 ms, 20 ms, 40 ms, ..., and is not always woken).
        """
        import tensorflow as tf  # the networks alone do not need it

        options = tf.data.Options()
        options.autotune.enabled = False
        data = tf.data.Dataset.from_tensor_slices((self.x, self.y)).batch(size or len(self.y))
        return data.cache().repeat().with_options(options)

    def first(self, examples: int) -> Subject:
        """The same network with the first examples."""
        return self._replace(x=self.x[:examples], y=self.y[:examples])


def prepare(name: str, num_examples: int) -> Subject:
    """A network at its initial weights."""
    num_classes = NETWORKS[name].num_classes
    rng = np.random.default_rng(0)
    x = rng.normal(size=(num_examples, 32, 32, 3)).astype("float32")
    y = rng.integers(num_classes, size=num_examples).astype("int32")
    return Subject(name, NETWORKS[name].build(num_classes=num_classes, seed=0), x, y)
