"""Batches of in-memory arrays that an interrupted training run can take up again."""

import math

import numpy as np
import tensorflow as tf

from keras_fisher._arguments import check_integer, check_positive
from keras_fisher.data.augment import flip_and_crop
from keras_fisher.data.mixup import mixup


def training_batches(
    x: np.ndarray,
    y: np.ndarray,
    *,
    batch_size: int,
    epochs: int,
    seed: int,
    first_epoch: int = 0,
    augment: bool = False,
    mixup_beta: float | None = None,
    num_classes: int | None = None,
) -> tf.data.Dataset:
    """Shuffled batches of epochs `first_epoch` to `epochs - 1`, one epoch after the other.

    Each epoch is a fresh permutation of the examples in `ceil(n / batch_size)` batches, the last
    one smaller where `batch_size` does not divide `n`. Order, augmentation and mixup are pure
    functions of the seed, the epoch and the position of the batch in its epoch: a dataset made
    with `first_epoch=k` yields exactly what one made with `first_epoch=0` yields from epoch `k`
    on. Give `fit` the same epochs, and the number of steps in one:
    `model.fit(batches, initial_epoch=first_epoch, epochs=epochs, steps_per_epoch=steps)`.

    Example:
    >>> from keras_fisher.data import training_batches
    >>> import numpy as np
    >>> x, y = np.arange(5.0, dtype="float32"), np.arange(5)
    >>> batches = training_batches(x, y, batch_size=2, epochs=3, seed=0)
    >>> len(batches)
    9
    >>> resumed = training_batches(x, y, batch_size=2, epochs=3, seed=0, first_epoch=2)
    >>> [int(i) for _, i in batches.skip(6).unbatch()] == [int(i) for _, i in resumed.unbatch()]
    True

    Args:
        x: Array of shape `(n, ...)`; `(n, height, width, channels)` if `augment`.
        y: Array of shape `(n, ...)`, the labels.
        batch_size: Positive integer.
        epochs: Integer, the epoch to stop before, as in `fit`.
        seed: Non-negative integer.
        first_epoch: Non-negative integer, at most `epochs`. Where it equals `epochs`, there is
            nothing left to yield.
        augment: Whether to apply `flip_and_crop`.
        mixup_beta: Positive float to apply `mixup` with, or `None` for no mixup.
        num_classes: Number of classes. Needed for mixup of integer labels only.

    Returns:
        Dataset of `(epochs - first_epoch) * ceil(n / batch_size)` batches `(x, y)`, shapes
        `(batch, ...)`, dtypes those of the arrays; with mixup, labels as `mixup` returns them.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If an argument is out of range, or `x` and `y` differ in length.

    Reference:
        Appendix G.2 of Catastrophic Fisher Explosion (Jastrzebski et al., 2021).
    """
    batch_size = check_integer("batch_size", batch_size, low=1)
    epochs = check_integer("epochs", epochs, low=0)
    first_epoch = check_integer("first_epoch", first_epoch, low=0, high=epochs)
    seed = check_integer("seed", seed, low=0)
    if mixup_beta is not None:
        mixup_beta = check_positive("mixup_beta", mixup_beta)
    num_examples = len(x)
    if num_examples != len(y) or num_examples == 0:
        raise ValueError(
            "`x` and `y` must hold the same number of examples, and at least one. "
            f"Received: {num_examples} in x and {len(y)} in y"
        )
    # One element, the whole arrays, which all epochs share: they are in memory once.
    examples = tf.data.Dataset.from_tensors((x, y)).repeat()

    @tf.autograph.experimental.do_not_convert
    def epoch_batches(epoch: tf.Tensor, arrays: tuple[tf.Tensor, tf.Tensor]) -> tf.data.Dataset:
        order_seed, augment_seed, mixup_seed = _stream_seeds(seed, epoch)
        order = tf.random.experimental.stateless_shuffle(tf.range(num_examples), [order_seed, 0])
        batches = tf.data.Dataset.from_tensor_slices(order).batch(batch_size)
        batches = batches.map(
            lambda rows: (tf.gather(arrays[0], rows), tf.gather(arrays[1], rows)),
            num_parallel_calls=tf.data.AUTOTUNE,
        )
        if augment:
            batches = batches.enumerate().map(
                lambda index, batch: (flip_and_crop(batch[0], [augment_seed, index]), batch[1]),
                num_parallel_calls=tf.data.AUTOTUNE,
            )
        if mixup_beta is not None:
            batches = mixup(batches, mixup_beta, mixup_seed, num_classes)
        return batches

    epoch_numbers = tf.data.Dataset.range(first_epoch, epochs)
    batches = tf.data.Dataset.zip(epoch_numbers, examples).flat_map(epoch_batches)
    num_batches = (epochs - first_epoch) * math.ceil(num_examples / batch_size)
    batches = batches.apply(tf.data.experimental.assert_cardinality(num_batches))
    return batches.prefetch(tf.data.AUTOTUNE)


def _stream_seeds(seed: int, epoch: tf.Tensor) -> list[tf.Tensor]:
    """Independent seeds for the order, the augmentation and the mixup of one epoch."""
    seeds = tf.random.stateless_uniform(
        [3], tf.stack([tf.constant(seed, tf.int64), epoch]), None, None, tf.int64
    )
    return tf.unstack(seeds)
