"""The training of one run, which resumes after it was killed."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras

import keras_fisher as kf
from experiment.devices import Devices
from experiment.files import write_json
from experiment.plan.setting import Run
from experiment.run.data import ArrayData, Data, load_data
from experiment.run.measures import make_curves, make_loggers, make_noise_monitor, measure
from experiment.run.model import build_model
from experiment.run.record import BEST, LAST, Record, remove_checkpoints
from experiment.run.tensorboard import write_figures, write_scalars

RECALIBRATION_BATCHES = 100  # appendix G.2


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
    fit(model, record, devices, observers)
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


def fit(
    model: kf.FisherPenaltyModel,
    record: Record,
    devices: Devices,
    observers: Sequence[keras.callbacks.Callback],
) -> None:
    """Trains a model from the epoch that the record has reached to the end."""
    run, data, curves = record.run, record.data, record.curves
    callbacks = [
        *make_controls(run, model, data),
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
            callbacks.append(
                stack.enter_context(write_scalars(record.folder / "tensorboard", curves))
            )
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


def make_controls(
    run: Run, model: kf.FisherPenaltyModel, data: Data
) -> list[keras.callbacks.Callback]:
    """Creates the callbacks that control a training."""
    callbacks: list[keras.callbacks.Callback] = [
        keras.callbacks.LearningRateScheduler(lambda epoch: compute_learning_rate(run, epoch))
    ]
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


def compute_learning_rate(run: Run, epoch: int) -> float:
    """Returns the learning rate in an epoch, counted from 0."""
    return run.learning_rate * run.drop_factor ** sum(epoch >= drop for drop in run.drops)
