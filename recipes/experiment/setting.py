"""What is trained, as plain data."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from experiment.errors import SettingsError
from experiment.networks import NETWORKS
from keras_fisher.penalties import PENALTIES

DATASETS = ("digits", "cifar10", "cifar100", "tiny_imagenet32", "imagenet2012")
AUGMENTATIONS = ("none", "flip", "flip_and_crop")


def option(help: str, default: Any = dataclasses.MISSING, choices: Sequence[str] = ()) -> Any:
    """A field that the command line can change, with its help there."""
    return dataclasses.field(default=default, metadata={"help": help, "choices": tuple(choices)})


@dataclasses.dataclass(frozen=True, kw_only=True)
class Task:
    """A network, the data that it learns, and how SGD with momentum 0.9 optimises it."""

    network: str = option("network to train", choices=tuple(NETWORKS))
    width: int = option("units, filters, growth or widening factor; 0 for the network's own", 0)
    dataset: str = option("data set", choices=DATASETS)
    num_train: int = option("training examples to keep; 0 for all", 0)
    validation_size: int = option(
        "training examples to hold out; with 0 the test set takes their place", 5000
    )
    test_size: int = option("test examples to keep, the first ones; 0 for all", 0)
    augment: str = option("augmentation of the training images", "none", AUGMENTATIONS)
    learning_rate: float = option("learning rate")
    batch_size: int = option("examples in a mini-batch", 128)
    weight_decay: float = option("L2 in the loss: weight_decay/2 times the squared weights", 0.0)
    epochs: int = option("passes over the training examples", 300)
    drops: tuple[int, ...] = option("epochs at which the learning rate drops", (150, 225))
    drop_factor: float = option("what it is multiplied by there", 0.1)
    fisher_examples: int = option(
        "training examples that traces are measured on; 0 for a mini-batch", 0
    )
    steps_per_epoch: int = option("steps of an epoch; 0 for all training examples", 0)
    steps_per_execution: int = option("steps that run at a time; helps small networks", 1)

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size", "steps_per_execution"):
            self._check(name, at_least=1)
        for name in ("width", "num_train", "validation_size", "test_size", "fisher_examples"):
            self._check(name, at_least=0)
        for name in ("learning_rate", "weight_decay", "drops", "drop_factor", "steps_per_epoch"):
            self._check(name, at_least=0)

    def _check(self, name: str, at_least: float, below: float = float("inf")) -> None:
        """Raises unless the field's number, or each of its numbers, is in the range."""
        given = getattr(self, name)
        for number in given if isinstance(given, tuple) else (given,):
            if not at_least <= number < below:
                bounds = f"at least {at_least:g}" + (f" and below {below:g}" * (below < 1e300))
                raise SettingsError(f"`{flag(name)}` must be {bounds}. Received: {number}")

    def _check_listed(self, *names: str) -> None:
        """Raises if a field that must list something does not."""
        for name in names:
            if not getattr(self, name):
                raise SettingsError(f"`{flag(name)}` must list at least one value. Received: none")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Setting(Task):
    """A part of an experiment: a task, and what is varied in it. Recipes add what they vary."""

    seeds: tuple[int, ...] = option("seeds of data, weights and all that is drawn", (0,))

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check_listed("seeds")
        self._check("seeds", at_least=0, below=2**32)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Penalised(Setting):
    """A setting that is trained under a penalty."""

    update_freq: int = option("steps from one computation of the penalty to the next", 10)

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check("update_freq", at_least=1)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Varied(Setting):
    """A setting in which the learning rate or the batch size takes several values."""

    varies: str = option("what is varied", choices=("learning_rate", "batch_size"))
    learning_rate: float = option("learning rate, where it is not varied", 0.02)

    def at(self, value: float) -> dict[str, Any]:
        """The change to the task that a value makes."""
        return {self.varies: type(getattr(self, self.varies))(value)}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Swept(Varied):
    """A setting that is trained with each of several learning rates or batch sizes."""

    values: tuple[float, ...] = option("learning rates or batch sizes, whichever are varied")

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check_listed("values")
        self._check("values", at_least=0)

    def runs(self, part: str, measures: Mapping[str, Mapping[str, Any]]) -> list[Run]:
        """A run for each seed and value; none waits for another."""
        return [
            Run.of(
                self,
                part=part,
                method=self.varies,
                value=value,
                seed=seed,
                measures=measures,
                **self.at(value),
            )
            for seed in self.seeds
            for value in self.values
        ]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Run(Task):
    """One training: all that its figures depend on.

    `part` names the setting that it belongs to, `method` the group in which seeds are averaged,
    and `value` what else tells it from others of its part and method, such as alpha.

    `measures`, `at_start` and `at_best` say what is measured in training, before it and with the
    weights of its best epoch: names of `MEASURES` or `FUNCTIONS` in `experiment.training`, and
    their arguments.
    """

    part: str
    method: str
    value: float = 0.0
    seed: int = 0
    data_seed: int = 0  # which examples are held out and kept, and get wrong labels
    penalty: str = option("penalty", "fp", tuple(PENALTIES))
    alpha: float = 0.0
    update_freq: int = 10
    penalty_batch_size: int = 0  # 0: the mini-batch
    penalty_from: int = 0  # the first epoch under the penalty
    noise: float = 0.0
    monitored: int = 0  # training examples on which clean and wrong labels are followed
    gradient_batches: int = 0  # and mini-batches of each on which gradient norms are
    mixup_beta: float = 0.0
    initial: str = ""  # the run whose last weights it begins with
    measures: Mapping[str, Mapping[str, float | str]] = dataclasses.field(default_factory=dict)
    at_start: Mapping[str, Mapping[str, float | str]] = dataclasses.field(default_factory=dict)
    at_best: Mapping[str, Mapping[str, float | str]] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("value", "alpha", "penalty_batch_size", "penalty_from", "mixup_beta"):
            self._check(name, at_least=0)
        for name in ("monitored", "gradient_batches"):
            self._check(name, at_least=0)
        for name in ("seed", "data_seed"):
            self._check(name, at_least=0, below=2**32)
        self._check("update_freq", at_least=1)
        self._check("noise", at_least=0, below=1)
        for arguments in self.measures.values():
            every = arguments.get("every_epochs", 1)
            if not isinstance(every, int) or every < 1:
                raise SettingsError(f"`every_epochs` must be an integer >= 1. Received: {every}")

    @classmethod
    def of(cls, task: Task, *, seed: int = 0, **others: Any) -> Run:
        """A run of a task; `others` may change the task as well."""
        fields = {field.name: getattr(task, field.name) for field in dataclasses.fields(Task)}
        if isinstance(task, Penalised):
            fields["update_freq"] = task.update_freq
        return cls(**{**fields, "seed": seed, "data_seed": seed, **others})

    @property
    def name(self) -> str:
        """The name of its folder."""
        noise = f"-noise{100 * self.noise:g}" if self.noise else ""
        value = f"-{self.value:g}" if self.value else ""
        return f"{self.part}{noise}-{self.method}{value}-seed{self.seed}"


def flag(name: str) -> str:
    """How the command line writes a field."""
    return f"--{name.replace('_', '-')}"
