"""Training batches that resume after an interruption, and evaluation batches."""

from __future__ import annotations

import numpy as np
from keras import ops

from keras_fisher.backend import random
from keras_fisher.backend.types import Tensor
from keras_fisher.data import containers
from keras_fisher.data.augmentation import AUGMENTATIONS
from keras_fisher.data.containers import Batches
from keras_fisher.data.labels import are_classes_to_mix
from keras_fisher.data.mixing import mix_batch
from keras_fisher.data.normalisation import Normalisation
from keras_fisher.data.pipelines import (
    check_classes_to_mix,
    check_examples,
    check_floating,
    check_training,
)


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
) -> Batches:
    """Returns an endless dataset of shuffled batches.

    Each epoch is a new permutation of the examples in `ceil(n / batch_size)` batches; the last one
    is smaller if `batch_size` does not divide `n`. Order, augmentation and mixup depend only on the
    seed, the epoch and the position in the epoch: a run resumed at `first_epoch=k` sees the same
    batches as an uninterrupted one, on every machine. Backends, and versions of a backend, may draw
    different numbers.

    Because the dataset is endless, pass the number of batches in an epoch to `fit`:
    `model.fit(batches, initial_epoch=first_epoch, epochs=epochs, steps_per_epoch=steps)`. (With a
    `steps_per_execution` that does not divide it, Keras uses more batches per epoch.)

    Examples:
        >>> from keras_fisher.data import training_batches
        >>> import numpy as np
        >>> x, y = np.arange(5.0, dtype="float32"), np.arange(5)
        >>> batches = training_batches(x, y, batch_size=2, seed=0)
        >>> [len(y) for _, y in batches.take(6)]
        [2, 2, 1, 2, 2, 1]
        >>> resumed = training_batches(x, y, batch_size=2, seed=0, first_epoch=2)
        >>> third_epoch = [int(label) for _, y in batches.skip(6).take(3) for label in y]
        >>> third_epoch == [int(label) for _, y in resumed.take(3) for label in y]
        True

    Args:
        x: Array of shape `(n, ...)`; `(n, height, width, channels)` to augment or normalise.
        y: Array of shape `(n, ...)`, the labels.
        batch_size: Positive integer, at most `n`.
        seed: Non-negative integer.
        first_epoch: Non-negative integer, the epoch to begin with.
        augment: `None`, "flip" for random flips left to right, or "flip_and_crop" for the function
            of that name.
        mixup_beta: Positive float to apply `mixup` with, or `None` for no mixup.
        num_classes: Number of classes. Needed only for mixup of integer labels.
        normalisation: The normalisation to apply before augmentation, so that the arrays can be
            uint8; `None` if the images are already normalised. Without it, mixup needs
            floating-point `x`.

    Returns:
        Endless batches `(x, y)`: with the TensorFlow backend a `tf.data.Dataset`, with others a
        `keras.utils.PyDataset` whose arrays are on the device. Shapes are `(batch, ...)` and dtypes
        are as in the arrays. With a normalisation, `x` is float32; with mixup, labels are as
        `mixup` returns them.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If an argument is out of range, `x` and `y` differ in length, or a label is out
            of range.

    Reference:
        Appendix G.2 of Catastrophic Fisher Explosion (Jastrzebski et al., 2021).
    """
    check_training(batch_size, seed, first_epoch, augment, mixup_beta)
    x, y = check_examples(x, y, batch_size, augment, num_classes)
    if mixup_beta is not None and normalisation is None:
        check_floating(x)
    has_classes = mixup_beta is not None and are_classes_to_mix(y, "`y` must hold")
    if has_classes:
        num_classes = check_classes_to_mix(num_classes)

    def make_batch(
        arrays: tuple[Tensor, Tensor], rows: Tensor, position: Tensor, seeds: list[Tensor]
    ) -> tuple[Tensor, Tensor]:
        images, labels = (ops.take(array, rows, axis=0) for array in arrays)
        _, augmentation_seed, mixup_seed = seeds
        if normalisation is not None:
            images = _normalise(images, normalisation)
        if augment is not None:
            images = AUGMENTATIONS[augment](images, random.fold_in(augmentation_seed, position))
        if mixup_beta is None:
            return images, labels
        classes = num_classes if has_classes else None
        seed = random.fold_in(mixup_seed, position)
        return mix_batch(images, labels, classes, mixup_beta, seed)

    return containers.make_epochs(make_batch, (x, y), batch_size, seed, first_epoch)


def evaluation_batches(
    x: np.ndarray, y: np.ndarray, *, batch_size: int, normalisation: Normalisation
) -> Batches:
    """Returns one pass over uint8 images and their labels, in order, as normalised batches."""
    return containers.make_evaluation(
        lambda images, labels: (_normalise(images, normalisation), labels), (x, y), batch_size
    )


def normalise_batches(batches: Batches, normalisation: Normalisation) -> Batches:
    """Returns the same batches with normalised images."""
    return containers.map_batches(
        lambda _, batch: (_normalise(batch[0], normalisation), batch[1]), batches
    )


def encode_labels(batches: Batches, num_classes: int) -> Batches:
    """Returns the same batches with one-hot labels, in the layout of mixup."""
    return containers.map_batches(
        lambda _, batch: (batch[0], ops.one_hot(batch[1], num_classes)), batches
    )


def _normalise(images: Tensor, normalisation: Normalisation) -> Tensor:
    mean, std = map(ops.convert_to_tensor, normalisation)
    return (ops.cast(images, "float32") - mean) / std
