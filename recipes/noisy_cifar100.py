"""Section 4.1: the Fisher penalty keeps a network from memorising wrong labels.

Trains on labels of which 25% or 50% were replaced by uniform ones, with no regularisation, mixup
and the penalties GP_x, FP and GP_r, and compares test accuracies (table 3) and how clean and wrong
labels are learnt (figures 5 and 9). `--preset demo` uses scikit-learn's digits and takes about two
minutes on two cores; `small` is cut from CIFAR-100 to three quarters of an hour or more for one
seed; `paper` is the paper's own size, for a GPU.

Where the paper is silent: validation labels stay clean, there is no augmentation (as in table 1),
and the learning rate is 0.01. Networks without batch normalisation use SkipInit.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import experiment
import keras
import noisy_report
from experiment import SettingsError, setting
from keras import layers
from tqdm import tqdm

import keras_fisher as kf

DATASETS = ("digits", "cifar10", "cifar100")
METHODS = ("baseline", "mixup", "gp_x", "fp", "gp_r")
# Each network with the epochs at which appendix G.2 divides its learning rate by 10.
NETWORKS = {
    "mlp": (150, 225),
    "simple_cnn": (150, 225),
    "vgg11": (80, 120, 160, 200, 240, 280),
    "wide_resnet": (150, 225),
    "resnet50": (150, 225),
}


@dataclasses.dataclass(frozen=True)
class Settings:
    """All that a command can change. The first group spans the grid of runs."""

    networks: tuple[str, ...] = setting("networks to train", tuple(NETWORKS))
    noise: tuple[float, ...] = setting("fractions of labels to replace by uniform draws")
    methods: tuple[str, ...] = setting("methods to compare", METHODS)
    mixup: tuple[float, ...] = setting("mixup's beta, each a run of its own")
    gp_x: tuple[float, ...] = setting("alpha of GP_x")
    fp: tuple[float, ...] = setting("alpha of FP")
    gp_r: tuple[float, ...] = setting("alpha of GP_r")
    seeds: tuple[int, ...] = setting("seeds of data, noise, weights and drawn labels")

    dataset: str = setting("data set", DATASETS)
    num_train: int = setting("training examples to keep; 0 for all")
    validation_size: int = setting("training examples to hold out")
    width: int = setting("units or filters of the first layer; 0 for the network's own")
    epochs: int = setting("passes over the training examples")
    batch_size: int = setting("examples in a mini-batch")
    learning_rate: float = setting("learning rate of SGD with momentum 0.9")
    drops: tuple[int, ...] = setting(
        "epochs at which the learning rate is divided by 10; none for the paper's own"
    )
    update_freq: int = setting("steps from one recomputation of the penalty to the next")
    steps_per_execution: int = setting("steps that run at a time; saves overhead on small networks")
    augment: bool = setting("flip and crop the training images")
    monitored: int = setting("training examples on which clean and wrong labels are followed")
    gradient_batches: int = setting("mini-batches for each measurement of a gradient norm")

    def __post_init__(self) -> None:
        for name in ("networks", "noise", "methods", "seeds", *self.methods):
            if name != "baseline" and not getattr(self, name):
                raise SettingsError(f"`--{name}` must list at least one value. Received: none")
        if not all(0 < fraction < 1 for fraction in self.noise):
            raise SettingsError(f"`--noise` must lie between 0 and 1. Received: {self.noise}")
        for name in ("epochs", "batch_size", "steps_per_execution"):
            if getattr(self, name) < 1:
                flag = name.replace("_", "-")
                given = getattr(self, name)
                raise SettingsError(f"`--{flag}` must be at least 1. Received: {given}")
        for name in METHODS[1:]:
            if any(not 0 <= value < math.inf for value in getattr(self, name)):
                flag = name.replace("_", "-")
                given = getattr(self, name)
                raise SettingsError(f"`--{flag}` must be at least 0 and finite. Received: {given}")


GRID = ("networks", "noise", "methods", "mixup", "gp_x", "fp", "gp_r", "seeds")

PAPER = Settings(
    networks=("vgg11", "wide_resnet"),
    noise=(0.25, 0.5),
    methods=METHODS,
    # The ranges of appendix G.3.
    mixup=(0.4, 0.8, 1.6, 3.2, 6.4),
    gp_x=(10.0, 30.0, 100.0, 300.0, 1000.0),
    fp=(0.01, 0.1, 0.31, 10.0),
    gp_r=(0.01, 0.1, 0.31, 10.0),
    seeds=(0,),
    dataset="cifar100",
    num_train=0,
    validation_size=5000,
    width=0,
    epochs=300,
    batch_size=128,
    learning_rate=0.01,
    drops=(),
    update_freq=10,
    steps_per_execution=1,
    augment=False,
    monitored=5000,
    gradient_batches=10,
)
PRESETS = {
    "demo": dataclasses.replace(
        PAPER,
        networks=("mlp",),
        noise=(0.5,),
        mixup=(1.6,),
        gp_x=(10.0,),
        fp=(0.3,),
        gp_r=(0.1,),
        seeds=(0, 1, 2),
        dataset="digits",
        validation_size=180,
        width=256,
        epochs=45,
        batch_size=32,
        learning_rate=0.015,
        drops=(36,),
        steps_per_execution=34,
        monitored=2000,
        gradient_batches=5,
    ),
    "small": dataclasses.replace(
        PAPER,
        networks=("simple_cnn",),
        mixup=(1.6,),
        gp_x=(100.0,),
        fp=(0.03,),
        gp_r=(0.03,),
        num_train=10000,
        validation_size=2000,
        width=16,
        epochs=35,
        drops=(28,),
        monitored=2000,
        gradient_batches=2,
    ),
    "paper": PAPER,
}


@dataclasses.dataclass(frozen=True)
class Run:
    """One training of the grid."""

    network: str
    noise: float
    method: str
    value: float
    seed: int

    @property
    def name(self) -> str:
        value = "" if self.method == "baseline" else f"-{self.value:g}"
        return f"{self.network}-noise{100 * self.noise:g}-{self.method}{value}-seed{self.seed}"


def grid(settings: Settings) -> list[Run]:
    """All runs that the settings span, seed by seed."""
    return [
        Run(network, noise, method, value, seed)
        for seed, network, noise, method in itertools.product(
            settings.seeds, settings.networks, settings.noise, settings.methods
        )
        for value in ((0.0,) if method == "baseline" else getattr(settings, method))
    ]


def build_network(name: str, shape: Any, num_classes: int, width: int, seed: int) -> keras.Model:
    """A backbone that returns logits."""
    options = {"width": width} if width else {}
    if name == "mlp":
        hidden = [layers.Dense(width or 256, activation="relu") for _ in range(2)]
        return keras.Sequential(
            [keras.Input(shape), layers.Flatten(), *hidden, layers.Dense(num_classes)]
        )
    if name == "resnet50":
        return kf.zoo.wide_resnet(
            shape, num_classes, depth=50, width=width or 1, batch_norm=False, seed=seed
        )
    if name == "wide_resnet":  # without batch normalisation, under SkipInit (appendix G.2)
        options["batch_norm"] = False
    return getattr(kf.zoo, name)(shape, num_classes, **options, seed=seed)


def build_model(run: Run, settings: Settings, data: kf.data.Splits) -> kf.FisherPenaltyModel:
    """The compiled model of a run; baseline and mixup have alpha 0, which is plain training."""
    keras.utils.set_random_seed(run.seed)
    shape = data.train.x.shape[1:]
    backbone = build_network(run.network, shape, data.num_classes, settings.width, run.seed)
    penalised = run.method in kf.penalties.PENALTIES
    model = kf.FisherPenaltyModel(
        backbone,
        alpha=run.value if penalised else 0.0,
        penalty=run.method if penalised else "fp",
        update_freq=settings.update_freq,
        seed=run.seed,
    )
    losses = keras.losses
    loss = losses.SparseCategoricalCrossentropy(from_logits=True)
    if run.method == "mixup":
        loss = losses.CategoricalCrossentropy(from_logits=True)
    optimizer = keras.optimizers.SGD(settings.learning_rate, momentum=0.9)
    model.compile(
        optimizer, loss, metrics=["accuracy"], steps_per_execution=settings.steps_per_execution
    )
    optimizer.build(model.trainable_variables)
    return model


def learning_rate_drops(run: Run, settings: Settings) -> keras.callbacks.Callback:
    """Divides the learning rate by 10 at each of the epochs in `drops`."""
    drops = settings.drops or NETWORKS[run.network]
    return keras.callbacks.LearningRateScheduler(
        lambda epoch: settings.learning_rate * 0.1 ** sum(epoch >= drop for drop in drops)
    )


def run_one(run: Run, settings: Settings, folder: Path, data: kf.data.Splits, bar: tqdm) -> None:
    """Trains one run to its end and leaves its results in the folder."""
    y, _ = kf.data.uniform_label_noise(data.train.y, run.noise, data.num_classes, run.seed)
    is_wrong = y != data.train.y
    some = slice(0, settings.monitored)
    monitor = kf.callbacks.LabelNoiseMonitor(
        data.train.x[some],
        y[some],
        is_wrong[some],
        batch_size=settings.batch_size,
        gradient_batches=settings.gradient_batches,
    )
    bar.set_description(run.name)
    experiment.train(
        build_model(run, settings, data),
        data,
        y,
        folder,
        bar,
        [learning_rate_drops(run, settings), monitor],
        epochs=settings.epochs,
        batch_size=settings.batch_size,
        seed=run.seed,
        augment="flip_and_crop" if settings.augment else None,
        mixup_beta=run.value if run.method == "mixup" else None,
    )


def run_all(settings: Settings, out: Path) -> None:
    """Trains all runs that are not finished, under one progress bar."""
    runs = grid(settings)
    with tqdm(total=len(runs) * settings.epochs, unit="epoch", dynamic_ncols=True) as bar:
        for seed, of_seed in itertools.groupby(runs, key=lambda run: run.seed):
            data = None
            for run in of_seed:
                folder = out / run.name
                experiment.claim_folder(folder, fixed_settings(settings) | dataclasses.asdict(run))
                if (folder / "results.json").exists():
                    bar.update(settings.epochs)
                    continue
                if data is None:
                    data = load(settings, seed)
                started = time.monotonic()
                run_one(run, settings, folder, data, bar)
                write_time(folder, time.monotonic() - started)


def write_time(folder: Path, seconds: float) -> None:
    """Leaves the time that the last start of the run took, apart from its results."""
    experiment.write_json(folder / "time.json", {"seconds": round(seconds, 1)})


def load(settings: Settings, seed: int) -> kf.data.Splits:
    """The data set of one seed: what is held out and kept depends on it."""
    try:
        data = kf.data.load_arrays(
            settings.dataset,
            validation_size=settings.validation_size,
            num_train=settings.num_train or None,
            seed=seed,
        )
    except ValueError as error:
        raise SettingsError(str(error)) from error
    if settings.batch_size > len(data.train.y):
        raise SettingsError(
            f"`--batch-size` must be at most the number of training examples, {len(data.train.y)}. "
            f"Received: {settings.batch_size}"
        )
    return data


def fixed_settings(settings: Settings) -> dict[str, Any]:
    """What all runs in one folder have in common."""
    return {k: v for k, v in dataclasses.asdict(settings).items() if k not in GRID}


def collect(out: Path) -> list[dict[str, Any]]:
    """The settings and results of all finished runs in a folder."""
    found = []
    for path in sorted(out.glob("*/results.json")):
        run = json.loads((path.parent / "settings.json").read_text())
        found.append({"name": path.parent.name, **run, **json.loads(path.read_text())})
    return found


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command line."""
    description = (__doc__ or "").split("\n\n")[1]
    try:
        settings, out = experiment.parse_settings(PRESETS, "noisy_cifar100", description, arguments)
        experiment.claim_folder(out, fixed_settings(settings))
        run_all(settings, out)
    except (SettingsError, OSError, ImportError) as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit("\nInterrupted. The same command goes on from here.")
    results = collect(out)
    experiment.write_json(
        out / "results.json",
        {"settings": fixed_settings(settings), "versions": experiment.versions(), "runs": results},
    )
    table = noisy_report.table(results)
    experiment.write_text(out / "table.md", table)
    noisy_report.figure(results, out / "figure.png")
    print(f"\n{table}\nIn {out}: results.json, table.md, figure.png.")
    print(f"Curves: tensorboard --logdir {out}")


if __name__ == "__main__":
    main()
