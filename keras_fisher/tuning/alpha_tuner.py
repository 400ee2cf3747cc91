"""A keras-tuner search for alpha, whose trials continue from checkpoints."""

from __future__ import annotations

import itertools
import json
import math
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import keras
import keras_tuner
from keras_tuner.engine import trial as trials

from keras_fisher.model import FisherPenaltyModel
from keras_fisher.traces.data import ENDLESS, check_rereadable, count_batches
from keras_fisher.tuning.alpha_plan import AlphaPlan, Trial, count_trained_epochs, score
from keras_fisher.tuning.fingerprint import make_fingerprint
from keras_fisher.tuning.oracle import GridOracle
from keras_fisher.tuning.resumable import ResumableTuner

# As in keras-tuner's Hyperband: the epochs of a trial, and the trial that it continues.
_FIRST_EPOCH, _EPOCHS, _PARENT = "tuner/initial_epoch", "tuner/epochs", "tuner/trial_id"

# The fingerprint of a search is that of a model with this alpha.
_ANY_ALPHA = 0.1


class AlphaOracle(GridOracle):
    """Hands out the trials of an `AlphaPlan`.

    A trial that was killed is repeated from the end of the one that it continues.

    Args:
        plan: The trials of the search.
        **kwargs: Arguments of `keras_tuner.Oracle`.
    """

    def __init__(self, plan: AlphaPlan, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.plan = plan

    def list_finished(self) -> dict[Trial, trials.Trial]:
        """Returns the finished trials of all candidates, also of a search with fewer of them."""
        done = [t for t in self.trials.values() if t.status == trials.TrialStatus.COMPLETED]
        found = sorted((_get_key(t.hyperparameters.values), t.trial_id) for t in done)
        plan = self.plan
        return {
            (alpha, epochs): self.trials[trial_id]
            for (alpha, epochs), trial_id in found
            if alpha in plan.alphas and epochs <= plan.epochs
        }

    def list_planned(self) -> list[Trial]:
        """Returns all trials that are known so far, in the order of training."""
        return self.plan.list_trials(self._get_scores(self.list_finished()))

    def find_best(self) -> Trial:
        """Returns the best of the trials that were trained to the end."""
        scores = self._get_scores(self.list_finished())
        return max((key for key in scores if key[1] == self.plan.epochs), key=scores.__getitem__)

    def _get_scores(self, finished: Mapping[Trial, trials.Trial]) -> dict[Trial, float]:
        sign = 1.0 if self.objective.direction == "max" else -1.0
        return {key: sign * trial.score for key, trial in finished.items()}

    def _plan(self) -> list[dict[str, Any]]:
        finished = self.list_finished()
        parents: dict[float, Trial] = {}
        planned = []
        for alpha, epochs in self.list_planned():
            parent = parents.get(alpha)
            values = {"alpha": alpha, _EPOCHS: epochs, _FIRST_EPOCH: parent[1] if parent else 0}
            if parent:
                values[_PARENT] = finished[parent].trial_id
            planned.append(values)
            parents[alpha] = (alpha, epochs)
        return planned

    def _status_without_trial(self) -> str:
        return trials.TrialStatus.IDLE if self.ongoing_trials else trials.TrialStatus.STOPPED


def _get_key(values: Mapping[str, Any]) -> Trial:
    return values["alpha"], values[_EPOCHS]


class AlphaTuner(ResumableTuner):
    """Trains the trials of an `AlphaOracle`; each continues from its parent's checkpoint.

    Args:
        build_model: A function from alpha to a compiled `FisherPenaltyModel`.
        plan: The trials of the search.
        objective: The metric to compare.
        is_shown: Whether to show a progress bar.
        **kwargs: Arguments of `keras_tuner.Tuner`.
    """

    def __init__(
        self,
        build_model: Callable[[float], FisherPenaltyModel],
        plan: AlphaPlan,
        objective: str | keras_tuner.Objective,
        *,
        is_shown: bool,
        **kwargs: Any,
    ) -> None:
        self.build_model = build_model
        self.alpha_oracle = AlphaOracle(plan, objective=objective)
        super().__init__(self.alpha_oracle, **kwargs)
        self.progress = _Progress(self.alpha_oracle, is_shown)

    def search(self, x: Any, **kwargs: Any) -> None:
        """Trains all candidates; as a chief, waits until the workers have trained them."""
        _check_resumable(x, kwargs.get("steps_per_epoch"))
        check_rereadable(kwargs.get("validation_data"), "validation_data")
        model = self.build_model(_ANY_ALPHA)
        fingerprint = make_fingerprint(model, self.oracle.objective, (), {"x": x, **kwargs})
        self.check_search(fingerprint, kwargs.get("callbacks"))
        try:
            super().search(x=x, **kwargs)
        except keras_tuner.errors.FatalError as error:
            raise error.__cause__ or error from None

    def run_trial(self, trial: trials.Trial, **kwargs: Any) -> dict[str, float]:
        """Trains a candidate for one part of the search; returns its score."""
        try:
            return self._train(trial.trial_id, trial.hyperparameters.values, **kwargs)
        except Exception as error:  # keras-tuner would only count a failed trial
            raise keras_tuner.errors.FatalError(str(error)) from error

    def _train(
        self,
        trial_id: str,
        values: dict[str, Any],
        x: Any,
        callbacks: list[keras.callbacks.Callback],
        **fit: Any,
    ) -> dict[str, float]:
        alpha, objective = values["alpha"], self.oracle.objective
        parent, first_epoch = values.get(_PARENT), values[_FIRST_EPOCH]
        model = self.load_checkpoint(alpha, parent) if parent else self.build_model(alpha)
        if parent:
            # `build_model` may have set the seeds of the first part again.
            keras.utils.set_random_seed(zlib.crc32(f"{alpha} {first_epoch}".encode()))
            x = _skip_epochs(x, first_epoch, fit.get("steps_per_epoch"))
        result = model.fit(
            x,
            initial_epoch=first_epoch,
            epochs=values[_EPOCHS],
            callbacks=[*self._copy_callbacks(callbacks, alpha), self.progress.watch(alpha)],
            **fit,
        )
        if result.epoch[-1] + 1 < values[_EPOCHS]:
            raise ValueError(
                "`callbacks` must not stop training early, because alphas are compared after equal "
                f"numbers of epochs. Received: callbacks that stop it after {result.epoch[-1] + 1} "
                f"of {values[_EPOCHS]} epochs, at alpha {alpha:g}"
            )
        self._save_checkpoint(trial_id, model)
        found = score(result.history[objective.name], values[_EPOCHS])
        worst = -math.inf if objective.direction == "max" else math.inf
        return {objective.name: worst if math.isnan(found) else found}

    def _copy_callbacks(
        self, callbacks: list[keras.callbacks.Callback], alpha: float
    ) -> list[keras.callbacks.Callback]:
        """Returns copies, whose TensorBoard writes into a subfolder of this alpha."""
        copies = self._deepcopy_callbacks(callbacks)
        for callback in copies:
            if isinstance(callback, keras.callbacks.TensorBoard):
                callback.log_dir = str(Path(callback.log_dir, f"alpha-{alpha:g}"))
        return copies

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
        return Path(self.get_trial_dir(trial_id)) / "last.weights.h5"


def _check_resumable(data: Any, steps_per_epoch: int | None) -> None:
    """Raises unless a second `fit` can continue where the first one stopped reading."""
    check_rereadable(data)
    count = count_batches(data)
    if hasattr(data, "skip"):
        return
    if count == ENDLESS:
        raise TypeError(
            "`data` must be finite, or have a method `skip` as `tf.data.Dataset` has. "
            f"Received: an endless {type(data).__name__}"
        )
    if steps_per_epoch and count > 0 and count != steps_per_epoch:
        raise ValueError(
            f"`steps_per_epoch` must be {count}, the number of batches of the "
            f"{type(data).__name__}, or None. Received: {steps_per_epoch}"
        )


def _skip_epochs(data: Any, epochs: int, steps_per_epoch: int | None) -> Any:
    """Returns the dataset from where these epochs end: each `fit` reads from the beginning."""
    count = count_batches(data)
    if not (steps_per_epoch and hasattr(data, "skip")) or count == steps_per_epoch:
        return data
    read = epochs * steps_per_epoch
    if count == ENDLESS:
        return data.skip(read)
    read = read % count if count > 0 else read
    return data.skip(read).concatenate(data.take(read))


class _Progress:
    """A progress bar over the epochs of all candidates."""

    def __init__(self, oracle: AlphaOracle, is_shown: bool) -> None:
        self._oracle, self._name = oracle, oracle.objective.name
        self._bar = keras.utils.Progbar(
            oracle.plan.count_epochs(),
            verbose=int(is_shown),
            unit_name="epoch",
            stateful_metrics=["alpha", self._name],
        )

    def watch(self, alpha: float) -> keras.callbacks.Callback:
        """Returns a callback that shows the epochs of a candidate."""
        finished = self._oracle.list_finished()
        done = count_trained_epochs(
            [trial for trial in self._oracle.list_planned() if trial in finished]
        )
        epochs = itertools.count(done + 1)

        def show(epoch: int, logs: dict[str, float]) -> None:
            if self._name not in logs:
                raise ValueError(
                    f"`objective` must be one of {', '.join(logs)}. Received: {self._name!r}. "
                    "Compile with further `metrics`, or choose one of these"
                )
            self._bar.update(next(epochs), [("alpha", alpha), (self._name, logs[self._name])])

        return keras.callbacks.LambdaCallback(on_epoch_end=show)
