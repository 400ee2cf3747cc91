"""The measurements of a run: before, during and after its training."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import keras
import numpy as np

import keras_fisher as kf
from experiment.plan.setting import MEMORISED, Run
from experiment.run.data import ArrayData, Data, measure_accuracy
from experiment.run.label_figures import FoundLabels, HeldOutLabels, predict_logits

# The callbacks that measure traces and norms of training examples ...
TRACES: dict[str, Callable[..., Any]] = {
    "fisher_trace": kf.callbacks.FisherTrace,
    "minibatch_fisher_trace": kf.callbacks.MinibatchFisherTrace,
    "hessian_trace": kf.callbacks.HessianTrace,
    "gradient_norm": kf.callbacks.GradientNorm,
    "early_fisher_trace": kf.callbacks.EarlyPhase,
}
# ... and functions that do so once: the names allowed in `Run.at_start` and `Run.at_best`.
FUNCTIONS: dict[str, Callable[..., kf.Estimate]] = {
    "fisher_trace": kf.fisher_trace,
    "minibatch_fisher_trace": kf.minibatch_fisher_trace,
    "hessian_trace": kf.hessian_trace,
    "gradient_norm": kf.gradient_norm,
}
TAKE_BATCH_SIZE = ("minibatch_fisher_trace", "gradient_norm")


def make_curves(run: Run, data: Data) -> dict[str, Any]:
    """Creates the measuring callbacks with a state, by the key of their logs."""
    others = {key: options for key, options in run.measures.items() if key not in LOGGERS}
    return {key: CURVES[key](key, options, run, data) for key, options in others.items()}


def make_trace(key: str, options: Mapping[str, Any], run: Run, data: Data) -> Any:
    """Creates the callback that measures a trace or a norm."""
    epochs = options.get("every_epochs")
    frequency = {"freq": epochs * data.steps_per_epoch} if epochs else {}
    return TRACES[key](data.training, **frequency, **complete(key, options, run))


def make_loggers(run: Run, data: Data, curves: Mapping[str, Any]) -> list[keras.callbacks.Callback]:
    """Creates the callbacks without a state that add numbers to the logs of each epoch."""
    loggers = [LOGGERS[key](run, data) for key in run.measures if key in LOGGERS]
    if "label_scores" in curves:
        loggers.append(FoundLabels(curves["label_scores"], data))
    return loggers


class NoisyValidation(keras.callbacks.Callback):
    """Logs the accuracy on validation labels that are as noisy as the training labels."""

    def __init__(self, run: Run, data: Any) -> None:
        super().__init__()
        self.data = data.noisy_validation

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        (logs or {})["noisy_val_accuracy"] = measure_accuracy(self.model, *self.data)


class LabelAccuracies(keras.callbacks.Callback):
    """Logs accuracies of one prediction: on test labels, and on noisy labels if there are any.

    `noisy_val_accuracy` is that on validation labels as noisy as the training labels, and
    `memorised_accuracy` is the fraction of wrong training labels that the model predicts. All are 0
    if an output is NaN or infinite.
    """

    def __init__(self, run: Run, data: Any) -> None:
        super().__init__()
        wrong = np.flatnonzero(data.is_wrong)[:MEMORISED]
        parts = {"test_accuracy": data.test}
        if len(wrong):
            parts["noisy_val_accuracy"] = data.noisy_validation
            parts["memorised_accuracy"] = tuple(array[wrong] for array in data.judged)
        self.x = np.concatenate([x for x, _ in parts.values()])
        self.labels = {key: y for key, (_, y) in parts.items()}

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        logits = predict_logits(self.model, self.x)
        ends = np.cumsum([len(y) for y in self.labels.values()])[:-1]
        predicted = np.split(np.argmax(logits, axis=-1), ends)
        is_finite = np.isfinite(logits).all()
        for (key, y), own in zip(self.labels.items(), predicted, strict=True):
            (logs or {})[key] = float(np.mean(own == y)) if is_finite else 0.0


class ProposedAlpha(keras.callbacks.Callback):
    """Logs the middle of `alpha_range`, v, once the loss is a tenth below that of guessing."""

    def __init__(self, run: Run, data: Data) -> None:
        super().__init__()
        self.run, self.data = run, data
        self.value = math.nan

    def get_state(self) -> dict[str, Any]:
        return {"value": None if math.isnan(self.value) else self.value}

    def set_state(self, state: dict[str, Any]) -> None:
        self.value = math.nan if state["value"] is None else state["value"]

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        logs = logs or {}
        if math.isnan(self.value) and logs["loss"] < 0.9 * math.log(self.data.num_classes):
            found = kf.tuning.alpha_range(
                self.model,
                self.data.training,
                batch_size=self.run.batch_size,
                num_batches=min(8, len(self.data.training[1]) // self.run.batch_size),
                seed=self.run.seed,
            )
            self.value = found.value
        logs["proposed_alpha"] = self.value


# The names allowed in `Run.measures`: with a state that checkpoints keep, and without.
CURVES: dict[str, Callable[[str, Mapping[str, Any], Run, Any], Any]] = {
    **dict.fromkeys(TRACES, make_trace),
    "label_scores": lambda _, __, run, data: kf.callbacks.LabelScores(data.training),
    "proposed_alpha": lambda _, __, run, data: ProposedAlpha(run, data),
    "batch_accuracy": lambda _, __, run, data: BatchAccuracy(len(data.training[1]), run.batch_size),
}
LOGGERS: dict[str, Callable[[Run, Any], keras.callbacks.Callback]] = {
    "penalty_ratio": lambda run, data: kf.callbacks.PenaltyRatio(),
    "noisy_val_accuracy": NoisyValidation,
    "label_accuracies": LabelAccuracies,
    "held_out_labels": lambda run, data: HeldOutLabels(data),
}


def make_noise_monitor(run: Run, data: ArrayData) -> kf.callbacks.LabelNoiseMonitor:
    """Creates the callback that measures how clean and wrong labels are learnt."""
    x, y = (part[: run.monitored] for part in data.training)
    return kf.callbacks.LabelNoiseMonitor(
        x,
        y,
        data.is_wrong[: run.monitored],
        batch_size=run.batch_size,
        gradient_batches=run.gradient_batches,
    )


class BatchAccuracy(keras.callbacks.Callback):
    """Stores the training accuracy of every mini-batch in `history`, a list of `(step, accuracy)`.

    Keras logs the mean over the epoch so far, m_t over n_t examples; the accuracy of step t is
    (n_t m_t - n_(t-1) m_(t-1)) / (n_t - n_(t-1)).

    Args:
        num_train: The number of training examples.
        batch_size: The size of all mini-batches except the last one of a pass.
    """

    def __init__(self, num_train: int, batch_size: int) -> None:
        super().__init__()
        self.sizes = [
            min(batch_size, num_train - start) for start in range(0, num_train, batch_size)
        ]
        self.history: list[tuple[int, float]] = []

    def get_state(self) -> dict[str, Any]:
        return {"history": self.history}

    def set_state(self, state: dict[str, Any]) -> None:
        self.history = [(step, accuracy) for step, accuracy in state["history"]]

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self._seen, self._right = 0, 0.0

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        step = len(self.history) + 1
        seen = self._seen + self.sizes[(step - 1) % len(self.sizes)]
        right = seen * float((logs or {})["accuracy"])
        self.history.append((step, (right - self._right) / (seen - self._seen)))
        self._seen, self._right = seen, right


def measure(
    measures: Mapping[str, Mapping[str, Any]], model: keras.Model, run: Run, data: Data
) -> dict[str, Any]:
    """Measures a model on training examples: `{name: {"value": ..., "stderr": ..., ...}}`."""
    return {
        key: FUNCTIONS[key](model, data.training, **complete(key, options, run))._asdict()
        for key, options in measures.items()
    }


def complete(key: str, options: Mapping[str, Any], run: Run) -> dict[str, Any]:
    """Returns the arguments of a measure: those from the run, and its own."""
    arguments: dict[str, Any] = {"num_examples": run.fisher_examples or run.batch_size}
    if key != "gradient_norm":
        arguments["seed"] = run.seed
    if key in TAKE_BATCH_SIZE:
        arguments["batch_size"] = run.batch_size
    return arguments | {k: v for k, v in options.items() if k != "every_epochs"}
