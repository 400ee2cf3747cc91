"""The training of one run, which resumes after it was killed."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import keras

import keras_fisher as kf
from experiment import board, networks
from experiment.batch_accuracy import BatchAccuracy
from experiment.data import ArrayData, Data, load
from experiment.devices import Devices
from experiment.files import write_json
from experiment.progress import EpochBar, Progress
from experiment.record import BEST, LAST, Record, clear
from experiment.setting import Run

# What `Run.measures` can name, with the callback that measures it on training examples ...
MEASURES: dict[str, Callable[..., Any]] = {
    "fisher_trace": kf.callbacks.FisherTrace,
    "minibatch_fisher_trace": kf.callbacks.MinibatchFisherTrace,
    "hessian_trace": kf.callbacks.HessianTrace,
    "gradient_norm": kf.callbacks.GradientNorm,
    "early_fisher_trace": kf.callbacks.EarlyPhase,
}
# ... and what `Run.at_start` and `Run.at_best` can name.
FUNCTIONS: dict[str, Callable[..., kf.Estimate]] = {
    "fisher_trace": kf.fisher_trace,
    "minibatch_fisher_trace": kf.minibatch_fisher_trace,
    "hessian_trace": kf.hessian_trace,
    "gradient_norm": kf.gradient_norm,
}
OF_MINIBATCHES = ("minibatch_fisher_trace", "gradient_norm")  # they depend on the batch size
RECALIBRATION_BATCHES = 100  # appendix G.2
STEPS_BETWEEN_SCALARS = 10
BOARD = "tensorboard"
# What TensorBoard's HParams tab shows of a finished run: what tells it from others of its part, and
# its end. The tab hides what is more than five settings.
COLUMNS = ("seed", "learning_rate", "alpha", "method", "value")
FIGURES = ("best/validation_accuracy", "best/test_accuracy", "final/test_accuracy")


def train(run: Run, out: Path, progress: Progress, devices: Devices) -> dict[str, Any]:
    """Trains from the last checkpoint in the run's folder to the end, and returns the figures."""
    folder = out / run.name
    data = load(run)
    with devices.scope():
        model = build_model(run, data)
    if run.initial:
        model.backbone.load_weights(out / run.initial / LAST)
    curves = _curves(run, data)
    record = Record(folder, run, data, curves, is_kept=devices.is_chief)
    record.restore(model)
    devices.check_alike(record.first_epoch, f"the number of epochs of {run.name} so far")
    if record.first_epoch:
        progress.write(f"{run.name}: goes on from its checkpoint after epoch {record.first_epoch}")
        progress.skip(record.first_epoch)
    else:
        record.state["start"] = _measured(run.at_start, model, run, data)
    callbacks = [*_acting(run, model, data), *curves.values()]
    if run.monitored and isinstance(data, ArrayData):
        callbacks.append(_label_noise(run, data))
    with contextlib.ExitStack() as stack:
        if devices.is_chief:
            scalars = board.scalars(folder / BOARD, STEPS_BETWEEN_SCALARS, [*curves.values()])
            callbacks.append(stack.enter_context(scalars))
        model.fit(
            data.batches(record.first_epoch),
            validation_data=data.validation,
            validation_batch_size=run.batch_size if isinstance(data, ArrayData) else None,
            initial_epoch=record.first_epoch,
            epochs=run.epochs,
            steps_per_epoch=data.steps_per_epoch,
            shuffle=False,
            verbose=0,
            callbacks=[*callbacks, record, EpochBar(progress)],
        )
    figures = record.finish()
    if not devices.is_chief:
        return figures
    if run.at_best:
        model.backbone.load_weights(folder / BEST)
        figures["best"] |= _measured(run.at_best, model, run, data)
    _write_figures(run, figures, folder / BOARD)
    write_json(folder / "results.json", figures)
    clear(folder)
    return figures


def build_model(run: Run, data: Data) -> kf.FisherPenaltyModel:
    """The compiled model of a run, with its initial weights."""
    keras.utils.set_random_seed(run.seed)
    backbone = networks.build(run.network, data.input_shape, data.num_classes, run.width, run.seed)
    if run.weight_decay:
        for variable in backbone.trainable_variables:
            variable.regularizer = keras.regularizers.L2(run.weight_decay / 2)
    model = kf.FisherPenaltyModel(
        backbone,
        alpha=0.0 if run.penalty_from else run.alpha,
        penalty=run.penalty,
        update_freq=run.update_freq,
        penalty_batch_size=run.penalty_batch_size or None,
        seed=run.seed,
    )
    losses = keras.losses
    loss = losses.SparseCategoricalCrossentropy(from_logits=True)
    if run.mixup_beta:
        loss = losses.CategoricalCrossentropy(from_logits=True)
    optimizer = keras.optimizers.SGD(run.learning_rate, momentum=0.9)
    model.compile(
        optimizer, loss, metrics=["accuracy"], steps_per_execution=run.steps_per_execution
    )
    optimizer.build(model.trainable_variables)
    return model


def _acting(run: Run, model: kf.FisherPenaltyModel, data: Data) -> list[keras.callbacks.Callback]:
    """The callbacks that act on a training."""

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


def _curves(run: Run, data: Data) -> dict[str, Any]:
    """The callbacks that only look, by the key of what they log."""
    curves: dict[str, Any] = {}
    for key, arguments in run.measures.items():
        if key == "batch_accuracy":
            curves[key] = BatchAccuracy(len(data.training[1]), run.batch_size)
        else:
            given = _frequency(arguments, data) | _arguments(key, arguments, run)
            curves[key] = MEASURES[key](data.training, **given)
    return curves


def _label_noise(run: Run, data: ArrayData) -> kf.callbacks.LabelNoiseMonitor:
    """Follows how clean and wrong labels are learnt."""
    x, y = (part[: run.monitored] for part in data.training)
    return kf.callbacks.LabelNoiseMonitor(
        x,
        y,
        data.is_wrong[: run.monitored],
        batch_size=run.batch_size,
        gradient_batches=run.gradient_batches,
    )


def _measured(
    measures: Mapping[str, Mapping[str, Any]], model: keras.Model, run: Run, data: Data
) -> dict[str, Any]:
    """Measures a model on training examples: `{name: {"value": ..., "stderr": ..., ...}}`."""
    return {
        key: FUNCTIONS[key](model, data.training, **_arguments(key, arguments, run))._asdict()
        for key, arguments in measures.items()
    }


def _frequency(given: Mapping[str, Any], data: Data) -> dict[str, int]:
    """`every_epochs` in steps."""
    epochs = given.get("every_epochs")
    return {"freq": epochs * data.steps_per_epoch} if epochs else {}


def _arguments(key: str, given: Mapping[str, Any], run: Run) -> dict[str, Any]:
    drawn = {} if key == "gradient_norm" else {"seed": run.seed}
    of_batches = {"batch_size": run.batch_size} if key in OF_MINIBATCHES else {}
    given = {name: value for name, value in given.items() if name != "every_epochs"}
    return {"num_examples": run.fisher_examples or run.batch_size, **drawn, **of_batches, **given}


def _write_figures(run: Run, figures: Mapping[str, Any], folder: Path) -> None:
    """Shows the run in TensorBoard's table of settings and final figures."""
    settings = {k: v for k, v in vars(run).items() if isinstance(v, bool | int | float | str)}
    shown = {tag: figures[moment][key] for tag in FIGURES for moment, key in [tag.split("/")]}
    board.write_figures(folder, run.name, settings, shown, run.epochs, COLUMNS)
