"""The command line of a recipe."""

from __future__ import annotations

import dataclasses
import math
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import keras
import tyro

from experiment.devices import (
    CONNECTION_ERRORS,
    Devices,
    Distribution,
    choose_devices,
    keep_compiled,
    takes_single_steps,
)
from experiment.errors import SettingsError
from experiment.folders import check_folder, claim_folder
from experiment.plan.cost import count_steps, estimate_cost
from experiment.plan.recipe import Recipe
from experiment.plan.setting import UNIFORM, Run, Setting
from experiment.queue import start_helpers, train_all
from experiment.results import report
from experiment.results.archive import restore
from experiment.results.findings import apply_findings
from experiment.results.finished_runs import read
from experiment.run.data import HUMAN_LABELS, has_human_labels
from keras_fisher.data.human_labels import ANNOTATIONS

HELP = """{description}

Defaults below are those of {part}. The parts of --preset {preset} are {parts}; --only PART --help
shows the defaults of another part. A value that you give applies to every part that is run. Rerun
the command to resume an interrupted one. Start it several times, also on machines that share the
folder, to share the runs. `python tools/report.py` merges the folders of several machines. A
command chooses learning rates and alphas by its first seed: to spread seeds over folders, give one
value of each."""
INTERRUPTED = "\nInterrupted. The same command resumes the recipe."
Train = Callable[[Recipe, Mapping[str, Setting], Path, Devices, Sequence[Path]], None]


@dataclasses.dataclass(frozen=True)
class Command:
    """The options of a command: the runs and their folder."""

    preset: Literal["demo", "small", "paper"] = "demo"  # size of the experiment
    only: tuple[str, ...] = ()  # parts to run; none for all
    out: Path | None = None  # folder of the runs; by default runs/RECIPE/PRESET
    tuned: tuple[Path, ...] = ()
    """folders of finished searches (search.py) to take learning rates and alphas from"""
    finished: tuple[Path, ...] = ()
    """archives of finished runs (docs/results/data) to reuse instead of training them again"""
    distribute: Distribution = "one"
    """train each run on one device, on all of this machine, or on all machines"""
    jobs: int = 1
    """processes that share the runs and the device; 1 with --distribute, and in a search"""
    dry_run: Annotated[bool, tyro.conf.FlagCreatePairsOff] = (
        False  # only estimate the cost of unfinished runs
    )


def main(recipe: Recipe, arguments: Sequence[str] | None = None, train: Train = train_all) -> None:
    """Runs a recipe with the options of the command line; `train` trains its unfinished runs."""
    try:
        settings, command = parse(recipe, arguments)
        check_jobs(command, train)
        planned = recipe.plan_all_runs(settings)
        check_steps(planned, command.distribute)
        check_noise_sources(planned)
        check_methods(planned, command.distribute)
        out = command.out or Path("runs") / recipe.name / command.preset
        if command.dry_run:
            print(estimate_cost(recipe, settings, preview(recipe, settings, command.finished, out)))
            return
        devices = choose_devices(command.distribute)
        if devices.is_chief:
            claim_folder(out, recipe.name)
            restore_all(recipe, settings, command.finished, out)
        check_folder(recipe.plan_runs(settings, list_finished(recipe, out)), out)
        keep_compiled(out)
        with start_helpers(command.jobs - 1, recipe, settings, out, command.finished):
            train(recipe, settings, out, devices, command.finished)
        if not devices.is_chief:
            return
        print(report.write(recipe, [out], out))
    except (SettingsError, OSError, ImportError) as error:
        sys.exit(f"error: {error}")
    except CONNECTION_ERRORS:
        sys.exit(
            "error: lost the connection to another worker, which may have stopped. Start all of "
            "them again: they resume from the last checkpoint."
        )
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    print(f"Curves: tensorboard --logdir {out}")


def restore_all(
    recipe: Recipe, settings: Mapping[str, Setting], archives: Sequence[Path], out: Path
) -> None:
    """Restores a recipe's runs from archives, including those that depend on restored runs."""
    archived = read(archives)
    while archived and restore(
        recipe.plan_runs(settings, list_finished(recipe, out)), archived, out
    ):
        pass


def preview(
    recipe: Recipe, settings: Mapping[str, Setting], archives: Sequence[Path], out: Path
) -> dict[str, Any]:
    """Returns the scores of the runs that are finished in a folder or restorable, by name."""
    finished = list_finished(recipe, out)
    check_folder(recipe.plan_runs(settings, finished), out)
    with tempfile.TemporaryDirectory() as folder:
        restore_all(recipe, settings, archives, Path(folder))
        return list_finished(recipe, Path(folder)) | finished


def list_finished(recipe: Recipe, out: Path) -> dict[str, Any]:
    """Returns the scores of the finished runs in a folder, by name."""
    return {run["name"]: recipe.score(run) for run in read([out])}


