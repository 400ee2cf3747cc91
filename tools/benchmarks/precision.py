"""How far the penalty and its gradient in half precision are from those in single precision."""

from __future__ import annotations

from collections.abc import Iterator

import keras
import numpy as np
from tqdm import tqdm

import keras_fisher as kf
from benchmarks.rows import Row
from benchmarks.subjects import NETWORKS, prepare

POLICY = "mixed_bfloat16"


def precision(repeats: int, quick: bool) -> Iterator[Row]:
    """Of GP, whose labels are given, on each network."""
    for name, network in tqdm(NETWORKS.items(), desc="precision"):
        examples = 16 if quick else network.few_examples
        for gradient in ("exact", "finite_difference"):
            value, slopes = penalty(name, examples, "float32", gradient)
            rough, rough_slopes = penalty(name, examples, POLICY, gradient)
            of_value = abs(rough - value) / value
            of_slopes = float(np.linalg.norm(rough_slopes - slopes) / np.linalg.norm(slopes))
            yield Row(
                "precision",
                name,
                f"GP, {gradient}, {examples} examples: relative error of {POLICY}",
                f"{of_value:.1e}; of its gradient {of_slopes:.1e}",
                numbers={"value": of_value, "gradient": of_slopes},
            )


def penalty(name: str, examples: int, policy: str, gradient: str) -> tuple[float, np.ndarray]:
    """The penalty, and its gradient: what alpha 1 moves beside alpha 0."""
    keras.config.set_dtype_policy(policy)
    try:
        moved = [step(name, examples, gradient, alpha) for alpha in (0.0, 1.0)]
    finally:
        keras.config.set_dtype_policy("float32")
    (_, plain), (value, penalised) = moved
    return value, plain - penalised


def step(name: str, examples: int, gradient: str, alpha: float) -> tuple[float, np.ndarray]:
    """The logged penalty and the weights after a step of SGD with rate 1."""
    subject = prepare(name, examples)
    model = kf.FisherPenaltyModel(subject.model, alpha=alpha, penalty="gp", gradient=gradient)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(1.0), loss, run_eagerly=True)
    logs = model.train_on_batch(subject.x, subject.y, return_dict=True)
    weights = [np.ravel(weight) for weight in subject.model.get_weights()]
    return float(logs["penalty"]), np.concatenate(weights)
