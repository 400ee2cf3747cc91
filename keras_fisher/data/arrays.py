"""Small data sets as arrays, split and normalised."""

from typing import NamedTuple

import numpy as np

from keras_fisher.data import normalisation
from keras_fisher.data.examples import Examples
from keras_fisher.data.labels import check_label_array
from keras_fisher.data.normalisation import Normalisation
from keras_fisher.data.partition import partition
from keras_fisher.data.sources import SOURCES, read
from keras_fisher.utils.arguments import check_choice, check_given_seed


class Splits(NamedTuple):
    """A data set in three parts, and the number of its classes."""

    train: Examples
    validation: Examples
    test: Examples
    num_classes: int


def load_arrays(
    name: str,
    *,
    validation_size: int | None = None,
    num_train: int | None = None,
    seed: int = 0,
    labels: np.ndarray | None = None,
) -> Splits:
    """Loads a data set into arrays, so that you can change labels or select examples.

    Held-out images and normalisation are as in `load`, which yields the same examples in batches
    and needs a quarter of the memory.

    Examples:
        >>> from keras_fisher.data import load_arrays
        >>> splits = load_arrays("digits", num_train=500)
        >>> splits.train.x.shape, splits.validation.x.shape, splits.test.x.shape
        ((500, 8, 8, 1), (180, 8, 8, 1), (539, 8, 8, 1))
        >>> splits.num_classes
        10

    Args:
        name: "digits", "cifar10", "cifar100" or "tiny_imagenet32".
        validation_size: Number of training images to hold out, as in `load`.
        num_train: Number of the remaining training images to keep, with equally many of each class
            if there are enough. Defaults to all.
        seed: Non-negative integer. Determines which images are held out and which are kept; the
            test images never depend on it.
        labels: Integer array with a label for each training image of the data set, in the order
            of the data set, such as `human_labels` returns. It replaces only the labels of
            `train`: held-out and test images keep their own labels, and the choice of images does
            not depend on it. Defaults to the data set's own labels.

    Returns:
        `Splits(train, validation, test, num_classes)`. Each of the first three is
        `Examples(x, y)`: float32 images of shape `(n, height, width, channels)` and int32 labels
        of shape `(n,)`. If no images are held out, `validation` is empty.

    Raises:
        DatasetDamagedError: If the data set cannot be read.
        DatasetNotFoundError: If the data set is not on this machine and cannot be downloaded.
        ImportError: If the package that provides the data set is not installed.
        TypeError: If an argument has the wrong type.
        ValueError: If an argument is out of range, or the labels do not match the classes.

    Reference:
        Appendix G.2 of Catastrophic Fisher Explosion (Jastrzebski et al., 2021).
    """
    splits, channels = read_splits(name, validation_size, num_train, seed, labels)
    train, validation, test = (Examples(channels.array(x), y) for x, y in splits[:3])
    return Splits(train, validation, test, splits.num_classes)


def read_splits(
    name: str,
    validation_size: int | None,
    num_train: int | None,
    seed: int,
    labels: np.ndarray | None = None,
) -> tuple[Splits, Normalisation]:
    """Returns the splits of a data set as uint8 images, and their normalisation."""
    check_choice("name", name, [small for small in SOURCES if small != "imagenet2012"])
    seed = check_given_seed(seed)
    source = SOURCES[name]
    if labels is not None:
        check_label_array("labels", labels, source.num_classes)
    if validation_size is None:
        validation_size = source.validation_size
    images, test = read(name)
    rows = partition(images.y, validation_size, num_train, seed)
    train = images.take(rows.train)
    if labels is not None:
        _check_length(labels, len(images.y))
        train = train._replace(y=labels[rows.train].astype(np.int32))
    splits = Splits(train, images.take(rows.validation), test, source.num_classes)
    return splits, normalisation.measure(images.x, rows.remaining)


def _check_length(labels: np.ndarray, num_images: int) -> None:
    if len(labels) != num_images:
        raise ValueError(
            f"`labels` must have one label for each of the {num_images} training images of the "
            f"data set. Received: labels of shape {labels.shape}"
        )
