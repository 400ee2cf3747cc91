"""Does every network of the zoo, at full depth, work with everything in the package?

    python tools/check_networks.py                          # all networks
    python tools/check_networks.py --only "ResNet 26" SimpleCNN

Each network trains a few steps under each of the four penalties, is saved and loaded, and has its
traces measured, on a few random images. Prints a table of what failed; the exit status is 1 if
anything did. Training runs step by step (eagerly), because tracing the second derivatives of a deep
network takes far longer than a few steps of it; the networks marked so are traced all the same.
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import math
import os
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np
from tqdm import tqdm

import keras_fisher as kf
from keras_fisher import zoo
from keras_fisher.utils.messages import warn_once

BATCH, STEPS = 4, 3
CATEGORICAL = kf.likelihoods.Categorical()


class Network(NamedTuple):
    """A network at the paper's size; whether its training is traced."""

    build: Callable[..., keras.Model]
    num_classes: int
    side: int = 32
    is_traced: bool = False


NETWORKS = {
    "SimpleCNN": Network(zoo.simple_cnn, 10, is_traced=True),
    "VGG-11": Network(zoo.vgg11, 100, is_traced=True),
    "Wide ResNet 44-3": Network(zoo.wide_resnet, 100, is_traced=True),
    "Wide ResNet 44-3, SkipInit": Network(partial(zoo.wide_resnet, batch_norm=False), 100),
    "DenseNet 40-12": Network(zoo.densenet, 100),
    "ResNet 26": Network(zoo.resnet, 10),
    "ResNet 26, weight norm": Network(partial(zoo.resnet, batch_norm=False), 10, is_traced=True),
    "ResNet 50": Network(partial(zoo.resnet, depth=50), 10),
    "ResNet 50, weight norm": Network(partial(zoo.resnet, depth=50, batch_norm=False), 10),
    "ResNet 56": Network(partial(zoo.resnet, depth=56), 10),
    "ResNet 56, weight norm": Network(partial(zoo.resnet, depth=56, batch_norm=False), 10),
    "ResNet-18, Fixup": Network(zoo.resnet18, 1000, side=64),
}


class Subject(NamedTuple):
    """A network that was built, and images for it."""

    model: keras.Model
    x: np.ndarray
    y: np.ndarray
    is_traced: bool


class CheckFailed(Exception):
    """Something is not as it should be; the message says what."""


def main() -> None:
    arguments = parse_arguments()
    rows = []
    with tqdm(total=len(arguments.only) * len(CHECKS), file=sys.stderr) as progress:
        for name in arguments.only:
            rows.append(check_network(name, progress))
    print(table(rows))
    sys.exit(any(row.failures for row in rows))


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--only",
        nargs="+",
        choices=NETWORKS,
        default=list(NETWORKS),
        metavar="NAME",
        help=f"networks to check: {', '.join(NETWORKS)}",
    )
    return parser.parse_args()


# ---- The checks --------------------------------------------------------------------------------


def train(subject: Subject, penalty: str) -> None:
    model = kf.FisherPenaltyModel(subject.model, alpha=0.01, penalty=penalty, update_freq=1, seed=0)
    model.compile(
        keras.optimizers.SGD(1e-3),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        run_eagerly=not subject.is_traced,
    )
    before = [weight.numpy() for weight in subject.model.trainable_weights]
    for _ in range(STEPS):
        logs = model.train_on_batch(subject.x, subject.y, return_dict=True)
        require_finite(loss=logs["loss"], penalty=logs["penalty"])
    # Only of the last step: a network whose logits start at 0 has no gradient by its inputs.
    require(logs["penalty"] > 0, f"the penalty is {logs['penalty']}")
    moved = 0
    for weight, old in zip(subject.model.trainable_weights, before, strict=True):
        require(np.isfinite(weight).all(), f"{weight.path} is not finite")
        moved += not np.array_equal(weight, old)
    require(moved > 0, "no weight has moved")


