"""Data sets saved as plain arrays, which can be read without TensorFlow."""

from __future__ import annotations

import os
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from keras_fisher.data.examples import DatasetDamagedError, Examples

_ARRAYS = ("train_x", "train_y", "test_x", "test_y")


def path_of(name: str, folder: str | None = None) -> Path:
    """Returns the path of a data set's arrays, which may not exist."""
    default = Path.home() / "tensorflow_datasets"
    return Path(folder or os.environ.get("TFDS_DATA_DIR") or default) / "arrays" / f"{name}.npz"


def save(name: str, parts: tuple[Examples, Examples], folder: str) -> Path:
    """Writes the training and the test images, and returns their path."""
    path = path_of(name, folder)
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(".part")
    with unfinished.open("wb") as file:
        arrays: dict[str, Any] = dict(zip(_ARRAYS, (*parts[0], *parts[1]), strict=True))
        np.savez(file, **arrays)
    unfinished.replace(path)
    return path


def load(name: str) -> tuple[Examples, Examples] | None:
    """Returns the training and the test images, or `None` if they have not been saved."""
    path = path_of(name)
    if not path.exists():
        return None
    try:
        with np.load(path, allow_pickle=False) as file:
            train_x, train_y, test_x, test_y = (file[key] for key in _ARRAYS)
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise DatasetDamagedError(
            f"The data set {name!r} is damaged: {path} cannot be read. Delete it and save it "
            f"again: `KERAS_BACKEND=tensorflow python tools/prepare_data.py {name} "
            "--arrays FOLDER`."
        ) from error
    return Examples(train_x, train_y), Examples(test_x, test_y)
