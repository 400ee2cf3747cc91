"""Searches with keras-tuner over the grid of a recipe, and their use in other recipes.

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
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar

import keras_tuner
import pandas as pd

from experiment.devices import Devices
from experiment.errors import SettingsError
from experiment.files import name_damage, read_json, write_json
from experiment.queue import Progress, train_one
from experiment.recipe import Recipe, get_best_accuracy
from experiment.results import make_frame, read
from experiment.setting import UNIFORM, Run, Setting, write_flag
from experiment.tables import choose_value
from keras_fisher.penalties import PENALTIES
from keras_fisher.tuning import GridOracle
from keras_fisher.tuning.oracle import is_worker

OBJECTIVE = "validation_accuracy"
SEARCHED = ("seed", "learning_rate", "alpha", "penalty", "noise")  # these distinguish runs
FINDINGS = "chosen.json"
# The fields that a finding depends on, besides the noise.
TASK = (
    *("network", "width", "dataset", "num_train", "augment", "batch_size", "weight_decay"),
    *("epochs", "drops"),
)
Over = tuple[Literal["lr", "alpha"], ...]  # the searched hyperparameters
RATE: Over = ("lr",)
ALPHA: Over = ("alpha",)
BOTH: Over = ("lr", "alpha")
NOISY = "_noise"  # the suffix of a search's part that also exists with clean labels
AnySetting = TypeVar("AnySetting", bound=Setting)


# ---- The search ----------------------------------------------------------------------------------


def search(recipe: Recipe, settings: Mapping[str, Setting], out: Path, devices: Devices) -> None:
    """Trains all unfinished runs; as a chief, waits until the workers have trained them."""
    if devices.workers > 1:
        raise SettingsError(
            "`--distribute` must be one or mirrored in a search, which spreads its runs over "
            "machines itself (KERASTUNER_TUNER_ID). Received: multiworker"
        )
    planned = recipe.plan_all_runs(settings)
    if (out / FINDINGS).exists():
        read_findings(out)  # raises before any training if they are damaged
        if not (os.access(out, os.W_OK) or list_missing(planned, out)):
            return
    with Progress(planned) as progress:
        for part, setting in settings.items():
            tuner = RunTuner(part, recipe.plan(part, setting, {}), out, progress, devices)
            try:
                tuner.search(verbose=0)
            except keras_tuner.errors.FatalError as error:
                raise error.__cause__ or error from None
    if is_worker():
        return  # Other workers may still be training.
    if missing := list_missing(planned, out):
        raise SettingsError(
            f"`--out`: {out} has finished trials without results of {', '.join(missing)}. Remove "
            "its folders search_*, and rerun the command: it trains the missing runs."
        )
    write_findings(settings, make_frame(read([out])), out)


def list_missing(planned: Sequence[Run], out: Path) -> list[str]:
    """Returns the names of the unfinished runs."""
    return sorted({run.name for run in planned} - {run["name"] for run in read([out])})


class RunTuner(keras_tuner.Tuner):
    """A grid search whose trials are runs of a recipe, in their own folders."""

    def __init__(
        self, part: str, runs: Sequence[Run], out: Path, progress: Progress, devices: Devices
    ) -> None:
        self.runs = {get_key(vars(run)): run for run in runs}
        self.out, self.progress, self.devices = out, progress, devices
        self.space = keras_tuner.HyperParameters()
        for name in SEARCHED:
            self.space.Choice(name, list(dict.fromkeys(getattr(run, name) for run in runs)))
        oracle = GridOracle(
            objective=keras_tuner.Objective(OBJECTIVE, "max"),
            hyperparameters=self.space,
            allow_new_entries=False,
        )
        super().__init__(oracle, directory=str(out), project_name=f"search_{part}")

    def reload(self) -> None:
        """Reads the trials of earlier commands, which may have had another grid."""
        super().reload()
        self.oracle.hyperparameters = self.space

    def run_trial(self, trial: Any, *_: Any, **__: Any) -> dict[str, float]:
        try:
            run = self.runs[get_key(trial.hyperparameters.values)]
            self.progress.finished = [*self.runs.values()].index(run)
            figures = train_one(run, self.out, self.progress, self.devices)
            return {OBJECTIVE: get_best_accuracy(figures)}
        except Exception as error:
            raise keras_tuner.errors.FatalError(f"{type(error).__name__}: {error}") from error


def get_key(values: Mapping[str, Any]) -> tuple[Any, ...]:
    """Returns the values that distinguish the runs of a grid."""
    return tuple(values[name] for name in SEARCHED)


# ---- Findings ------------------------------------------------------------------------------------


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
    task = {name: getattr(setting, name) for name in TASK}
    return task | {"drops": list(task["drops"])}


def write_findings(settings: Mapping[str, Any], runs: pd.DataFrame, out: Path) -> None:
    """Writes the findings of a search to its folder, in addition to earlier ones.

    A finding replaces an earlier one over the same, with the same task, noise and penalty.
    """
    findings = read_findings(out) if (out / FINDINGS).exists() else {}
    for part, setting in settings.items():
        own = runs[(runs["part"] == part) & (runs["noise"] == setting.noise)]
        name = part.removesuffix(NOISY)
        both = [*findings.get(name, []), *list_findings(setting, own)]
        findings[name] = [*{(str(f.task), f.noise, f.over, f.penalty): f for f in both}.values()]
    content = {part: [dataclasses.asdict(f) for f in found] for part, found in findings.items()}
    write_json(out / FINDINGS, content)


def list_findings(setting: Any, runs: pd.DataFrame) -> Iterable[Finding]:
    """Yields the findings of a setting's search, from all runs of its part and noise."""
    if "lr" in setting.over and ("alpha" not in setting.over or 0 in setting.alphas):
        yield find_best(setting, RATE, "", runs[runs["alpha"] == 0])
    if "alpha" in setting.over and any(setting.alphas):
        penalised = runs[(runs["alpha"] > 0) & (runs["penalty"] == setting.penalty)]
        if "lr" in setting.over:
            yield find_best(setting, BOTH, setting.penalty, penalised)
        else:
            at_rate = penalised[penalised["learning_rate"] == setting.learning_rate]
            yield find_best(setting, ALPHA, setting.penalty, at_rate)


def find_best(setting: Setting, over: Over, penalty: str, runs: pd.DataFrame) -> Finding:
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
            part: [Finding(**one | {"over": tuple(one["over"])}) for one in found]
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
        f"{write_flag(name)} {write_option(value)} (this part has {write_option(task[name])})"
        for name, value in finding.task.items()
        if value != task[name]
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
    found = [f for f in there if f.task == get_task(setting)]
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
