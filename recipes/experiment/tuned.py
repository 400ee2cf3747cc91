"""What searches have found, for the recipes that need it."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from experiment.errors import SettingsError
from experiment.files import read_json, write_json
from experiment.recipe import Result
from experiment.results import best_combination, by_parts
from experiment.setting import Setting
from keras_fisher.penalties import PENALTIES

CHOSEN = "chosen.json"
FOUND = ("penalty", "learning_rate", "alpha")
AnySetting = TypeVar("AnySetting", bound=Setting)


def write_chosen(results: Iterable[Result], out: Path) -> None:
    """Leaves the best combination of each part in the folder of a search that is finished."""
    best = {part: best_combination(runs)[0] for part, runs in by_parts(results).items()}
    write_json(out / CHOSEN, {part: {k: run[k] for k in FOUND} for part, run in best.items()})


def tuned_values(folders: Sequence[Path]) -> dict[str, dict[str, float]]:
    """For each part eta* and the alpha of each penalty, as far as searches have found them.

    Raises:
        SettingsError: if a folder holds no finished search.
    """
    values: dict[str, dict[str, float]] = {}
    for folder in folders:
        if not (folder / CHOSEN).exists():
            raise SettingsError(
                f"`--tuned` must be folders of finished searches. Received: {folder}, which has no "
                f"{CHOSEN}"
            )
        for part, found in read_json(folder / CHOSEN).items():
            _check_found(folder / CHOSEN, part, found)
            name = found["penalty"] if found["alpha"] else "learning_rates"
            values.setdefault(part, {})[name] = found["alpha"] or found["learning_rate"]
    return values


def _check_found(path: Path, part: str, found: Any) -> None:
    """Raises unless a file says of a part what a search does."""
    if not isinstance(found, dict) or any(key not in found for key in FOUND):
        raise SettingsError(f"{path} is damaged: {part} must have {', '.join(FOUND)}")
    if found["penalty"] not in list(PENALTIES):
        raise SettingsError(
            f"{path} is damaged: the penalty of {part} must be one of {', '.join(PENALTIES)}. "
            f"Received: {found['penalty']!r}"
        )
    if not (found["learning_rate"] or found["alpha"]):
        raise SettingsError(f"{path} is damaged: {part} has neither a learning rate nor an alpha")
    for key in ("learning_rate", "alpha"):
        if not isinstance(found[key], int | float) or not 0 <= found[key] < math.inf:
            raise SettingsError(
                f"{path} is damaged: {key} of {part} must be at least 0. Received: {found[key]!r}"
            )


def with_tuned(setting: AnySetting, values: Mapping[str, float]) -> AnySetting:
    """A setting with the values that were found, where it has such."""
    fields: dict[str, Any] = {k: (v,) for k, v in values.items() if hasattr(setting, k)}
    if "fp" in values and hasattr(setting, "alphas"):
        fields["alphas"] = (values["fp"],)
    return dataclasses.replace(setting, **fields)
