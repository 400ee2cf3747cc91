"""A hypermodel for keras-tuner: a model with a gradient-norm penalty."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

import keras
import keras_tuner

from keras_fisher.model import FisherPenaltyModel
from keras_fisher.tuning import grids
from keras_fisher.utils import arguments

T = TypeVar("T")


class FisherPenaltyHyperModel(keras_tuner.HyperModel):
    """A `FisherPenaltyModel` whose seed, learning rate and alpha are hyperparameters.

    They are choices called `seed`, `learning_rate` and `alpha`, in this order, so that a grid
    search finishes one seed before it begins the next. The seed sets the initial weights, the order
    of the examples and the drawn labels; several seeds show the variation between runs.

    Examples:
        >>> import keras, keras_tuner, keras_fisher as kf
        >>> def build_backbone(hp):
        ...     return keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
        >>> hypermodel = kf.tuning.FisherPenaltyHyperModel(
        ...     build_backbone,
        ...     loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        ...     learning_rates=[0.001],
        ...     alphas=kf.tuning.alphas(0.01, num=5),
        ... )
        >>> hp = keras_tuner.HyperParameters()
        >>> round(hypermodel.build(hp).alpha, 6), hp.get("learning_rate"), hp.get("seed")
        (0.001, 0.001, 0)

    Args:
        build_backbone: A function that takes `keras_tuner.HyperParameters` and returns an
            uncompiled Keras model. It may declare further hyperparameters.
        loss: The loss to compile with.
        learning_rates: The learning rates to choose from.
        alphas: The alphas to choose from; 0 is the plain model.
        seeds: The seeds to choose from.
        optimizer: A function that takes a learning rate and returns an optimizer; `None` for SGD
            with momentum 0.9 (G.2).
        metrics: The metrics to compile with, by name.
        **penalty: Arguments of `FisherPenaltyModel`, such as `penalty="gp_x"`.

    Raises:
        TypeError: if an argument has the wrong type.
        ValueError: if there is nothing to choose from, or a value is negative.
    """

    def __init__(
        self,
        build_backbone: Callable[[keras_tuner.HyperParameters], keras.Model],
        *,
        loss: Any,
        learning_rates: Sequence[float],
        alphas: Sequence[float] | None = None,
        seeds: Sequence[int] = (0,),
        optimizer: Callable[[float], keras.optimizers.Optimizer] | None = None,
        metrics: Sequence[str] = ("accuracy",),
        **penalty: Any,
    ) -> None:
        super().__init__()
        if not callable(build_backbone):
            raise TypeError(
                "`build_backbone` must be a function from hyperparameters to a Keras model. "
                f"Received: {build_backbone!r}"
            )
        self._build_backbone = build_backbone
        self._loss = loss
        alphas = grids.alphas() if alphas is None else alphas
        self._alphas = _choices("alphas", alphas, arguments.check_non_negative)
        self._learning_rates = _choices("learning_rates", learning_rates, arguments.check_positive)
        self._seeds = _choices("seeds", seeds, lambda n, v: arguments.check_given_seed(v, n))
        self._optimizer = optimizer or _sgd
        self._metrics = list(metrics)
        self._penalty = penalty

    def build(self, hp: keras_tuner.HyperParameters) -> FisherPenaltyModel:
        seed = hp.Choice("seed", self._seeds)
        learning_rate = hp.Choice("learning_rate", self._learning_rates)
        alpha = hp.Choice("alpha", self._alphas)
        keras.utils.set_random_seed(seed)
        model = FisherPenaltyModel(
            self._build_backbone(hp), alpha=alpha, seed=seed, **self._penalty
        )
        model.compile(self._optimizer(learning_rate), self._loss, metrics=list(self._metrics))
        if model.built:  # so that a tuner which loads weights restores the optimizer, too
            model.optimizer.build(model.trainable_variables)
        return model


def _sgd(learning_rate: float) -> keras.optimizers.Optimizer:
    return keras.optimizers.SGD(learning_rate, momentum=0.9)


def _choices(name: str, values: Sequence[Any], check: Callable[[str, Any], T]) -> list[T]:
    """Returns the checked values of a hyperparameter."""
    if not isinstance(values, Iterable):
        raise TypeError(f"`{name}` must list values. Received: {name}={values!r}")
    checked = [check(name, value) for value in values]
    if not checked:
        raise ValueError(f"`{name}` must list at least one value. Received: none")
    return checked
