"""Trainings of seconds, on a few digits."""

from experiment.devices import Devices
from experiment.progress import Progress
from experiment.setting import Run, Task
from experiment.training import train

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
    task = Task(**{**TASK, **{k: changes.pop(k) for k in [*changes] if k in vars(Task(**TASK))}})
    return Run.of(task, **{"part": "tiny", "method": method, "seed": 0, "update_freq": 2} | changes)


def trained(run, out):
    (out / run.name).mkdir(parents=True, exist_ok=True)
    with Progress([run]) as progress:
        return train(run, out, progress, Devices())
