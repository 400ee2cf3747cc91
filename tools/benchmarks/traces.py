"""What the traces cost, in plain forward and backward passes over the same examples."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import keras
import tensorflow as tf

from benchmarks.rows import Row, ratio_row
from benchmarks.subjects import CATEGORICAL, NETWORKS, Subject, prepare
from benchmarks.timing import Measurement, take_turns, timed
from keras_fisher.traces import FisherTraceMeter, HessianTraceMeter

PROBES = 30  # as many as in the paper, and by default


def fisher(repeats: int, quick: bool) -> Iterator[Row]:
    """The exact per-example Fisher trace."""
    for name, network in NETWORKS.items():
        subject = prepare(name, 16 if quick else 128)
        measurements = [timed_fisher(subject, "sampled"), plain_step(subject)]
        (ours, plain), _ = take_turns(measurements, repeats, f"fisher, {name}")
        yield ratio_row(
            "fisher",
            name,
            f"Tr(F), sampled labels / plain step, {len(subject.y)} examples",
            ours / plain,
            target=network.fisher_target,
            seconds={"fisher_trace": ours, "plain_step": plain},
        )


def hessian(repeats: int, quick: bool) -> Iterator[Row]:
    """A probe of the Hessian trace, and the trace of many."""
    for name, network in NETWORKS.items():
        subject = prepare(name, 8 if quick else network.few_examples)
        measurements = [
            timed_hessian(subject, num_probes=1),
            timed_hessian(subject, PROBES),
            plain_step(subject),
        ]
        (one, many, plain), _ = take_turns(measurements, repeats, f"hessian, {name}")
        seconds = {"1_probe": one, f"{PROBES}_probes": many, "plain_step": plain}
        yield ratio_row(
            "hessian",
            name,
            f"one more probe / plain step, {len(subject.y)} examples",
            (many - one) / (PROBES - 1) / plain,
            target=2.0,
            seconds=seconds,
        )
        yield ratio_row(
            "hessian",
            name,
            f"Tr(H) of {PROBES} probes / {PROBES} / plain step, {len(subject.y)} examples",
            many / PROBES / plain,
            seconds=seconds,
        )


def timed_fisher(subject: Subject, labels: str) -> Measurement:
    """Tr(F), of given labels or of drawn ones."""
    meter = FisherTraceMeter(subject.model, labels=labels, likelihood=CATEGORICAL, seed=0)
    return timed(lambda: meter((subject.x, subject.y)))


def timed_hessian(subject: Subject, num_probes: int) -> Measurement:
    """Tr(H)."""
    meter = HessianTraceMeter(
        subject.model,
        num_probes=num_probes,
        distribution="rademacher",  # PyHessian has no other.
        likelihood=CATEGORICAL,
        seed=0,
    )
    return timed(lambda: meter((subject.x, subject.y)))


def plain_step(subject: Subject) -> Measurement:
    """The loss and its gradient; all are returned, so that none is optimised away."""
    loss_function = keras.losses.SparseCategoricalCrossentropy(from_logits=True)

    @tf.function
    def step(x: tf.Tensor, y: tf.Tensor) -> tuple[tf.Tensor, list[tf.Tensor]]:
        with tf.GradientTape() as tape:
            loss = loss_function(y, subject.model(x, training=False))
        return loss, tape.gradient(loss, subject.model.trainable_weights)

    return timed(partial(step, tf.constant(subject.x), tf.constant(subject.y)))
