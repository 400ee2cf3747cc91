"""The probabilities that a model predicts for the classes of each example."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_fisher import backend
from keras_fisher.backend.types import Tensor
from keras_fisher.likelihoods import Bernoulli, Categorical, Likelihood
from keras_fisher.traces.data import batches
from keras_fisher.traces.labels import LabelledBatch
from keras_fisher.traces.meter import Meter
from keras_fisher.utils.labels import get_labels


class PredictionMeter(Meter):
    """Measures the predicted probabilities of data, and reads its labels.

    Raises:
        ValueError: if the likelihood has no classes, or the examples do not have one label each.
    """

    def __init__(self, model: keras.Model, likelihood: Likelihood | None = None) -> None:
        super().__init__(model, likelihood)
        if not isinstance(self._likelihood, Categorical | Bernoulli):
            raise ValueError(
                "`likelihood` must be Categorical or Bernoulli, which have classes. "
                f"Received: {type(self._likelihood).__name__}"
            )

    def predict(self, data: Any, batch_size: int) -> tuple[np.ndarray, np.ndarray]:
        """Returns the probabilities, shape `(examples, classes)`, and the integer labels."""
        self._y: list[np.ndarray] = []
        predicted = self._measurements(data, None, batch_size, by_layer=False, verbose=False)
        return predicted, np.concatenate(self._y)

    def read_labels(self, data: Any) -> np.ndarray:
        """Returns the integer labels of a dataset."""
        found: list[np.ndarray] = []
        classes = 0
        for batch in batches(data, None, 1):
            if not found:
                first = keras.tree.map_structure(lambda part: part[:1], batch[:2])
                classes = self.predict(first, 1)[0].shape[1]
            y = ops.convert_to_numpy(get_labels(batch[1]))
            found.append(_to_classes(y, np.empty((len(y), classes))))
        return np.concatenate(found)

    _read = staticmethod(batches)

    def _compile(self) -> None:
        self._predict = backend.compile_function(
            lambda x: _class_probabilities(self._likelihood, self._outputs(x))
        )

    def _measure(self, batches: Iterator[LabelledBatch], by_weight: bool) -> np.ndarray:
        predicted = []
        for x, labels in batches:
            predicted.append(ops.convert_to_numpy(self._predict(x)))
            self._y.append(_to_classes(ops.convert_to_numpy(labels.y), predicted[-1]))
        return np.concatenate(predicted)


def _class_probabilities(likelihood: Likelihood, outputs: Tensor) -> Tensor:
    """Returns the probability of each class, shape `(batch, classes)`."""
    is_binary = isinstance(likelihood, Bernoulli)
    if len(outputs.shape) != 2 or (is_binary and outputs.shape[-1] != 1):
        layout = "one output" if is_binary else "one output per class"
        raise ValueError(
            f"`model` must have {layout} for each example. "
            f"Received: outputs of shape {tuple(outputs.shape)}"
        )
    classes = ops.arange(likelihood.num_outcomes(outputs))
    return likelihood.outcome(classes, outputs)[1]


def _to_classes(y: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    """Returns the labels of a batch as classes, from classes or one-hot labels."""
    if y.shape == predicted.shape:
        if not np.isin(y, (0, 1)).all() or not (y.sum(axis=1) == 1).all():
            raise ValueError("`data` must hold classes or one-hot labels. Received: soft labels")
        return y.argmax(axis=1)
    y = y.reshape(len(predicted))
    wrong = y[(y != np.rint(y)) | (y < 0) | (y > max(1, predicted.shape[1] - 1))]
    if wrong.size:
        raise ValueError(
            "`data` must hold one class of the outputs for each example, or one-hot labels. "
            f"Received: a label of {wrong[0]}"
        )
    return y.astype("int64")
