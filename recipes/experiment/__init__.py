"""The code shared by all recipes: the parts of an experiment, its runs, records and pictures.

| file | content |
|---|---|
| `setting.py` | `Setting`, a part of an experiment as plain data, and `Run`, one training |
| `paper.py` | the settings of the paper, and the basis of the smaller presets |
| `recipe.py` | a recipe: presets, and the plan of its runs |
| `command.py` | the command line |
| `cost.py` | the estimated cost of a command |
| `queue.py` | the training of unfinished runs by one process or several |
| `search.py` | searches with keras-tuner, and their use in other recipes |
| `devices.py` | the devices of a recipe, one or more |
| `data.py` | the training, validation and test data of a run |
| `model.py` | the networks of the settings, and the model of a run |
| `losses.py` | the loss of a run |
| `sharpness.py` | SAM, ASAM and GNP |
| `early_learning.py` | early-learning regularisation (ELR) |
| `training.py` | the training of one run, which resumes after it was killed |
| `record.py` | the record of a run on disk, with its checkpoints |
| `tensorboard.py` | the TensorBoard logs of a run |
| `files.py` | files that are replaced in one step; locks |
| `errors.py` | errors that the user of a recipe can fix |
| `results.py` | the folders of recipes and runs, and the results of finished runs |
| `archive.py` | the finished runs of a recipe in one small file |
| `choice.py` | ways to choose alpha, computed from finished runs; `hyperband.py` is one of them |
| `sentences.py` | a data set of sentences |
| `label_figures.py` | how well wrong labels are found |
| `curvature.py` | Tr(H) during training, and at equal training loss |
| `tables.py` | Markdown tables and correlations |
| `report.py` | a recipe's table and figure, from its folders only |
| `picture.py` | curves and scatter plots |
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
    """Prints a short message instead of a traceback if Ctrl-C interrupts the imports."""
    if not issubclass(kind, KeyboardInterrupt):
        _show(kind, error, traceback)
    elif multiprocessing.parent_process() is None:
        print(INTERRUPTED, file=sys.stderr)


# Importing Keras takes seconds; `command.main` handles Ctrl-C only after that.
sys.excepthook = _show_interrupt

# Processes share the memory of a GPU. JAX reads this when Keras is imported.
os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
os.environ.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")
