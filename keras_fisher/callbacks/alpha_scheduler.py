"""A schedule of the penalty's weight over epochs."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection
from typing import Any

from keras.optimizers.schedules import LearningRateSchedule

from keras_fisher.callbacks._log_writer import LogWriter
from keras_fisher.utils import arguments


class AlphaScheduler(LogWriter):
    """Sets `alpha`, the weight of the penalty, at the beginning of each epoch.

    It works like `keras.callbacks.LearningRateScheduler`, for example to turn the penalty on late
    in training, or off early (section 4.2). A penalty that starts at its full alpha after the
    training labels are fitted may destroy the network: `max_penalty_ratio` prevents that.

    It logs `alpha` before any other callback reads `logs`, in whatever order they are listed.

    Examples:
        >>> import keras, numpy as np, keras_fisher as kf
        >>> keras.utils.set_random_seed(0)
        >>> x, y = np.random.rand(64, 4), np.random.randint(0, 3, 64)
        >>> backbone = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
        >>> model = kf.FisherPenaltyModel(backbone, seed=0)
        >>> model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
        >>> late = kf.callbacks.AlphaScheduler(lambda epoch: 0.1 if epoch >= 2 else 0.0)
        >>> model.fit(x, y, epochs=3, callbacks=[late], verbose=0).history["alpha"]
        [0.0, 0.0, 0.1]

    Args:
        schedule: A function of the epoch index, or of the epoch index and the current alpha, that
            returns a non-negative number.

    Raises:
        TypeError: if `schedule` is not such a function, or is a Keras schedule (it counts steps:
            pass it as `FisherPenaltyModel(alpha=...)`); when training begins, if the model has no
            `alpha`; in training, if `schedule` does not return a number.
        ValueError: in training, if `schedule` returns a negative or non-finite number.
    """

    def __init__(self, schedule: Callable[[int], float] | Callable[[int, float], float]) -> None:
        super().__init__()
        self.schedule: Callable[..., float] = schedule
        self._takes_alpha = _takes_alpha(schedule)

    def _list_keys(self) -> Collection[str]:
        return ("alpha",)

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        super().on_train_begin(logs)
        if not hasattr(self.model, "alpha"):
            raise TypeError(
                "AlphaScheduler needs a model that has `alpha`, a FisherPenaltyModel. "
                f"Received: {self.model.name!r} ({type(self.model).__name__})"
            )

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        given = (epoch, self.model.alpha) if self._takes_alpha else (epoch,)
        value = self.schedule(*given)
        self.model.alpha = arguments.check_non_negative(f"schedule({epoch})", value)

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        super().on_epoch_end(epoch, logs)
        if logs is not None:
            logs["alpha"] = self.model.alpha


def _takes_alpha(schedule: Any) -> bool:
    """Returns whether `schedule` needs alpha besides the epoch; raises if it accepts neither."""
    if isinstance(schedule, LearningRateSchedule):
        raise TypeError(
            "`schedule` must be a function of the epoch. A LearningRateSchedule is one of the "
            "training step: give it to FisherPenaltyModel(alpha=...). "
            f"Received: schedule={schedule!r}"
        )
    if not callable(schedule):
        raise TypeError(
            "`schedule` must be a function of the epoch, or of the epoch and alpha. "
            f"Received: schedule={schedule!r} ({type(schedule).__name__})"
        )
    if _can_call(schedule, "epoch"):
        return False
    if _can_call(schedule, "epoch", "alpha"):
        return True
    raise TypeError(
        "`schedule` must take the epoch, or the epoch and alpha. "
        f"Received: schedule={schedule!r}, which takes {inspect.signature(schedule)}"
    )


def _can_call(function: Callable[..., Any], *arguments: Any) -> bool:
    try:
        inspect.signature(function).bind(*arguments)
    except TypeError:
        return False
    except ValueError:  # A built-in, such as a list's __getitem__, may have no signature.
        return True
    return True
