"""The search for alpha at the price of two to three trainings."""

from __future__ import annotations

import functools
import json
import math
import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import keras

from keras_fisher.model import FisherPenaltyModel
from keras_fisher.traces.data import check_data, length
from keras_fisher.tuning.halving import AlphaHalving
from keras_fisher.tuning.halving_tuner import HalvingTuner
from keras_fisher.tuning.oracle import check_overwrite, is_worker
from keras_fisher.tuning.start import alpha_range
from keras_fisher.utils import arguments
from keras_fisher.utils.messages import warn

Build = Callable[[float], FisherPenaltyModel]
_NUM_BATCHES, _BATCH_SIZE = 8, 32  # the second one is Keras's default
_FALLEN = 0.9  # part of the first loss at which `alpha_range` is reliable


class AlphaTrial(NamedTuple):
    """A candidate of a search.

    Attributes:
        alpha: The alpha.
        epochs: The number of epochs that it was trained for.
        score: The mean of the objective over the last fifth of these epochs.
    """

    alpha: float
    epochs: int
    score: float


class FoundAlpha(NamedTuple):
    """The result of a search.

    Attributes:
        alpha: The best alpha.
        model: The model that was trained with it, for all epochs.
        trials: All candidates, by alpha, each with its longest training.
    """

    alpha: float
    model: FisherPenaltyModel
    trials: tuple[AlphaTrial, ...]

    def __str__(self) -> str:
        lines = [f"{'alpha':>8} {'epochs':>7} {'score':>9}"]
        lines += [
            f"{trial.alpha:8.3g} {trial.epochs:7d} {trial.score:9.4f}"
            + " *" * (trial.alpha == self.alpha)
            for trial in self.trials
        ]
        return "\n".join(lines)


def find_alpha(
    build_model: Build,
    data: Any,
    *,
    validation_data: Any,
    epochs: int,
    alphas: Sequence[float] | None = None,
    objective: Any = "val_accuracy",
    directory: str | os.PathLike[str] = "find_alpha",
    overwrite: bool = False,
    callbacks: Sequence[keras.callbacks.Callback] = (),
    verbose: int = 1,
    **fit: Any,
) -> FoundAlpha | None:
    """Finds alpha at the price of two to three trainings, and returns the trained model.

    1. It trains the plain model until its loss has fallen by a tenth, which often takes an epoch,
       and measures the middle of `alpha_range` there.
    2. It trains with this alpha and ten times as much for a quarter of the epochs, continues in
       steps of ten until the best alpha lies inside, and then tries alphas about three times as
       large and as small. If you give `alphas`, it tries exactly these.
    3. It continues with the best two, and from two thirds of the epochs on with the best one.

    Candidates are compared by the mean of the objective over the last fifth of their epochs.
    `docs/results.md` compares the search with other ways to choose alpha.

    The same call resumes a search that was killed: it reads finished parts from `directory`.

    Examples:
        >>> import keras, numpy as np, tempfile, keras_fisher as kf
        >>> keras.utils.set_random_seed(0)
        >>> def build_model(alpha):
        ...     backbone = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
        ...     model = kf.FisherPenaltyModel(backbone, alpha=alpha, seed=0)
        ...     loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        ...     model.compile(keras.optimizers.SGD(0.5), loss, metrics=["accuracy"])
        ...     return model
        >>> x = np.random.rand(256, 4)
        >>> data = (x, np.argmax(x[:, :3], axis=1))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     found = kf.tuning.find_alpha(
        ...         build_model, data, validation_data=data, epochs=8, directory=folder, verbose=0
        ...     )
        >>> len(found.trials) > 3, found.model.alpha == found.alpha
        (True, True)

    Args:
        build_model: A function from alpha to a compiled `FisherPenaltyModel` with this alpha. It
            is called for each candidate; set its random seeds to compare equal initial weights.
        data: The training data, arrays `(x, y)` or a `tf.data.Dataset` of such batches.
        validation_data: The validation data, as for `fit`. The labels may be as noisy as the
            training labels.
        epochs: The number of epochs of a whole training, at least 4.
        alphas: The alphas to try; `None` to search around the middle of `alpha_range`.
        objective: The metric to compare, a name in the logs of `fit` or a `keras_tuner.Objective`.
        directory: The folder of the search.
        overwrite: Whether to delete an existing search and start again.
        callbacks: Callbacks for `fit`; each candidate gets copies.
        verbose: Whether to show a progress bar.
        **fit: Further arguments of `fit`, such as `batch_size`.

    Returns:
        A `FoundAlpha`, or `None` in a worker of a search on several machines (see `GridSearch`).

    Raises:
        TypeError: if an argument has the wrong type, or `build_model` returns another model.
        ValueError: if a number is out of range, `objective` is not in the logs, `overwrite` is set
            on a worker, or the plain model does not learn. Errors of `fit` end the search; it
            resumes once they are mended.
    """
    epochs = arguments.check_integer("epochs", epochs, low=4)
    check_data(data, 1, _BATCH_SIZE, needs_labels=True)
    if validation_data is None:
        raise ValueError("`validation_data` must be given to compare alphas. Received: None")
    check_overwrite(overwrite)
    folder = Path(arguments.check_path("directory", directory))
    build, inputs = functools.partial(_build, build_model), _unpack(data)
    if is_worker():
        halving = AlphaHalving(epochs)  # the chief hands out alphas
    elif alphas is None:
        path = folder / "alpha_range.json"
        halving = AlphaHalving(
            epochs, value=_read_or_propose(build, data, epochs, path, overwrite, fit)
        )
    else:
        halving = AlphaHalving(epochs, _check_alphas(alphas))
    tuner = HalvingTuner(
        build,
        halving,
        objective,
        is_shown=bool(verbose),
        directory=str(folder),
        project_name="halving",
        overwrite=overwrite,
    )
    tuner.search(
        *inputs, validation_data=validation_data, callbacks=list(callbacks), verbose=0, **fit
    )
    return None if is_worker() else _collect(tuner)