def parse(recipe: Recipe, arguments: Sequence[str] | None) -> tuple[dict[str, Setting], Command]:
    """Returns the settings of the chosen parts, with the values from the command line."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    command, _ = tyro.cli(Command, args=arguments, add_help=False, return_unknown_args=True)
    parts = recipe.presets[command.preset]
    if not {*command.only} <= {*parts}:
        raise SettingsError(
            f"`--only` must list parts of --preset {command.preset}, of: {', '.join(parts)}. "
            f"Received: {' '.join(command.only)}"
        )
    chosen = {part: parts[part] for part in command.only or list_possible(parts)}
    if takes_single_steps(command.distribute):
        chosen = {k: dataclasses.replace(s, steps_per_execution=1) for k, s in chosen.items()}
    settings = override(recipe, command, chosen, arguments)
    # Values from the command line override values found by a search.
    found = apply_findings(settings, command.tuned)
    return override(recipe, command, found, arguments), command


def list_possible(parts: Mapping[str, Setting]) -> list[str]:
    """Returns the parts without those whose human labels are missing; names these once."""
    missing = [
        part
        for part, setting in parts.items()
        if getattr(setting, "noise_source", UNIFORM) != UNIFORM
        and not has_human_labels(setting.dataset)
    ]
    if missing:
        print(
            f"Skipped, as {HUMAN_LABELS} names no folder with human labels: {', '.join(missing)} "
            "(docs/data_and_networks.md says where to get them).",
            file=sys.stderr,
        )
    return [part for part in parts if part not in missing]


def override(
    recipe: Recipe, command: Command, settings: Mapping[str, Setting], arguments: Sequence[str]
) -> dict[str, Setting]:
    """Returns the settings with the values from the command line.

    Raises:
        SettingsError: if none of the settings has one of the options.
    """
    overridden, unknown = {}, {}
    for part, setting in settings.items():
        options: Any = dataclasses.make_dataclass(
            "Options", [("recipe", Command), ("setting", type(setting))]
        )
        given, unknown[part] = tyro.cli(
            options,
            config=[tyro.conf.OmitArgPrefixes],
            prog=f"{recipe.name}.py",
            description=HELP.format(
                description=recipe.description,
                part=part,
                preset=command.preset,
                parts=", ".join(recipe.presets[command.preset]),
            ),
            args=arguments,
            default=options(Command(), setting),
            return_unknown_args=True,
        )
        overridden[part] = given.setting
    first = next(iter(unknown.values()))
    if nowhere := [word for word in first if all(word in words for words in unknown.values())]:
        raise SettingsError(
            f"Unrecognized options of {', '.join(settings)}; --help lists what there is. "
            f"Received: {' '.join(nowhere)}"
        )
    return overridden


def check_jobs(command: Command, train: Train) -> None:
    """Raises if `jobs` is above 1 although processes cannot share the runs through locks."""
    if command.jobs < 1:
        raise SettingsError(f"`--jobs` must be at least 1. Received: {command.jobs}")
    if command.jobs > 1 and (train is not train_all or command.distribute != "one"):
        raise SettingsError(
            "`--jobs` must be 1 with --distribute, and in a search, whose runs other processes may "
            f"share (KERASTUNER_TUNER_ID). Received: {command.jobs}"
        )


def check_steps(runs: Sequence[Run], distribute: Distribution = "one") -> None:
    """Raises if an execution would extend beyond an epoch or a step that must be measured."""
    for run in runs:
        is_single = "batch_accuracy" in run.measures or takes_single_steps(distribute)
        frequencies = [options["freq"] for options in run.measures.values() if "freq" in options]
        steps = 1 if is_single else math.gcd(count_steps(run), *map(int, frequencies))
        if steps % run.steps_per_execution:
            accepted = "be 1" if steps == 1 else f"divide the {steps} steps of an epoch"
            raise SettingsError(
                f"`--steps-per-execution` must {accepted} in {run.name}. "
                f"Received: {run.steps_per_execution}"
            )


def check_methods(runs: Sequence[Run], distribute: Distribution) -> None:
    """Raises if replicas would each take a step of their own."""
    if distribute == "one" or keras.backend.backend() != "tensorflow":
        return
    refused = sorted({run.method for run in runs if run.elr or run.radius})
    if refused:
        raise SettingsError(
            "`--distribute` must be one for ELR, SAM, ASAM and GNP with TensorFlow, whose replicas "
            f"would each take a step on their own part. Received: {distribute}, and the methods "
            f"{', '.join(refused)}. `--methods` chooses others."
        )


def check_noise_sources(runs: Sequence[Run]) -> None:
    """Raises, before any training, if the data set of a run lacks its noise source."""
    for run in runs:
        human = [name for name in ANNOTATIONS.get(run.dataset, ()) if name != "clean"]
        if run.noise_source not in (UNIFORM, *human):
            raise SettingsError(
                f"`--noise-source` must be one of {', '.join((UNIFORM, *human))} in {run.part}, "
                f"which is trained on {run.dataset}. Received: {run.noise_source}. "
                "`--only` chooses parts."
            )
