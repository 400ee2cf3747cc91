"""What the penalty costs with the JAX backend, on the device that JAX finds.

    KERAS_BACKEND=jax python tools/jax_benchmark.py                 # five networks
    KERAS_BACKEND=jax python tools/jax_benchmark.py --networks SimpleCNN --repeats 9 --examples 256

For each network: a step of `fit` that computes the penalty, and one that reuses it, over a step of
plain `fit` (epochs are put together from them), and Tr(F) of many examples over a plain forward and
backward pass through them. Things take turns in one process; the table has the median of the ratios
over the rounds, the smallest and the largest. Mini-batches lie on the device. With --dispatched N,
the penalised model takes N steps in one dispatch; Keras's own takes them one by one.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import jax
import keras
import numpy as np
from benchmarks.subjects import CATEGORICAL, NETWORKS, Subject, prepare
from benchmarks.timing import Measurement, take_turns, timed

import keras_fisher as kf
from keras_fisher.data.jax_pipeline import Batches
from keras_fisher.traces import FisherTraceMeter

NEVER = 10**6
PENALTIES: dict[str, dict[str, Any]] = {
    "exact": {},
    "by difference": {"gradient": "finite_difference"},
    "1/32 of the examples": {"penalty_batch_size": 1 / 32},
}
EVERY = 10


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command line."""
    given = parse_arguments(arguments)
    if (backend := keras.backend.backend()) != "jax":
        sys.exit(f"error: the environment variable KERAS_BACKEND must be jax. Received: {backend}")
    rows: list[dict[str, Any]] = []
    for name in given.networks:
        for what, ratios in measured(name, given):
            low, middle, high = (float(q) for q in np.quantile(ratios, [0.0, 0.5, 1.0]))
            rows.append(
                {"network": name, "what": what, "median": middle, "smallest": low, "largest": high}
            )
            print(f"| {name} | {what} | {middle:.2f} ({low:.2f} to {high:.2f}) |", flush=True)
            given.output.parent.mkdir(parents=True, exist_ok=True)
            report = {"device": str(jax.devices()[0].device_kind), "rows": rows}
            given.output.write_text(json.dumps(report, indent=2) + "\n")


def parse_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=list(NETWORKS))
    parser.add_argument("--repeats", type=int, default=9, help="rounds in which each is timed once")
    parser.add_argument("--steps", type=int, default=50, help="steps of a measurement")
    parser.add_argument("--dispatched", type=int, default=1, help="steps in one dispatch")
    parser.add_argument(
        "--examples", type=int, default=5000, help="examples that Tr(F) is taken on"
    )
    parser.add_argument("--output", type=Path, default=Path("runs/jax_benchmark.json"))
    given = parser.parse_args(arguments)
    for name in ("repeats", "steps", "dispatched", "examples"):
        if (number := getattr(given, name)) < 1:
            parser.error(f"`--{name}` must be at least 1. Received: {number}")
    if given.steps % given.dispatched:
        parser.error(
            f"`--dispatched` must divide --steps, {given.steps}. Received: {given.dispatched}"
        )
    return given


def measured(name: str, given: argparse.Namespace) -> Iterator[tuple[str, np.ndarray]]:
    """What the penalty and the trace of a network cost."""
    subject = prepare(name, NETWORKS[name].batch)
    fit = partial(fitted, subject, given)
    measurements = {"plain": fit(subject.model), "between": fit(penalised(subject, NEVER, {}))} | {
        what: fit(penalised(subject, 1, arguments)) for what, arguments in PENALTIES.items()
    }
    seconds, _ = take_turns(list(measurements.values()), given.repeats, name)
    plain, between, *computing = seconds
    yield "step with a kept gradient / plain", between / plain
    for what, step in zip(PENALTIES, computing, strict=True):
        yield f"{what}: step / plain", step / plain
        yield (
            f"{what}, every {EVERY} steps: epoch / plain",
            ((EVERY - 1) * between + step) / (EVERY * plain),
        )
    yield f"Tr(F) of {given.examples} examples / forward and backward", trace_ratio(name, given)


def penalised(subject: Subject, update_freq: int, arguments: dict[str, Any]) -> keras.Model:
    return kf.FisherPenaltyModel(subject.model, 1e-4, update_freq=update_freq, **arguments)


def fitted(subject: Subject, given: argparse.Namespace, model: keras.Model) -> Measurement:
    """The time of some steps of `fit`, of a model that hardly moves."""
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    optimizer = keras.optimizers.SGD(1e-6, momentum=0.9)
    model.compile(optimizer, loss, steps_per_execution=given.dispatched)
    batch = jax.device_put((subject.x, subject.y))
    data = Batches(lambda _: batch, None)
    return timed(partial(model.fit, data, steps_per_epoch=given.steps, shuffle=False, verbose=0))


def trace_ratio(name: str, given: argparse.Namespace) -> np.ndarray:
    """Tr(F) over a plain pass through the same examples, in mini-batches of 128."""
    subject = prepare(name, given.examples)
    meter = FisherTraceMeter(subject.model, likelihood=CATEGORICAL, seed=0)
    parts = [slice(i, i + 128) for i in range(0, given.examples, 128)]
    batches = [jax.device_put((subject.x[part], subject.y[part])) for part in parts]
    weights = [weight.value for weight in subject.model.trainable_weights]

    @jax.jit
    def gradient(values: Any, batch: Any) -> Any:
        def loss(values: Any) -> Any:
            pairs = zip(subject.model.trainable_weights, values, strict=True)
            with keras.StatelessScope(list(pairs)):
                return CATEGORICAL.mean_nll(batch[1], subject.model(batch[0], training=False))

        return jax.grad(loss)(values)

    def plain() -> None:
        jax.block_until_ready([gradient(weights, batch) for batch in batches])

    (ours, plain_seconds), _ = take_turns(
        [timed(lambda: meter(Batches(lambda i: batches[i], len(batches)))), timed(plain)],
        given.repeats,
        f"Tr(F), {name}",
    )
    return ours / plain_seconds


if __name__ == "__main__":
    main()
