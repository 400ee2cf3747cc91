"""Successive halving: trains all alphas for some epochs, and continues only with the best."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import keras
import keras_tuner
import numpy as np
from keras_tuner.engine import trial as trials

from keras_fisher.model import FisherPenaltyModel
from keras_fisher.tuning.oracle import GridOracle

# As in keras-tuner's Hyperband: the epochs of a trial, and the trial that it continues.
_FIRST_EPOCH, _EPOCHS, _PARENT = "tuner/initial_epoch", "tuner/epochs", "tuner/trial_id"
_AVERAGED = (
    5  # a score is the mean over this part of the epochs, the last fifth: one epoch is noisy
)


class Rung(NamedTuple):
    """A part of the search: candidates train until `epochs`, and the best `kept` continue."""

    epochs: int
    kept: int


def plan_rungs(epochs: int) -> list[Rung]:
    """Returns the rungs of a search: 2 candidates continue after a quarter, 1 after two thirds.

    An earlier choice favours small alphas: penalised networks learn more slowly at first.
    """
    return [Rung(round(epochs / 4), 2), Rung(round(2 * epochs / 3), 1), Rung(epochs, 1)]


def count_epochs(candidates: int, rungs: Sequence[Rung]) -> int:
    """Returns the number of epochs of a search, over all candidates."""
    total, before = 0, 0
    for rung in rungs:
        total += candidates * (rung.epochs - before)
        candidates, before = min(candidates, rung.kept), rung.epochs
    return total


def score(values: Any, epochs: int) -> float:
    """Returns the mean of a metric over the last fifth of the epochs so far, to compare alphas."""
    return float(np.mean(values[-math.ceil(epochs / _AVERAGED) :]))


class HalvingOracle(GridOracle):
    """Tries every combination in the first rung, and continues the best ones in the next.

    A trial that was killed is repeated from the beginning of its rung.

    Args:
        rungs: The rungs.
        **kwargs: Arguments of `keras_tuner.Oracle`.
    """

    def __init__(self, rungs: Sequence[Rung], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._rungs = rungs

    def _plan(self) -> list[dict[str, Any]]:
        planned: list[dict[str, Any]] = []
        candidates, first = list(self._combinations()), 0
        for rung in self._rungs:
            values = [c | {_FIRST_EPOCH: first, _EPOCHS: rung.epochs} for c in candidates]
            planned += values
            finished = [t for t in self.list_completed() if t.hyperparameters.values in values]
            if len(finished) < len(values):
                break
            is_maximised = self.objective.direction == "max"
            best = sorted(finished, key=lambda trial: trial.score, reverse=is_maximised)
            candidates = [
                trial.hyperparameters.values | {_PARENT: trial.trial_id}
                for trial in best[: rung.kept]
            ]
            first = rung.epochs
        return planned

    def _status_without_trial(self) -> str:
        return trials.TrialStatus.IDLE if self.ongoing_trials else trials.TrialStatus.STOPPED

    def list_completed(self) -> list[trials.Trial]:
        """Returns the planned trials that are complete."""
        return [t for t in self.trials.values() if t.status == trials.TrialStatus.COMPLETED]


class HalvingTuner(keras_tuner.Tuner):
    """Trains the trials of a `HalvingOracle`; each continues from its parent's checkpoint.

    Args:
        build_model: A function from alpha to a compiled `FisherPenaltyModel`.
        alphas: The alphas to try.
        rungs: The rungs.
        objective: The metric to compare.
        is_shown: Whether to show a progress bar.
        **kwargs: Arguments of `keras_tuner.Tuner`.
    """

    def __init__(
        self,
        build_model: Callable[[float], FisherPenaltyModel],
        alphas: Sequence[float],
        rungs: Sequence[Rung],
        objective: Any,
        *,
        is_shown: bool,
        **kwargs: Any,
    ) -> None:
        self.build_model = build_model
        self.space = keras_tuner.HyperParameters()
        self.space.Choice("alpha", list(alphas))
        self.halving = HalvingOracle(
            rungs, objective=objective, hyperparameters=self.space, allow_new_entries=False
        )
        super().__init__(self.halving, **kwargs)
        self.progress = _Progress(count_epochs(len(alphas), rungs), self.halving, is_shown)

    def reload(self) -> None:
        """Reads the search from its folder, which may have been of other alphas."""
        super().reload()
        self.halving.hyperparameters = self.space

    def search(self, *args: Any, **kwargs: Any) -> None:
        """Trains all candidates; as a chief, waits until the workers have trained them."""
        try:
            super().search(*args, **kwargs)
        except keras_tuner.errors.FatalError as error:
            raise error.__cause__ or error from None

    def run_trial(self, trial: Any, *args: Any, **kwargs: Any) -> dict[str, float]:
        """Trains a candidate for one rung; returns its score."""
        try:
            return self._train(trial.trial_id, trial.hyperparameters.values, *args, **kwargs)
        except Exception as error:  # keras-tuner would only count a failed trial
            raise keras_tuner.errors.FatalError(str(error)) from error

    def _train(
        self, trial_id: str, values: dict[str, Any], *args: Any, callbacks: list[Any], **fit: Any
    ) -> dict[str, float]:
        alpha, objective = values["alpha"], self.oracle.objective
        parent = values.get(_PARENT)
        model = self.load_checkpoint(alpha, parent) if parent else self.build_model(alpha)
        history = model.fit(
            *args,
            initial_epoch=values[_FIRST_EPOCH],
            epochs=values[_EPOCHS],
            callbacks=[*self._deepcopy_callbacks(callbacks), self.progress.watch(alpha)],
            **fit,
        ).history
        if objective.name not in history:
            raise ValueError(
                f"`objective` must be one of {', '.join(history)}. Received: {objective.name!r}"
            )
        self._save_checkpoint(trial_id, model)
        found = score(history[objective.name], values[_EPOCHS])
        worst = -math.inf if objective.direction == "max" else math.inf
        return {objective.name: worst if math.isnan(found) else found}

    def _save_checkpoint(self, trial_id: str, model: keras.Model) -> None:
        """Saves weights, optimizer and penalty, and how to build the model."""
        path = self._find_checkpoint(trial_id)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.with_suffix(".json").write_text(json.dumps(model.get_build_config()))
        model.save_weights(path)

    def load_checkpoint(self, alpha: float, trial_id: str) -> FisherPenaltyModel:
        """Returns the model as it was at the end of a trial."""
        model, path = self.build_model(alpha), self._find_checkpoint(trial_id)
        if not model.built:
            model.build_from_config(json.loads(path.with_suffix(".json").read_text()))
        model.optimizer.build(model.trainable_variables)
        model.load_weights(path)
        return model

    def _find_checkpoint(self, trial_id: str) -> Path:
        return Path(self.get_trial_dir(trial_id)) / "rung.weights.h5"

    def find_longest(self) -> dict[float, tuple[int, trials.Trial]]:
        """Returns, for each alpha in ascending order, its epochs and its last trial."""
        planned = self.halving._plan()
        found: dict[float, tuple[int, trials.Trial]] = {}
        for trial in self.halving.list_completed():
            values = trial.hyperparameters.values
            longest = found.get(values["alpha"], (0, trial))[0]
            if values in planned and values[_EPOCHS] > longest:
                found[values["alpha"]] = (values[_EPOCHS], trial)
        return dict(sorted(found.items()))


class _Progress:
    """A progress bar over the epochs of all candidates."""

    def __init__(self, epochs: int, oracle: HalvingOracle, is_shown: bool) -> None:
        self._oracle = oracle
        shown = ["alpha", oracle.objective.name]
        self._bar = keras.utils.Progbar(
            epochs, verbose=int(is_shown), unit_name="epoch", stateful_metrics=shown
        )
        self._epochs: int | None = None  # until training begins

    def watch(self, alpha: float) -> keras.callbacks.Callback:
        """Returns a callback that shows the epochs of a candidate."""
        if self._epochs is None:
            done = (t.hyperparameters.values for t in self._oracle.list_completed())
            self._epochs = sum(values[_EPOCHS] - values[_FIRST_EPOCH] for values in done)
        name = self._oracle.objective.name

        def show(epoch: int, logs: Any) -> None:
            assert self._epochs is not None
            self._epochs += 1
            self._bar.update(self._epochs, [("alpha", alpha), (name, logs.get(name, math.nan))])

        return keras.callbacks.LambdaCallback(on_epoch_end=show)


def is_worker() -> bool:
    """Whether this process gets its trials from a chief."""
    is_shared = "KERASTUNER_ORACLE_IP" in os.environ
    return is_shared and "chief" not in os.environ.get("KERASTUNER_TUNER_ID", "chief")
