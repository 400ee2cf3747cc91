"""Searches of keras-tuner over the grid of a recipe, and what other recipes take of them.

A search over learning rates alone finds eta*, one over alphas the best alpha above 0 at a learning
rate that was given, and one over both the best alpha above 0 with its learning rate, and eta* as
well if alpha 0 is among the alphas.

A setting takes the findings for the part of its name, with its noise and its task: the best alpha
depends on the network, the augmentation and the number of epochs. Where eta* is looked for
(`learning_rates`), the learning rate of a penalty follows from it, so that alphas are taken that
were searched at a given one; other settings take an alpha with the learning rate it was found with.
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
from experiment.recipe import Recipe
from experiment.results import make_frame, read
from experiment.setting import Run, Setting, write_flag
from experiment.tables import choose_value
from keras_fisher.penalties import PENALTIES
from keras_fisher.tuning import GridOracle

OBJECTIVE = "validation_accuracy"
SEARCHED = ("seed", "learning_rate", "alpha", "penalty", "noise")  # what distinguishes runs
FINDINGS = "chosen.json"
# What a finding depends on, beside the noise.
TASK = (
    *("network", "width", "dataset", "num_train", "augment", "batch_size", "weight_decay"),
    *("epochs", "drops"),
)
Over = tuple[Literal["lr", "alpha"], ...]  # what is searched
RATE: Over = ("lr",)
ALPHA: Over = ("alpha",)
BOTH: Over = ("lr", "alpha")
NOISY = "_noise"  # ends the name that a search gives to a part which it has with clean labels, too
AnySetting = TypeVar("AnySetting", bound=Setting)


# ---- The search ----------------------------------------------------------------------------------


def search(recipe: Recipe, settings: Mapping[str, Setting], out: Path, devices: Devices) -> None:
    """Trains all runs that are not finished; as a chief, waits until the workers have."""
    if devices.workers > 1:
        raise SettingsError(
            "`--distribute` must be one or mirrored in a search, which spreads its runs over "
            "machines itself (KERASTUNER_TUNER_ID). Received: multiworker"
        )
    planned = recipe.plan_all_runs(settings)
    if (out / FINDINGS).exists():
        read_findings(out)  # or an error, before any training
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
        return  # Others may still train what this one did not.
    if missing := list_missing(planned, out):
        raise SettingsError(
            f"`--out`: {out} has finished trials without results of {', '.join(missing)}. Remove "
            "its folders search_*, and start the same command again: it trains what is missing."
        )
    write_findings(settings, make_frame(read([out])), out)


def list_missing(planned: Sequence[Run], out: Path) -> list[str]:
    """The names of the runs that are not finished."""
    return sorted({run.name for run in planned} - {run["name"] for run in read([out])})


def is_worker() -> bool:
    """Whether a chief hands out the runs that this process trains."""
    return "KERASTUNER_ORACLE_IP" in os.environ and "chief" not in os.environ["KERASTUNER_TUNER_ID"]


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
        """Reads the trials of earlier commands, whose grid may have been another one."""
        super().reload()
        self.oracle.hyperparameters = self.space

    def run_trial(self, trial: Any, *_: Any, **__: Any) -> dict[str, float]:
        try:
            run = self.runs[get_key(trial.hyperparameters.values)]
            self.progress.finished = [*self.runs.values()].index(run)
            return {OBJECTIVE: train_one(run, self.out, self.progress, self.devices)}
        except Exception as error:
            raise keras_tuner.errors.FatalError(f"{type(error).__name__}: {error}") from error


def get_key(values: Mapping[str, Any]) -> tuple[Any, ...]:
    """What distinguishes the runs of a grid."""
    return tuple(values[name] for name in SEARCHED)


# ---- Findings ------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Finding:
    """The best combination of a search; without a penalty, which is "" then, it is eta*."""

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
    """What of a setting a finding depends on, as JSON has it."""
    task = {name: getattr(setting, name) for name in TASK}
    return task | {"drops": list(task["drops"])}


def write_findings(settings: Mapping[str, Any], runs: pd.DataFrame, out: Path) -> None:
    """Leaves the findings of a search in its folder, beside those of others there.

    Of two over the same, with the same task, noise and penalty, the later one counts.
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
    """The findings of a search of a setting, from all runs of its part and noise."""
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
    """Returns the runs, of one part and noise, with the best learning rate and alpha."""
    groups = [choose_value(group) for _, group in runs.groupby("method")]
    return max(groups, key=lambda group: group["validation_accuracy"].mean())


def read_findings(folder: Path) -> dict[str, list[Finding]]:
    """What the searches in a folder have found, by parts.

    Raises:
        SettingsError: if the folder holds no finished search, or its file is damaged.
    """
    path = folder / FINDINGS
    if not path.exists():
        raise SettingsError(
            f"`--tuned` must be folders of finished searches. Received: {folder}, which has no "
            f"{FINDINGS}"
        )
    with name_damage(path, " Remove it, and start the search again: what is finished stays."):
        return {
            part: [Finding(**one | {"over": tuple(one["over"])}) for one in found]
            for part, found in read_json(path).items()
        }


# ---- What other recipes take ---------------------------------------------------------------------


def apply_findings(
    settings: Mapping[str, AnySetting], folders: Sequence[Path]
) -> dict[str, AnySetting]:
    """The settings of some parts, with what searches have found for them.

    Raises:
        SettingsError: if a folder holds no finished search, or none that a part takes anything of.
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
    """How the task of a finding differs from that of a setting, in options of the search."""
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
    """The fields of a setting for which searches of its task have found values.

    Raises:
        SettingsError: if a value was found on another task alone.
    """
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
    """The fields of a setting that findings have values for."""
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
    """The field with the alphas of a penalty, or nothing."""
    names = (penalty, "alphas") if penalty == "fp" else (penalty,)
    return next((name for name in names if hasattr(setting, name)), "")


def take_rate(part: str, rates: set[float]) -> dict[str, float]:
    """The learning rate of a setting that has but one."""
    if len(rates) > 1:
        raise SettingsError(
            f"`--tuned` must have one learning rate for {part}. Received: "
            f"{', '.join(f'{rate:g}' for rate in sorted(rates))}. Search alpha at one of them: "
            "search.py --over alpha --learning-rate"
        )
    return {"learning_rate": min(rates)} if rates else {}
