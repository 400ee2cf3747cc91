"""What searches have found, and its use in other recipes.

A search over learning rates only finds eta*. A search over alphas finds the best alpha above 0 at a
given learning rate. A search over both finds the best alpha above 0 with its learning rate, and
also eta* if the alphas include 0.

A setting uses the findings for the part of its name, with its noise and its task: the best alpha
depends on the network, the augmentation and the number of epochs. In settings that search eta*
(`learning_rates`), the learning rate of a penalty follows from eta*, so they use alphas searched at
a given rate. Other settings use an alpha together with the learning rate it was found with.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar

import pandas as pd

from experiment.errors import SettingsError
from experiment.files import name_damage, read_json, write_json
from experiment.plan.setting import UNIFORM, Run, Setting, write_flag
from experiment.results.tables import choose_value
from keras_fisher.penalties import PENALTIES

FINDINGS = "chosen.json"
# The fields that a finding depends on, besides the noise; the schedule only that of an alpha.
SCHEDULE = ("update_freq", "penalty_batch_size")
TASK = (
    *("network", "width", "dataset", "num_train", "augment", "batch_size", "weight_decay"),
    *("optimizer", "epochs", "drops", "drop_factor", *SCHEDULE),
)
UNWRITTEN = {"optimizer": "sgd", "drop_factor": 0.1}  # of tasks that earlier versions have written
Over = tuple[Literal["lr", "alpha"], ...]  # the searched hyperparameters
RATE: Over = ("lr",)
ALPHA: Over = ("alpha",)
BOTH: Over = ("lr", "alpha")
NOISY = "_noise"  # the suffix of a search's part that also exists with clean labels
AnySetting = TypeVar("AnySetting", bound=Setting)


@dataclasses.dataclass(frozen=True)
class Finding:
    """The best combination of a search; eta* if `penalty` is "", which means no penalty."""

    task: dict[str, Any]
    noise: float
    over: Over
    penalty: str
    learning_rate: float
    alpha: float

    def __post_init__(self) -> None:
        is_rate = self.over == RATE
        if self.over not in (RATE, ALPHA, BOTH) or self.penalty not in (
            [""] if is_rate else PENALTIES
        ):
            raise ValueError(f"no search finds {self.over} of {self.penalty!r}")
        if not (0 <= self.noise < 1 and self.learning_rate > 0 and (self.alpha > 0) != is_rate):
            raise ValueError(f"no search finds {dataclasses.astuple(self)}")
        if set(self.task) != set(TASK):
            raise ValueError(f"a task has {', '.join(TASK)}, not {', '.join(self.task)}")

    def __str__(self) -> str:
        name = {RATE: "eta*", ALPHA: "alpha", BOTH: "learning rate and alpha"}[self.over]
        penalty = f" of {self.penalty}" * bool(self.penalty)
        return f"{name}{penalty} with {self.noise:.0%} noise"


def get_task(setting: Setting | Run) -> dict[str, Any]:
    """Returns the fields of a setting that a finding depends on, in JSON types."""
    task = {name: getattr(setting, name, None) for name in TASK}
    return task | {"drops": list(setting.drops)}


def list_differences(finding: Finding, setting: Setting) -> list[str]:
    """Returns the fields that must match and do not."""
    task = get_task(setting)
    needed = [name for name in TASK if finding.over != RATE or name not in SCHEDULE]
    return [name for name in needed if finding.task[name] != task[name]]


def write_findings(settings: Mapping[str, Any], runs: pd.DataFrame, out: Path) -> None:
    """Writes the findings of a search to its folder, in addition to earlier ones.

    A finding replaces an earlier one over the same, with the same task, noise and penalty.
    """
    findings = read_findings(out) if (out / FINDINGS).exists() else {}
    for part, setting in settings.items():
        own = runs[(runs["part"] == part) & (runs["noise"] == setting.noise)]
        name = part.removesuffix(NOISY)
        both = [*findings.get(name, []), *list_findings(setting, own)]
        findings[name] = [
            *{(str(sorted(f.task.items())), f.noise, f.over, f.penalty): f for f in both}.values()
        ]
    content = {part: [dataclasses.asdict(f) for f in found] for part, found in findings.items()}
    write_json(out / FINDINGS, content)


def list_findings(setting: Any, runs: pd.DataFrame) -> Iterable[Finding]:
    """Yields the findings of a setting's search, from all runs of its part and noise."""
    if "lr" in setting.over and ("alpha" not in setting.over or 0 in setting.alphas):
        yield make_finding(setting, RATE, "", runs[runs["alpha"] == 0])
    if "alpha" in setting.over and any(setting.alphas):
        penalised = runs[(runs["alpha"] > 0) & (runs["penalty"] == setting.penalty)]
        if "lr" in setting.over:
            yield make_finding(setting, BOTH, setting.penalty, penalised)
        else:
            at_rate = penalised[penalised["learning_rate"] == setting.learning_rate]
            yield make_finding(setting, ALPHA, setting.penalty, at_rate)


def make_finding(setting: Setting, over: Over, penalty: str, runs: pd.DataFrame) -> Finding:
    best = choose_combination(runs).iloc[0]
    noise, rate, alpha = (float(best[name]) for name in ("noise", "learning_rate", "alpha"))
    return Finding(get_task(setting), noise, over, penalty, rate, alpha)


