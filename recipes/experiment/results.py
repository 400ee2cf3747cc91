"""Finished runs, read from their folders and grouped over seeds."""

from __future__ import annotations

import dataclasses
import json
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from experiment.errors import SettingsError
from experiment.figures import HISTORY, epochs_of, figures_of
from experiment.files import read_json, write_json
from experiment.kinds import NUMBER, made
from experiment.recipe import Result
from experiment.setting import Run

RECIPE = "recipe.json"
# Whatever a folder says, no other module is imported.
NAMES = tuple(sorted(path.stem for path in Path(__file__).parents[1].glob("*.py")))
SETTINGS = {"run": Run, "versions": dict[str, str]}
SECONDS = {"seconds": NUMBER}
NOTHING = "-"
IDENTITY = ("part", "noise", "method", "value")  # What runs have in common that are averaged ...
OF_A_SEED = ("seed", "data_seed", "initial")  # ... and what may differ.
# What a value sets: one of these differs between the values of a method.
SET_BY_VALUE = ("alpha", "learning_rate", "mixup_beta", "batch_size")
# What all runs of a part have in common; those that go on from another have epochs of their own.
OF_A_PART = (
    *("network", "width", "dataset", "num_train", "validation_size", "test_size", "augment"),
    *("weight_decay", "epochs", "drops", "drop_factor", "fisher_examples", "steps_per_epoch"),
)


def claim_folder(out: Path, recipe: str) -> None:
    """Makes the folder of a recipe's runs, or raises if it is another recipe's."""
    out.mkdir(parents=True, exist_ok=True)
    if not (out / RECIPE).exists():
        write_json(out / RECIPE, {"recipe": recipe})
    elif (found := recipe_of(out)) != recipe:
        raise SettingsError(
            f"`--out` must be a new folder or one of {recipe}. Received: {out}, which holds {found}"
        )


def recipe_of(out: Path) -> str:
    """The name of the recipe that a folder holds runs of."""
    path = out / RECIPE
    if not path.exists():
        raise SettingsError(f"{out} holds no runs of a recipe: it has no {RECIPE}")
    name = read_json(path, recipe=str)["recipe"]
    if name not in NAMES:
        raise SettingsError(f"{path} must name one of {', '.join(NAMES)}. Received: {name!r}")
    return name


def read(folders: Iterable[Path]) -> list[Result]:
    """All finished runs in some folders, in the order of their names.

    Raises:
        SettingsError: if runs of one name have different settings, the figures of one are of other
            epochs than its settings, or as `check_comparable`.
    """
    paths = [path.parent for out in folders for path in out.glob("*/results.json")]
    runs = [read_one(path) for path in sorted(paths, key=lambda path: path.name)]
    check_comparable(runs)
    for run in runs:
        if run["history"] and (found := epochs_of(run["history"])) != run["epochs"]:
            raise SettingsError(
                f"{run['name']} is damaged: it has figures of {found} epochs, "
                f"where its settings have {run['epochs']}"
            )
    return list({run["name"]: run for run in runs}.values())


def read_of(recipe: str, folders: Sequence[Path]) -> list[Result]:
    """All finished runs of a recipe in some folders.

    Raises:
        SettingsError: if a folder is of another recipe or of none, if no run is finished in it, or
            as `read`.
    """
    for folder in folders:
        if (found := recipe_of(folder)) != recipe:
            raise SettingsError(f"{folder} must hold runs of {recipe}. It holds runs of {found}")
        if not any(folder.glob("*/results.json")):
            raise SettingsError(f"No run is finished in {folder}")
    return read(folders)


def settings_of(run: Run) -> dict[str, Any]:
    """The fields of a run, as they are read from its folder."""
    return json.loads(json.dumps(dataclasses.asdict(run)))


def check_comparable(runs: Iterable[Result]) -> None:
    """Raises if runs that a table averages or compares have other settings than it says.

    Raises:
        SettingsError: if runs of one part differ in their data, network, epochs or the like, or
            those of one method in more than seeds and what their values set.
    """
    runs = list(runs)
    settings = [field.name for field in dataclasses.fields(Run) if field.name not in OF_A_SEED]
    for part in grouped(runs, "part").values():
        for goes_on in (False, True):
            group = [run for run in part if bool(run.get("initial")) == goes_on]
            _check_alike(group, OF_A_PART, "have the same task to be compared")
    for group in grouped(runs, *IDENTITY).values():
        _check_alike(group, settings, "differ in their seeds alone to be averaged")
    for group in grouped(runs, "part", "noise", "method").values():
        varied = next((name for name in SET_BY_VALUE if _differ(group, name)), "value")
        others = [name for name in settings if name not in ("value", varied)]
        _check_alike(group, others, f"differ in {varied} alone to be compared")


