"""A grid search that resumes after it was killed."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import keras_tuner
from keras_tuner.engine import trial as trials

from keras_fisher.utils.files import write_json

_STATUS = trials.TrialStatus
_TO_BE_RUN = (_STATUS.RUNNING, _STATUS.INVALID, _STATUS.FAILED)  # interrupted, or to retry


class GridOracle(keras_tuner.Oracle):
    """Tries every combination of hyperparameter values once, and resumes.

    The next trial is the first combination without a trial. Combinations follow the order in which
    hyperparameters were declared, the last one varying fastest. So a search that was killed, or
    whose grid has grown, trains the missing combinations. (`keras_tuner.GridSearch` does not
    resume.) It repeats a trial that failed, or was running when it was killed, if the grid still
    contains it.

    It takes the arguments of `keras_tuner.Oracle`, such as `objective` and `max_retries_per_trial`.

    Examples:
        >>> import keras_fisher as kf
        >>> kf.tuning.GridOracle(objective="val_accuracy").objective.direction
        'max'
    """

    _retry_queue: list[str]  # untyped in keras-tuner
    _run_times: dict[str, int]
    end_order: list[str]

    @keras_tuner.synchronized
    def create_trial(self, tuner_id: str) -> trials.Trial:
        planned = list(self._plan())
        self._retry_queue = [
            trial_id
            for trial_id in self._retry_queue
            if self.trials[trial_id].hyperparameters.values in planned
        ]
        trial = super().create_trial(tuner_id)
        if trial.trial_id in self.trials:  # a repeated one: keras-tuner would keep its old score
            trial.metrics = type(trial.metrics)()
        return trial

    def get_best_trials(self, num_trials: int = 1) -> list[trials.Trial]:
        """Returns the best trials whose values are still in the grid."""
        planned = list(self._plan())
        best = super().get_best_trials(len(self.trials))
        return [trial for trial in best if trial.hyperparameters.values in planned][:num_trials]

    def populate_space(self, trial_id: str) -> dict[str, Any]:
        tried = [trial.hyperparameters.values for trial in self.trials.values()]
        for values in self._plan():
            if values not in tried:
                return {"status": trials.TrialStatus.RUNNING, "values": values}
        return {"status": self._status_without_trial()}

    def _plan(self) -> Iterable[dict[str, Any]]:
        """Yields the values of all trials that are known so far."""
        return self._combinations()

    def _status_without_trial(self) -> str:
        """Returns the status once all planned trials have begun."""
        return trials.TrialStatus.STOPPED

    def _combinations(self) -> Iterator[dict[str, Any]]:
        """Yields values of the active hyperparameters; may repeat a combination."""
        space = self.hyperparameters.space
        for values in itertools.product(*(parameter.values for parameter in space)):
            chosen = keras_tuner.HyperParameters()
            for parameter, value in zip(space, values, strict=True):
                chosen.merge([parameter])
                if chosen.is_active(parameter):
                    chosen.values[parameter.name] = value
            yield chosen.values

    def save(self) -> None:
        write_json(Path(self._get_oracle_fname()), self.get_state())

    def _save_trial(self, trial: trials.Trial) -> None:
        write_json(Path(self._get_trial_dir(trial.trial_id), "trial.json"), trial.get_state())

    def reload(self) -> None:
        """Reads the search from its folder.

        The trials' own files determine their status: a process may have been killed after writing
        one of them and before writing the list of all trials.
        """
        super().reload()
        waiting = {t.trial_id for t in self.trials.values() if t.status in _TO_BE_RUN}
        self._retry_queue = sorted(waiting, reverse=True)  # trials are taken from its end
        for trial_id in waiting:
            self.trials[trial_id].status = _STATUS.INVALID  # failures are counted anew
            self._run_times[trial_id] = 0
        self.end_order = [trial_id for trial_id in self.end_order if trial_id not in waiting]


def is_worker() -> bool:
    """Whether this process gets its trials from a chief."""
    return "KERASTUNER_ORACLE_IP" in os.environ and "chief" not in _get_name()


def check_overwrite(overwrite: bool) -> None:
    """Raises if a worker would delete the search that it shares.

    Raises:
        ValueError: if `overwrite` is set on a worker.
    """
    if overwrite and is_worker():
        raise ValueError(
            "`overwrite` must be False for a worker: it would delete the results of others. "
            f"Received: overwrite=True with KERASTUNER_TUNER_ID={_get_name()}"
        )


def _get_name() -> str:
    return os.environ.get("KERASTUNER_TUNER_ID", "chief")
