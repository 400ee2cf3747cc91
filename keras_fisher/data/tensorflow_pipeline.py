"""Batches that an interrupted training run can take up again, and batches for evaluation."""

import sys
from collections.abc import Callable

import numpy as np
import tensorflow as tf

from keras_fisher.data.normalisation import Normalisation
from keras_fisher.data.pipelines import check_examples, check_training
from keras_fisher.data.tensorflow_augment import AUGMENTATIONS
from keras_fisher.data.tensorflow_mixup import mixup


def training_batches(
    x: np.ndarray,
    y: np.ndarray,
    *,
    batch_size: int,
    seed: int,
    first_epoch: int = 0,
    augment: str | None = None,
    mixup_beta: float | None = None,
    num_classes: int | None = None,
    normalisation: Normalisation | None = None,
) -> tf.data.Dataset:
    """Shuffled batches, epoch after epoch without end.

    Each epoch is a fresh permutation of the examples in `ceil(n / batch_size)` batches, the last
    one smaller where `batch_size` does not divide `n`. Order, augmentation and mixup are pure
    functions of the seed, the epoch and the position in the epoch: a dataset made with
    `first_epoch=k` yields exactly what one made with `first_epoch=0` yields from epoch `k` on.
    That holds on every machine, but another version of TensorFlow may draw other numbers.

    Give `fit` the number of batches in an epoch, which an endless dataset cannot tell:
    `model.fit(batches, initial_epoch=first_epoch, epochs=epochs, steps_per_epoch=steps)`. (A
    `steps_per_execution` that does not divide it makes Keras take more batches than that.)

    Example:
    >>> from keras_fisher.data import training_batches
    >>> import numpy as np
    >>> x, y = np.arange(5.0, dtype="float32"), np.arange(5)
    >>> batches = training_batches(x, y, batch_size=2, seed=0)
    >>> [len(y) for _, y in batches.take(6)]
    [2, 2, 1, 2, 2, 1]
    >>> resumed = training_batches(x, y, batch_size=2, seed=0, first_epoch=2)
    >>> third_epoch = batches.skip(6).take(3).unbatch()
    >>> [int(y) for _, y in third_epoch] == [int(y) for _, y in resumed.take(3).unbatch()]
    True

    Args:
        x: Array of shape `(n, ...)`; `(n, height, width, channels)` to augment or normalise.
        y: Array of shape `(n, ...)`, the labels.
        batch_size: Positive integer, at most `n`.
        seed: Non-negative integer.
        first_epoch: Non-negative integer, the epoch to begin with.
        augment: `None`, or what to do to the images at random: "flip" mirrors left to right,
            "flip_and_crop" is `flip_and_crop`.
        mixup_beta: Positive float to apply `mixup` with, or `None` for no mixup.
        num_classes: Number of classes. Needed for mixup of integer labels only.
        normalisation: What to do to the images before they are augmented, so that the arrays
            can be uint8; `None` if they are normalised.

    Returns:
        Endless dataset of batches `(x, y)`, shapes `(batch, ...)`, dtypes those of the arrays;
        with a normalisation, `x` is float32; with mixup, labels are as `mixup` returns them.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If an argument is out of range, `x` and `y` differ in length, or a label lies
            outside the classes.

    Reference:
        Appendix G.2 of Catastrophic Fisher Explosion (Jastrzebski et al., 2021).
    """
    check_training(batch_size, seed, first_epoch, augment, mixup_beta)
    x, y = check_examples(x, y, batch_size, augment, num_classes)
    num_examples = len(x)

    def epoch_batches(epoch: tf.Tensor, arrays: tuple[tf.Tensor, tf.Tensor]) -> tf.data.Dataset:
        order_seed, augment_seed, mixup_seed = stream_seeds(seed, epoch)
        order = tf.random.experimental.stateless_shuffle(tf.range(num_examples), [order_seed, 0])

        def examples(position: tf.Tensor, rows: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            images, labels = (tf.gather(array, rows) for array in arrays)
            if normalisation is not None:
                images = _normalised(images, normalisation)
            if augment is not None:
                images = AUGMENTATIONS[augment](images, tf.stack([augment_seed, position]))
            return images, labels

        batches = batched(tf.data.Dataset.from_tensor_slices(order), batch_size, num_examples)
        batches = batches.enumerate().map(examples, num_parallel_calls=tf.data.AUTOTUNE)
        if mixup_beta is not None:
            batches = mixup(batches, mixup_beta, mixup_seed, num_classes)
        return batches

    # One element, the whole arrays, which all epochs share: they are in memory once.
    arrays = tf.data.Dataset.from_tensors((x, y)).repeat()
    return endless(epoch_batches, first_epoch, arrays)


def evaluation_batches(
    x: np.ndarray, y: np.ndarray, *, batch_size: int, normalisation: Normalisation
) -> tf.data.Dataset:
    """The batches of uint8 images and their labels, in their order, once."""
    batches = batched(tf.data.Dataset.from_tensor_slices((x, y)), batch_size, len(y))
    return finished(normalised(batches, normalisation))


def normalised(batches: tf.data.Dataset, normalisation: Normalisation) -> tf.data.Dataset:
    """The same batches with normalised images."""
    return batches.map(
        lambda x, y: (_normalised(x, normalisation), y), num_parallel_calls=tf.data.AUTOTUNE
    )


def _normalised(images: tf.Tensor, normalisation: Normalisation) -> tf.Tensor:
    return (tf.cast(images, tf.float32) - normalisation.mean) / normalisation.std


def one_hot(batches: tf.data.Dataset, num_classes: int) -> tf.data.Dataset:
    """The same batches with one-hot labels, as mixup yields them."""
    return batches.map(lambda x, y: (x, tf.one_hot(y, num_classes)))


def endless(
    epoch_batches: Callable[..., tf.data.Dataset],
    first_epoch: int,
    shared: tf.data.Dataset | None = None,
) -> tf.data.Dataset:
    """The batches of each epoch after those of the last; `shared` is a second argument."""
    epochs = tf.data.Dataset.range(first_epoch, sys.maxsize)
    if shared is not None:
        epochs = tf.data.Dataset.zip(epochs, shared)
    batches = epochs.flat_map(tf.autograph.experimental.do_not_convert(epoch_batches))
    infinite = tf.data.experimental.assert_cardinality(tf.data.INFINITE_CARDINALITY)
    return finished(batches.apply(infinite))


def batched(examples: tf.data.Dataset, batch_size: int, num_examples: int) -> tf.data.Dataset:
    """Batches, of a size that is known to the graph where all are equally large."""
    return examples.batch(batch_size, drop_remainder=num_examples % batch_size == 0)


def finished(batches: tf.data.Dataset) -> tf.data.Dataset:
    """The last stage of every pipeline: the order stays fixed, and replicas share each batch."""
    options = tf.data.Options()
    options.deterministic = True
    # TensorFlow 2.21 may take as long to end an iterator that it tunes as the iterator lived.
    options.autotune.enabled = False
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.DATA
    return batches.with_options(options).prefetch(tf.data.AUTOTUNE)


def stream_seeds(seed: int, epoch: tf.Tensor) -> list[tf.Tensor]:
    """Independent seeds for the order, the augmentation and the mixup of one epoch."""
    seeds = tf.random.stateless_uniform(
        [3], tf.stack([tf.constant(seed, tf.int64), epoch]), None, None, tf.int64
    )
    return tf.unstack(seeds)
