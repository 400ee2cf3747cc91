"""The recipes, and trainings of seconds, on a few digits."""

import dataclasses
from pathlib import Path

import keras
from experiment.devices import Devices
from experiment.plan.setting import Setting
from experiment.run.training import train

RECIPES = Path(__file__).parents[2] / "recipes"
RECIPE_NAMES = sorted(path.stem for path in RECIPES.glob("*.py"))
TASK = {
    "network": "mlp",
    "width": 8,
    "dataset": "digits",
    "num_train": 150,
    "validation_size": 50,
    "learning_rate": 0.03,
    "batch_size": 32,
    "epochs": 4,
    "drops": (3,),
}
# The same on the command line.
OPTIONS = ["--num-train", "150", "--width", "8", "--epochs", "4", "--steps-per-execution", "1"]


class Killed(BaseException):
    """What a training is killed with."""


def tiny(method="fp", **changes):
    """A run of the task with some changes."""
    run = Setting(**TASK).make_run(part="tiny", method=method, update_freq=2)
    return dataclasses.replace(run, **changes)


def trained(run, out, *observers):
    """The figures of a run."""
    (out / run.name).mkdir(parents=True, exist_ok=True)
    return train(run, out, Devices(), *observers)


class Killing(keras.callbacks.Callback):
    """Kills a training after an epoch."""

    def __init__(self, epoch, *_):
        super().__init__()
        self.epoch = epoch

    def on_epoch_end(self, epoch, logs=None):
        if epoch == self.epoch:
            raise Killed
