"""The folders of recipes and runs: who may use one, and why it is refused."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import keras

from experiment.devices import Devices
from experiment.errors import SettingsError
from experiment.files import name_damage, read_json, write_json
from experiment.plan.setting import Run, describe, get_run, to_json
from experiment.results.comparison import check_comparable
from experiment.results.finished_runs import ARCHIVE, read

RECIPE = "recipe.json"
# Only these modules are imported, whatever a folder contains.
NAMES = tuple(sorted(path.stem for path in Path(__file__).parents[1].glob("*.py")))
BACKENDS = ("tensorflow", "jax", "torch")


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


def list_versions() -> dict[str, str]:
    """Returns the installed version of each package that results depend on."""
    packages = ("keras-fisher", "keras", keras.backend.backend(), "numpy")
    return {package: importlib.metadata.version(package) for package in packages}


def find_backend(versions: Iterable[str]) -> str:
    """Returns the Keras backend among the given packages."""
    return next((name for name in BACKENDS if name in versions), "unknown")
