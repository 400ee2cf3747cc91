"""Experiments as plain data: `Setting`, a part of an experiment, and `Run`, one training.

Every field of a setting is a command-line option, and its comment is the option's help.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import math
from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypeVar, get_type_hints

from experiment.errors import SettingsError

T = TypeVar("T")
Network = Literal[
    "mlp",
    "simple_cnn",
    "vgg11",
    "densenet",
    "wide_resnet",
    "wide_resnet_skipinit",
    "resnet50_skipinit",
    "resnet8",
    "resnet8_bn",
    "resnet26",
    "resnet56",
    "resnet18",
    "bert",
]
Dataset = Literal["digits", "cifar10", "cifar100", "tiny_imagenet32", "imagenet2012", "sentences"]
Augmentation = Literal["none", "flip", "flip_and_crop"]
Penalty = Literal["fp", "gp", "gp_x", "gp_r"]
Sharpness = Literal["sam", "asam", "gnp"]
NoiseSource = Literal["uniform", "aggregate", "random1", "random2", "random3", "worse", "fine"]
MEMORISED = 2000  # wrong labels to measure memorisation on
UNIFORM = "uniform"  # the noise source that draws labels; the others are people


@dataclasses.dataclass(frozen=True)
class Range:
    """The range of numbers that a field accepts; for a list, the range of each number."""

    least: float
    below: float = math.inf

    def check(self, name: str, value: Any) -> None:
        for number in value if isinstance(value, tuple) else (value,):
            if not self.least <= number < self.below:
                below = f" and below {self.below:g}" if self.below < math.inf else ""
                must = f"`{write_flag(name)}` must be at least {self.least:g}{below}"
                raise SettingsError(f"{must}. Received: {number}")


class Listing:
    """A constraint that a field's list is not empty."""

    def check(self, name: str, value: Any) -> None:
        if not value:
            raise SettingsError(
                f"`{write_flag(name)}` must list at least one value. Received: none"
            )


Count = Annotated[int, Range(1)]
Size = Annotated[int, Range(0)]
Amount = Annotated[float, Range(0)]
Fraction = Annotated[float, Range(0, 1)]
Seed = Annotated[int, Range(0, 2**32)]
Choices = Annotated[tuple[T, ...], Listing()]
Amounts = Annotated[tuple[float, ...], Listing(), Range(0)]
Positive = Annotated[float, Range(1e-9)]
Positives = Annotated[tuple[float, ...], Listing(), Range(1e-9)]
CountOrShare = Annotated[int | float, Range(0)]


@functools.cache
def list_limits(kind: Any) -> list[tuple[str, Any]]:
    """Returns the limits of a dataclass's fields, with the fields' names."""
    hints = get_type_hints(kind, include_extras=True)
    return [
        (name, limit) for name, hint in hints.items() for limit in getattr(hint, "__metadata__", ())
    ]


def write_flag(name: str) -> str:
    """Returns the command-line option of a field."""
    return f"--{name.replace('_', '-')}"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Task:
    """A network, its data, and its optimisation by SGD with momentum 0.9, or by Adam."""

    network: Network  # network to train
    width: Size = 0  # units, filters, growth or widening factor; 0 for the network's default
    dataset: Dataset  # data set
    num_train: Size = 0  # training examples to keep; 0 for all
    validation_size: Size = 5000  # training examples to hold out; 0 to validate on the test set
    test_size: Size = 0  # number of test examples to keep, from the first; 0 for all
    augment: Augmentation = "none"  # augmentation of the training images
    optimizer: Literal["sgd", "adam"] = "sgd"  # optimizer
    learning_rate: Amount  # learning rate
    batch_size: Count = 128  # examples in a mini-batch
    weight_decay: Amount = 0.0  # L2 in the loss: weight_decay/2 times the squared weights
    epochs: Count = 300  # passes over the training examples
    drops: Annotated[tuple[int, ...], Range(0)] = (150, 225)  # epochs at which the rate drops
    drop_factor: Amount = 0.1  # factor by which the rate is multiplied at each drop
    fisher_examples: Size = 0  # training examples to measure traces on; 0 for a mini-batch
    steps_per_epoch: Size = 0  # steps in an epoch; 0 for a pass over the training examples
    steps_per_execution: Count = 1  # steps per execution; more speed up small networks

    def __post_init__(self) -> None:
        for name, limit in list_limits(type(self)):  # type: ignore[arg-type]
            limit.check(name, getattr(self, name))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Setting(Task):
    """A part of an experiment: a task and its varied values, which subclasses add."""

    seeds: Annotated[tuple[int, ...], Listing(), Range(0, 2**32)] = (0,)  # random seeds

    def make_run(self, *, seed: int = 0, **changes: Any) -> Run:
        """Creates a run of this setting with the given changes."""
        task = {field.name: getattr(self, field.name) for field in dataclasses.fields(Task)}
        return Run(**{**task, "seed": seed, "data_seed": seed, **changes})


