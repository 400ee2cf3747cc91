"""Does the paper preset of every recipe train?

    python tools/check_recipes.py
    python tools/check_recipes.py noisy_cifar100 large_batch

Builds each kind of run at the paper's size (network, classes, size of the images, penalty,
measurements) and trains a few steps of it, then draws the recipe's table and figure. Kinds differ
by more than numbers such as alpha. The images are noise, so that no data set is needed, and few:
mini-batches have at most 32, and Tr(F) and Tr(H) are taken on 8.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib
import sys
import tempfile
import time
import traceback
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "recipes"))

from experiment import data, training
from experiment.devices import Devices
from experiment.progress import Progress
from experiment.recipe import Recipe
from experiment.results import read
from experiment.running import claim
from experiment.setting import Run

from keras_fisher.data import Examples, Splits

RECIPES = Path(__file__).parents[1] / "recipes"
# Height and width of the images, and the number of classes.
SIZES = {
    "cifar10": (32, 10),
    "cifar100": (32, 100),
    "tiny_imagenet32": (32, 200),
    "imagenet2012": (224, 1000),
}
STEPS = 3
BATCH_SIZE = 32  # at most
MEASURED = 8  # examples of which Tr(F) and Tr(H) are taken
NAMES = ("method", "seed", "data_seed", "learning_rate", "value")  # no matter to the kind
SWITCHES = ("alpha", "mixup_beta", "noise", "initial")  # matter as far as they are 0


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command line."""
    description, _, usage = (__doc__ or "").partition("\n\n")
    parser = argparse.ArgumentParser(
        description=description, epilog=usage, formatter_class=argparse.RawTextHelpFormatter
    )
    names = sorted(path.stem for path in RECIPES.glob("*.py"))
    parser.add_argument("recipes", nargs="*", metavar="recipe", help=f"of: {', '.join(names)}")
    given = parser.parse_args(arguments)
    if unknown := sorted({*given.recipes} - {*names}):
        parser.error(f"`recipe` must be one of {', '.join(names)}. Received: {unknown}")
    training.load = data.ArrayData
    failed = [name for name in given.recipes or names if not check(name)]
    if failed:
        sys.exit(f"error: these recipes failed: {', '.join(failed)}")


def check(name: str) -> bool:
    """Trains each kind of run of a recipe; prints and returns whether all went well."""
    recipe = importlib.import_module(name).RECIPE
    started = time.monotonic()
    try:
        with tempfile.TemporaryDirectory() as out:
            runs = kinds(recipe)
            train(runs, Path(out))
            found = read([Path(out)])
            recipe.table(found)
            recipe.figure(found, Path(out) / "figure.png")
    except Exception:
        traceback.print_exc()
        print(f"{name}: FAILED")
        return False
    print(f"{name}: {len(runs)} kinds of runs ok, {time.monotonic() - started:.0f} s", flush=True)
    return True


def kinds(recipe: Recipe) -> list[Run]:
    """One short run of each kind of the paper preset, and those that it begins with."""
    shorts = {run.name: short(run) for run in recipe.all_runs(recipe.presets["paper"])}
    by_kind: dict[str, Run] = {}
    for run in shorts.values():
        if run.seed == run.data_seed == 0 or run.initial:
            by_kind.setdefault(kind(run), run)
    kept = {run.name for run in by_kind.values()} | {run.initial for run in by_kind.values()}
    return [run for run in shorts.values() if run.name in kept]


def kind(run: Run) -> str:
    """What two runs share that take the same ways through the code."""
    values = {name: value for name, value in vars(run).items() if name not in NAMES}
    return repr(values | {name: bool(values[name]) for name in SWITCHES})


def short(run: Run) -> Run:
    """The run with a few steps on a few images."""
    return dataclasses.replace(
        run,
        num_train=0,
        batch_size=min(run.batch_size, BATCH_SIZE),
        penalty_batch_size=min(run.penalty_batch_size, BATCH_SIZE),
        validation_size=min(run.validation_size, 2 * MEASURED),
        epochs=2,
        steps_per_epoch=STEPS,
        drops=(1,),
        penalty_from=min(run.penalty_from, 1),
        update_freq=min(run.update_freq, 2),
        monitored=min(run.monitored, 8 * MEASURED),
        gradient_batches=min(run.gradient_batches, 1),
        fisher_examples=MEASURED,
        measures=_fewer(run.measures),
        at_start=_fewer(run.at_start),
        at_best=_fewer(run.at_best),
    )


def _fewer(measures: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Measures on few examples, with few probes, and in each epoch if not more often."""
    few = {"num_examples": MEASURED, "num_probes": 2, "every_epochs": 1, "loss_threshold": 1e9}
    return {
        key: {name: few.get(name, value) for name, value in arguments.items()}
        for key, arguments in measures.items()
    }


def train(runs: Iterable[Run], out: Path) -> None:
    """Trains the runs on images of noise."""
    runs = list(runs)
    with Progress(runs) as progress:
        for number, run in enumerate(runs, start=1):
            data._read = noise_images(run)
            progress.begin(run, number)
            claim(out / run.name, run, Devices())
            training.train(run, out, progress, Devices())


def noise_images(run: Run) -> Any:
    """What reads a data set of noise that is large enough for the run."""
    size, num_classes = SIZES[run.dataset]
    generator = np.random.default_rng(0)

    def examples(count: int) -> Examples:
        x = generator.normal(size=(count, size, size, 3)).astype("float32")
        return Examples(x, generator.integers(0, num_classes, count).astype("int32"))

    train, rest = examples(max(STEPS * run.batch_size, run.monitored)), examples(2 * MEASURED)
    splits = Splits(train, examples(run.validation_size), rest, num_classes)
    return lambda *_: splits


if __name__ == "__main__":
    main()
