"""What searches have found, for the recipes that need it.

A search over learning rates alone finds eta*, one over alphas the best alpha above 0 at a learning
rate that was given, and one over both the best alpha above 0 with its learning rate, and eta* as
well if alpha 0 is among the alphas.

A setting takes what was found for the part of its name, with its noise. Where eta* is looked for
(`learning_rates`), the learning rate of a penalty follows from it, so that alphas are taken that
were searched at a given one; other settings take an alpha with the learning rate it was found with.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from experiment.errors import SettingsError
from experiment.files import read_json, write_json
from experiment.recipe import Result
from experiment.results import best_combination
from experiment.setting import Setting
from keras_fisher.penalties import PENALTIES

CHOSEN = "chosen.json"
Over = tuple[str, ...]  # what is searched
RATE: Over = ("lr",)
ALPHA: Over = ("alpha",)
BOTH: Over = ("lr", "alpha")
NOISY = "_noise"  # ends the name that a search gives to a part which it has with clean labels, too
AnySetting = TypeVar("AnySetting", bound=Setting)


@dataclasses.dataclass(frozen=True)
class Found:
    """The best combination of a search; without a penalty, which is "" then, it is eta*."""

    noise: float
    over: Over
    penalty: str
    learning_rate: float
    alpha: float

    def __str__(self) -> str:
        name = {RATE: "eta*", ALPHA: "alpha", BOTH: "learning rate and alpha"}[self.over]
        penalty = f" of {self.penalty}" * bool(self.penalty)
        return f"{name}{penalty} with {self.noise:.0%} noise"


# ---- What a search leaves ------------------------------------------------------------------------


def write_chosen(settings: Mapping[str, Any], results: Iterable[Result], out: Path) -> None:
    """Leaves what a search has found in its folder, beside what others there have.

    Of two over the same, with the same noise and penalty, the later one counts.
    """
    chosen = read_chosen(out) if (out / CHOSEN).exists() else {}
    results = list(results)
    for part, setting in settings.items():
        runs = [run for run in results if (run["part"], run["noise"]) == (part, setting.noise)]
        name = part.removesuffix(NOISY)
        found = [*chosen.get(name, []), *_found(setting, runs)]
        chosen[name] = [*{(f.noise, f.over, f.penalty): f for f in found}.values()]
    content = {part: [dataclasses.asdict(f) for f in found] for part, found in chosen.items()}
    write_json(out / CHOSEN, content)


def _found(setting: Any, runs: Sequence[Result]) -> list[Found]:
    """What a search of a setting has found, of all runs of its part and noise."""
    found = []
    if "lr" in setting.over and ("alpha" not in setting.over or 0 in setting.alphas):
        found.append(_best(RATE, "", [run for run in runs if not run["alpha"]]))
    if "alpha" in setting.over and any(setting.alphas):
        penalised = [run for run in runs if run["alpha"] and run["penalty"] == setting.penalty]
        if "lr" in setting.over:
            found.append(_best(BOTH, setting.penalty, penalised))
        else:
            at_rate = [r for r in penalised if r["learning_rate"] == setting.learning_rate]
            found.append(_best(ALPHA, setting.penalty, at_rate))
    return found


def _best(over: Over, penalty: str, runs: Sequence[Result]) -> Found:
    best = best_combination(runs)[0]
    return Found(best["noise"], over, penalty, best["learning_rate"], best["alpha"])


# ---- What other recipes take of it ---------------------------------------------------------------


def with_tuned(
    settings: Mapping[str, AnySetting], folders: Sequence[Path]
) -> dict[str, AnySetting]:
    """The settings of some parts, with what searches have found for them.

    Raises:
        SettingsError: if a folder holds no finished search, or none that a part takes anything of.
    """
    found = {folder: read_chosen(folder) for folder in folders}
    for folder, chosen in found.items():
        if not any(_values(part, setting, [chosen]) for part, setting in settings.items()):
            there = [f"{one} for {part}" for part, some in chosen.items() for one in some]
            raise SettingsError(
                f"`--tuned` must be searches that {' or '.join(settings)} can take a value of. "
                f"Received: {folder}, which has {', '.join(there) or 'found nothing'}"
            )
    return {
        part: dataclasses.replace(setting, **_values(part, setting, [*found.values()]))
        for part, setting in settings.items()
    }


def _values(
    part: str, setting: Setting, chosen: Sequence[Mapping[str, Sequence[Found]]]
) -> dict[str, Any]:
    """The fields of a setting for which searches have found values."""
    noise = getattr(setting, "noise", 0.0)
    noises = noise if isinstance(noise, tuple) else (noise,)
    found = [f for some in chosen for f in some.get(part, []) if f.noise in noises]
    rates = {f.learning_rate for f in found if f.over == RATE}
    looks_for_rate = hasattr(setting, "learning_rates")
    kinds = (ALPHA,) if looks_for_rate else (ALPHA, BOTH)
    tuned = [f for f in found if f.over in kinds and _alphas_of(setting, f.penalty)]
    values: dict[str, Any] = {}
    for name in {_alphas_of(setting, f.penalty) for f in tuned}:
        alphas = {f.alpha for f in tuned if _alphas_of(setting, f.penalty) == name}
        values[name] = tuple(sorted(alphas))
    if looks_for_rate and rates:
        values["learning_rates"] = tuple(sorted(rates))
    elif not looks_for_rate and _alphas_of(setting, "fp"):
        values |= _one_rate(part, {f.learning_rate for f in tuned} or rates)
    return values


def _alphas_of(setting: Setting, penalty: str) -> str:
    """The field with the alphas of a penalty, or nothing."""
    names = (penalty, "alphas") if penalty == "fp" else (penalty,)
    return next((name for name in names if hasattr(setting, name)), "")


def _one_rate(part: str, rates: set[float]) -> dict[str, float]:
    """The learning rate of a setting that has but one."""
    if len(rates) > 1:
        raise SettingsError(
            f"`--tuned` must have one learning rate for {part}. Received: "
            f"{', '.join(f'{rate:g}' for rate in sorted(rates))}. Search alpha at one of them: "
            "search.py --over alpha --learning-rate"
        )
    return {"learning_rate": min(rates)} if rates else {}


# ---- The file ------------------------------------------------------------------------------------


def read_chosen(folder: Path) -> dict[str, list[Found]]:
    """What the searches in a folder have found, by parts.

    Raises:
        SettingsError: if the folder holds no finished search, or its file is damaged.
    """
    path = folder / CHOSEN
    if not path.exists():
        raise SettingsError(
            f"`--tuned` must be folders of finished searches. Received: {folder}, which has no "
            f"{CHOSEN}"
        )
    return {part: _read(path, part, found) for part, found in read_json(path).items()}


def _read(path: Path, part: str, found: Any) -> list[Found]:
    """What a file says of a part."""
    fields = {field.name for field in dataclasses.fields(Found)}
    if not isinstance(found, list) or not all(
        isinstance(one, dict) and one.keys() == fields and _is_right(one) for one in found
    ):
        raise SettingsError(
            f"{path} is damaged, or of an earlier version, in what it says of {part}: {found}. "
            "Remove it, and start the search again, which trains nothing that is finished"
        )
    return [Found(**one | {"over": tuple(one["over"])}) for one in found]


def _is_right(one: Mapping[str, Any]) -> bool:
    """Whether values are such as a search finds."""
    numbers = [one[name] for name in ("noise", "learning_rate", "alpha")]
    if not all(isinstance(n, int | float) and 0 <= n < math.inf for n in numbers):
        return False
    if one["over"] == list(RATE):
        return one["penalty"] == "" and one["alpha"] == 0 < one["learning_rate"]
    return (
        one["over"] in ([*ALPHA], [*BOTH]) and one["penalty"] in [*PENALTIES] and one["alpha"] > 0
    )
