"""The command line of a recipe."""

from __future__ import annotations

import argparse
import dataclasses
import functools
import sys
import textwrap
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

from experiment import INTERRUPTED, report, results
from experiment.backend import LOST_CONNECTION, choose_devices
from experiment.cost import cost, steps_per_epoch
from experiment.devices import KINDS, Devices
from experiment.errors import SettingsError
from experiment.recipe import Recipe
from experiment.running import check_folder, train_all
from experiment.setting import Run, Setting, flag
from experiment.side_by_side import train_side_by_side
from experiment.tuned import with_tuned

EPILOG = (
    "Defaults are those of --preset {preset}; a value that is given holds for every part that "
    "--only leaves. A finished or interrupted command can be started again: it goes on where it "
    "was. Parts, methods and seeds may be run on several machines, and `python tools/report.py` "
    "puts their folders together. A machine chooses among learning rates and alphas by its own "
    "first seed: to spread seeds, give one value of each."
)


RunAll = Callable[[Recipe, Mapping[str, Setting], Path, Devices], None]


def main(
    recipe: Recipe, arguments: Sequence[str] | None = None, run_all: RunAll = train_all
) -> None:
    """Runs a recipe as the command line says; `run_all` trains what is not finished."""
    try:
        settings, given = parse(recipe, arguments)
        if given.dry_run:
            print(cost(recipe, settings))
            return
        check_steps(recipe.all_runs(settings), given.distribute)
        if given.jobs > 1:
            run_all = _side_by_side(given, run_all)
        on = choose_devices(given.distribute)
        if on.is_chief:
            results.claim_folder(given.out, recipe.name)
        check_folder(recipe, settings, given.out)
        run_all(recipe, settings, given.out, on)
        if not on.is_chief:
            return
        print(report.write(recipe, [given.out], given.out))
    except (SettingsError, OSError, ImportError) as error:
        sys.exit(f"error: {error}")
    except LOST_CONNECTION:
        sys.exit(
            "error: lost the connection to another worker, which may have stopped. Start all of "
            "them again: they go on from the last checkpoint."
        )
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
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
    if given.distribute != KINDS[0] and given.steps_per_execution is None:
        given.steps_per_execution = 1
    _check_belongs(recipe, given)
    chosen = {part: _overridden(settings[part], given) for part in given.only}
    tuned = with_tuned(chosen, given.tuned)
    # What is given holds, also where a search has found another value.
    return {part: _overridden(setting, given) for part, setting in tuned.items()}, given


def _check_belongs(recipe: Recipe, given: argparse.Namespace) -> None:
    """Raises if a value is given that none of the chosen parts has."""
    fields_of = {
        part: {field.name for field in dataclasses.fields(setting)}
        for part, setting in recipe.presets[given.preset].items()
    }
    for name in sorted(set().union(*fields_of.values())):
        parts = [part for part, fields in fields_of.items() if name in fields]
        if getattr(given, name) is not None and not {*parts} & {*given.only}:
            raise SettingsError(
                f"`{flag(name)}` is an option of {', '.join(parts)} alone. "
                f"Received: --only {' '.join(given.only)}"
            )


def _side_by_side(given: argparse.Namespace, run_all: RunAll) -> RunAll:
    """What trains several runs at a time."""
    if run_all is not train_all or given.distribute != KINDS[0]:
        raise SettingsError(
            "`--jobs` must be 1 with --distribute, and in a search, whose runs other processes may "
            f"share (KERASTUNER_TUNER_ID). Received: {given.jobs}"
        )
    return functools.partial(train_side_by_side, jobs=given.jobs)


def _positive(text: str) -> int:
    if (number := int(text)) < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1. Received: {number}")
    return number


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
        "--distribute",
        choices=KINDS,
        default=KINDS[0],
        help="train each run on one device, on all of this machine, or on the machines of TF_CONFIG"
        f" (docs/distributed.md); default: {KINDS[0]}",
    )
    parser.add_argument(
        "--jobs",
        type=_positive,
        default=1,
        metavar="N",
        help="how many runs to train at a time, in processes that share the device; not with "
        "--distribute, nor in a search; default: 1",
    )
    parser.add_argument(
        "--only",
        "--setting",
        nargs="+",
        choices=settings,
        default=list(settings),
        metavar="PART",
        help=f"parts to run, of: {', '.join(settings)}",
    )
    parser.add_argument(
        "--tuned",
        nargs="+",
        type=Path,
        default=[],
        metavar="FOLDER",
        help="take learning rates and alphas from these finished searches (search.py)",
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


def check_steps(runs: Sequence[Run], distribute: str = KINDS[0]) -> None:
    """Raises where Keras would run on past an epoch, or past a step that is watched."""
    for run in runs:
        one_by_one = "batch_accuracy" in run.measures or distribute != KINDS[0]
        steps = 1 if one_by_one else steps_per_epoch(run)
        if steps % run.steps_per_execution:
            accepted = "be 1" if one_by_one else f"divide the {steps} steps of an epoch"
            raise SettingsError(
                f"`--steps-per-execution` must {accepted} in {run.name}. "
                f"Received: {run.steps_per_execution}"
            )
