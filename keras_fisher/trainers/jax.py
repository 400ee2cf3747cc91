"""Training by functions of all variables, as JAX needs."""

from __future__ import annotations

import abc
import contextlib
from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from keras_fisher._stateless import Stateless

Groups = tuple[list[keras.Variable], ...]


class Trainer(keras.Model, abc.ABC):
    """A model whose step is written as one that assigns variables, and run as one that does not.

    On several devices (`keras.distribution.DataParallel`) a step is that of the whole batch.
    """

    @abc.abstractmethod
    def _take_step(self, data: Any) -> None:
        """Takes a training step on a batch."""

    @abc.abstractmethod
    def _own_variables(self) -> list[keras.Variable]:
        """What a step moves that Keras does not know of."""

    _is_distributed = False
    _can_skip_steps = True

    @property
    def non_trainable_variables(self) -> list[keras.Variable]:
        """All variables but trained ones, those that carry the penalty from step to step too."""
        return [*self._moved_variables, *self._own_variables()]

    @property
    def _moved_variables(self) -> list[keras.Variable]:
        """What a forward pass moves: statistics of layers, states of random generators."""
        return super().non_trainable_variables

    def _variables_scope(self) -> contextlib.AbstractContextManager[Any]:
        """Where variables are made."""
        return contextlib.nullcontext()

    def train_step(self, state: Sequence[Any], data: Any) -> tuple[dict[str, Any], Sequence[Any]]:
        """Takes a training step: from the values of all variables to the logs and new values."""
        groups = self._trained_groups()
        pairs = [
            pair
            for group, values in zip(groups, state, strict=True)
            for pair in zip(group, values, strict=True)
        ]
        with Stateless(pairs, collect_losses=True) as scope:
            self._take_step(data)
            logs = self.get_metrics_result()
        return logs, tuple([scope.get_current_value(v) for v in group] for group in groups)

    def _trained_groups(self) -> Groups:
        """The variables, as Keras groups them."""
        return (
            self.trainable_variables,
            self.non_trainable_variables,
            self.optimizer.variables,
            self.metrics_variables,
        )

    def _apply_gradients(self, gradients: Sequence[Any]) -> None:
        """Takes a step of the optimizer."""
        weights, own = self.trainable_variables, self.optimizer.variables
        values = [[ops.convert_to_tensor(v) for v in group] for group in (own, weights)]
        found = self.optimizer.stateless_apply(values[0], list(gradients), values[1])
        for group, new in zip((weights, own), found, strict=True):
            for variable, value in zip(group, new, strict=True):
                variable.assign(value)
