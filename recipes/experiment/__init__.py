"""What the recipes share: the parts of an experiment, its runs, their records and pictures.

| file | holds |
|---|---|
| `setting.py` | what is trained, as plain data: a `Setting`, and a single `Run` of it |
| `paper.py` | the settings of the paper, and what the smaller presets start from |
| `recipe.py` | a recipe: presets, and the plan of its runs |
| `command.py` | the command line |
| `cost.py` | what a command would cost |
| `queue.py` | the training of unfinished runs by one process or several |
| `search.py` | searches of keras-tuner, and what other recipes take of them |
| `devices.py` | what a recipe trains on: one device or more |
| `data.py` | the training, validation and test data of a run |
| `model.py` | the networks that a setting can name, and the model of a run |
| `training.py` | the training of one run, which resumes after it was killed |
| `record.py` | the record of a run on disk, with its checkpoints |
| `tensorboard.py` | what TensorBoard shows of a run |
| `files.py` | files that are replaced in one step; locks |
| `errors.py` | errors that the user of a recipe can fix |
| `results.py` | the folders of recipes and runs: which runs may share one, finished runs |
| `archive.py` | the finished runs of a recipe in one small file |
| `curvature.py` | Tr(H) over trainings, and at equal training loss |
| `tables.py` | Markdown tables and correlations |
| `report.py` | a recipe's table and figure, from folders alone |
| `picture.py` | curves and scatters |
"""

import multiprocessing
import os
import sys
from types import TracebackType

INTERRUPTED = "\nInterrupted. The same command resumes the recipe."

_show = sys.excepthook


def _show_interrupt(
    kind: type[BaseException], error: BaseException, traceback: TracebackType | None
) -> None:
    """Says in a sentence that Ctrl-C came while the packages were imported."""
    if not issubclass(kind, KeyboardInterrupt):
        _show(kind, error, traceback)
    elif multiprocessing.parent_process() is None:
        print(INTERRUPTED, file=sys.stderr)


# Importing Keras takes seconds, before `command.main` can do it.
sys.excepthook = _show_interrupt

# Processes share the memory of a GPU. JAX reads this while Keras is imported.
os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
os.environ.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")