@dataclasses.dataclass(frozen=True, kw_only=True)
class PenaltySetting(Setting):
    """A setting that is trained with a penalty."""

    update_freq: Count = 10  # steps between two computations of the penalty's gradient
    penalty_batch_size: CountOrShare = 0
    """number or share of a mini-batch's examples to compute the penalty on; 0 for all"""

    def make_run(self, **changes: Any) -> Run:
        schedule = {
            "update_freq": self.update_freq,
            "penalty_batch_size": self.penalty_batch_size,
        }
        return super().make_run(**schedule | changes)


@dataclasses.dataclass(frozen=True, kw_only=True)
class VariedSetting(Setting):
    """A setting that varies the learning rate or the batch size."""

    varies: Literal["learning_rate", "batch_size"]  # hyperparameter to vary
    learning_rate: Amount = 0.02  # learning rate, if it is not varied

    def set_value(self, value: float) -> dict[str, Any]:
        """Returns the change to a run that sets the varied value."""
        return {self.varies: type(getattr(self, self.varies))(value)}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sweep(VariedSetting):
    """A setting that is trained with each of several learning rates or batch sizes."""

    values: Amounts  # learning rates or batch sizes to train with

    def make_runs(self, part: str, measures: Mapping[str, Mapping[str, Any]]) -> list[Run]:
        """Plans a run for each seed and value; the runs are independent."""
        shared = {"part": part, "method": self.varies, "measures": measures}
        return [
            self.make_run(**shared, value=value, seed=seed, **self.set_value(value))
            for seed in self.seeds
            for value in self.values
        ]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Run(Task):
    """One training, with all settings that affect its results.

    `part` names its setting, and `method` the group in which seeds are averaged. `value`, such as
    alpha, distinguishes it from other runs of its part and method.

    `measures`, `at_start` and `at_best` define the measurements during training, before training
    and with the weights of the best epoch: names in `CURVES`, `LOGGERS` or
    `FUNCTIONS` of `experiment.run.measures`, and their arguments.
    """

    part: str
    method: str
    value: Amount = 0.0
    seed: Seed = 0
    data_seed: Seed = 0  # determines the held-out, kept and wrongly labelled examples
    penalty: Penalty = "fp"
    alpha: Amount = 0.0
    update_freq: Count = 10
    penalty_batch_size: CountOrShare = 0  # 0: the mini-batch
    penalty_from: Size = 0  # the first epoch with the penalty
    max_penalty_ratio: Amount = 0.0  # 0: no limit
    noise: Fraction = 0.0
    noise_source: NoiseSource = "uniform"
    folds: Size = 0  # parts of the training examples, for cross-validation; 0 for none
    fold: Size = 0  # the part that is held out, counted from 1
    monitored: Size = 0  # training examples to monitor clean and wrong labels on
    gradient_batches: Size = 0  # mini-batches per group for gradient norms
    mixup_beta: Amount = 0.0
    label_smoothing: Fraction = 0.0
    gce_q: Fraction = 0.0  # q of the generalised cross-entropy; 0: cross-entropy
    elr: Amount = 0.0  # weight of early-learning regularisation
    sharpness: Sharpness = "sam"
    radius: Amount = 0.0  # of the ascent; 0: none
    initial: str = ""  # the run whose last weights are the initial weights
    measures: Mapping[str, Mapping[str, float | str]] = dataclasses.field(default_factory=dict)
    at_start: Mapping[str, Mapping[str, float | str]] = dataclasses.field(default_factory=dict)
    at_best: Mapping[str, Mapping[str, float | str]] = dataclasses.field(default_factory=dict)

    @property
    def name(self) -> str:
        """The name of the run's folder."""
        noise = f"-noise{100 * self.noise:g}" if self.noise else ""
        if self.noise_source != UNIFORM:
            noise = f"-{self.noise_source}"
        value = f"-{self.value:g}" if self.value else ""
        return f"{self.part}{noise}-{self.method}{value}-seed{self.seed}"


def to_json(run: Run) -> dict[str, Any]:
    """Returns the fields of a run, as they are stored in its folder."""
    return json.loads(json.dumps(dataclasses.asdict(run)))


def from_json(fields: Mapping[str, Any]) -> Run:
    """Creates a run from the result of `to_json`."""
    values: Any = {k: tuple(v) if isinstance(v, list) else v for k, v in fields.items()}
    return Run(**values)


def get_run(result: Mapping[str, Any]) -> Run:
    """Returns the run of a result, with defaults for missing fields."""
    names = {field.name for field in dataclasses.fields(Run)}
    return from_json({key: value for key, value in result.items() if key in names})


def describe(run: Run) -> dict[str, Any]:
    """Returns the name and the settings of a run."""
    return {"name": run.name, **to_json(run)}
