"""The command line of a recipe."""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

from experiment import report, results
from experiment.cost import cost, steps_per_epoch
from experiment.errors import SettingsError
from experiment.files import write_json
from experiment.progress import Progress
from experiment.recipe import Recipe, Result, as_result
from experiment.setting import Run, Setting, flag
from experiment.training import train
from experiment.versions import versions

EPILOG = (
    "Defaults are those of --preset {preset}; a value that is given holds for every part that "
    "--only leaves. A finished or interrupted command can be started again: it goes on where it "
    "was. Parts, methods and seeds may be run on several machines, and `python tools/report.py` "
    "puts their folders together. A machine chooses among learning rates and alphas by its own "
    "first seed: to spread seeds, give one value of each."
)


def main(recipe: Recipe, arguments: Sequence[str] | None = None) -> None:
    """Runs a recipe as the command line says."""
    try:
        settings, given = parse(recipe, arguments)
        if given.dry_run:
            print(cost(recipe, settings))
            return
        check_steps(recipe.all_runs(settings))
        results.claim_folder(given.out, recipe.name)
        run_all(recipe, settings, given.out)
        print(report.write(recipe, [given.out], given.out))
    except (SettingsError, OSError, ImportError) as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit("\nInterrupted. The same command goes on from here.")
    print(f"Curves: tensorboard --logdir {given.out}")


# ---- What to run -----------------------------------------------------------------------------


def parse(
    recipe: Recipe, arguments: Sequence[str] | None
) -> tuple[dict[str, Setting], argparse.Namespace]:
    """The settings of the chosen parts of the preset, with what the command line overrides."""
    preset = _first_look(recipe).parse_known_args(arguments)[0].preset
    settings = recipe.presets[preset]
    given = _parser(recipe, preset).parse_args(arguments)
    given.out = given.out or Path("runs") / recipe.name / preset
    return {part: _overridden(settings[part], given) for part in given.only}, given


def _overridden(setting: Setting, given: argparse.Namespace) -> Setting:
    """A setting with those of its values that were given."""
    values: dict[str, Any] = {
        field.name: tuple(value) if isinstance(value, list) else value
        for field in dataclasses.fields(setting)
        if (value := getattr(given, field.name)) is not None
    }
    return dataclasses.replace(setting, **values)


def _first_look(recipe: Recipe) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--preset", choices=recipe.presets, default="demo")
    return parser


def _parser(recipe: Recipe, preset: str) -> argparse.ArgumentParser:
    settings = recipe.presets[preset]
    parser = argparse.ArgumentParser(
        prog=f"{recipe.name}.py",
        description=recipe.description,
        epilog=textwrap.fill(EPILOG.format(preset=preset), 100),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        parents=[_first_look(recipe)],
    )
    parser.add_argument("--out", type=Path, help=f"folder; default: runs/{recipe.name}/{preset}")
    parser.add_argument("--dry-run", action="store_true", help="only say what it would cost")
    parser.add_argument(
        "--only",
        nargs="+",
        choices=settings,
        default=list(settings),
        metavar="PART",
        help=f"parts to run, of: {', '.join(settings)}",
    )
    fields = {f.name: f for setting in settings.values() for f in dataclasses.fields(setting)}
    hints = {k: v for s in settings.values() for k, v in get_type_hints(type(s)).items()}
    for name, field in fields.items():
        values = {p: getattr(s, name) for p, s in settings.items() if hasattr(s, name)}
        choices = field.metadata["choices"] or None
        parser.add_argument(
            flag(name),
            **_reading(hints[name]),
            choices=choices,
            metavar=None if choices else name.upper(),
            help=f"{field.metadata['help']}; default: {_described(values)}".replace("%", "%%"),
        )
    return parser


def _reading(kind: Any) -> dict[str, Any]:
    """How argparse reads a value of a type, such as `int` or `tuple[int, ...]`."""
    if get_origin(kind) is tuple:
        return {"nargs": "*", "type": get_args(kind)[0]}
    return {"type": kind}


def _described(values: Mapping[str, Any]) -> str:
    """A default, or those of each part where they differ."""
    if len(set(values.values())) == 1:
        return _written(next(iter(values.values())))
    return ", ".join(f"{_written(value)} ({part})" for part, value in values.items())


def _written(value: Any) -> str:
    if isinstance(value, tuple):
        return " ".join(map(_written, value)) or "none"
    return f"{value:g}" if isinstance(value, float) else str(value)


def check_steps(runs: Sequence[Run]) -> None:
    """Raises where Keras would run on past an epoch, or past a step that is watched."""
    for run in runs:
        every_step = "batch_accuracy" in run.measures
        steps = 1 if every_step else steps_per_epoch(run)
        if steps % run.steps_per_execution:
            accepted = "be 1" if every_step else f"divide the {steps} steps of an epoch"
            raise SettingsError(
                f"`--steps-per-execution` must {accepted} in {run.name}. "
                f"Received: {run.steps_per_execution}"
            )


# ---- Running ---------------------------------------------------------------------------------


def run_all(recipe: Recipe, settings: Mapping[str, Setting], out: Path) -> None:
    """Trains all runs that are not finished."""
    finished: dict[str, Result] = {}
    with Progress(recipe.all_runs(settings)) as progress:
        while run := _next(recipe.runs(settings, finished), finished):
            progress.begin(run, len(finished) + 1)
            claim(out / run.name, run)
            if (out / run.name / "results.json").exists():
                progress.skip(run.epochs)
            else:
                train(run, out, progress)
            accuracy = results.validation_accuracy(results.read_one(out / run.name))
            finished[run.name] = as_result(run, accuracy)


def _next(runs: Sequence[Run], finished: Mapping[str, Result]) -> Run | None:
    return next((run for run in runs if run.name not in finished), None)


def claim(folder: Path, run: Run) -> None:
    """Makes the folder of a run, or raises if it holds one of other settings."""
    settings = json.loads(json.dumps(dataclasses.asdict(run)))
    path = folder / "settings.json"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        write_json(path, {"run": settings, "versions": versions()})
        return
    found = json.loads(path.read_text())["run"]
    changed = sorted(key for key in {*found, *settings} if found.get(key) != settings.get(key))
    if changed:
        differences = ", ".join(f"{key} is {found.get(key)} there" for key in changed)
        raise SettingsError(
            f"`--out`: {folder} holds a run of other settings ({differences}). "
            "Choose another folder with --out, or give the same settings."
        )
