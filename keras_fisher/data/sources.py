"""Sources of data sets: files on this machine, and TensorFlow Datasets (TFDS)."""

from __future__ import annotations

import importlib
import os
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from keras_fisher import backend
from keras_fisher.data import saved
from keras_fisher.data.examples import DatasetDamagedError, DatasetNotFoundError, Examples
from keras_fisher.data.labels import check_labels

if TYPE_CHECKING:
    import tensorflow_datasets as tfds

IMAGENET = "imagenet2012"


class Source(NamedTuple):
    """Facts about a data set; `test_split` is the name of its test images in TFDS."""

    num_classes: int
    validation_size: int
    test_split: str = "test"


SOURCES = {
    "digits": Source(10, validation_size=180),
    "cifar10": Source(10, validation_size=5000),
    "cifar100": Source(100, validation_size=5000),
    # The test labels of these two data sets are not public.
    "tiny_imagenet32": Source(200, validation_size=0, test_split="validation"),
    "imagenet2012": Source(1000, validation_size=0, test_split="validation"),
}
NAMES = tuple(SOURCES)
MANUAL_FILES = {"imagenet2012": ("ILSVRC2012_img_train.tar", "ILSVRC2012_img_val.tar")}


def read(name: str) -> tuple[Examples, Examples]:
    """Returns the training and the test images of a small data set, uint8."""
    parts = _digits() if name == "digits" else saved.load(name) or from_tfds(name)
    for part, split in zip(parts, ("training", "test"), strict=True):
        check_labels(f"the {split} images of {name!r}", part.y, SOURCES[name].num_classes)
    train, test = (Examples(x.astype(np.uint8, copy=False), y.astype(np.int32)) for x, y in parts)
    return train, test


def read_ids(name: str) -> tuple[np.ndarray, np.ndarray]:
    """Returns the TFDS ids and the labels of the training images, in the order of `read`."""
    return saved.load_ids(name) or ids_from_tfds(name)


def find(name: str, data_dir: str | None = None) -> tfds.core.DatasetBuilder:
    """Returns the TFDS builder of a data set, which may not be prepared.

    `data_dir` defaults to the environment variable `TFDS_DATA_DIR`, then to TFDS's own default.
    """
    tfds = import_package("tensorflow_datasets")
    if name == "tiny_imagenet32":
        import_package("keras_fisher.data.tiny_imagenet")  # registers it with TFDS
    # TFDS itself reads the variable only once, on import.
    return tfds.builder(name, data_dir=data_dir or os.environ.get("TFDS_DATA_DIR"))


def prepare(name: str, data_dir: str | None = None) -> tfds.core.DatasetBuilder:
    """Returns the TFDS builder of a data set, after preparing it if necessary."""
    builder = find(name, data_dir)
    if not builder.is_prepared():
        folder = Path(builder.data_dir).parents[1]
        if name in MANUAL_FILES:
            _check_manual_files(name, folder / "downloads" / "manual")
        else:
            _check_network(name, folder, builder.info.homepage)
        builder.download_and_prepare()
    return builder


def damaged_files(builder: tfds.core.DatasetBuilder, split: str) -> Iterator[Path]:
    """Yields the record files of a split that are missing, truncated or changed; reads them all."""
    tf = import_package("tensorflow")
    info = builder.info.splits[split]
    for path, length in zip(info.filepaths, info.shard_lengths, strict=True):
        records = tf.data.TFRecordDataset(os.fspath(path), buffer_size=2**20)
        try:
            intact = records.reduce(0, lambda count, _: count + 1) == length
        except tf.errors.OpError:
            intact = False
        if not intact:
            yield Path(path)


def make_damaged_error(
    name: str, builder: tfds.core.DatasetBuilder, what: str
) -> DatasetDamagedError:
    """Returns the error for a damaged data set, which says what is damaged and how to repair it."""
    return DatasetDamagedError(
        f"The data set {name!r} is damaged: {what}. Delete {builder.data_dir} and prepare it "
        f"again: `python tools/prepare_data.py {name}`, or load it with network access."
    )


