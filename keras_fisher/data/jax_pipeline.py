"""Batches of arrays that stay on the device, for training and for evaluation with JAX."""

from __future__ import annotations

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from keras_fisher.data.jax_augment import AUGMENTATIONS
from keras_fisher.data.jax_batches import Batches
from keras_fisher.data.jax_mixup import mixed
from keras_fisher.data.normalisation import Normalisation
from keras_fisher.data.pipelines import (
    Pipelines,
    check_classes_to_mix,
    check_examples,
    check_training,
)
from keras_fisher.data.sources import IMAGENET


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
    """Shuffled batches, epoch after epoch without end.

    Each epoch is a fresh permutation of the examples in `ceil(n / batch_size)` batches, the last
    one smaller where `batch_size` does not divide `n`. Order, augmentation and mixup are pure
    functions of the seed, the epoch and the position in the epoch: batches made with
    `first_epoch=k` are exactly those made with `first_epoch=0` from epoch `k` on.

    The arrays are put on the device once, and batches are made there.

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
        Endless `Batches` of `(x, y)`, shapes `(batch, ...)`, dtypes those of the arrays; with a
        normalisation, `x` is float32; with mixup, labels are as `mixup` returns them.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If an argument is out of range, `x` and `y` differ in length, or a label lies
            outside the classes.

    Reference:
        Appendix G.2 of Catastrophic Fisher Explosion (Jastrzebski et al., 2021).
    """
    check_training(batch_size, seed, first_epoch, augment, mixup_beta)
    x, y = check_examples(x, y, batch_size, augment, num_classes)
    if mixup_beta is not None and y.ndim == 1:
        num_classes = check_classes_to_mix(num_classes)
    arrays, steps = (jnp.asarray(x), jnp.asarray(y)), math.ceil(len(y) / batch_size)
    whole = jax.random.key(seed)

    @functools.lru_cache(maxsize=1)
    def order(epoch: int) -> Any:
        return jax.random.permutation(_keys(whole, epoch)[0], len(y))

    @functools.partial(jax.jit, static_argnames="size")
    def batch(arrays: Any, order: Any, epoch: Any, position: Any, size: int) -> tuple[Any, Any]:
        rows = jax.lax.dynamic_slice(order, (position * batch_size,), (size,))
        images, labels = (array[rows] for array in arrays)
        _, augment_key, mixup_key = (jax.random.fold_in(k, position) for k in _keys(whole, epoch))
        if normalisation is not None:
            images = _normalised(images, normalisation)
        if augment is not None:
            images = AUGMENTATIONS[augment](images, jax.random.key_data(augment_key))
        if mixup_beta is None:
            return images, labels
        return mixed(images, labels, num_classes, mixup_beta, mixup_key)

    def at(index: int) -> tuple[Any, Any]:
        epoch, position = divmod(index, steps)
        epoch += first_epoch
        size = min(batch_size, len(y) - position * batch_size)
        return batch(arrays, order(epoch), epoch, position, size=size)

    return Batches(at, None)


def evaluation_batches(
    x: np.ndarray, y: np.ndarray, *, batch_size: int, normalisation: Normalisation
) -> Batches:
    """The batches of uint8 images and their labels, in their order, once."""
    images, labels = jnp.asarray(x), jnp.asarray(y)

    def at(index: int) -> tuple[Any, Any]:
        rows = slice(index * batch_size, (index + 1) * batch_size)
        return _normalised(images[rows], normalisation), labels[rows]

    return Batches(at, math.ceil(len(y) / batch_size))


def one_hot(batches: Batches, num_classes: int) -> Batches:
    """The same batches with one-hot labels, as mixup yields them."""

    def at(index: int) -> tuple[Any, Any]:
        x, y = batches[index]
        return x, jax.nn.one_hot(y, num_classes)

    return Batches(at, batches.num_batches)


def stream_imagenet(**_: Any) -> Pipelines:
    """Refuses: images that do not fit in memory are read by TensorFlow."""
    raise ValueError(
        f"`name` must not be {IMAGENET!r} with the JAX backend: its images do not fit in memory, "
        f"and are streamed by TensorFlow. Received: name={IMAGENET!r}. Set KERAS_BACKEND=tensorflow"
    )


def _keys(whole: Any, epoch: Any) -> Any:
    """Independent keys for the order, the augmentation and the mixup of one epoch."""
    return jax.random.split(jax.random.fold_in(whole, epoch), 3)


def _normalised(images: Any, normalisation: Normalisation) -> Any:
    return (images.astype(np.float32) - normalisation.mean) / normalisation.std
