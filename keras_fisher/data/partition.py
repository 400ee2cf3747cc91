"""The choice of held-out training images, and of those kept for training."""

from typing import NamedTuple

import numpy as np

from keras_fisher.utils.arguments import check_integer


class Partition(NamedTuple):
    """Indices of training images, as integer arrays.

    `validation` is held out, `remaining` is the rest, and `train` is the part of it to train on.
    """

    train: np.ndarray
    remaining: np.ndarray
    validation: np.ndarray


def partition(y: np.ndarray, validation_size: int, num_train: int | None, seed: int) -> Partition:
    """Holds out random images, and keeps equally many of each class if there are enough."""
    order = np.random.default_rng(seed).permutation(len(y))
    validation_size, num_train = check_sizes(len(y), validation_size, num_train)
    validation, remaining = order[:validation_size], order[validation_size:]
    return Partition(remaining[_balance_classes(y[remaining])[:num_train]], remaining, validation)


def check_sizes(num_images: int, validation_size: int, num_train: int | None) -> tuple[int, int]:
    """Returns the checked `validation_size`, and `num_train` with its default filled in."""
    validation_size = check_integer("validation_size", validation_size, 0, num_images - 1)
    remaining = num_images - validation_size
    if num_train is None:
        return validation_size, remaining
    return validation_size, check_integer("num_train", num_train, 1, remaining)


def _balance_classes(y: np.ndarray) -> np.ndarray:
    """Returns an order in which the k-th examples of all classes precede any (k+1)-th example."""
    by_class = np.argsort(y, kind="stable")
    sorted_y = y[by_class]
    rank = np.empty(len(y), dtype=int)
    rank[by_class] = np.arange(len(y)) - np.searchsorted(sorted_y, sorted_y)
    return np.argsort(rank, kind="stable")
