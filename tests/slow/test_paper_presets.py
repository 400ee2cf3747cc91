"""A few steps of every kind of run of every recipe's paper preset, on noise of the paper's size."""

import dataclasses
import importlib

import numpy as np
import pytest
from experiment.results.finished_runs import make_frame

import keras_fisher as kf
from tests.recipes.tiny import RECIPE_NAMES, trained

# Height and width of the images, and the number of classes.
SIZES = {
    "cifar10": (32, 10),
    "cifar100": (32, 100),
    "tiny_imagenet32": (32, 200),
    "imagenet2012": (224, 1000),
}
STEPS, BATCH, MEASURED = 3, 32, 8
# Of the arguments of what is measured.
FEW = {"num_examples": MEASURED, "num_probes": 2, "every_epochs": 1, "loss_threshold": 1e9}
# Runs of one kind take the same ways through the code: they differ in these fields alone, or in
# numbers that are 0 for none of them.
NAMING = ("method", "seed", "data_seed", "learning_rate", "value")
SWITCHES = ("alpha", "mixup_beta", "noise", "initial")


def noise(name, count):
    size, num_classes = SIZES[name]
    generator = np.random.default_rng(0)
    x = generator.normal(size=(count, size, size, 3)).astype("float32")
    return kf.data.Examples(x, generator.integers(0, num_classes, count).astype("int32"))


def load_arrays(name, *, validation_size=0, **_):
    """In the place of `kf.data.load_arrays`."""
    sizes = (STEPS * BATCH, validation_size, 2 * MEASURED)
    return kf.data.Splits(*(noise(name, size) for size in sizes), SIZES[name][1])


def load(name, *, batch_size, **_):
    """In the place of `kf.data.load`."""
    size, num_classes = SIZES[name]
    x, y = noise(name, STEPS * batch_size)
    train = kf.data.training_batches(x, y, batch_size=batch_size, seed=0)
    return kf.data.Pipelines(train, None, (x, y), num_classes, (size, size, 3), STEPS)


def shortened(run):
    """The run with a few steps on a few images."""
    return dataclasses.replace(
        run,
        num_train=0,
        batch_size=min(run.batch_size, BATCH),
        penalty_batch_size=min(run.penalty_batch_size, BATCH),
        validation_size=min(run.validation_size, 2 * MEASURED),
        epochs=2,
        steps_per_epoch=STEPS,
        drops=(1,),
        penalty_from=min(run.penalty_from, 1),
        update_freq=min(run.update_freq, 2),
        monitored=min(run.monitored, 8 * MEASURED),
        gradient_batches=min(run.gradient_batches, 1),
        fisher_examples=MEASURED,
        **{name: fewer(getattr(run, name)) for name in ("measures", "at_start", "at_best")},
    )


def fewer(measures):
    """Measures on few examples, with few probes, and in each epoch if not more often."""
    return {
        key: {name: FEW.get(name, value) for name, value in arguments.items()}
        for key, arguments in measures.items()
    }


def kinds(recipe):
    """A short run of each kind, after the one that it begins with."""
    short = {run.name: shortened(run) for run in recipe.plan_all_runs(recipe.presets["paper"])}
    by_kind = {}
    for run in short.values():
        if run.seed == run.data_seed == 0 or run.initial:
            values = {name: value for name, value in vars(run).items() if name not in NAMING}
            kind = repr(values | {name: bool(values[name]) for name in SWITCHES})
            by_kind.setdefault(kind, run)
    kept = {name for run in by_kind.values() for name in (run.name, run.initial)}
    return [run for run in short.values() if run.name in kept]


@pytest.mark.slow
@pytest.mark.parametrize("name", RECIPE_NAMES)
def test_every_kind_of_run_trains_and_is_reported(name, tmp_path, monkeypatch):
    monkeypatch.setattr(kf.data, "load_arrays", load_arrays)
    monkeypatch.setattr(kf.data, "load", load)
    recipe = importlib.import_module(name).RECIPE
    results = []
    for run in kinds(recipe):
        known = {"name": run.name, "versions": {}, "seconds": 1.0, **vars(run)}
        results.append(known | trained(run, tmp_path))
    assert recipe.table(make_frame(results)).startswith("|")
    recipe.figure(make_frame(results), tmp_path / "figure.png")
    assert (tmp_path / "figure.png").exists()
