"""The tuner of a grid."""

from __future__ import annotations

import os
from typing import Any

import keras_tuner

from keras_fisher.tuning.oracle import GridOracle
from keras_fisher.utils import arguments


class GridSearch(keras_tuner.Tuner):
    """Trains every combination of hyperparameters once; the same command resumes after a kill.

    If you add values to the grid, the search trains only the new combinations. If you remove a
    hyperparameter, the search in the folder keeps its old values: start again with
    `overwrite=True`.

    Examples:
        >>> import keras, numpy as np, tempfile, keras_fisher as kf
        >>> hypermodel = kf.tuning.FisherPenaltyHyperModel(
        ...     lambda hp: keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)]),
        ...     loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        ...     learning_rates=[0.01],
        ...     alphas=[0.001, 0.01],
        ... )
        >>> x, y = np.random.rand(32, 4), np.random.randint(0, 3, 32)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     tuner = kf.tuning.GridSearch(hypermodel, directory=folder)
        ...     tuner.search(x, y, validation_data=(x, y), epochs=1, verbose=0)
        ...     best = tuner.get_best_hyperparameters()[0]
        >>> best.get("alpha") in (0.001, 0.01)
        True

    To search on several machines that share `directory`, start the same program on each of them,
    with `KERASTUNER_TUNER_ID` "chief" on one and "tuner0", "tuner1", ... on the others, and
    `KERASTUNER_ORACLE_IP` and `KERASTUNER_ORACLE_PORT` set to where the chief listens. A worker
    that was killed is started again under its own name, and is given the trial that it was in.

    Args:
        hypermodel: What builds and trains a model, such as `FisherPenaltyHyperModel`.
        objective: What is compared, at the best epoch of each trial (appendix G.2).
        directory: The folder of the search.
        project_name: A folder in it.
        overwrite: Whether to begin anew, and delete what is there.
        max_retries_per_trial: How often a trial that failed is run again.
        max_consecutive_failed_trials: After how many failed trials in a row the search stops.
        **kwargs: Other arguments of `keras_tuner.Tuner`, such as `executions_per_trial`.

    Raises:
        TypeError: if an argument is of another type.
        ValueError: if a number is out of range, `keras_tuner.Tuner` does not know an argument, or a
            worker is to overwrite what others have found.
    """

    def __init__(
        self,
        hypermodel: keras_tuner.HyperModel,
        objective: Any = "val_accuracy",
        *,
        directory: str | os.PathLike[str] = "search",
        project_name: str = "grid",
        overwrite: bool = False,
        max_retries_per_trial: int = 0,
        max_consecutive_failed_trials: int = 3,
        **kwargs: Any,
    ) -> None:
        directory = arguments.check_path("directory", directory)
        project_name = arguments.check_path("project_name", project_name)
        worker = os.environ.get("KERASTUNER_TUNER_ID", "chief")
        if overwrite and "KERASTUNER_ORACLE_IP" in os.environ and "chief" not in worker:
            raise ValueError(
                "`overwrite` must be False for a worker: it would delete what others have found. "
                f"Received: overwrite=True with KERASTUNER_TUNER_ID={worker}"
            )
        super().__init__(
            GridOracle(
                objective=objective,
                max_retries_per_trial=arguments.check_integer(
                    "max_retries_per_trial", max_retries_per_trial, low=0
                ),
                max_consecutive_failed_trials=arguments.check_integer(
                    "max_consecutive_failed_trials", max_consecutive_failed_trials, low=1
                ),
            ),
            hypermodel,
            directory=directory,
            project_name=project_name,
            overwrite=overwrite,
            **kwargs,
        )

    def reload(self) -> None:
        """Reads the search from its folder; which values are tried is what the hypermodel says."""
        super().reload()
        if self._is_worker():
            return
        declared = self.oracle.get_space()
        self.oracle.hyperparameters = keras_tuner.HyperParameters()
        self._populate_initial_space()
        self.oracle.update_space(declared)  # Some are declared in training alone.
