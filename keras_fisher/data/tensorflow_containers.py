"""Batches as a `tf.data.Dataset`."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
import tensorflow as tf

from keras_fisher import backend
from keras_fisher.backend import random
from keras_fisher.backend.types import Tensor
from keras_fisher.utils.labels import describe_classes

Batches: TypeAlias = tf.data.Dataset


def make_epochs(
    make_batch: Callable[..., tuple[Tensor, Tensor]],
    arrays: tuple[np.ndarray, np.ndarray],
    batch_size: int,
    seed: int,
    first_epoch: int,
) -> Batches:
    """Returns endless batches, with a new order in each epoch.

    Args:
        make_batch: A function from the arrays, the rows of the batch, its position in the epoch
            and the three seeds of the epoch to the batch.
        arrays: Images and labels.
        batch_size: The number of examples in a batch.
        seed: The seed of all epochs.
        first_epoch: The epoch to begin with.
    """
    num_examples = len(arrays[0])

    def epoch_batches(epoch: tf.Tensor, arrays: tuple[tf.Tensor, tf.Tensor]) -> Batches:
        seeds = random.make_stream_seeds(seed, epoch)
        order = random.draw_order(seeds[0], num_examples)
        rows = batch_examples(
            tf.data.Dataset.from_tensor_slices(order), batch_size, num_examples
        ).enumerate()
        return rows.map(
            lambda position, rows: make_batch(arrays, rows, position, seeds),
            num_parallel_calls=tf.data.AUTOTUNE,
        )

    # The whole arrays are one element that all epochs share, so they are in memory once.
    shared = tf.data.Dataset.from_tensors(arrays).repeat()
    return chain_epochs(epoch_batches, first_epoch, shared)


def make_evaluation(
    function: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]],
    arrays: tuple[np.ndarray, np.ndarray],
    batch_size: int,
) -> Batches:
    """Returns one pass over the arrays, in order, with `function` applied to each batch."""
    examples = tf.data.Dataset.from_tensor_slices(arrays)
    batches = batch_examples(examples, batch_size, len(arrays[0]))
    return fix_order(map_batches(lambda _, batch: function(*batch), batches))


def map_batches(
    function: Callable[[Tensor, tuple[Tensor, Tensor]], tuple[Tensor, Tensor]], batches: Batches
) -> Batches:
    """Applies a function of position and batch to each batch."""
    function = tf.autograph.experimental.do_not_convert(function)
    return batches.enumerate().map(function, num_parallel_calls=tf.data.AUTOTUNE)


def check_batches(dataset: Any) -> None:
    """Raises unless `dataset` yields batches `(x, y)` with floating-point x."""
    if not isinstance(dataset, tf.data.Dataset):
        raise TypeError(f"`dataset` must be a tf.data.Dataset. Received: {type(dataset).__name__}")
    spec = dataset.element_spec
    is_pair = isinstance(spec, tuple) and len(spec) == 2
    if not is_pair or not all(isinstance(part, tf.TensorSpec) for part in spec):
        raise ValueError(f"`dataset` must yield pairs (x, y). Received: elements {spec}")
    if not spec[0].dtype.is_floating:
        raise TypeError(
            f"`dataset` must yield floating-point x. Received: x of dtype {spec[0].dtype}"
        )


def check_classes(y: tf.Tensor, num_classes: int) -> tf.Tensor:
    """Returns a batch of labels; raises, when it is read, unless they are classes."""
    return backend.assert_below(y, y, num_classes, describe_classes(num_classes, "dataset"))


def get_label_spec(dataset: Batches) -> tf.TensorSpec:
    """Returns the shape and the dtype of the batches' labels."""
    return dataset.element_spec[1]


def chain_epochs(
    epoch_batches: Callable[..., Batches], first_epoch: int, shared: Batches | None = None
) -> Batches:
    """Chains the batches of all epochs; `shared` is the second argument of `epoch_batches`."""
    epochs = tf.data.Dataset.range(first_epoch, sys.maxsize)
    if shared is not None:
        epochs = tf.data.Dataset.zip(epochs, shared)
    batches = epochs.flat_map(tf.autograph.experimental.do_not_convert(epoch_batches))
    infinite = tf.data.experimental.assert_cardinality(tf.data.INFINITE_CARDINALITY)
    return fix_order(batches.apply(infinite))


def batch_examples(examples: Batches, batch_size: int, num_examples: int) -> Batches:
    """Returns batches, with a static size if all are equally large."""
    return examples.batch(batch_size, drop_remainder=num_examples % batch_size == 0)


def fix_order(batches: Batches) -> Batches:
    """Adds the last stage of every pipeline: a fixed order, and batches split among replicas."""
    options = tf.data.Options()
    options.deterministic = True
    # With autotuning, TensorFlow 2.21 may take as long to end an iterator as the iterator lived.
    options.autotune.enabled = False
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.DATA
    return batches.with_options(options).prefetch(tf.data.AUTOTUNE)
