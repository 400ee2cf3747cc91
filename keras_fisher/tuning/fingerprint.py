"""The fingerprint of a search, so that no search continues with the results of another."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_fisher.backend.private_api.keras import list_all_layers, list_torch_modules
from keras_fisher.model import FisherPenaltyModel
from keras_fisher.traces.meter import get_backbone
from keras_fisher.utils.files import write_json

_FILE = "fingerprint.json"
# They change nothing of the training; callbacks might, but have no configuration.
_IGNORED = ("callbacks", "verbose")
# The keys of names of layers, and of references to them, in the configuration of a model.
_REFERENCES = ("name", "keras_history", "input_layers", "output_layers")
_PENALTY = (
    *("alpha", "penalty", "update_freq", "penalty_batch_size", "micro_batch_size"),
    *("gradient", "max_penalty_ratio", "likelihood", "seed"),
)

Fingerprint = dict[str, Any]


def make_fingerprint(
    model: keras.Model, objective: Any, fit_args: Sequence[Any], fit_kwargs: Mapping[str, Any]
) -> Fingerprint:
    """Returns what the scores of a search depend on, in JSON-compatible values.

    Arrays are represented by a hash, and datasets only by their type and the types of their
    elements.

    Args:
        model: The model of one trial, compiled.
        objective: The `keras_tuner.Objective`, or several.
        fit_args: The positional arguments of `fit`.
        fit_kwargs: Its keyword arguments.
    """
    names = ("x", "y", "batch_size", "epochs")
    given = dict(zip(names, fit_args, strict=False)) | dict(fit_kwargs)
    described = {name: _describe(value) for name, value in given.items() if name not in _IGNORED}
    objectives = getattr(objective, "objectives", [objective])
    directions = {each.name: each.direction for each in objectives}
    return {"model": _describe_model(model), "objective": directions} | described


def read_fingerprint(folder: Path) -> Fingerprint:
    """Returns the fingerprint of the search in `folder`; empty for a new search."""
    path = folder / _FILE
    return json.loads(path.read_text()) if path.exists() else {}


def check_fingerprint(folder: Path, fingerprint: Fingerprint, *, is_begun: bool = True) -> None:
    """Raises if the search in `folder` has another fingerprint; writes it if there is none.

    Args:
        folder: The folder of the search.
        fingerprint: The fingerprint of the search that is about to start.
        is_begun: Whether the folder may have results; if not, its fingerprint is replaced.

    Raises:
        ValueError: if the model, the data or an argument of `fit` has changed.
    """
    kept = read_fingerprint(folder)
    if not (kept and is_begun):
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
    """Returns a hash of the architecture, the penalty and the arguments of `compile`."""
    backbone = get_backbone(model)
    layers = list_all_layers(backbone)
    described = {
        "architecture": [_drop_modules(_serialize(layer)) for layer in layers],
        "modules": [repr(layer.module) for layer in list_torch_modules(backbone)],
        "weights": [[list(weight.shape), weight.dtype] for weight in backbone.weights],
        "penalty": {name: _serialize(getattr(model, name, None)) for name in _PENALTY},
        "schedule": _serialize(_get_schedule(model)),
        "compiled": model.get_compile_config(),
    }
    return _hash(json.dumps(_number_names(described, {}), default=_describe).encode())


def _get_schedule(model: keras.Model) -> Any:
    """Returns the schedule of alpha, which its value in the first step does not describe."""
    return model._state.schedule if isinstance(model, FisherPenaltyModel) else None


def _serialize(value: Any) -> Any:
    """Returns the configuration; the class of a subclassed layer without `get_config`."""
    try:
        return keras.saving.serialize_keras_object(value)
    except NotImplementedError:
        return f"{type(value).__module__}.{type(value).__qualname__}"


def _drop_modules(config: Any) -> Any:
    """Returns the configuration without pickled modules of PyTorch, which have initial weights."""
    if isinstance(config, list | tuple):
        return [_drop_modules(item) for item in config]
    if not isinstance(config, dict):
        return config
    is_wrapper = {"module", "output_shape"} <= config.keys()
    return {
        key: _drop_modules(value)
        for key, value in config.items()
        if not (is_wrapper and key == "module")
    }


def _number_names(config: Any, numbers: dict[str, int], is_reference: bool = False) -> Any:
    """Returns the configuration with numbers in place of names, which Keras chooses.

    Names are numbered in the order in which they first occur, and so are references to them.
    """
    if isinstance(config, Mapping):
        if "DTypePolicy" in str(config.get("class_name")):
            return config.get("config")  # its name is that of the dtype
        return {
            key: _number_names(value, numbers, is_reference or key in _REFERENCES)
            for key, value in config.items()
            if key != "shared_object_id"
        }
    if isinstance(config, list | tuple):
        return [_number_names(value, numbers, is_reference) for value in config]
    if is_reference and isinstance(config, str):
        return numbers.setdefault(config, len(numbers))
    return config


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