def _build(build_model: Build, alpha: float) -> FisherPenaltyModel:
    """Builds a model, and checks that it has this alpha."""
    if not callable(build_model):
        raise TypeError(f"`build_model` must be a function of alpha. Received: {build_model!r}")
    model = build_model(alpha)
    if not isinstance(model, FisherPenaltyModel):
        raise TypeError(
            f"`build_model` must return a FisherPenaltyModel. Received: {type(model).__name__}"
        )
    if not (model.compiled and math.isclose(model.alpha, alpha, rel_tol=1e-5)):
        raise ValueError(
            "`build_model` must return a compiled model with the alpha that it receives. "
            f"Received: alpha={model.alpha:g} for {alpha:g}, compiled={model.compiled}"
        )
    return model


def _check_alphas(alphas: Sequence[float]) -> tuple[float, ...]:
    if not isinstance(alphas, Iterable):
        raise TypeError(f"`alphas` must list numbers. Received: {alphas!r}")
    checked = sorted({arguments.check_positive("alphas", alpha) for alpha in alphas})
    if len(checked) < 2:
        raise ValueError(f"`alphas` must list at least two values. Received: {alphas}")
    return tuple(checked)


def _unpack(data: Any) -> tuple[Any, ...]:
    """Returns the positional arguments of `fit`."""
    return tuple(data) if isinstance(data, tuple | list) else (data,)


# ---- The range -----------------------------------------------------------------------------------


def _read_or_propose(
    build: Build, data: Any, epochs: int, path: Path, overwrite: bool, fit: dict[str, Any]
) -> float:
    """Returns the middle of `alpha_range`, which is stored for a search that is resumed."""
    if overwrite or not path.exists():
        model = _train_plain(build, data, epochs, fit)
        batch_size = fit.get("batch_size", _BATCH_SIZE)
        found = alpha_range(
            model,
            data,
            penalty=model.penalty,
            num_batches=_count_batches(data, batch_size),
            batch_size=batch_size,
            likelihood=model.likelihood,
            seed=model.seed,
        )
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(found.value))
    return json.loads(path.read_text())


def _train_plain(build: Build, data: Any, epochs: int, fit: dict[str, Any]) -> FisherPenaltyModel:
    """Returns the plain model once its loss has fallen by a tenth."""
    model, watch = build(0.0), _FirstFall()
    model.fit(*_unpack(data), epochs=epochs, callbacks=[watch], verbose=0, **fit)
    if not watch.has_fallen:
        raise ValueError(
            f"`alphas` must be given for this model: in {epochs} epochs without a penalty, its "
            f"loss has not fallen by a tenth (from {watch.first:g} to {watch.last:g}). "
            "Received: alphas=None"
        )
    return model


class _FirstFall(keras.callbacks.Callback):
    """Stops training after the epoch whose loss is a tenth below that of the first mini-batch."""

    has_fallen, first, last = False, math.nan, math.nan

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        if math.isnan(self.first):
            self.first = float((logs or {})["loss"])

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self.last = float((logs or {})["loss"])
        self.has_fallen = self.last <= _FALLEN * self.first
        self.model.stop_training = self.has_fallen


def _count_batches(data: Any, batch_size: int) -> int:
    """Returns the number of mini-batches to measure the range on."""
    if isinstance(data, tuple | list):
        return max(1, min(_NUM_BATCHES, length(data[0]) // batch_size))
    found = int(data.cardinality()) if hasattr(data, "cardinality") else _NUM_BATCHES
    return min(_NUM_BATCHES, found) if found > 0 else _NUM_BATCHES


# ---- The result ----------------------------------------------------------------------------------


def _collect(tuner: HalvingTuner) -> FoundAlpha:
    """Returns the result of a finished search; warns if the best alpha is at the edge."""
    finished = tuner.halving_oracle.list_finished()
    longest = {alpha: (epochs, trial) for (alpha, epochs), trial in finished.items()}
    trials = [AlphaTrial(a, epochs, trial.score) for a, (epochs, trial) in sorted(longest.items())]
    best = max(trials, key=lambda trial: trial.epochs).alpha
    if best == trials[0].alpha:
        warn(
            f"The best alpha, {best:g}, is the smallest of the search: compare with alpha=0, as "
            "the penalty may not help here."
        )
    elif best == trials[-1].alpha:
        warn(
            f"The best alpha, {best:g}, is the largest of the search: search again with larger "
            "`alphas`."
        )
    return FoundAlpha(best, tuner.load_checkpoint(best, longest[best][1].trial_id), tuple(trials))