def import_package(module: str, extra: str = "datasets") -> ModuleType:
    """Imports a module; if it is missing, the error says how to install it."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ImportError(
            f"Loading this data set needs {error.name}: pip install 'keras-fisher[{extra}]' "
            f"(from a clone: pip install '.[{extra}]')"
        ) from error


def _digits() -> tuple[Examples, Examples]:
    x, y = import_package("sklearn.datasets", "recipes").load_digits(return_X_y=True)
    digits = Examples(x.reshape(-1, 8, 8, 1), y)
    order = np.random.default_rng(0).permutation(len(y))
    num_test = round(0.3 * len(y))
    return digits.take(order[num_test:]), digits.take(order[:num_test])


def from_tfds(name: str, data_dir: str | None = None) -> tuple[Examples, Examples]:
    """Returns the training and the test images of a data set from TFDS."""
    _check_backend(name)
    builder = prepare(name, data_dir)
    train, test = (_read(name, builder, split) for split in ("train", SOURCES[name].test_split))
    return train, test


def ids_from_tfds(name: str, data_dir: str | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Returns the ids and the labels of the training images, in the order of `from_tfds`."""
    _check_backend(name)
    builder = prepare(name, data_dir)
    undecoded = {"image": import_package("tensorflow_datasets").decode.SkipDecoding()}
    split = _read_tensors(name, builder, "train", decoders=undecoded)
    return split["id"].numpy().astype(str), split["label"].numpy()


def _check_backend(name: str) -> None:
    if backend.NAME != "tensorflow":
        raise DatasetNotFoundError(
            f"The data set {name!r} is read with TensorFlow, or from arrays saved beforehand, and "
            f"there is no {saved.find_path(name)}. Save it where TensorFlow is installed: "
            f"`KERAS_BACKEND=tensorflow python tools/prepare_data.py {name} --arrays FOLDER`, and "
            "set TFDS_DATA_DIR to that folder; or use the data set 'digits' (`--preset demo` of "
            "the recipes)."
        )


def _read(name: str, builder: tfds.core.DatasetBuilder, split: str) -> Examples:
    x, y = _read_tensors(name, builder, split, as_supervised=True)
    return Examples(x.numpy(), y.numpy())


def _read_tensors(name: str, builder: tfds.core.DatasetBuilder, split: str, **options: Any) -> Any:
    tf = import_package("tensorflow")
    try:
        return builder.as_dataset(split=split, batch_size=-1, **options)
    except (
        tf.errors.DataLossError,
        tf.errors.FailedPreconditionError,
        tf.errors.InvalidArgumentError,
        tf.errors.NotFoundError,
    ) as error:
        files = ", ".join(map(str, damaged_files(builder, split))) or f"an image of split {split!r}"
        raise make_damaged_error(name, builder, f"{files} cannot be read") from error


def _check_manual_files(name: str, folder: Path) -> None:
    missing = [file for file in MANUAL_FILES[name] if not (folder / file).exists()]
    if missing:
        raise DatasetNotFoundError(
            f"The data set {name!r} is not prepared in {folder.parents[1]}, and its licence "
            f"requires you to download it yourself: put {' and '.join(missing)} from "
            f"https://image-net.org/download-images into {folder}, then run "
            f"`python tools/prepare_data.py {name}`. If it is prepared elsewhere, set "
            "TFDS_DATA_DIR to that folder."
        )


def _check_network(name: str, folder: Path, url: str) -> None:
    """Raises after a few seconds without a network; TFDS would retry for minutes."""
    try:
        urllib.request.urlopen(url, timeout=10).close()
    except urllib.error.HTTPError:
        pass  # Some server answered: let TFDS try.
    except OSError as error:
        raise DatasetNotFoundError(
            f"The data set {name!r} is not prepared in {folder}, and {url} cannot be reached to "
            "download it. Set TFDS_DATA_DIR to a folder that holds the prepared data set, or use "
            "the data set 'digits' (`--preset demo` of the recipes), which needs no download."
        ) from error
