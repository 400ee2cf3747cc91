"""A tuner for grid searches."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import keras_tuner
from keras_tuner.engine.trial import TrialStatus

from keras_fisher.tuning.fingerprint import make_fingerprint, read_fingerprint
from keras_fisher.tuning.hypermodel import FisherPenaltyHyperModel
from keras_fisher.tuning.oracle import GridOracle, check_overwrite, is_worker
from keras_fisher.tuning.resumable import ResumableTuner
from keras_fisher.utils import arguments
from keras_fisher.utils.messages import warn

_VALUES = "hyperparameters"


class GridSearch(ResumableTuner):
    """Trains every combination of hyperparameters once; the same command resumes after a kill.

    It repeats trials that failed, and warns if any did.

    If you add values to the grid, the search trains only the new combinations. If you remove a
    hyperparameter, the existing search keeps its old values: start again with `overwrite=True`.

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
    with `KERASTUNER_TUNER_ID` set to "chief" on one and to "tuner0", "tuner1", ... on the others,
    and `KERASTUNER_ORACLE_IP` and `KERASTUNER_ORACLE_PORT` set to the chief's address. If a worker
    was killed, restart it under the same name: it receives its interrupted trial again.

    Args:
        hypermodel: The hypermodel to search, such as `FisherPenaltyHyperModel`.
        objective: The metric to compare, at the best epoch of each trial (appendix G.2).
        directory: The folder of the search. Use a new combination of `directory` and
            `project_name` for each model and data set.
        project_name: The name of the search's subfolder.
        overwrite: Whether to delete an existing search and start again.
        max_retries_per_trial: The number of times to retry a failed trial.
        max_consecutive_failed_trials: The number of failures in a row that stops the search.
        **kwargs: Other arguments of `keras_tuner.Tuner`, such as `distribution_strategy`. The
            hypermodel compiles the model, so `optimizer`, `loss` and `metrics` are refused. So are
            `executions_per_trial` of a `FisherPenaltyHyperModel`, because its seed is a
            hyperparameter: list several `seeds` instead.

    Raises:
        TypeError: if an argument has the wrong type.
        ValueError: if a number is out of range, an argument is unknown to `keras_tuner.Tuner` or
            refused, or `overwrite` is set on a worker.
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
        check_overwrite(overwrite)
        if given := sorted({"optimizer", "loss", "metrics"} & kwargs.keys()):
            raise ValueError(
                f"`{given[0]}` must be set by the hypermodel, which compiles the model. "
                f"Received: {given[0]}={kwargs[given[0]]!r}"
            )
        executions = kwargs.get("executions_per_trial", 1)
        if executions != 1 and isinstance(hypermodel, FisherPenaltyHyperModel):
            raise ValueError(
                "`executions_per_trial` must be 1 with a FisherPenaltyHyperModel, whose seed is a "
                f"hyperparameter: list several `seeds` instead. Received: {executions}"
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

    def search(self, *args: Any, **kwargs: Any) -> None:
        """Trains all missing combinations; takes the arguments of `fit`.

        Raises:
            ValueError: if the folder has a search with another model, other arrays or arguments of
                `fit`, or `callbacks` contain `BackupAndRestore`. The contents of datasets,
                callbacks, the code of functions and initial weights are not compared, and of the
                models only that of the first combination.
        """
        hp = keras_tuner.HyperParameters()
        # The grid may change, so the model is built with the values of the first fingerprint.
        hp.values = read_fingerprint(Path(self.project_dir)).get(_VALUES, {})
        model = self.hypermodel.build(hp)
        fingerprint = make_fingerprint(model, self.oracle.objective, args, kwargs)
        fingerprint |= {"executions_per_trial": self.executions_per_trial, _VALUES: hp.values}
        self.check_search(fingerprint, kwargs.get("callbacks"))
        super().search(*args, **kwargs)
        if is_worker():  # only the chief knows all trials
            return
        finished = self.oracle.trials.values()
        failed = [t.hyperparameters.values for t in finished if t.status == TrialStatus.FAILED]
        if failed:
            warn(
                f"{len(failed)} of {len(finished)} combinations failed, and are not compared: "
                f"{failed}. The same search repeats them."
            )

    def reload(self) -> None:
        """Reads the search from its folder, but takes the hyperparameters from the hypermodel."""
        super().reload()
        if is_worker():
            return
        declared = self.oracle.get_space()
        self.oracle.hyperparameters = keras_tuner.HyperParameters()
        self._populate_initial_space()
        self.oracle.update_space(declared)  # Some are declared only during training.
