"""The folders of recipes and runs: checks that runs may share one, and finished results."""

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
# Only these modules are imported, whatever a folder contains.
NAMES = tuple(sorted(path.stem for path in Path(__file__).parents[1].glob("*.py")))
BACKENDS = ("tensorflow", "jax", "torch")
# Fields that averaged runs have in common ...
IDENTITY = ["part", "noise", "noise_source", "method", "value"]
OF_A_SEED = ("seed", "data_seed", "initial")  # ... and those that may differ.
# The fields that a value may set: one of these differs between the values of a method.
SET_BY_VALUE = (
    *("alpha", "learning_rate", "mixup_beta", "batch_size"),
    *("label_smoothing", "gce_q", "elr", "radius"),
)
# Fields that all runs of a part have in common, except the epochs of continued runs.
OF_A_PART = (
    *("network", "width", "dataset", "num_train", "validation_size", "test_size", "augment"),
    *("optimizer", "weight_decay", "epochs", "drops", "drop_factor", "fisher_examples"),
    "steps_per_epoch",
)
Result = dict[str, Any]  # a finished run: its name, settings, versions, figures and seconds


# ---- The folder of a recipe ----------------------------------------------------------------------


def claim_folder(out: Path, recipe: str) -> None:
    """Creates the folder of a recipe's runs; raises if it belongs to another recipe."""
    out.mkdir(parents=True, exist_ok=True)
    if not (out / RECIPE).exists():
        write_json(out / RECIPE, {"recipe": recipe})
    elif (found := find_recipe(out)) != recipe:
        raise SettingsError(
            f"`--out` must be a new folder or one of {recipe}. Received: {out}, which holds {found}"
        )


def find_recipe(out: Path) -> str:
    """Returns the name of the recipe whose runs a folder or an archive contains."""
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
    """Raises unless planned runs are compatible with the runs in a recipe's folder.

    Raises:
        SettingsError: if a run there has another Keras backend, or other settings than a planned
            run of its name, or if a finished run is not comparable with the planned ones.
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
    """Creates the folder of a run; raises if it contains a run with other settings."""
    check_settings(folder, run)
    path = folder / "settings.json"
    if devices.is_chief and not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        content = {"run": to_json(run), "versions": list_versions(), "replicas": devices.replicas}
        write_json(path, content)


def check_settings(folder: Path, run: Run) -> None:
    """Raises if a folder contains a run with other settings."""
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
    """Describes how the fields of another run differ; empty if they are equal.

    Fields that the other run lacks have the default, as in an archive.
    """
    settings, found = to_json(run), to_json(get_run(found)) | dict(found)
    changed = sorted(k for k in {*found, *settings} if found.get(k) != settings.get(k))
    return ", ".join(f"{key} is {found.get(key)} there" for key in changed)


def to_json(run: Run) -> dict[str, Any]:
    """Returns the fields of a run, as they are stored in its folder."""
    return json.loads(json.dumps(dataclasses.asdict(run)))


def from_json(fields: Mapping[str, Any]) -> Run:
    """Creates a run from the result of `to_json`."""
    values: Any = {k: tuple(v) if isinstance(v, list) else v for k, v in fields.items()}
    return Run(**values)


def describe(run: Run) -> Result:
    """Returns the name, settings and versions of an unfinished run."""
    return {"name": run.name, **to_json(run)}


def list_versions() -> dict[str, str]:
    """Returns the installed version of each package that results depend on."""
    packages = ("keras-fisher", "keras", keras.backend.backend(), "numpy")
    return {package: importlib.metadata.version(package) for package in packages}


def find_backend(versions: Iterable[str]) -> str:
    """Returns the Keras backend among the given packages."""
    return next((name for name in BACKENDS if name in versions), "unknown")


# ---- Finished runs -------------------------------------------------------------------------------


def read(folders: Iterable[Path]) -> list[Result]:
    """Returns all finished runs in the folders and archives, sorted by name.

    Raises:
        SettingsError: if files are damaged, or as in `check_comparable`.
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
    """Returns a finished run: its name, settings, versions, figures and seconds.

    Raises:
        SettingsError: if its files have other content.
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
    """Raises a `ValueError` or similar unless `figures` are valid for the run."""
    lengths = {len(values) for values in figures["history"].values()}
    if lengths - {run.epochs}:
        found = ", ".join(map(str, sorted(lengths)))
        raise ValueError(f"figures of {found} epochs, where the settings have {run.epochs}")
    for key in ("validation_accuracy", "test_accuracy"):
        float(figures["best"][key])


def make_frame(runs: Sequence[Result]) -> pd.DataFrame:
    """Returns a row for each finished run, with the figures of most tables as columns."""
    frame = pd.DataFrame(runs)
    best, final = pd.DataFrame(list(frame["best"])), pd.DataFrame(list(frame["final"]))
    return frame.assign(
        validation_accuracy=best["validation_accuracy"],
        test_accuracy=best["test_accuracy"],  # at the best validation point, as in table 3
        final_test_accuracy=final["test_accuracy"],
        # Since the end of the first epoch (appendix A.2).
        max_fisher_trace=final.get("fisher_trace_peak", pd.Series(dtype=float)),
    )


def read_archive(path: Path) -> list[Result]:
    """Returns the finished runs of an archive.

    Raises:
        SettingsError: if the file has other content.
    """
    with name_damage(path):
        lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        for line in lines:
            check_figures(get_run(line), line)
        return [{**describe(get_run(line)), **line} for line in lines]


def get_run(result: Mapping[str, Any]) -> Run:
    """Returns the run of a result, with defaults for missing fields."""
    names = {field.name for field in dataclasses.fields(Run)}
    return from_json({key: value for key, value in result.items() if key in names})


# ---- Comparable runs -----------------------------------------------------------------------------


def check_comparable(runs: Iterable[Result]) -> None:
    """Raises if runs that a table averages or compares differ in undeclared settings.

    Raises:
        SettingsError: if runs of one part differ in data, network, epochs or similar settings, or
            runs of one method differ in more than their seeds and the fields that a value sets.
    """
    frame = pd.DataFrame(list(runs))
    if frame.empty:
        return
    settings = [field.name for field in dataclasses.fields(Run) if field.name not in OF_A_SEED]
    for _, group in frame.groupby(["part", frame["initial"] != ""]):
        check_same(group, OF_A_PART, "have the same task to be compared")
    for _, group in frame.groupby(IDENTITY):
        check_same(group, settings, "differ only in their seeds to be averaged")
    for _, group in frame.groupby(["part", "noise", "noise_source", "method"]):
        varied = next((name for name in SET_BY_VALUE if group[name].nunique() > 1), "value")
        others = [name for name in settings if name not in ("value", varied)]
        check_same(group, others, f"differ only in {varied} to be compared")


def check_same(runs: pd.DataFrame, settings: Iterable[str], must: str) -> None:
    """Raises unless runs agree in the given settings."""
    first = runs.iloc[0]
    for name in settings:
        for run, found in zip(runs["name"], runs[name], strict=True):
            if found != first[name]:
                raise SettingsError(
                    f"{first['name']} and {run} must {must}. {name} is {first[name]} and {found}. "
                    "Give them separate folders."
                )
