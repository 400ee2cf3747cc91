"""The folders of recipes and their runs: which runs may share one, and what finished runs hold."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import pandas as pd

from experiment.devices import Devices
from experiment.errors import SettingsError
from experiment.files import name_damage, read_json, write_json
from experiment.setting import Run

RECIPE = "recipe.json"
ARCHIVE = ".jsonl"  # written by `archive.py`
# Whatever a folder says, no other module is imported.
NAMES = tuple(sorted(path.stem for path in Path(__file__).parents[1].glob("*.py")))
BACKENDS = ("tensorflow", "jax")
# What runs have in common that are averaged ...
IDENTITY = ["part", "noise", "method", "value"]
OF_A_SEED = ("seed", "data_seed", "initial")  # ... and what may differ.
# What a value sets: one of these differs between the values of a method.
SET_BY_VALUE = ("alpha", "learning_rate", "mixup_beta", "batch_size")
# What all runs of a part have in common; those that begin with another have epochs of their own.
OF_A_PART = (
    *("network", "width", "dataset", "num_train", "validation_size", "test_size", "augment"),
    *("weight_decay", "epochs", "drops", "drop_factor", "fisher_examples", "steps_per_epoch"),
)
Result = dict[str, Any]  # a finished run: its name, settings and versions, figures and seconds


# ---- The folder of a recipe ----------------------------------------------------------------------


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
    """The name of the recipe that a folder or an archive holds runs of."""
    if out.suffix == ARCHIVE and out.stem in NAMES:
        return out.stem
    path = out / RECIPE
    if not path.exists():
        raise SettingsError(f"{out} holds no runs of a recipe: it has no {RECIPE}")
    name = read_json(path, "recipe")["recipe"]
    if name not in NAMES:
        raise SettingsError(f"{path} must name one of {', '.join(NAMES)}. Received: {name!r}")
    return name


def check_folder(planned: Sequence[Run], out: Path) -> None:
    """Raises unless planned runs may stand beside what is in a recipe's folder.

    Raises:
        SettingsError: if a run there is of another Keras backend or has other settings than a
            planned one of its name, or if a finished one is not comparable with those.
    """
    for path in out.glob("*/settings.json"):
        backend = find_backend(read_json(path, "run", "versions")["versions"])
        if backend != find_backend(list_versions()):
            raise SettingsError(
                f"`--out`: {out} holds runs of the Keras backend {backend}. Choose another folder "
                f"with --out, or set KERAS_BACKEND={backend}."
            )
    for run in planned:
        check_settings(out / run.name, run)
    finished = {run["name"]: run for run in read([out])}
    check_comparable((finished | {run.name: describe(run) for run in planned}).values())


# ---- The folder of a run -------------------------------------------------------------------------


def claim_run(folder: Path, run: Run, devices: Devices) -> None:
    """Makes the folder of a run, or raises if it holds one of other settings."""
    check_settings(folder, run)
    path = folder / "settings.json"
    if devices.is_chief and not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        content = {"run": to_json(run), "versions": list_versions(), "replicas": devices.replicas}
        write_json(path, content)


def check_settings(folder: Path, run: Run) -> None:
    """Raises if a folder holds a run of other settings."""
    path = folder / "settings.json"
    if not path.exists():
        return
    found = read_json(path, "run")["run"]
    with name_damage(path):
        changed = describe_changes(run, found)
    if changed:
        raise SettingsError(
            f"`--out`: {folder} holds a run of other settings ({changed}). "
            "Choose another folder with --out, or give the same settings."
        )


def describe_changes(run: Run, found: Mapping[str, Any]) -> str:
    """How the fields of another run differ from those of a run; nothing if they are equal."""
    settings = to_json(run)
    changed = sorted(k for k in {*found, *settings} if found.get(k) != settings.get(k))
    return ", ".join(f"{key} is {found.get(key)} there" for key in changed)


def to_json(run: Run) -> dict[str, Any]:
    """The fields of a run, as they are read from its folder."""
    return json.loads(json.dumps(dataclasses.asdict(run)))


def from_json(fields: Mapping[str, Any]) -> Run:
    """The run with the fields that `to_json` gave."""
    values: Any = {k: tuple(v) if isinstance(v, list) else v for k, v in fields.items()}
    return Run(**values)


def describe(run: Run) -> Result:
    """A run that is not finished."""
    return {"name": run.name, **to_json(run)}


def list_versions() -> dict[str, str]:
    """The installed version of each package that results depend on."""
    packages = ("keras-fisher", "keras", keras.backend.backend(), "numpy")
    return {package: importlib.metadata.version(package) for package in packages}


def find_backend(versions: Iterable[str]) -> str:
    """The Keras backend among some packages."""
    return next((name for name in BACKENDS if name in versions), "unknown")


# ---- Finished runs -------------------------------------------------------------------------------


def read(folders: Iterable[Path]) -> list[Result]:
    """All finished runs in some folders and archives, in the order of their names.

    Raises:
        SettingsError: if files are damaged, or as `check_comparable`.
    """
    runs: list[Result] = []
    for out in folders:
        if out.suffix == ARCHIVE:
            runs += read_archive(out)
        else:
            runs += [read_run(path.parent) for path in out.glob("*/results.json")]
    runs.sort(key=lambda run: run["name"])
    check_comparable(runs)
    return list({run["name"]: run for run in runs}.values())


def read_run(folder: Path) -> Result:
    """A finished run: its name, settings and versions, its figures, and the seconds it took.

    Raises:
        SettingsError: if its files hold something else.
    """
    path = folder / "settings.json"
    settings = read_json(path, "run", "versions")
    with name_damage(path):
        run = from_json(settings["run"])
    path = folder / "results.json"
    figures = read_json(path, "history", "best", "final")
    with name_damage(path):
        check_figures(run, figures)
    seconds = read_json(folder / "time.json", "seconds")
    return {**describe(run), "versions": settings["versions"], **figures, **seconds}


def check_figures(run: Run, figures: Mapping[str, Any]) -> None:
    """Raises a `ValueError` or the like unless these may be the figures of a run."""
    lengths = {len(values) for values in figures["history"].values()}
    if lengths - {run.epochs}:
        found = ", ".join(map(str, sorted(lengths)))
        raise ValueError(f"figures of {found} epochs, where the settings have {run.epochs}")
    for key in ("validation_accuracy", "test_accuracy"):
        float(figures["best"][key])


def make_frame(runs: Sequence[Result]) -> pd.DataFrame:
    """A row for each finished run, with the figures that most tables show as columns."""
    frame = pd.DataFrame(runs)
    best, final = pd.DataFrame(list(frame["best"])), pd.DataFrame(list(frame["final"]))
    return frame.assign(
        validation_accuracy=best["validation_accuracy"],
        test_accuracy=best["test_accuracy"],  # at the best validation point, as in table 3
        final_test_accuracy=final["test_accuracy"],
        # From the end of the first epoch on (appendix A.2).
        max_fisher_trace=final.get("fisher_trace_peak", pd.Series(dtype=float)),
    )


def read_archive(path: Path) -> list[Result]:
    """The finished runs of an archive.

    Raises:
        SettingsError: if the file holds something else.
    """
    with name_damage(path):
        lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        for line in lines:
            check_figures(get_run(line), line)
        return [{**describe(get_run(line)), **line} for line in lines]


def get_run(result: Result) -> Run:
    """The run that a result is of; what it does not say has the default."""
    names = {field.name for field in dataclasses.fields(Run)}
    return from_json({key: value for key, value in result.items() if key in names})


# ---- What may be compared ------------------------------------------------------------------------


def check_comparable(runs: Iterable[Result]) -> None:
    """Raises if runs that a table averages or compares have other settings than it says.

    Raises:
        SettingsError: if runs of one part differ in their data, network, epochs or the like, or
            those of one method in more than seeds and what their values set.
    """
    frame = pd.DataFrame(list(runs))
    if frame.empty:
        return
    settings = [field.name for field in dataclasses.fields(Run) if field.name not in OF_A_SEED]
    for _, group in frame.groupby(["part", frame["initial"] != ""]):
        check_same(group, OF_A_PART, "have the same task to be compared")
    for _, group in frame.groupby(IDENTITY):
        check_same(group, settings, "differ in their seeds alone to be averaged")
    for _, group in frame.groupby(["part", "noise", "method"]):
        varied = next((name for name in SET_BY_VALUE if group[name].nunique() > 1), "value")
        others = [name for name in settings if name not in ("value", varied)]
        check_same(group, others, f"differ in {varied} alone to be compared")


def check_same(runs: pd.DataFrame, settings: Iterable[str], must: str) -> None:
    """Raises unless runs agree in these settings."""
    first = runs.iloc[0]
    for name in settings:
        for run, found in zip(runs["name"], runs[name], strict=True):
            if found != first[name]:
                raise SettingsError(
                    f"{first['name']} and {run} must {must}. {name} is {first[name]} and {found}. "
                    "Give them folders of their own."
                )
