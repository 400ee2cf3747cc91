"""Scores that separate wrong labels from clean ones."""

from __future__ import annotations

import base64
import io
import math
from typing import Any

import keras
import numpy as np

from keras_fisher.callbacks._measuring import MeasuringCallback
from keras_fisher.data.wrong_labels import WrongLabels, find_wrong_labels
from keras_fisher.likelihoods import Likelihood
from keras_fisher.traces.predictions import PredictionMeter
from keras_fisher.utils import arguments


class LabelScores(MeasuringCallback):
    """Finds probably wrong labels from the model's predictions during training.

    It averages the predicted probabilities of each example over `num_measurements` epochs, spread
    evenly over the training. `result` then compares the probability of each label with that of its
    strongest rival, as `kf.data.find_wrong_labels` does.

    A network learns regularities before it memorises labels, so it contradicts most wrong labels at
    first. Later it fits them. Under the Fisher penalty it memorises little (section 4.1) and
    contradicts wrong labels until the end, so no early stopping is needed. Pleiss et al. (2020)
    average the margins of logits in the same way.

    At the end of each measured epoch it logs `suspect_fraction`, the fraction of labels that are
    probably wrong. It measures in inference mode; a measurement takes one forward pass over the
    data, a third of an epoch or less. After the first epoch it also reads the labels of a dataset,
    to check that their order stays the same. A measurement with NaN is reported once and skipped.

    As with `FisherTrace`, the order of callbacks does not matter.

    Examples:
        >>> import keras, numpy as np, keras_fisher as kf
        >>> keras.utils.set_random_seed(0)
        >>> y = np.random.randint(0, 3, 300)
        >>> x = np.eye(3)[y] + 0.1 * np.random.randn(300, 3)
        >>> y_noisy = y.copy()
        >>> y_noisy[:30] = (y[:30] + 1) % 3
        >>> backbone = keras.Sequential([keras.Input((3,)), keras.layers.Dense(3)])
        >>> model = kf.FisherPenaltyModel(backbone, alpha=0.1, seed=0)
        >>> model.compile(
        ...     keras.optimizers.SGD(1.0),
        ...     keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        ... )
        >>> scores = kf.callbacks.LabelScores((x, y_noisy))
        >>> history = model.fit(x, y_noisy, epochs=6, callbacks=[scores], verbose=0)
        >>> found = scores.result()
        >>> print(found)
        30 of 300 labels (10.0%) are probably wrong
        >>> bool((found.is_suspect == (y != y_noisy)).all())
        True
        >>> bool((found.suggestions == y).all())
        True

    Args:
        data: The training data, arrays `(x, y)` or a dataset of such batches (`tf.data.Dataset`,
            `keras.utils.PyDataset` or torch `DataLoader`) that gives the examples in the same order
            each time. Labels are classes or one-hot. Sample weights have no effect.
        num_measurements: The number of epochs to measure after. The last epoch is one of them. If
            it is larger than the number of epochs, every epoch is measured.
        batch_size: The number of examples of arrays measured at a time.
        likelihood: The model's likelihood, `Categorical` or `Bernoulli`; `None` infers it from the
            compiled loss.

    Attributes:
        measured_epochs: The epochs after which this training was measured, counted from 0.

    Raises:
        TypeError: if an argument has the wrong type.
        ValueError: if a number is out of range, or `data` holds too little; when training begins,
            if the model has no likelihood of classes; at the first measurement, if an example does
            not have one label, or `data` is shuffled.

    Reference:
        [Pleiss et al., 2020](https://arxiv.org/abs/2001.10528), Identifying Mislabeled Data using
        the Area Under the Margin Ranking.
    """

    key = "suspect_fraction"
    measured_epochs: list[int]
    _total: np.ndarray | None  # of the probabilities
    _labels: np.ndarray | None

    def __init__(
        self,
        data: Any,
        *,
        num_measurements: int = 6,
        batch_size: int = 512,
        likelihood: Likelihood | None = None,
    ) -> None:
        super().__init__(data, "epoch", None, batch_size, likelihood, needs_labels=True)
        self.num_measurements = arguments.check_integer("num_measurements", num_measurements, low=1)

    def __getstate__(self) -> dict[str, Any]:
        return super().__getstate__() | {"measured_epochs": list(self.measured_epochs)}

    def result(self) -> WrongLabels:
        """Returns the scores of the labels, in the order of `data`.

        Raises:
            ValueError: if nothing was measured yet.
        """
        if self._total is None or self._labels is None:
            raise ValueError(
                "`result` needs a measurement, after an epoch of `fit`. Received: none so far"
            )
        return find_wrong_labels(self._total / len(self.measured_epochs), self._labels)

    def get_state(self) -> dict[str, Any]:
        return super().get_state() | {
            "measured_epochs": list(self.measured_epochs),
            "total": _encode(self._total),
            "labels": _encode(self._labels),
        }

    def set_state(self, state: dict[str, Any]) -> None:
        super().set_state(state)
        self.measured_epochs = list(state["measured_epochs"])
        self._total, self._labels = _decode(state["total"]), _decode(state["labels"])

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        super().on_train_begin(logs)
        epochs, number = self.params["epochs"], self.num_measurements
        self._schedule = {math.ceil(epochs * (k + 1) / number) for k in range(number)}

    def _make_meter(self, model: keras.Model) -> PredictionMeter:
        return PredictionMeter(model, self.likelihood)

    def _look(self, logs: dict[str, Any] | None) -> None:
        if self._labels is None and not isinstance(self._data, tuple | list):
            self._labels = self._meter.read_labels(self._data)
        if self._epochs not in self._schedule:
            return
        predicted, labels = self._meter.predict(self._data, self.batch_size)
        if not np.isfinite(predicted).all():
            self._warn_of_nan(math.nan, f"after {self._epochs} epochs, and skips this measurement")
            return
        self._check_order(labels)
        self._labels = labels
        self._total = predicted.astype("float64") + (0.0 if self._total is None else self._total)
        self.measured_epochs.append(self._epochs - 1)

    def _check_order(self, labels: np.ndarray) -> None:
        """Raises unless the data gives the labels that were read before again."""
        if self._labels is None or np.array_equal(labels, self._labels):
            return
        differing = "another number of labels"
        if len(labels) == len(self._labels):
            differing = f"{np.sum(labels != self._labels)} of {len(labels)} labels that differ"
        raise ValueError(
            "`data` must give the same examples in the same order each time, because the "
            f"callback reports them by their place. Received: {differing} from those that were "
            "read before. Remove `shuffle` from this dataset"
        )

    def _values(self) -> dict[str, float]:
        is_measured = self._total is not None
        return {self.key: float(np.mean(self.result().is_suspect)) if is_measured else math.nan}

    def _forget(self) -> None:
        self.measured_epochs = []
        self._total = self._labels = None

    def _forget_after(self, step: int) -> None:
        is_newer = self.measured_epochs and self.measured_epochs[-1] >= self._epochs
        if self._is_restored and is_newer:
            raise ValueError(
                "`state` must not be newer than the model, because measurements are averaged. "
                f"Received: a state measured after epoch {self.measured_epochs[-1]}, and training "
                f"that continues with epoch {self._epochs}"
            )


def _encode(array: np.ndarray | None) -> str | None:
    """Returns an array as text, for JSON."""
    if array is None:
        return None
    file = io.BytesIO()
    np.save(file, array, allow_pickle=False)
    return base64.b64encode(file.getvalue()).decode("ascii")


def _decode(text: str | None) -> np.ndarray | None:
    """Returns the array from the result of `_encode`."""
    if text is None:
        return None
    return np.load(io.BytesIO(base64.b64decode(text)), allow_pickle=False)
