"""Measurements of gradients over data, all in inference mode."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import keras
import numpy as np
from keras import ops

from keras_fisher import _arguments, autodiff, likelihoods
from keras_fisher.likelihoods import Likelihood


class Estimate(NamedTuple):
    """A mean and how well it is known.

    Attributes:
        value: The mean of what was measured.
        stderr: Its standard error; NaN where fewer than two measurements were made.
        count: How many measurements were made.
    """

    value: float
    stderr: float
    count: int  # type: ignore[assignment]  # a tuple's own `count` is of no use here


def gradient_norm(
    model: keras.Model,
    data: Any,
    *,
    num_examples: int | None = None,
    batch_size: int = 128,
    likelihood: Likelihood | None = None,
) -> Estimate:
    """Measures the norm of the mini-batch gradient, ||(1/B) sum_i g(x_i, y_i)||, given labels.

    This is the norm of figures 1 and 5 and section 4.1: not squared, of the gradient of the mean
    loss of a mini-batch with respect to the trainable weights, averaged over mini-batches.
    Dropout is off and batch normalisation uses its moving statistics; no variable of the model
    moves. The larger the mini-batch, the smaller the norm: compare equal batch sizes only.

    Example:
    >>> import keras, numpy as np, keras_fisher as kf
    >>> keras.utils.set_random_seed(0)
    >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
    >>> x, y = np.random.rand(64, 4), np.random.randint(0, 3, 64)
    >>> categorical = kf.likelihoods.Categorical()
    >>> kf.gradient_norm(model, (x, y), batch_size=16, likelihood=categorical).count
    4

    Args:
        model: A Keras model with one output.
        data: `(x, y)`, arrays, or a `tf.data.Dataset` of such batches.
        num_examples: How many examples to use at most, from the first on; `None` for all.
        batch_size: The size of a mini-batch of arrays; a dataset keeps its own. A last mini-batch
            that is smaller than the first is left out.
        likelihood: The model's likelihood; `None` infers it from the compiled loss.

    Returns:
        An `Estimate` over the mini-batches.

    Raises:
        ValueError: if `data` is empty, or the model has no known likelihood.
    """
    return GradientNorm(model, likelihood)(batches(data, num_examples, batch_size))


class GradientNorm:
    """`gradient_norm` compiled once for many measurements of one model."""

    def __init__(self, model: keras.Model, likelihood: Likelihood | None = None) -> None:
        self._model = model
        self._likelihood = likelihood or likelihood_of(model)
        self._norm = autodiff.compiled(self._batch_norm)

    def __call__(self, data: Iterable[tuple[Any, Any]]) -> Estimate:
        """Returns the `Estimate` over the mini-batches of `data`."""
        norms = [float(self._norm(x, y)) for x, y in data]
        if not norms:
            raise ValueError("`data` must hold at least one example. Received: none")
        stderr = np.std(norms, ddof=1) / len(norms) ** 0.5 if len(norms) > 1 else np.nan
        return Estimate(float(np.mean(norms)), float(stderr), len(norms))

    def _batch_norm(self, x: Any, y: Any) -> Any:
        def mean_nll() -> Any:
            return self._likelihood.mean_nll(y, self._model(x, training=False))

        gradients = autodiff.gradients(mean_nll, self._model.trainable_weights)
        return ops.sqrt(autodiff.squared_norm(gradients))


def accuracy(model: keras.Model, x: np.ndarray, y: np.ndarray, batch_size: int = 512) -> float:
    """Measures the fraction of examples whose label has the largest output, in inference mode.

    Unlike `model.evaluate` it needs no compiled metric, and is cheap enough for a few hundred
    examples after every epoch.

    Args:
        model: A Keras model with one output.
        x: Inputs, an array of shape `(n, ...)`.
        y: Integer labels, an array of shape `(n,)`.
        batch_size: How many examples are evaluated at a time.

    Returns:
        A float in `[0, 1]`.
    """
    right = sum(
        int(np.sum(np.argmax(model.predict_on_batch(x[i : i + batch_size]), axis=-1) == labels))
        for i, labels in ((i, y[i : i + batch_size]) for i in range(0, len(y), batch_size))
    )
    return right / len(y)


def likelihood_of(model: keras.Model) -> Likelihood:
    """Returns the likelihood that a model was given, or that of its compiled loss."""
    given = getattr(model, "likelihood", None)
    if isinstance(given, Likelihood):
        return given
    if not model.compiled:
        raise ValueError(
            f"`likelihood` must be given for a model that is not compiled. Received: {model.name!r}"
        )
    return likelihoods.from_loss(model.loss)


def batches(data: Any, num_examples: int | None, batch_size: int) -> Iterator[tuple[Any, Any]]:
    """Yields mini-batches of equal size from arrays or a dataset; a lone smaller one is kept."""
    batch_size = _arguments.check_integer("batch_size", batch_size, low=1)
    if num_examples is not None:
        num_examples = _arguments.check_integer("num_examples", num_examples, low=1)
    if not isinstance(data, tuple | list):
        return _from_dataset(data, num_examples)
    if len(data) != 2:
        raise ValueError(
            "`data` must be `(x, y)` or a tf.data.Dataset of such batches. "
            f"Received: a {type(data).__name__} of {len(data)}"
        )
    x, y = data
    return _from_arrays(x, y, num_examples, batch_size)


def _from_arrays(
    x: Any, y: Any, num_examples: int | None, batch_size: int
) -> Iterator[tuple[Any, Any]]:
    total = len(y) if num_examples is None else min(num_examples, len(y))
    batch_size = max(1, min(batch_size, total))
    for start in range(0, total - batch_size + 1, batch_size):
        rows = slice(start, start + batch_size)
        yield keras.tree.map_structure(lambda array, rows=rows: array[rows], (x, y))


def _from_dataset(data: Any, num_examples: int | None) -> Iterator[tuple[Any, Any]]:
    left, batch_size = num_examples, None
    for batch in data:
        x, y, _ = keras.utils.unpack_x_y_sample_weight(batch)
        if y is None:
            raise ValueError("`data` must hold labels. Received: batches of x alone")
        batch_size = batch_size or (len(y) if left is None else min(len(y), left))
        if len(y) < batch_size or (left is not None and left < batch_size):
            return
        yield keras.tree.map_structure(lambda array, size=batch_size: array[:size], (x, y))
        left = None if left is None else left - batch_size
