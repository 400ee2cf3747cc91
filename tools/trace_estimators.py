"""Compares XTrace with Hutchinson's estimator at equal numbers of products with the Hessian.

    python tools/trace_estimators.py
    python tools/trace_estimators.py --epochs 0 --repetitions 200

Trains SimpleCNN and a ResNet with few filters on scikit-learn's digits, computes their whole
Hessian on some training examples (a product for each weight: some minutes), and estimates its trace
many times by each estimator. Prints a table of the errors relative to the exact trace (root mean
squares), and of their ratio with the 2.5 % and 97.5 % quantiles of a bootstrap over repetitions.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Iterator, Sequence

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np

import keras_fisher as kf
from keras_fisher.traces import xtrace
from keras_fisher.traces.hessian_solver import HessianSolver
from keras_fisher.traces.progress import DelayedProgress

PRODUCTS = (20, 60, 200)
NETWORKS: dict[str, Callable[[], keras.Model]] = {
    "SimpleCNN": lambda: kf.zoo.simple_cnn((12, 12, 1), width=4, seed=0),
    "ResNet-8": lambda: kf.zoo.resnet((12, 12, 1), depth=8, width=2, seed=0),
}
DRAWS = {
    "gaussian": lambda generator, shape: generator.standard_normal(shape),
    "rademacher": lambda generator, shape: 2.0 * generator.integers(2, size=shape) - 1.0,
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command line."""
    given = parse_arguments(arguments)
    rows = ["network | products | probes | Hutchinson | XTrace | ratio", "|".join(6 * ["---"])]
    for name in given.networks:
        hessian = compute_hessian(name, given.epochs, given.examples)
        network = f"{name}, {len(hessian):,} weights"
        rows += [f"{network} | {row}" for row in compare(hessian, given.repetitions)]
    print("\n".join(f"| {row} |" for row in rows))


def parse_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    description, _, usage = (__doc__ or "").partition("\n\n")
    parser = argparse.ArgumentParser(
        description=description, epilog=usage, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=[*NETWORKS])
    parser.add_argument("--epochs", type=int, default=5, help="epochs of training before")
    parser.add_argument("--examples", type=int, default=256, help="examples in the mean loss")
    parser.add_argument("--repetitions", type=int, default=50, help="estimates of each kind")
    return parser.parse_args(arguments)


def compute_hessian(name: str, epochs: int, examples: int) -> np.ndarray:
    """Trains a network, and returns its Hessian, shape `(weights, weights)`."""
    keras.utils.set_random_seed(0)
    train, *_ = kf.data.load_arrays("digits")
    x, y = np.pad(train.x, ((0, 0), (2, 2), (2, 2), (0, 0))), train.y
    model = NETWORKS[name]()
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(0.05, momentum=0.9), loss)
    model.fit(x, y, batch_size=32, epochs=epochs, verbose=0)
    weights = sum(int(np.prod(weight.shape)) for weight in model.trainable_weights)
    matrix, _ = HessianSolver(model, None, seed=0).solve(
        lambda multiply, size, _: np.concatenate([multiply(row[None]) for row in np.eye(size)]),
        (x, y),
        num_examples=examples,
        batch_size=examples,
        progress=DelayedProgress(weights, "product"),
    )
    return (matrix + matrix.T) / 2


def compare(hessian: np.ndarray, repetitions: int) -> Iterator[str]:
    """Yields the cells of each row."""
    generator = np.random.default_rng(0)
    exact = np.trace(hessian)
    for products in PRODUCTS:
        for distribution, draw in DRAWS.items():
            errors: dict[str, list[float]] = {"hutchinson": [], "xtrace": []}
            for _ in range(repetitions):
                probes = draw(generator, (products, len(hessian)))
                found = np.mean(np.sum(probes * (probes @ hessian), axis=1))
                errors["hutchinson"].append(found / exact - 1)
                probes = draw(generator, (products // 2, len(hessian)))
                parts = xtrace.compute_estimates(lambda z: z @ hessian, probes, [len(hessian)])
                errors["xtrace"].append(np.mean(parts) / exact - 1)
            hutchinson, extended = (np.array(values) for values in errors.values())
            low, high = bootstrap_ratio(extended, hutchinson, generator)
            yield (
                f"{products} | {distribution} | {root_mean_square(hutchinson):.2%} | "
                f"{root_mean_square(extended):.2%} | "
                f"{root_mean_square(extended) / root_mean_square(hutchinson):.2f} "
                f"({low:.2f} to {high:.2f})"
            )


def bootstrap_ratio(
    numerators: np.ndarray, denominators: np.ndarray, generator: np.random.Generator
) -> tuple[float, float]:
    """Returns the 2.5 % and 97.5 % quantiles of the ratio of two root mean squares."""
    ratios = [
        root_mean_square(generator.choice(numerators, len(numerators)))
        / root_mean_square(generator.choice(denominators, len(denominators)))
        for _ in range(2000)
    ]
    low, high = np.quantile(ratios, (0.025, 0.975))
    return float(low), float(high)


def root_mean_square(errors: np.ndarray) -> float:
    return float(np.sqrt(np.mean(np.square(errors))))


if __name__ == "__main__":
    main()
