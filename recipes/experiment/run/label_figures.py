"""How well wrong labels are found."""

from __future__ import annotations

import math
from typing import Any

import keras
import numpy as np
from sklearn.metrics import roc_auc_score

import keras_fisher as kf

PREDICTED = 512  # examples at a time
# The names of what `judge` measures, in the logs: the area under the ROC curve, the precision of as
# many of the lowest scores as there are wrong labels, and the precision and recall of the cut.
FIGURES = ("label_auroc", "precision_at_rate", "suspect_precision", "suspect_recall")


def judge(scores: np.ndarray, is_suspect: np.ndarray, is_wrong: np.ndarray) -> dict[str, float]:
    """Returns how well scores, low for wrong labels, rank them, and how well a cut finds them."""
    figures = (
        compute_auroc(is_wrong, -scores),
        is_wrong[np.argsort(scores)[: is_wrong.sum()]].mean(),
        is_wrong[is_suspect].mean() if is_suspect.any() else math.nan,
        is_suspect[is_wrong].mean(),
    )
    return dict(zip(FIGURES, figures, strict=True))


def compute_auroc(is_wrong: np.ndarray, scores: np.ndarray) -> float:
    """Returns the area under the ROC curve of scores, high for wrong labels; NaN if one is NaN."""
    return float(roc_auc_score(is_wrong, scores)) if np.isfinite(scores).all() else math.nan


class FoundLabels(keras.callbacks.Callback):
    """Logs how well the scores of the training labels so far find the wrong ones.

    It also logs how well the loss and the gradient norm of this epoch rank labels.
    """

    def __init__(self, scores: kf.callbacks.LabelScores, data: Any) -> None:
        super().__init__()
        self.scores, self.data = scores, data
        self._norms: Any = None

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        logs, is_wrong = {} if logs is None else logs, self.data.is_wrong
        logs |= dict.fromkeys((*FIGURES, "loss_auroc", "norm_auroc"), math.nan)
        if self.scores.measured_epochs:
            found = self.scores.result()
            logs |= judge(found.scores, found.is_suspect, is_wrong)
        if epoch in self.scores.measured_epochs:
            x, y = self.data.judged
            if self._norms is None:
                self._norms = kf.traces.PerExampleGradientNormsMeter(self.model)
            probabilities = predict(self.model, x)
            logs["loss_auroc"] = compute_auroc(is_wrong, -probabilities[np.arange(len(y)), y])
            logs["norm_auroc"] = compute_auroc(is_wrong, self._norms((x, y)))


class HeldOutLabels(keras.callbacks.Callback):
    """Logs how well cleanlab finds the wrong labels of the part that is held out.

    It takes the defaults of cleanlab (Northcutt et al., 2021): confident learning for the cut, and
    the probability of the label as the score. All figures are NaN if a probability is.
    """

    def __init__(self, data: Any) -> None:
        super().__init__()
        self.data = data

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        from cleanlab.filter import find_label_issues
        from cleanlab.rank import get_label_quality_scores

        logs = {} if logs is None else logs
        x, y = self.data.judged
        probabilities = predict(self.model, x)
        if not np.isfinite(probabilities).all():
            logs |= dict.fromkeys(FIGURES, math.nan)
            return
        scores = get_label_quality_scores(y, probabilities)
        is_suspect = find_label_issues(y, probabilities, n_jobs=1)
        logs |= judge(scores, is_suspect, self.data.is_wrong)


def predict(model: keras.Model, x: np.ndarray) -> np.ndarray:
    """Returns the predicted probabilities of a model with logits."""
    return keras.ops.convert_to_numpy(keras.ops.softmax(predict_logits(model, x)))


def predict_logits(model: keras.Model, x: np.ndarray) -> np.ndarray:
    """Returns the outputs of a model."""
    return model.predict(x, batch_size=PREDICTED, verbose=0)