def _differ(runs: Sequence[Result], name: str) -> bool:
    return any(run.get(name) != runs[0].get(name) for run in runs)


def _check_alike(runs: Sequence[Result], settings: Iterable[str], must: str) -> None:
    """Raises unless runs agree in these settings."""
    for name in settings:
        for run in runs:
            if (found := run.get(name)) != (first := runs[0].get(name)):
                raise SettingsError(
                    f"{runs[0]['name']} and {run['name']} must {must}. "
                    f"{name} is {first} and {found}. Give them folders of their own."
                )


def read_one(folder: Path) -> Result:
    """A finished run: its name, its fields, its versions, its figures and the seconds it took.

    Raises:
        SettingsError: if its files hold something else.
    """
    settings = read_json(folder / "settings.json", **SETTINGS)
    run, path = made(Run, settings["run"]), folder / "results.json"
    epochs = epochs_of(read_json(path, **HISTORY)["history"])
    return {
        "name": folder.name,
        **settings_of(run),
        "versions": settings["versions"],
        **read_json(path, **figures_of(run, epochs)),
        **read_json(folder / "time.json", **SECONDS),
    }


def grouped(results: Iterable[Result], *keys: str) -> dict[tuple[Any, ...], list[Result]]:
    """The results by their values of these keys, in the order of these."""
    groups: dict[tuple[Any, ...], list[Result]] = defaultdict(list)
    for result in results:
        groups[tuple(result[key] for key in keys)].append(result)
    return dict(sorted(groups.items()))


def chosen(results: Iterable[Result]) -> list[Result]:
    """Of runs of one method, those of the value of best mean validation accuracy (appendix G.2).

    Values count that were run with the most seeds.
    """
    groups = grouped(results, "value")
    if not groups:
        return []
    seeds = max(map(len, groups.values()))
    of_all = [group for group in groups.values() if len(group) == seeds]
    return max(of_all, key=lambda group: np.mean(of(group, validation_accuracy)))


def best_combination(results: Iterable[Result]) -> list[Result]:
    """Of runs of one part, those of the learning rate and alpha that `chosen` would choose."""
    groups = grouped(results, "noise", "method").values()
    return max(map(chosen, groups), key=lambda group: np.mean(of(group, validation_accuracy)))


def by_method(results: Iterable[Result]) -> dict[str, list[Result]]:
    """The runs of each method, of its chosen value."""
    return {method: chosen(runs) for (method,), runs in grouped(results, "method").items()}


def by_part(results: Iterable[Result]) -> dict[str, dict[str, list[Result]]]:
    """The runs of each part and method, of its chosen value."""
    return {part: by_method(runs) for (part,), runs in grouped(results, "part").items()}


def every_value(
    results: Iterable[Result], methods: Iterable[str]
) -> dict[str, dict[str, list[Result]]]:
    """The runs of each part and method, of all values, in the order of `methods`."""
    groups = grouped(results, "part", "method")
    return {
        part: {method: groups[part, method] for method in methods if (part, method) in groups}
        for part in dict.fromkeys(part for part, _ in groups)
    }


# ---- Figures of a run ------------------------------------------------------------------------


def validation_accuracy(result: Result) -> float:
    return result["best"]["validation_accuracy"]


def test_accuracy(result: Result) -> float:
    """At the best validation point, as in table 3."""
    return result["best"]["test_accuracy"]


def final(key: str) -> Callable[[Result], float]:
    """What was logged last."""
    return lambda result: result["final"][key]


# The largest Tr(F) from the end of the first epoch on (appendix A.2).
max_fisher_trace = final("fisher_trace_peak")


def of(results: Iterable[Result], figure: Callable[[Result], Any]) -> np.ndarray:
    """A figure of each result; NaN where a run has none."""
    return np.array([figure(result) for result in results], float)


def written(
    results: Sequence[Result], figure: Callable[[Result], Any], scale: float = 1, digits: int = 1
) -> str:
    """The mean of a figure, with the standard deviation if there are several seeds."""
    values = scale * of(results, figure)
    if not len(values) or np.isnan(values).any():
        return NOTHING
    spread = f" ± {values.std(ddof=1):.{digits}f}" if len(values) > 1 else ""
    return f"{values.mean():.{digits}f}{spread}"


def percent(results: Sequence[Result], figure: Callable[[Result], Any]) -> str:
    """As `written`, in percent."""
    return written(results, figure, scale=100)


def named(varied: str, value: float) -> str:
    """A value of what is varied, such as "learning rate 0.1"."""
    return f"{varied.replace('_', ' ')} {value:g}"


def common(results: Sequence[Result], key: str) -> str:
    """A setting that runs have in common, such as alpha; nothing where it is 0."""
    return f"{results[0][key]:.4g}" if results and results[0][key] else NOTHING
