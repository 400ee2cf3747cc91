"""The code shared by all recipes.

| file | content |
|---|---|
| `command.py` | the command line |
| `queue.py` | the training of unfinished runs by one process or several |
| `search.py` | searches with keras-tuner |
| `devices.py` | the devices of a recipe, one or more |
| `progress.py` | progress bars |
| `folders.py` | the folders of recipes and runs: who may use one, and why it is refused |
| `files.py` | files that are replaced in one step; locks |
| `errors.py` | errors that the user of a recipe can fix |

| `plan/` | the plan of an experiment |
|---|---|
| `setting.py` | `Setting`, a part of an experiment as plain data, and `Run`, one training |
| `paper.py` | the settings of the paper |
| `small.py` | the basis of the smaller presets |
| `recipe.py` | a recipe: presets, and the plan of its runs |
| `cost.py` | the estimated cost of a command |

| `run/` | one training |
|---|---|
| `training.py` | the training of one run, which resumes after it was killed |
| `data.py` | the training, validation and test data; `sentences.py` is one of the data sets |
| `model.py` | the networks of the settings, and the model of a run |
| `losses.py` | the loss of a run |
| `measures.py` | the measurements of a run |
| `label_figures.py` | how well wrong labels are found |
| `record.py` | the record on disk, with its checkpoints |
| `tensorboard.py` | the TensorBoard logs |

| `methods/` | what recipes compare the penalties with |
|---|---|
| `generalized_cross_entropy.py` | GCE of logits |
| `sharpness.py` | SAM, ASAM and GNP |
| `early_learning.py` | early-learning regularisation (ELR) |

| `results/` | finished runs |
|---|---|
| `finished_runs.py` | finished runs, read from folders and archives |
| `comparison.py` | the settings that runs must share to be compared |
| `archive.py` | the finished runs of a recipe in one small file |
| `findings.py` | what searches have found, and its use in other recipes |
| `choice.py` | ways to choose alpha, for `choosing_alpha.py`; `hyperband.py` is one of them |
| `curvature.py` | Tr(H) during training, and at equal training loss |
| `tables.py` | Markdown tables and correlations |
| `picture.py` | curves and scatter plots |
| `report.py` | a recipe's table and figure |
"""

import os

# Processes share the memory of a GPU. JAX reads this when Keras is imported.
os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
os.environ.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")
