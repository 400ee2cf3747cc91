"""The fingerprint of a search, so that no search continues with the results of another."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_fisher.utils.files import write_json

_FILE = "fingerprint.json"
# They change nothing of the training; callbacks might, but have no configuration.
_IGNORED = ("callbacks", "verbose")
_CHOSEN_BY_KERAS = ("name", "shared_object_id")

Fingerprint = dict[str, Any]


def make_fingerprint(
    model: keras.Model, objective: str, fit_args: Sequence[Any], fit_kwargs: Mapping[str, Any]
) -> Fingerprint:
    """Returns what the scores of a search depend on, in JSON-compatible values.

    Arrays are represented by a hash, and datasets only by their type and the types of their
    elements.

    Args:
        model: The model of one trial, compiled.
        objective: The name of the metric to compare.
        fit_args: The positional arguments of `fit`.
        fit_kwargs: Its keyword arguments.
    """
    names = ("x", "y", "batch_size", "epochs")
    given = dict(zip(names, fit_args, strict=False)) | dict(fit_kwargs)
    described = {name: _describe(value) for name, value in given.items() if name not in _IGNORED}
    return {"model": _describe_model(model), "objective": objective} | described


def read_fingerprint(folder: Path) -> Fingerprint:
    """Returns the fingerprint of the search in `folder`; empty for a new search."""
    path = folder / _FILE
    return json.loads(path.read_text()) if path.exists() else {}


def check_fingerprint(folder: Path, fingerprint: Fingerprint) -> None:
    """Raises if the search in `folder` has another fingerprint; writes it if there is none.

    Raises:
        ValueError: if the model, the data or an argument of `fit` has changed.
    """
    kept = read_fingerprint(folder)
    if not kept:
        write_json(folder / _FILE, fingerprint)
        return
    changed = sorted(
        name for name in kept.keys() | fingerprint if kept.get(name) != fingerprint.get(name)
    )
    if changed:
        raise ValueError(
            "`directory` must be a new folder or that of the same search, whose results it "
            f"contains. Received: {str(folder)!r}, a search with another {', '.join(changed)}. "
            "Choose another folder, or pass overwrite=True to delete that search"
        )


def _describe_model(model: keras.Model) -> str:
    """Returns a hash of the configuration, without the names that Keras numbers."""
    try:
        config = keras.saving.serialize_keras_object(model)
    except NotImplementedError:  # a subclass without `get_config`
        config = {"weights": [weight.shape for weight in model.weights]}
    return _hash(json.dumps(_drop_names(config), default=_describe, sort_keys=True).encode())


def _drop_names(config: Any) -> Any:
    """Returns the configuration without names, and without the numbers that end references."""
    if isinstance(config, dict):
        return {k: _drop_names(v) for k, v in config.items() if k not in _CHOSEN_BY_KERAS}
    if isinstance(config, list | tuple):
        return [_drop_names(value) for value in config]
    return re.sub(r"_\d+$", "", config) if isinstance(config, str) else config


def _describe(value: Any) -> Any:
    """Returns a JSON-compatible value that is equal for equal values."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Mapping):
        return {str(key): _describe(item) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return [_describe(item) for item in value]
    if hasattr(value, "__array__"):
        array = np.asarray(ops.convert_to_numpy(value))
        return _describe(array.tolist()) if array.dtype == object else _describe_array(array)
    return [type(value).__name__, str(getattr(value, "element_spec", ""))]


def _describe_array(array: np.ndarray) -> list[Any]:
    data: Any = np.ascontiguousarray(array).reshape(-1).view("uint8")
    return [str(array.dtype), list(array.shape), _hash(data)]


def _hash(data: Any) -> str:
    return hashlib.blake2b(data, digest_size=16).hexdigest()
