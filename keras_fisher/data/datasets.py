"""The data sets of the recipes, split and normalised."""

import importlib
import os
import urllib.error
import urllib.request
from typing import Any, NamedTuple

import numpy as np

from keras_fisher._arguments import check_integer

_TFDS_CLASSES = {"cifar10": 10, "cifar100": 100}
_TFDS_VALIDATION_SIZE = 5000
NAMES = ("digits", *_TFDS_CLASSES)


class Examples(NamedTuple):
    """Images and their labels.

    `x` is float32 of shape `(n, height, width, channels)`, `y` int32 of shape `(n,)`.
    """

    x: np.ndarray
    y: np.ndarray


class Splits(NamedTuple):
    """A data set in three parts, and the number of its classes."""

    train: Examples
    validation: Examples
    test: Examples
    num_classes: int


class DatasetNotFoundError(OSError):
    """The data set is not on this machine, and cannot be fetched."""


def load(
    name: str, *, validation_size: int | None = None, num_train: int | None = None, seed: int = 0
) -> Splits:
    """Loads a data set, holds out validation images and normalises all by the training images.

    Per channel, `x = (image - mean) / std`, with the mean and standard deviation over all
    training images that are not held out, `num_train` or not. "digits" comes with scikit-learn;
    "cifar10" and "cifar100" come through TensorFlow Datasets, which reads them from the folder
    named by the environment variable `TFDS_DATA_DIR` and downloads them to it if need be.

    Example:
    >>> from keras_fisher.data import load
    >>> splits = load("digits", num_train=500)
    >>> splits.train.x.shape, splits.validation.x.shape, splits.test.x.shape
    ((500, 8, 8, 1), (180, 8, 8, 1), (539, 8, 8, 1))
    >>> splits.num_classes
    10

    Args:
        name: "digits", "cifar10" or "cifar100".
        validation_size: Number of training images to hold out. Defaults to 5,000, for "digits"
            to a tenth of all images.
        num_train: Number of the remaining training images to keep, equally many of each class
            as far as there are enough. Defaults to all.
        seed: Non-negative integer: which images are held out and which are kept. The test images
            never depend on it.

    Returns:
        `Splits(train, validation, test, num_classes)`. Each of the first three is
        `Examples(x, y)`: float32 images of shape `(n, height, width, channels)` and int32 labels
        of shape `(n,)`.

    Raises:
        DatasetNotFoundError: If the data set is neither on this machine nor in reach.
        ImportError: If the package that brings the data set is not installed.
        TypeError: If an argument has the wrong type.
        ValueError: If an argument is out of range.

    Reference:
        Appendix G.2 of Catastrophic Fisher Explosion (Jastrzebski et al., 2021).
    """
    if name not in NAMES:
        raise ValueError(f"`name` must be one of {', '.join(NAMES)}. Received: name={name!r}")
    seed = check_integer("seed", seed, low=0)
    if name == "digits":
        train, test, num_classes, default_validation_size = *_digits(), 10, 180
    else:
        train, test = _from_tfds(name)
        num_classes, default_validation_size = _TFDS_CLASSES[name], _TFDS_VALIDATION_SIZE
    if validation_size is None:
        validation_size = default_validation_size
    validation_size = check_integer("validation_size", validation_size, 0, len(train.y) - 1)
    remaining = len(train.y) - validation_size
    num_train = check_integer(
        "num_train", remaining if num_train is None else num_train, 1, remaining
    )

    order = np.random.default_rng(seed).permutation(len(train.y))
    validation, train = _take(train, order[:validation_size]), _take(train, order[validation_size:])
    mean = train.x.mean(axis=(0, 1, 2), dtype=np.float64)
    std = train.x.std(axis=(0, 1, 2), dtype=np.float64)
    train = _take(train, _balanced(train.y)[:num_train])
    return Splits(
        train=_normalise(train, mean, std),
        validation=_normalise(validation, mean, std),
        test=_normalise(test, mean, std),
        num_classes=num_classes,
    )


def _take(examples: Examples, rows: np.ndarray) -> Examples:
    return Examples(examples.x[rows], examples.y[rows])


def _normalise(images: Examples, mean: np.ndarray, std: np.ndarray) -> Examples:
    x = images.x.astype(np.float32)
    x -= mean.astype(np.float32)
    x /= std.astype(np.float32)
    return Examples(x, images.y.astype(np.int32))


def _balanced(y: np.ndarray) -> np.ndarray:
    """An order in which the k-th examples of all classes come before any (k+1)-th one."""
    by_class = np.argsort(y, kind="stable")
    sorted_y = y[by_class]
    rank = np.empty(len(y), dtype=int)
    rank[by_class] = np.arange(len(y)) - np.searchsorted(sorted_y, sorted_y)
    return np.argsort(rank, kind="stable")


def _digits() -> tuple[Examples, Examples]:
    x, y = _import("sklearn.datasets").load_digits(return_X_y=True)
    digits = Examples(x.reshape(-1, 8, 8, 1), y)
    order = np.random.default_rng(0).permutation(len(y))
    num_test = round(0.3 * len(y))
    return _take(digits, order[num_test:]), _take(digits, order[:num_test])


def _from_tfds(name: str) -> tuple[Examples, Examples]:
    tfds = _import("tensorflow_datasets")
    # TFDS itself reads the variable only once, when it is imported.
    builder = tfds.builder(name, data_dir=os.environ.get("TFDS_DATA_DIR"))
    if not builder.is_prepared():
        _check_network(name, builder.info.homepage)
        builder.download_and_prepare()
    splits = builder.as_dataset(split=["train", "test"], batch_size=-1, as_supervised=True)
    train, test = (Examples(*split) for split in tfds.as_numpy(splits))
    return train, test


def _check_network(name: str, url: str) -> None:
    """Fails in seconds where TFDS would go on trying to connect for minutes."""
    try:
        urllib.request.urlopen(url, timeout=10).close()
    except urllib.error.HTTPError:
        pass  # Some server answered: let TFDS try.
    except OSError as error:
        raise DatasetNotFoundError(
            f"The data set {name!r} is not prepared in "
            f"TFDS_DATA_DIR={os.environ.get('TFDS_DATA_DIR')!r}, and {url} cannot be reached to "
            "download it. Set TFDS_DATA_DIR to a folder that holds the prepared data set, or use "
            "the data set 'digits' (`--preset demo` of the recipes), which needs no download."
        ) from error


def _import(module: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ImportError(
            f"Loading this data set needs {module}: pip install keras-fisher[recipes]"
        ) from error
