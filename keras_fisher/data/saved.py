"""Data sets saved as plain arrays, which can be read without TensorFlow."""

from __future__ import annotations

import contextlib
import os
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from keras_fisher.data.examples import DatasetDamagedError, DatasetNotFoundError, Examples

_ARRAYS = ("train_x", "train_y", "test_x", "test_y")
_IDS = "train_ids"


def find_path(name: str, folder: str | None = None) -> Path:
    """Returns the path of a data set's arrays, which may not exist."""
    default = Path.home() / "tensorflow_datasets"
    return Path(folder or os.environ.get("TFDS_DATA_DIR") or default) / "arrays" / f"{name}.npz"


def save(name: str, parts: tuple[Examples, Examples], ids: np.ndarray, folder: str) -> Path:
    """Writes training images, test images and training ids, and returns the path."""
    path = find_path(name, folder)
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(".part")
    with unfinished.open("wb") as file:
        arrays: dict[str, Any] = dict(zip(_ARRAYS, (*parts[0], *parts[1]), strict=True))
        np.savez(file, **arrays | {_IDS: ids})
    unfinished.replace(path)
    return path


def load(name: str) -> tuple[Examples, Examples] | None:
    """Returns the training and the test images, or `None` if they have not been saved."""
    path = find_path(name)
    if not path.exists():
        return None
    with _open(name, path) as file:
        train_x, train_y, test_x, test_y = (file[key] for key in _ARRAYS)
    return Examples(train_x, train_y), Examples(test_x, test_y)


def load_ids(name: str) -> tuple[np.ndarray, np.ndarray] | None:
    """Returns the ids and the labels of the training images, or `None` without saved arrays."""
    path = find_path(name)
    if not path.exists():
        return None
    with _open(name, path) as file:
        ids, y = file.get(_IDS), file["train_y"]
    if ids is None:
        raise DatasetNotFoundError(
            f"The data set {name!r} lacks the ids of its images: {path} was saved by an earlier "
            f"version of keras_fisher. Save it again: {_write_command(name)}."
        )
    return ids, y


@contextlib.contextmanager
def _open(name: str, path: Path) -> Iterator[Mapping[str, np.ndarray]]:
    try:
        with np.load(path, allow_pickle=False) as file:
            yield file
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise DatasetDamagedError(
            f"The data set {name!r} is damaged: {path} cannot be read. Delete it and save it "
            f"again: {_write_command(name)}."
        ) from error


def _write_command(name: str) -> str:
    return f"`KERAS_BACKEND=tensorflow python tools/prepare_data.py {name} --arrays FOLDER`"
