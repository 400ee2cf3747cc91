"""What is trained, as plain data: a `Setting`, and a single `Run` of it.

Every field of a setting is an option of the command line; its comment is the help there.
"""

from __future__ import annotations

import dataclasses
import functools
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
    "resnet26",
    "resnet56",
    "resnet18",
]
Dataset = Literal["digits", "cifar10", "cifar100", "tiny_imagenet32", "imagenet2012"]
Augmentation = Literal["none", "flip", "flip_and_crop"]
Penalty = Literal["fp", "gp", "gp_x", "gp_r"]


@dataclasses.dataclass(frozen=True)
class Range:
    """The numbers that a field accepts, each of them if it lists several."""

    least: float
    below: float = math.inf

    def check(self, name: str, value: Any) -> None:
        for number in value if isinstance(value, tuple) else (value,):
            if not self.least <= number < self.below:
                below = f" and below {self.below:g}" if self.below < math.inf else ""
                must = f"`{write_flag(name)}` must be at least {self.least:g}{below}"
                raise SettingsError(f"{must}. Received: {number}")


class Listing:
    """A field that must list something."""

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
CountOrShare = Annotated[int | float, Range(0)]


@functools.cache
def list_limits(kind: Any) -> list[tuple[str, Any]]:
    """The limits of a dataclass's fields, by name."""
    hints = get_type_hints(kind, include_extras=True)
    return [
        (name, limit) for name, hint in hints.items() for limit in getattr(hint, "__metadata__", ())
    ]


def write_flag(name: str) -> str:
    """A field as an option of the command line."""
    return f"--{name.replace('_', '-')}"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Task:
    """A network, its data, and how SGD with momentum 0.9 optimises it."""

    network: Network  # network to train
    width: Size = 0  # units, filters, growth or widening factor; 0 for the network's own
    dataset: Dataset  # data set
    num_train: Size = 0  # training examples to keep; 0 for all
    validation_size: Size = 5000  # training examples to hold out; 0 to watch the test set instead
    test_size: Size = 0  # test examples to keep, the first ones; 0 for all
    augment: Augmentation = "none"  # augmentation of the training images
    learning_rate: Amount  # learning rate
    batch_size: Count = 128  # examples in a mini-batch
    weight_decay: Amount = 0.0  # L2 in the loss: weight_decay/2 times the squared weights
    epochs: Count = 300  # passes over the training examples
    drops: Annotated[tuple[int, ...], Range(0)] = (150, 225)  # epochs at which the rate drops
    drop_factor: Amount = 0.1  # factor of each drop
    fisher_examples: Size = 0  # training examples to measure traces on; 0 for a mini-batch
    steps_per_epoch: Size = 0  # steps of an epoch; 0 for all training examples
    steps_per_execution: Count = 1  # steps to run at a time, which speeds up small networks

    def __post_init__(self) -> None:
        for name, limit in list_limits(type(self)):  # type: ignore[arg-type]
            limit.check(name, getattr(self, name))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Setting(Task):
    """A part of an experiment: a task, and what is varied in it. Recipes add what they vary."""

    seeds: Annotated[tuple[int, ...], Listing(), Range(0, 2**32)] = (0,)  # seeds of all draws

    def make_run(self, *, seed: int = 0, **changes: Any) -> Run:
        """A run of this setting, with some changes."""
        task = {field.name: getattr(self, field.name) for field in dataclasses.fields(Task)}
        return Run(**{**task, "seed": seed, "data_seed": seed, **changes})


@dataclasses.dataclass(frozen=True, kw_only=True)
class PenaltySetting(Setting):
    """A setting that is trained under a penalty."""

    update_freq: Count = 10  # steps from one computation of the penalty to the next
    penalty_batch_size: CountOrShare = 0
    """examples of a mini-batch that the penalty is computed on, or their share; 0 for all"""

    def make_run(self, **changes: Any) -> Run:
        schedule = {
            "update_freq": self.update_freq,
            "penalty_batch_size": self.penalty_batch_size,
        }
        return super().make_run(**schedule | changes)


@dataclasses.dataclass(frozen=True, kw_only=True)
class VariedSetting(Setting):
    """A setting in which the learning rate or the batch size takes several values."""

    varies: Literal["learning_rate", "batch_size"]  # what is varied
    learning_rate: Amount = 0.02  # learning rate, where it is not varied

    def set_value(self, value: float) -> dict[str, Any]:
        """The change to a run that a value makes."""
        return {self.varies: type(getattr(self, self.varies))(value)}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sweep(VariedSetting):
    """A setting that is trained with each of several learning rates or batch sizes."""

    values: Amounts  # learning rates or batch sizes, whichever are varied

    def make_runs(self, part: str, measures: Mapping[str, Mapping[str, Any]]) -> list[Run]:
        """A run for each seed and value; none waits for another."""
        shared = {"part": part, "method": self.varies, "measures": measures}
        return [
            self.make_run(**shared, value=value, seed=seed, **self.set_value(value))
            for seed in self.seeds
            for value in self.values
        ]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Run(Task):
    """One training: all that its figures depend on.

    `part` names its setting, `method` the group in which seeds are averaged, and `value` what else
    distinguishes it from others of its part and method, such as alpha.

    `measures`, `at_start` and `at_best` say what is measured in training, before it and with the
    weights of its best epoch: names of `MEASURES` or `FUNCTIONS` in `experiment.training`, and
    their arguments.
    """

    part: str
    method: str
    value: Amount = 0.0
    seed: Seed = 0
    data_seed: Seed = 0  # which examples are held out and kept, and get wrong labels
    penalty: Penalty = "fp"
    alpha: Amount = 0.0
    update_freq: Count = 10
    penalty_batch_size: CountOrShare = 0  # 0: the mini-batch
    penalty_from: Size = 0  # the first epoch under the penalty
    noise: Fraction = 0.0
    monitored: Size = 0  # training examples on which clean and wrong labels are followed
    gradient_batches: Size = 0  # and mini-batches of each on which gradient norms are
    mixup_beta: Amount = 0.0
    initial: str = ""  # the run whose last weights it begins with
    measures: Mapping[str, Mapping[str, float | str]] = dataclasses.field(default_factory=dict)
    at_start: Mapping[str, Mapping[str, float | str]] = dataclasses.field(default_factory=dict)
    at_best: Mapping[str, Mapping[str, float | str]] = dataclasses.field(default_factory=dict)

    @property
    def name(self) -> str:
        """The name of its folder."""
        noise = f"-noise{100 * self.noise:g}" if self.noise else ""
        value = f"-{self.value:g}" if self.value else ""
        return f"{self.part}{noise}-{self.method}{value}-seed{self.seed}"
