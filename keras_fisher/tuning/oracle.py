"""A grid search that resumes where it was killed."""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras_tuner
from keras_tuner.engine import trial as trials

_TO_BE_RUN = (trials.TrialStatus.RUNNING, trials.TrialStatus.INVALID)  # again, or at all


class GridOracle(keras_tuner.Oracle):
    """Tries every combination of hyperparameter values once, and resumes.

    The next trial is the first combination that no trial has, in the order in which the
    hyperparameters were declared, the last one varying fastest. So a search that was killed, or
    whose grid has grown, trains what is missing. (`keras_tuner.GridSearch` does not resume.)
    A trial that was running when the search was killed is run again, if the grid still has it.

    It takes the arguments of `keras_tuner.Oracle`, such as `objective` and `max_retries_per_trial`.

    Examples:
        >>> import keras_fisher as kf
        >>> kf.tuning.GridOracle(objective="val_accuracy").objective.direction
        'max'
    """

    _retry_queue: list[str]  # keras-tuner gives it no type

    @keras_tuner.synchronized
    def create_trial(self, tuner_id: str) -> trials.Trial:
        grid = list(self._combinations())
        self._retry_queue = [
            trial_id
            for trial_id in self._retry_queue
            if self.trials[trial_id].hyperparameters.values in grid
        ]
        return super().create_trial(tuner_id)

    def populate_space(self, trial_id: str) -> dict[str, Any]:
        tried = [trial.hyperparameters.values for trial in self.trials.values()]
        for values in self._combinations():
            if values not in tried:
                return {"status": trials.TrialStatus.RUNNING, "values": values}
        return {"status": trials.TrialStatus.STOPPED}

    def _combinations(self) -> Iterator[dict[str, Any]]:
        """Values of the active hyperparameters; a combination may come more than once."""
        space = self.hyperparameters.space
        for values in itertools.product(*(parameter.values for parameter in space)):
            chosen = keras_tuner.HyperParameters()
            for parameter, value in zip(space, values, strict=True):
                chosen.merge([parameter])
                if chosen.is_active(parameter):
                    chosen.values[parameter.name] = value
            yield chosen.values

    def save(self) -> None:
        _write(self._get_oracle_fname(), self.get_state())

    def _save_trial(self, trial: trials.Trial) -> None:
        _write(os.path.join(self._get_trial_dir(trial.trial_id), "trial.json"), trial.get_state())

    def reload(self) -> None:
        """Reads the search from its folder.

        What the trials' own files say counts: a process may have been killed between writing one of
        them and writing the list of all.
        """
        super().reload()
        waiting = {t.trial_id for t in self.trials.values() if t.status in _TO_BE_RUN}
        self._retry_queue = sorted(waiting, reverse=True)  # the last of it is run first


def _write(path: str, state: dict[str, Any]) -> None:
    """Writes JSON so that a process that is killed leaves the old file or the new one."""
    new = Path(f"{path}.new")
    new.write_text(json.dumps(state))
    new.replace(path)
