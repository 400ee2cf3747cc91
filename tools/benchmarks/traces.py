"""What the traces cost, in plain forward and backward passes over the same examples."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from benchmarks.backend import compile_gradient
from benchmarks.measurement import Measurement, Row, Settings, ratio_row, take_turns, time_call
from benchmarks.networks import CATEGORICAL, NETWORKS, Subject, cross_entropy, prepare
from keras_fisher.traces import FisherTraceMeter, HessianTraceMeter, quadratic_forms

BATCH = 128  # which meters take by default
PROBES = 30  # as many as in the paper, and by default


def fisher(settings: Settings) -> Iterator[Row]:
    """The exact per-example Fisher trace."""
    for name in settings.networks:
        subject = prepare(name, 16 if settings.is_quick else settings.examples)
        measurements = [fisher_measurement(subject, "sampled"), plain_measurement(subject)]
        (ours, plain), _ = take_turns(measurements, settings.repeats, f"fisher, {name}")
        quantity = f"Tr(F), sampled labels, {len(subject.y)} examples / plain pass"
        yield ratio_row(name, quantity, ours, plain)


def hessian(settings: Settings) -> Iterator[Row]:
    """A probe of the Hessian trace, and the trace of many."""
    for name in settings.networks:
        subject = prepare(name, 8 if settings.is_quick else NETWORKS[name].few_examples)
        measurements = [
            hessian_measurement(subject, num_probes=1),
            hessian_measurement(subject, PROBES),
            plain_measurement(subject),
        ]
        (one, many, plain), _ = take_turns(measurements, settings.repeats, f"hessian, {name}")
        of = f"{len(subject.y)} examples / plain pass"
        yield ratio_row(name, f"one more probe, {of}", (many - one) / (PROBES - 1), plain)
        yield ratio_row(name, f"Tr(H) of {PROBES} probes / {PROBES}, {of}", many / PROBES, plain)


def fisher_measurement(subject: Subject, labels: str) -> Measurement:
    """Tr(F), of given labels or of drawn ones."""
    meter = FisherTraceMeter(subject.model, labels=labels, likelihood=CATEGORICAL, seed=0)
    return time_call(lambda: meter((subject.x, subject.y)))


def hessian_measurement(subject: Subject, num_probes: int) -> Measurement:
    """Tr(H), by the probes that other packages have."""
    quadratic_forms.FORMS_BEFORE_COMPILING = 0  # times are those after compilation
    options: dict[str, Any] = {"distribution": "rademacher", "likelihood": CATEGORICAL, "seed": 0}
    meter = HessianTraceMeter(subject.model, num_probes=num_probes, **options)
    return time_call(lambda: meter((subject.x, subject.y)))


def plain_measurement(subject: Subject) -> Measurement:
    """The loss and its gradient, one mini-batch after another."""
    gradient = compile_gradient(subject.model, cross_entropy())
    parts = [slice(start, start + BATCH) for start in range(0, len(subject.y), BATCH)]

    def pass_through() -> Any:
        for part in parts:
            latest = gradient(subject.x[part], subject.y[part])
        return latest

    return time_call(pass_through)
