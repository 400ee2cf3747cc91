"""Labels that the predictions of a model contradict."""

from __future__ import annotations

import dataclasses
import math

import keras
import numpy as np

from keras_fisher.data.labels import check_label_array
from keras_fisher.utils import arguments


@dataclasses.dataclass(frozen=True)
class WrongLabels:
    """How likely each label of a data set is right, and which labels probably are wrong.

    Attributes:
        scores: The probability of each label against its strongest rival, a float64 array of shape
            `(n,)` in [0, 1]. The lower the score, the more likely the label is wrong.
        is_suspect: Whether each label is probably wrong, booleans of shape `(n,)`.
        suggestions: The most probable class of each example, integers of shape `(n,)`.
    """

    scores: np.ndarray
    is_suspect: np.ndarray
    suggestions: np.ndarray

    @property
    def ranking(self) -> np.ndarray:
        """The positions of all examples, the most suspicious first."""
        return np.argsort(self.scores, kind="stable")

    def __str__(self) -> str:
        number, total = int(self.is_suspect.sum()), len(self.scores)
        return f"{number} of {total} labels ({number / total:.1%}) are probably wrong"


def find_wrong_labels(probabilities: np.ndarray, y: np.ndarray) -> WrongLabels:
    """Finds labels that predicted probabilities contradict.

    The score of a label y is its probability against its strongest rival,

        s(x, y) = p(y | x) / (p(y | x) + max_{c != y} p(c | x)).

    A label is suspect if another class is more probable (s < 1/2) and its loss -log p(y | x)
    belongs to the higher of two groups. Otsu's threshold splits the losses into the two groups with
    the least variance within.

    Use probabilities of a model that has not memorised the labels: those that
    `keras_fisher.callbacks.LabelScores` averages over a training, or cross-validated ones. A model
    that has not learnt to tell the classes apart contradicts many correct labels, too: the ranking
    then helps more than the cut.

    Examples:
        >>> import numpy as np, keras_fisher as kf
        >>> probabilities = np.array([[0.9, 0.1], [0.8, 0.2], [0.25, 0.75], [0.4, 0.6]])
        >>> found = kf.data.find_wrong_labels(probabilities, np.array([0, 1, 1, 1]))
        >>> print(found.scores)
        [0.9  0.2  0.75 0.6 ]
        >>> print(found.is_suspect, found.suggestions)
        [False  True False False] [0 0 1 1]
        >>> print(found.ranking)
        [1 3 2 0]

    Args:
        probabilities: The predicted probability of each class, a float array of shape
            `(n, classes)`.
        y: The labels to judge, an integer array of shape `(n,)`.

    Returns:
        A `WrongLabels`.

    Raises:
        TypeError: if `y` is not an integer array.
        ValueError: if `probabilities` are not numbers in [0, 1] for at least two classes, if the
            arrays are empty or differ in length, or if a label is not a class.

    Reference:
        [Otsu, 1979](https://doi.org/10.1109/TSMC.1979.4310076), A Threshold Selection Method from
        Gray-Level Histograms.
    """
    p, labels = (arguments.check_array(*a) for a in (("probabilities", probabilities), ("y", y)))
    arguments.check_lengths("probabilities", p, labels)
    p = _check_probabilities(p)
    check_label_array("y", y, p.shape[1])
    given, others = p[np.arange(len(y)), y], p.copy()
    others[np.arange(len(y)), y] = 0.0
    rivals = others.max(axis=1)
    total = given + rivals
    scores = np.divide(given, total, out=np.full(len(y), 0.5), where=total > 0)
    losses = -np.log(np.maximum(given, keras.config.epsilon()))
    is_suspect = (scores < 0.5) & (losses >= _split(losses))
    return WrongLabels(scores, is_suspect, suggestions=p.argmax(axis=1))


def _split(values: np.ndarray) -> float:
    """Returns the least value of the upper of two groups, by Otsu's method; infinite for one."""
    values = np.sort(values)
    total, lower = len(values), np.arange(1, len(values))
    sums = np.cumsum(values)
    differences = sums[:-1] / lower - (sums[-1] - sums[:-1]) / (total - lower)
    between = lower * (total - lower) * differences**2
    return float(values[between.argmax() + 1]) if values[0] < values[-1] else math.inf


def _check_probabilities(array: np.ndarray) -> np.ndarray:
    """Returns the probabilities in float64."""
    if array.ndim != 2 or array.shape[1] < 2 or not np.issubdtype(array.dtype, np.floating):
        raise ValueError(
            "`probabilities` must be a float array of shape (n, classes), for at least 2 classes. "
            f"Received: shape {array.shape}, dtype {array.dtype}"
        )
    if not ((array >= 0) & (array <= 1)).all():  # false for NaN
        raise ValueError(
            "`probabilities` must lie in [0, 1]. "
            f"Received: numbers from {array.min()} to {array.max()}"
        )
    return array.astype("float64")