def choose_combination(runs: pd.DataFrame) -> pd.DataFrame:
    """Returns the runs with the best learning rate and alpha, from one part and noise."""
    groups = [choose_value(group) for _, group in runs.groupby("method")]
    return max(groups, key=lambda group: group["validation_accuracy"].mean())


def read_findings(folder: Path) -> dict[str, list[Finding]]:
    """Returns the findings of the searches in a folder, by part.

    Raises:
        SettingsError: if the folder contains no finished search, or its file is damaged.
    """
    path = folder / FINDINGS
    if not path.exists():
        raise SettingsError(
            f"`--tuned` must be folders of finished searches. Received: {folder}, which has no "
            f"{FINDINGS}"
        )
    with name_damage(path, " Remove it, and rerun the search: it keeps finished runs."):
        return {
            part: [
                Finding(**one | {"over": tuple(one["over"]), "task": UNWRITTEN | one["task"]})
                for one in found
            ]
            for part, found in read_json(path).items()
        }


# ---- Use of findings in other recipes ------------------------------------------------------------


def apply_findings(
    settings: Mapping[str, AnySetting], folders: Sequence[Path]
) -> dict[str, AnySetting]:
    """Returns the settings of parts with the values that searches have found for them.

    Raises:
        SettingsError: if a folder contains no finished search, or none with values for a part.
    """
    found = {folder: read_findings(folder) for folder in folders}
    for folder, findings in found.items():
        if not any(take_values(part, setting, [findings]) for part, setting in settings.items()):
            there = [f"{one} for {part}" for part, some in findings.items() for one in some]
            raise SettingsError(
                f"`--tuned` must be searches that {' or '.join(settings)} can take a value of. "
                f"Received: {folder}, which has {', '.join(there) or 'found nothing'}"
            )
    return {
        part: dataclasses.replace(setting, **take_values(part, setting, [*found.values()]))
        for part, setting in settings.items()
    }


def describe_other_task(finding: Finding, setting: Setting) -> str:
    """Describes how the tasks of a finding and a setting differ, as options of the search."""
    task = get_task(setting)
    others = [
        f"{write_flag(name)} {write_option(finding.task[name])} "
        f"(this part has {write_option(task[name])})"
        for name in list_differences(finding, setting)
    ]
    return f", searched with {', '.join(others)}"


def write_option(value: Any) -> str:
    return " ".join(map(str, value)) or "none" if isinstance(value, list) else str(value)


def take_values(
    part: str, setting: Setting, findings: Sequence[Mapping[str, Sequence[Finding]]]
) -> dict[str, Any]:
    """Returns the fields of a setting with values found by searches of its task.

    Raises:
        SettingsError: if a value was found only on another task.
    """
    if getattr(setting, "noise_source", UNIFORM) != UNIFORM:
        return {}  # searches draw wrong labels
    noise = getattr(setting, "noise", 0.0)
    noises = noise if isinstance(noise, tuple) else (noise,)
    there = [f for some in findings for f in some.get(part, []) if f.noise in noises]
    found = [f for f in there if not list_differences(f, setting)]
    missing = [f for f in there if str(f) not in map(str, found)]
    if list_values(part, setting, missing):
        raise SettingsError(
            f"`--tuned` must be searches of the task of {part}. Received: "
            + "; ".join(f"{one}{describe_other_task(one, setting)}" for one in missing)
        )
    return list_values(part, setting, found)


def list_values(part: str, setting: Setting, found: Sequence[Finding]) -> dict[str, Any]:
    """Returns the fields of a setting with values from findings."""
    rates = {f.learning_rate for f in found if f.over == RATE}
    looks_for_rate = hasattr(setting, "learning_rates")
    kinds = (ALPHA,) if looks_for_rate else (ALPHA, BOTH)
    penalised = [f for f in found if f.over in kinds and name_alphas(setting, f.penalty)]
    values: dict[str, Any] = {}
    for name in {name_alphas(setting, f.penalty) for f in penalised}:
        alphas = {f.alpha for f in penalised if name_alphas(setting, f.penalty) == name}
        values[name] = tuple(sorted(alphas))
    if looks_for_rate and rates:
        values["learning_rates"] = tuple(sorted(rates))
    elif not looks_for_rate and name_alphas(setting, "fp"):
        values |= take_rate(part, {f.learning_rate for f in penalised} or rates)
    return values


def name_alphas(setting: Setting, penalty: str) -> str:
    """Returns the name of the field with a penalty's alphas, or an empty string."""
    names = (penalty, "alphas") if penalty == "fp" else (penalty,)
    return next((name for name in names if hasattr(setting, name)), "")


def take_rate(part: str, rates: set[float]) -> dict[str, float]:
    """Returns the learning rate of a setting that has a single one."""
    if len(rates) > 1:
        raise SettingsError(
            f"`--tuned` must have one learning rate for {part}. Received: "
            f"{', '.join(f'{rate:g}' for rate in sorted(rates))}. Search alpha at one of them: "
            "search.py --over alpha --learning-rate"
        )
    return {"learning_rate": min(rates)} if rates else {}