def save(subject: Subject) -> None:
    model = kf.FisherPenaltyModel(subject.model)
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    expected = subject.model(subject.x)
    with tempfile.TemporaryDirectory() as folder:
        for saved in (model, subject.model):
            path = Path(folder) / "model.keras"
            saved.save(path)
            found = keras.models.load_model(path)(subject.x)
            require(np.array_equal(found, expected), "a loaded model predicts something else")


def fisher_trace(subject: Subject) -> None:
    with fallbacks() as messages:
        trace = kf.fisher_trace(subject.model, (subject.x, subject.y), **measuring())
    require(not messages, "; ".join(messages))
    require_positive(trace.value)


def minibatch_fisher_trace(subject: Subject) -> None:
    data = (subject.x, subject.y)
    require_positive(kf.minibatch_fisher_trace(subject.model, data, **measuring()).value)


def hessian_trace(subject: Subject) -> None:
    data = (subject.x, subject.y)
    with fallbacks() as messages:
        trace = kf.hessian_trace(subject.model, data, num_probes=2, **measuring())
    require(not messages, "; ".join(messages))
    require_finite(value=trace.value, stderr=trace.stderr)  # of either sign
    require(trace.value != 0, "the trace is 0")


def gradient_norm(subject: Subject) -> None:
    data = (subject.x, subject.y)
    require_positive(kf.gradient_norm(subject.model, data, likelihood=CATEGORICAL).value)


CHECKS: dict[str, Callable[[Subject], None]] = {
    **{penalty: partial(train, penalty=penalty) for penalty in ("fp", "gp", "gp_x", "gp_r")},
    "save": save,
    "fisher_trace": fisher_trace,
    "minibatch_fisher_trace": minibatch_fisher_trace,
    "hessian_trace": hessian_trace,
    "gradient_norm": gradient_norm,
}


def measuring() -> dict[str, Any]:
    return {"likelihood": CATEGORICAL, "batch_size": BATCH, "seed": 0}


def require(is_right: bool, message: str) -> None:
    if not is_right:
        raise CheckFailed(message)


def require_finite(**values: float) -> None:
    for name, value in values.items():
        require(math.isfinite(value), f"{name} is {value}")


def require_positive(value: float) -> None:
    require(math.isfinite(value) and value > 0, f"the value is {value}")


@contextlib.contextmanager
def fallbacks() -> Iterator[list[str]]:
    """Collects what the package logs, also what it said of another network before."""
    warn_once.cache_clear()
    messages: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: messages.append(record.getMessage())  # type: ignore[method-assign]
    logger = logging.getLogger("keras_fisher")
    logger.addHandler(handler)
    try:
        yield messages
    finally:
        logger.removeHandler(handler)


# ---- The report --------------------------------------------------------------------------------


class Row(NamedTuple):
    """A line of the table."""

    name: str
    parameters: int
    seconds: float
    failures: list[str]


def check_network(name: str, progress: tqdm) -> Row:
    keras.utils.clear_session()
    keras.utils.disable_interactive_logging()  # one progress bar is enough
    subject = prepare(NETWORKS[name])
    start, failures = time.perf_counter(), []
    for check, run in CHECKS.items():
        progress.set_description(f"{name}: {check}")
        try:
            run(subject)
        except CheckFailed as failure:
            failures.append(f"{check}: {failure}")
        except Exception as error:
            progress.write(traceback.format_exc(), file=sys.stderr)
            failures.append(f"{check}: {type(error).__name__}: {error}".splitlines()[0])
        progress.update()
    seconds = time.perf_counter() - start
    return Row(name, subject.model.count_params(), seconds, failures)


def prepare(network: Network) -> Subject:
    shape = (network.side, network.side, 3)
    rng = np.random.default_rng(0)
    x = rng.normal(size=(BATCH, *shape)).astype("float32")
    y = rng.integers(network.num_classes, size=BATCH).astype("int32")
    model = network.build(shape, network.num_classes, seed=0)
    return Subject(model, x, y, network.is_traced)


def table(rows: list[Row]) -> str:
    lines = ["| network | parameters | seconds | result |", "|---|---|---|---|"]
    for row in rows:
        result = "<br>".join(row.failures) or "ok"
        lines.append(f"| {row.name} | {row.parameters:,} | {row.seconds:.0f} | {result} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
