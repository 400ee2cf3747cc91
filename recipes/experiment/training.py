"""The training of one run, which resumes after it was killed."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np

import keras_fisher as kf
from experiment.data import ArrayData, Data, load_data
from experiment.devices import Devices
from experiment.files import write_json
from experiment.label_figures import FoundLabels, HeldOutLabels
from experiment.model import build_model
from experiment.record import BEST, LAST, Record, remove_checkpoints
from experiment.setting import Run
from experiment.tensorboard import write_figures, write_scalars
from keras_fisher.traces import accuracy

# The names allowed in `Run.measures`, with the callbacks that measure on training examples ...
MEASURES: dict[str, Callable[..., Any]] = {
    "fisher_trace": kf.callbacks.FisherTrace,
    "minibatch_fisher_trace": kf.callbacks.MinibatchFisherTrace,
    "hessian_trace": kf.callbacks.HessianTrace,
    "gradient_norm": kf.callbacks.GradientNorm,
    "early_fisher_trace": kf.callbacks.EarlyPhase,
}
# ... and the names allowed in `Run.at_start` and `Run.at_best`.
FUNCTIONS: dict[str, Callable[..., kf.Estimate]] = {
    "fisher_trace": kf.fisher_trace,
    "minibatch_fisher_trace": kf.minibatch_fisher_trace,
    "hessian_trace": kf.hessian_trace,
    "gradient_norm": kf.gradient_norm,
}
TAKE_BATCH_SIZE = ("minibatch_fisher_trace", "gradient_norm")
RECALIBRATION_BATCHES = 100  # appendix G.2
MEMORISED = 2000  # wrong labels to measure memorisation on
PREDICTED = 512  # examples at a time


def train(
    run: Run, out: Path, devices: Devices, *observers: keras.callbacks.Callback
) -> dict[str, Any]:
    """Trains from the last checkpoint in the run's folder to the end; returns the figures."""
    folder = out / run.name
    data = load_data(run)
    with devices.scope():
        model = build_model(run, data)
    if run.initial:
        model.backbone.load_weights(out / run.initial / LAST)
    curves = make_curves(run, data)
    record = Record(folder, run, data, curves, is_kept=devices.is_chief)
    record.restore(model)
    devices.check_same(record.first_epoch, f"the number of epochs of {run.name} so far")
    if not record.first_epoch:
        record.state["start"] = measure(run.at_start, model, run, data)
    callbacks = [
        *make_schedules(run, model, data),
        *make_loggers(run, data, curves),
        *curves.values(),
    ]
    if run.monitored and isinstance(data, ArrayData):
        callbacks.append(make_noise_monitor(run, data))
    validation, batch_size = data.validation, None
    if isinstance(data, ArrayData):
        validation, batch_size = devices.take_part_of_arrays(validation, run.batch_size)
    with devices.training_scope(), contextlib.ExitStack() as stack:
        if devices.is_chief:
            callbacks.append(stack.enter_context(write_scalars(folder / "tensorboard", curves)))
        model.fit(
            devices.take_part(data.make_batches(record.first_epoch)),
            validation_data=validation,
            validation_batch_size=batch_size,
            initial_epoch=record.first_epoch,
            epochs=run.epochs,
            steps_per_epoch=data.steps_per_epoch,
            shuffle=False,
            verbose=0,
            callbacks=[*callbacks, record, *observers],
        )
    figures = record.finish()
    if run.at_best:
        devices.check_same(run.epochs, f"the length of {run.name}")  # the chief has written
        model.backbone.load_weights(folder / BEST)
        figures["best"] |= measure(run.at_best, model, run, data)
    if devices.is_chief:
        write_figures(folder / "tensorboard", run, figures)
        write_json(folder / "results.json", figures)
        remove_checkpoints(folder)
    return figures


# ---- Callbacks -----------------------------------------------------------------------------------


def make_schedules(
    run: Run, model: kf.FisherPenaltyModel, data: Data
) -> list[keras.callbacks.Callback]:
    """Creates the callbacks that control a training."""

    def learning_rate(epoch: int) -> float:
        return run.learning_rate * run.drop_factor ** sum(epoch >= drop for drop in run.drops)

    callbacks = [keras.callbacks.LearningRateScheduler(learning_rate)]
    if run.penalty_from:
        callbacks.append(
            kf.callbacks.AlphaScheduler(lambda epoch: run.alpha * (epoch >= run.penalty_from))
        )
    if any(isinstance(layer, keras.layers.BatchNormalization) for layer in model.backbone.layers):
        batches = min(RECALIBRATION_BATCHES, data.full_epoch)
        callbacks.append(
            kf.callbacks.BatchNormRecalibration(
                data.training, num_batches=batches, batch_size=run.batch_size
            )
        )
    return callbacks


def make_curves(run: Run, data: Data) -> dict[str, Any]:
    """Creates the measuring callbacks with a state, by the key of their logs."""
    curves: dict[str, Any] = {}
    for key, options in run.measures.items():
        if key in LOGGERS:
            continue
        if key == "label_scores":
            curves[key] = kf.callbacks.LabelScores(data.training)
        elif key == "batch_accuracy":
            curves[key] = BatchAccuracy(len(data.training[1]), run.batch_size)
        else:
            epochs = options.get("every_epochs")
            frequency = {"freq": epochs * data.steps_per_epoch} if epochs else {}
            curves[key] = MEASURES[key](data.training, **frequency, **complete(key, options, run))
    return curves


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
        (logs or {})["noisy_val_accuracy"] = accuracy(self.model, *self.data)


class LabelAccuracies(keras.callbacks.Callback):
    """Logs accuracies of one prediction: on test labels, and on noisy labels if there are any.

    `noisy_val_accuracy` is that on validation labels as noisy as the training labels, and
    `memorised_accuracy` is the fraction of wrong training labels that the model predicts.
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
        outputs = self.model.predict(self.x, batch_size=PREDICTED, verbose=0)
        ends = np.cumsum([len(y) for y in self.labels.values()])[:-1]
        predicted = np.split(np.argmax(outputs, axis=-1), ends)
        for (key, y), own in zip(self.labels.items(), predicted, strict=True):
            (logs or {})[key] = float(np.mean(own == y))


class ProposedAlpha(keras.callbacks.Callback):
    """Logs the middle of `alpha_range`, v, once the loss is a tenth below that of guessing."""

    def __init__(self, run: Run, data: Data) -> None:
        super().__init__()
        self.run, self.data = run, data
        self.value = math.nan

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


# The names allowed in `Run.measures` besides those of `MEASURES`.
LOGGERS: dict[str, Callable[[Run, Any], keras.callbacks.Callback]] = {
    "penalty_ratio": lambda run, data: kf.callbacks.PenaltyRatio(),
    "noisy_val_accuracy": NoisyValidation,
    "label_accuracies": LabelAccuracies,
    "proposed_alpha": ProposedAlpha,
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


# ---- Measures ------------------------------------------------------------------------------------


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
