"""What the recipes share: the parts of an experiment, its runs, their records and pictures.

| file | holds |
|---|---|
| `setting.py` | what is trained, as plain data: a `Setting`, and a single `Run` of it |
| `paper.py` | the settings of the paper, and what the smaller presets start from |
| `devices.py` | what a recipe trains on: one device or more |
| `backend.py` | what the Keras backend has of its own: `on_tensorflow.py`, `on_jax.py` |
| `networks.py` | the networks that a setting can name |
| `data.py` | the data that a run learns |
| `training.py` | the training of one run, which resumes after it was killed |
| `batch_accuracy.py` | the training accuracy of each mini-batch |
| `record.py` | what a run remembers on disk |
| `board.py` | what TensorBoard shows of a run |
| `progress.py` | the progress bars |
| `recipe.py` | a recipe: presets, the plan of its runs, table and figure |
| `command.py` | the command line |
| `running.py` | one run of a plan after another |
| `side_by_side.py` | several runs of a plan at a time |
| `search.py` | the runs of a grid as a search of keras-tuner, on one machine or many |
| `tuned.py` | what searches have found, for the recipes that need it |
| `cost.py` | what a command would cost |
| `results.py` | finished runs read from folders, and grouped over seeds |
| `correlation.py` | correlation coefficients over runs |
| `picture.py` | curves, scatters and Markdown tables |
| `report.py` | a recipe's table and figure, from folders alone |
| `figures.py` | the kinds of a run's figures |
| `kinds.py` | what values read from JSON must be |
| `files.py` | files that are replaced in one step |
| `lock.py` | one process at a time in the folder of a run |
| `versions.py` | which packages a run was made with |
| `errors.py` | what bad input raises |
"""

import multiprocessing
import sys
from types import TracebackType

INTERRUPTED = "\nInterrupted. The same command resumes the recipe."

_show = sys.excepthook


def _interrupted(
    kind: type[BaseException], error: BaseException, traceback: TracebackType | None
) -> None:
    """Says in a sentence that Ctrl-C came while the packages were imported."""
    if not issubclass(kind, KeyboardInterrupt):
        _show(kind, error, traceback)
    elif multiprocessing.parent_process() is None:
        print(INTERRUPTED, file=sys.stderr)


# Importing Keras takes seconds, before `command.main` can do it.
sys.excepthook = _interrupted
