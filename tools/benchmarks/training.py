"""What the penalty costs in training: time and memory."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any, NamedTuple

import keras
import numpy as np
from tqdm import tqdm

from benchmarks.backend import BACKEND
from benchmarks.measurement import (
    Measurement,
    Row,
    Settings,
    call_in_process,
    check_memory_is_measured,
    growth_mib,
    ratio_row,
    take_turns,
    time_call,
)
from benchmarks.networks import NETWORKS, compile_penalised, compile_plain, prepare

SECONDS = 1.0  # that a measurement takes at least
NEVER = 10**6  # steps from one computation of the penalty to the next
FREQUENCIES = (10, 1)
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
        how = "" if self.gradient == "exact" else ", by finite difference"
        parts = f", {batch // self.parts} at a time" if self.parts > 1 else ""
        return f"{which}{how}, {self.examples(batch)} of {batch} examples{parts}"


COMPUTATIONS = (
    *(Computation(one_in=one_in) for one_in in (1, 4, 8, 16, 32, 0)),
    *(Computation(gradient="finite_difference", one_in=one_in) for one_in in (1, 32)),
    *(Computation(penalty) for penalty in ("gp", "gp_r", "gp_x")),
    *(Computation(gradient=gradient, parts=4) for gradient in ("exact", "finite_difference")),
)
QUICK = (Computation(), Computation(gradient="finite_difference"), Computation(one_in=8))


# ---- Time ----------------------------------------------------------------------------------------


def training(settings: Settings) -> Iterator[Row]:
    """Steps and epochs under the penalty over plain ones, each network in a process of its own."""
    for name in settings.networks:
        batch = 16 if settings.is_quick else NETWORKS[name].batch
        computations = QUICK if settings.is_quick else list_computations(name)
        plain, between, *computing = call_in_process(
            time_steps, name, batch, computations, settings
        )
        yield ratio_row(name, f"kept gradient, {batch} examples: step / plain", between, plain, 1)
        for computation, seconds in zip(computations, computing, strict=True):
            what, passes = computation.name(batch), computation.passes(batch) / PLAIN
            for every in FREQUENCIES:
                yield ratio_row(
                    name,
                    f"{what}, every {'step' if every == 1 else f'{every} steps'}: epoch / plain",
                    (every - 1) * between + seconds,
                    every * plain,
                    (every - 1 + passes) / every,
                )


def list_computations(name: str) -> tuple[Computation, ...]:
    """Returns the computations for a network; "gp_x" needs inputs that are no integers."""
    is_text = NETWORKS[name].words > 0
    return tuple(each for each in COMPUTATIONS if not (is_text and each.penalty == "gp_x"))


def time_steps(
    name: str, batch: int, computations: tuple[Computation, ...], settings: Settings
) -> np.ndarray:
    """Times plain steps, steps with a kept gradient, and those of each computation."""
    subject, at_once = prepare(name, batch), settings.steps_per_execution
    data = subject.batches()
    plain = compile_plain(subject.model)
    plain.fit(data, steps_per_epoch=1, verbose=0)
    taken, _ = time_call(partial(plain.fit, data, steps_per_epoch=1, verbose=0))()
    steps = at_once * (1 if settings.is_quick else max(2, round(SECONDS / taken / at_once)))
    compile_plain(plain, steps_per_execution=at_once)

    def measure_fit(model: keras.Model) -> Measurement:
        return time_call(partial(model.fit, data, steps_per_epoch=steps, shuffle=False, verbose=0))

    penalised = partial(compile_penalised, subject.model, steps_per_execution=at_once)
    kept = penalised(update_freq=NEVER)
    kept.fit(data, steps_per_epoch=at_once, verbose=0)  # computes the gradient that is kept
    models = [penalised(update_freq=1, **each.arguments(batch)) for each in computations]
    measurements = [measure_fit(model) for model in (plain, kept, *models)]
    return take_turns(measurements, settings.repeats, f"training, {name}")[0]


# ---- Memory --------------------------------------------------------------------------------------


def memory(settings: Settings) -> Iterator[Row]:
    """The peak memory of a step that computes the penalty over that of a plain one."""
    check_memory_is_measured()
    ways = {
        "FP": Computation(),
        "FP by finite difference": Computation(gradient="finite_difference"),
        "FP, an eighth at a time": Computation(parts=8),
        "FP on one in 32": Computation(one_in=32),
    }
    for name in tqdm(settings.networks, desc="memory"):
        batch = 16 if settings.is_quick else NETWORKS[name].batch
        plain = call_in_process(measure_memory, name, batch, None)
        for what, way in ways.items():
            peak = call_in_process(measure_memory, name, batch, way)
            yield Row(
                name,
                f"step with {what}, {batch} examples / plain",
                f"{peak / plain:.2f} ({peak:,.0f} MiB / {plain:,.0f} MiB)",
                {"peak_mib": peak, "plain_mib": plain},
            )


def measure_memory(name: str, batch: int, computation: Computation | None) -> float:
    """The memory in MiB that a step takes while it runs, without that of compiling it."""
    subject = prepare(name, batch)
    if computation is None:
        model = compile_plain(subject.model)
    else:
        model = compile_penalised(subject.model, update_freq=1, **computation.arguments(batch))
    # JAX compiles for one size; TensorFlow traces again at the second size, then for any.
    for examples in (batch,) if BACKEND == "jax" else (2, 3):
        model.train_on_batch(subject.x[:examples], subject.y[:examples])
    return growth_mib(lambda: [model.train_on_batch(subject.x, subject.y) for _ in range(2)])
