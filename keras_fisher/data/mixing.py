"""Mixup: training on convex combinations of pairs of examples."""

from __future__ import annotations

from typing import Any

from keras import ops

from keras_fisher.backend import random
from keras_fisher.backend.types import Tensor
from keras_fisher.data import containers
from keras_fisher.data.labels import are_classes_to_mix
from keras_fisher.data.pipelines import check_classes_to_mix
from keras_fisher.utils.arguments import check_given_seed, check_positive


def mixup(
    dataset: Any, beta: float, seed: int | Tensor, num_classes: int | None = None
) -> containers.Batches:
    """Mixes each batch with a random permutation of itself.

    For each batch it draws one `lam ~ Beta(beta, beta)` and one permutation `p`, and computes

        x_mixed = lam * x + (1 - lam) * x[p]
        y_mixed = lam * y + (1 - lam) * y[p]

    with one-hot `y`. `lam` and `p` depend only on `seed` and on the position of the batch in the
    dataset, so a finite dataset has the same ones in each epoch. For new ones, mix an endless
    dataset: `training_batches(..., mixup_beta=beta)`, or a `tf.data.Dataset` after `repeat`. Larger
    values of `beta` mix more.

    Examples:
        >>> from keras_fisher.data import mixup, training_batches
        >>> import numpy as np
        >>> x, y = np.eye(4, dtype="float32"), np.array([0, 1, 2, 3])
        >>> batches = training_batches(x, y, batch_size=4, seed=0)
        >>> x_mixed, y_mixed = next(iter(mixup(batches, 0.4, seed=0, num_classes=4)))
        >>> y_mixed.shape == (4, 4)
        True

    Args:
        dataset: Batches `(x, y)`, a `tf.data.Dataset` with the TensorFlow backend and a
            `keras.utils.PyDataset` with the others: `x` floating-point of shape `(batch, ...)`, `y`
            integer labels of shape `(batch,)` or one-hot of shape `(batch, num_classes)`.
        beta: Positive float, both parameters of the Beta distribution.
        seed: Non-negative integer; with TensorFlow also a scalar int64 tensor.
        num_classes: Number of classes. Needed for integer labels, unused for one-hot ones.

    Returns:
        The same number of batches `(x_mixed, y_mixed)`, with `x_mixed` of the shape and dtype of
        `x`, and `y_mixed` float32 of shape `(batch, num_classes)`.

    Raises:
        TypeError: If an argument, or `x`, has the wrong type.
        ValueError: If `beta` is not positive and finite, if the dataset does not yield batches
            `(x, y)`, if labels are neither integers nor one-hot, or if they are integers
            and `num_classes` is missing; when a batch is read, if a label is not below
            `num_classes` (`tf.errors.InvalidArgumentError` with TensorFlow).

    Reference:
        Zhang et al., 2018; section 4.1 of Catastrophic Fisher Explosion (Jastrzebski et al., 2021)
        compares with it.
    """
    containers.check_batches(dataset)
    beta = check_positive("beta", beta)
    if not ops.is_tensor(seed):
        seed = check_given_seed(seed)
    labels = containers.get_label_spec(dataset)
    if are_classes_to_mix(labels, "`dataset` must yield batches with"):
        num_classes = check_classes_to_mix(num_classes)
    else:
        num_classes = None

    def mix(position: Tensor, batch: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        x, y = batch
        y = y if num_classes is None else containers.check_classes(y, num_classes)
        return mix_batch(x, y, num_classes, beta, random.fold_in(seed, position))

    return containers.map_batches(mix, dataset)


def mix_batch(
    x: Tensor, y: Tensor, num_classes: int | None, beta: float, seed: Tensor
) -> tuple[Tensor, Tensor]:
    """Mixes one batch, whose labels are one-hot unless `num_classes` is given."""
    y = ops.cast(y, "float32") if num_classes is None else ops.one_hot(y, num_classes)
    weight, order = random.draw_mixing(seed, beta, ops.shape(y)[0])
    return _interpolate(weight, x, order), _interpolate(weight, y, order)


def _interpolate(weight: Tensor, values: Tensor, order: Tensor) -> Tensor:
    weight = ops.cast(weight, values.dtype)
    return weight * values + (1 - weight) * ops.take(values, order, axis=0)
