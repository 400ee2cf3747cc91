"""What the penalty costs in training: the steps of `fit`, and epochs put together from them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any, NamedTuple

import keras
import numpy as np

import keras_fisher as kf
from benchmarks.rows import Row, ratio_row
from benchmarks.subjects import NETWORKS, Subject, prepare
from benchmarks.timing import Measurement, in_fresh_process, take_turns, timed, use_cpu

SECONDS = 1.0  # that a measurement takes at least
NEVER = 10**6  # steps from one computation of the penalty to the next
TARGETS = {"exact": 1.22, "finite_difference": 1.18}
PENALTIES = ("gp", "gp_r", "gp_x")
FREQUENCIES = (10, 5, 2, 1)
FORWARD, BACKWARD = 1, 2  # passes through the network
PLAIN = FORWARD + BACKWARD


class Computation(NamedTuple):
    """One way to compute the penalty: on one in `one_in` examples, or on a single one for 0."""

    penalty: str = "fp"
    gradient: str = "exact"
    one_in: int = 1
    parts: int = 1

    def examples(self, batch: int) -> int:
        """How many examples of a batch it takes."""
        return max(1, batch // self.one_in) if self.one_in else 1

    def arguments(self, batch: int) -> dict[str, Any]:
        """The arguments of the model."""
        is_whole = self.one_in == 1
        return {
            "penalty": self.penalty,
            "gradient": self.gradient,
            "penalty_batch_size": None if is_whole else self.examples(batch),
            "micro_batch_size": batch // self.parts if self.parts > 1 else None,
        }

    def passes(self, batch: int) -> float:
        """The passes of a step that computes it, as parts of one through the whole batch.

        A backward pass multiplies twice where a forward pass multiplies once: for the gradient of
        what a layer was given, and for that of its kernel, which "gp_x" does without. To
        backpropagate through a product takes two products.
        """
        is_exact = self.gradient == "exact"
        products = 1 if self.penalty == "gp_x" else BACKWARD
        gradient = FORWARD + products
        second = 2 * products + BACKWARD if is_exact else FORWARD + BACKWARD
        if self.parts > 1:
            again = gradient if is_exact else FORWARD  # for the labels
            return PLAIN + gradient + again + second
        if self.one_in == 1:
            return PLAIN + products + second
        return PLAIN + (gradient + second) * self.examples(batch) / batch

    def name(self, batch: int) -> str:
        """In words."""
        which = self.penalty.upper().replace("X", "x").replace("_R", "_r")
        how = "" if self.gradient == "exact" else ", by difference"
        parts = f", {batch // self.parts} at a time" if self.parts > 1 else ""
        return f"{which}{how}, {self.examples(batch)} of {batch} examples{parts}"


COMPUTATIONS = (
    *(Computation(one_in=one_in) for one_in in (1, 4, 8, 16, 32, 0)),
    *(Computation(gradient="finite_difference", one_in=one_in) for one_in in (1, 32)),
    *(Computation(penalty) for penalty in PENALTIES),
    *(Computation(gradient=gradient, parts=4) for gradient in TARGETS),
)
QUICK = (Computation(), Computation(gradient="finite_difference"), Computation(one_in=8))


def training(repeats: int, quick: bool) -> Iterator[Row]:
    """Every network, each in a process of its own."""
    for name, network in NETWORKS.items():
        batch = 16 if quick else network.batch
        computations = QUICK if quick else COMPUTATIONS
        seconds = in_fresh_process(time_steps, name, batch, computations, repeats, quick)
        yield from step_rows(name, batch, computations, seconds)


def step_rows(
    name: str, batch: int, computations: tuple[Computation, ...], seconds: Mapping[Any, np.ndarray]
) -> Iterator[Row]:
    """What steps and epochs cost, in those of plain training."""
    plain, between = seconds["plain"], seconds["between"]
    row = partial(ratio_row, "training", name)
    yield row(
        f"step with a kept gradient / plain, {batch} examples",
        between / plain,
        seconds={"between": between, "plain": plain},
        target=1.02,
        floor=1.0,
    )
    for computation in computations:
        computing, what = seconds[computation], computation.name(batch)
        passes = computation.passes(batch) / PLAIN
        is_papers = computation in (Computation(), Computation(gradient="finite_difference"))
        for every in FREQUENCIES:
            steps = "step" if every == 1 else f"{every} steps"
            yield row(
                f"{what}, every {steps}: epoch / plain",
                ((every - 1) * between + computing) / (every * plain),
                seconds={"computing": computing, "between": between, "plain": plain},
                target=TARGETS[computation.gradient] if is_papers and every == 10 else None,
                floor=(every - 1 + passes) / every,
            )


def time_steps(
    name: str,
    batch: int,
    computations: tuple[Computation, ...],
    repeats: int,
    quick: bool,
) -> dict[Any, np.ndarray]:
    """The seconds of a plain step, of one with a kept gradient, and of those that compute one."""
    use_cpu()
    subject = prepare(name, batch)
    data = subject.batches()
    plain = compiled(subject.model)
    plain.fit(data, steps_per_epoch=1, verbose=0)
    taken, _ = timed(partial(plain.fit, data, steps_per_epoch=1, verbose=0))()
    steps = 1 if quick else max(2, round(SECONDS / taken))

    def fitted(model: keras.Model) -> Measurement:
        return timed(partial(model.fit, data, steps_per_epoch=steps, verbose=0))

    kept = penalised(subject, update_freq=NEVER)
    kept.fit(data, steps_per_epoch=1, verbose=0)  # the one that computes
    measurements = {"plain": fitted(plain), "between": fitted(kept)} | {
        computation: fitted(penalised(subject, update_freq=1, **computation.arguments(batch)))
        for computation in computations
    }
    seconds, _ = take_turns(list(measurements.values()), repeats, f"training, {name}")
    return dict(zip(measurements, seconds, strict=True))


def penalised(subject: Subject, **arguments: Any) -> keras.Model:
    """The subject's network under the penalty."""
    return compiled(kf.FisherPenaltyModel(subject.model, alpha=1e-4, **arguments))


def compiled(model: keras.Model) -> keras.Model:
    """A model that hardly moves, so that no step meets other numbers than the one before."""
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(1e-6, momentum=0.9), loss)
    return model
