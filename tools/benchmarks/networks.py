"""The networks of the paper's table 5, and ones with large layers, and random examples."""

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
        shape: The shape of an example.
        words: The number of words, if an example is a text.
    """

    build: Callable[..., keras.Model]
    num_classes: int
    batch: int
    few_examples: int
    shape: tuple[int, ...] = (32, 32, 3)
    words: int = 0


def transformer(
    *,
    num_classes: int,
    seed: int,
    words: int = 30_000,
    length: int = 64,
    units: int = 256,
    blocks: int = 4,
    lora_rank: int = 0,
) -> keras.Model:
    """Builds a classifier of texts, in the form of a BERT.

    With a rank, it trains low-rank updates of the dense layers, and their biases, alone.
    """
    keras.utils.set_random_seed(seed)
    inputs = keras.Input((length,), dtype="int32")
    x = keras.layers.Embedding(words, units)(inputs)
    for _ in range(blocks):
        attention = keras.layers.MultiHeadAttention(4, units // 4)
        x = keras.layers.LayerNormalization()(x + attention(x, x))
        hidden = keras.layers.Dense(4 * units, activation="gelu")(x)
        x = keras.layers.LayerNormalization()(x + keras.layers.Dense(units)(hidden))
    model = keras.Model(inputs, keras.layers.Dense(num_classes)(x[:, 0]))
    if lora_rank:
        for layer in model.layers:
            layer.trainable = isinstance(layer, keras.layers.Dense)
            if layer.trainable:
                layer.enable_lora(lora_rank)
    return model


def dense(*, num_classes: int, seed: int, units: int = 2048, layers: int = 3) -> keras.Model:
    """Builds a classifier of dense layers."""
    keras.utils.set_random_seed(seed)
    hidden = [keras.layers.Dense(units, activation="relu") for _ in range(layers)]
    return keras.Sequential([keras.Input((units,)), *hidden, keras.layers.Dense(num_classes)])


TEXT: dict[str, Any] = {"num_classes": 10, "batch": 32, "few_examples": 8, "shape": (64,)}
NETWORKS = {
    "SimpleCNN": Network(zoo.simple_cnn, 10, batch=128, few_examples=128),
    "VGG-11": Network(zoo.vgg11, 100, batch=128, few_examples=32),
    "DenseNet 40-12": Network(zoo.densenet, 100, batch=64, few_examples=32),
    "Wide ResNet 44-3": Network(zoo.wide_resnet, 200, batch=32, few_examples=32),
    "Wide ResNet 44-3, SkipInit": Network(
        partial(zoo.wide_resnet, batch_norm=False), 100, batch=32, few_examples=32
    ),
    "dense, 2,048 units": Network(dense, 10, batch=128, few_examples=128, shape=(2048,)),
    "transformer, 30,000 words": Network(transformer, **TEXT, words=30_000),
    "transformer, LoRA": Network(partial(transformer, lora_rank=8), **TEXT, words=30_000),
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

    def take_first(self, examples: int) -> Subject:
        """The same network with the first examples."""
        return self._replace(x=self.x[:examples], y=self.y[:examples])


def prepare(name: str, num_examples: int) -> Subject:
    """Builds a network and draws examples."""
    network, rng = NETWORKS[name], np.random.default_rng(0)
    shape = (num_examples, *network.shape)
    if network.words:
        x = rng.integers(network.words, size=shape)
    else:
        x = rng.normal(size=shape).astype("float32")
    y = rng.integers(network.num_classes, size=num_examples).astype("int32")
    return Subject(name, network.build(num_classes=network.num_classes, seed=0), x, y)


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
