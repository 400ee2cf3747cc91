"""The search for alpha for the cost of 2.5 training runs."""

from __future__ import annotations

import functools
import math
import os
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import keras

from keras_fisher.model import FisherPenaltyModel
from keras_fisher.tuning.alpha_plan import AlphaPlan
from keras_fisher.tuning.alpha_tuner import AlphaTuner
from keras_fisher.tuning.oracle import check_overwrite, is_worker
from keras_fisher.utils import arguments
from keras_fisher.utils.messages import warn
from keras_fisher.utils.optimizers import averages_weights

Build = Callable[[float], FisherPenaltyModel]
ALPHAS = (0.03, 0.1, 0.3)


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
    alphas: Sequence[float] = ALPHAS,
    objective: Any = "val_accuracy",
    directory: str | os.PathLike[str] = "find_alpha",
    overwrite: bool = False,
    callbacks: Sequence[keras.callbacks.Callback] = (),
    verbose: int = 1,
    **fit: Any,
) -> FoundAlpha | None:
    """Finds alpha for the cost of 2.5 training runs, and returns the trained model.

    It trains every alpha for half of the epochs, and the best two to the end. Candidates are
    compared by the mean of the objective over the last fifth of their epochs. n alphas cost as much
    as n/2 + 1 training runs.

    The default alphas are for a penalty at every step (`update_freq=1`), on the batch or a share of
    it: they lie around 0.1, the middle of the paper's grid for such a penalty (appendix C). GP_x
    needs larger ones (appendix G.2).
    `docs/results.md` compares the search with other ways to choose alpha.

    The same call resumes a search that was killed: it reads finished parts from `directory`. If
    the best alpha is the smallest or the largest, call it again with the same alphas and further
    ones: it trains only the new ones.

    Examples:
        >>> import keras, numpy as np, tempfile, keras_fisher as kf
        >>> keras.utils.set_random_seed(0)
        >>> def build_model(alpha):
        ...     backbone = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
        ...     model = kf.FisherPenaltyModel(backbone, alpha=alpha, update_freq=1, seed=0)
        ...     loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        ...     model.compile(keras.optimizers.SGD(0.5), loss, metrics=["accuracy"])
        ...     return model
        >>> x = np.random.rand(256, 4)
        >>> data = (x, np.argmax(x[:, :3], axis=1))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     found = kf.tuning.find_alpha(
        ...         build_model, data, validation_data=data, epochs=4, directory=folder, verbose=0
        ...     )
        >>> [trial.alpha for trial in found.trials], found.model.alpha == found.alpha
        ([0.03, 0.1, 0.3], True)

    Args:
        build_model: A function from alpha to a compiled `FisherPenaltyModel` with this alpha. It
            is called for each candidate; set its random seeds to compare equal initial weights.
        data: The training data, arrays `(x, y)` or `(x, y, sample_weight)`, or anything else that
            `fit` takes.
        validation_data: The validation data, as for `fit`. The labels may be as noisy as the
            training labels.
        epochs: The number of epochs of a whole training run, at least 2.
        alphas: The alphas to compare, at least two.
        objective: The metric to compare, a name in the logs of `fit` or a `keras_tuner.Objective`.
        directory: The folder of the search; use a new one for each model and data set.
        overwrite: Whether to delete an existing search and start again.
        callbacks: Callbacks for `fit`. Each candidate gets copies, and new copies for its second
            half: a callback that adapts over epochs, such as `ReduceLROnPlateau`, begins anew.
            `TensorBoard` writes into a subfolder for each alpha; files of other callbacks are
            overwritten by the next candidate.
        verbose: Whether to show a progress bar.
        **fit: Further arguments of `fit`, such as `batch_size`.

    Returns:
        A `FoundAlpha`, or `None` in a worker of a search on several machines (see `GridSearch`).

    Raises:
        TypeError: if an argument has the wrong type, or `build_model` returns another model.
        ValueError: if a number is out of range, `directory` has a search with another model, other
            arrays or arguments of `fit` (the contents of datasets, callbacks, the code of functions
            and initial weights are not compared), `objective` is not in the logs of the first
            epoch, or NaN for every alpha, a callback stops training early or is
            `BackupAndRestore`, the optimizer has `use_ema`, `steps_per_epoch` is not the length of
            a `PyDataset`, or `overwrite` is set on a worker. Errors of `fit` end the search. Fix
            them and call it again to resume.
    """
    epochs = arguments.check_integer("epochs", epochs, low=2)
    if validation_data is None:
        raise ValueError("`validation_data` must be given to compare alphas. Received: None")
    check_overwrite(overwrite)
    tuner = AlphaTuner(
        functools.partial(_build, build_model),
        AlphaPlan(epochs, _check_alphas(alphas)),
        objective,
        is_shown=bool(verbose),
        directory=arguments.check_path("directory", directory),
        project_name="find_alpha",
        overwrite=overwrite,
    )
    names = ("x", "y", "sample_weight")
    given = keras.utils.unpack_x_y_sample_weight(tuple(data) if isinstance(data, list) else data)
    inputs = {name: part for name, part in zip(names, given, strict=True) if part is not None}
    tuner.search(
        **inputs,
        validation_data=validation_data,
        callbacks=list(callbacks),
        verbose=0,
        **fit,
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
    if averages_weights(model.optimizer):
        raise ValueError(
            "`build_model` must compile with an optimizer that has use_ema=False: a candidate "
            "would begin its second half from the averages. Received: use_ema=True"
        )
    return model


def _check_alphas(alphas: Sequence[float]) -> tuple[float, ...]:
    if not isinstance(alphas, Iterable):
        raise TypeError(f"`alphas` must list numbers. Received: {alphas!r}")
    checked = sorted({arguments.check_positive("alphas", alpha) for alpha in alphas})
    if len(checked) < 2:
        raise ValueError(f"`alphas` must list at least two values. Received: {alphas}")
    return tuple(checked)


def _collect(tuner: AlphaTuner) -> FoundAlpha:
    """Returns the result of a finished search; warns if the best alpha is at the edge."""
    oracle = tuner.alpha_oracle
    finished = oracle.list_finished()
    longest = {alpha: (epochs, trial) for (alpha, epochs), trial in finished.items()}
    trials = [AlphaTrial(a, epochs, trial.score) for a, (epochs, trial) in sorted(longest.items())]
    best, _ = oracle.find_best()
    if not math.isfinite(longest[best][1].score):
        raise ValueError(
            "`objective` must be a number for at least one alpha. "
            f"Received: {oracle.objective.name}, which is NaN for all of "
            f"{[trial.alpha for trial in trials]}. Choose a smaller learning rate, and start again "
            "with overwrite=True"
        )
    if best == trials[0].alpha:
        _warn_of_edge(best, "smallest", "smaller one, or no penalty,")
    elif best == trials[-1].alpha:
        _warn_of_edge(best, "largest", "larger one")
    return FoundAlpha(best, tuner.load_checkpoint(best, longest[best][1].trial_id), tuple(trials))


def _warn_of_edge(best: float, edge: str, other: str) -> None:
    warn(
        f"The best alpha, {best:g}, is the {edge} of the search. A {other} may be better: call "
        "`find_alpha` again with these `alphas` and further ones, and it trains only the new ones."
    )
